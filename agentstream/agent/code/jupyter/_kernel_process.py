"""One kernel in its sandbox: started, connected, given steps, interrupted, ended.

What comes in: a sandbox, limits, code. What goes out: a `CodeResult` or `CodeFailed` for each step; after `end` no
process, socket or folder is left. It does not know pools, sessions or tools.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from agentstream.agent.code._process import IsolatedProcess
from agentstream.agent.code._reasons import of_status
from agentstream.agent.code.bubblewrap import INPUTS, Mount, Sandbox
from agentstream.agent.code.contract import CodeFailed, CodeResult, Limits, OutputCallback, Reason
from agentstream.agent.code.jupyter._messages import Files, Incoming, Reply, parse, request
from agentstream.agent.code.jupyter._step import Step
from agentstream.agent.code.jupyter._zmtp import BrokenPeer, Connection

__all__ = ("Kernel",)

_PROGRAM: Final = "/kernel.py"
_SOURCE: Final = Path(__file__).with_name("_kernel.py")
_CHANNELS: Final = {"shell": "DEALER", "control": "DEALER", "iopub": "SUB"}
_START_SECONDS: Final = 30.0
_FILES_SECONDS: Final = 10.0
_LONGEST_PATH: Final = 100  # of a Unix socket: 107, with the name


class Kernel:
    """A kernel, just started: it gets ready by itself, and `connect` waits for that."""

    def __init__(self, sandbox: Sandbox, limits: Limits, *, preload: Sequence[str] = ()) -> None:
        self._limits = limits
        self._most = 2 * limits.result_bytes
        self._connections: dict[str, Connection] = {}
        self._ended: anyio.Event | None = None
        self._home = _home()
        inputs = self._home / "in"
        inputs.mkdir()
        inputs.chmod(0o755)
        listening = {name: _listen(self._home / name) for name in _CHANNELS}
        numbers = {name: one.fileno() for name, one in listening.items()}
        spec = {
            "sockets": numbers,
            "limits": asdict(limits),
            "message_bytes": self._most,
            "inputs": INPUTS,
            "preload": list(preload),
        }
        command = sandbox.command(
            [sandbox.python, "-I", "-X", "utf8", _PROGRAM],
            mounts=[Mount(str(inputs), INPUTS), Mount(str(_SOURCE), _PROGRAM)],
        )
        try:
            with (self._home / "log").open("wb") as log:
                self.process = IsolatedProcess(
                    command, stdin=msgspec.json.encode(spec), sockets=[*numbers.values()], log=log
                )
        except BaseException:
            shutil.rmtree(self._home, ignore_errors=True)
            raise
        finally:
            for one in listening.values():
                one.close()

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process.status is None

    async def connect(self) -> None:
        """Wait until it takes steps.

        Raises:
            CodeFailed: it did not come up (`start`); the detail holds what it complained about.
        """
        try:
            with anyio.fail_after(_START_SECONDS):
                for name, kind in _CHANNELS.items():
                    # A step's files may come in one message.
                    most = 6 * self._limits.result_bytes if name == "shell" else self._most
                    self._connections[name] = await Connection.open(str(self._home / name), kind, most)
                await self._connections["iopub"].send([b"\x01"])  # subscribe to everything
                while (await self._next("iopub")).kind != "iopub_welcome":
                    pass
                id_, frames = request("kernel_info_request", {})
                await self._connections["shell"].send(frames)
                while (await self._next("shell")).parent != id_:
                    pass
        except (BrokenPeer, TimeoutError) as error:
            said = (self._home / "log").read_text("utf-8", "replace")[-1_000:].strip()
            raise CodeFailed("start", f"the kernel did not start ({error}): {said or 'it said nothing'}") from None

    async def lay(self, files: Mapping[str, Path]) -> None:
        """Lay files into the folder of inputs; a name that is there already gets the new content."""
        for name, path in files.items():
            await anyio.to_thread.run_sync(_lay, path, self._home / "copy", self._home / "in" / name)

    async def run(self, code: str, output: OutputCallback | None) -> CodeResult:
        """Run one step. A cancelled one is interrupted, and the kernel ended where that does not help.

        Raises:
            CodeFailed: the code failed or broke a limit; `state_lost` where the kernel has to be replaced.
        """
        content: dict[str, object] = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        id_, frames = request("execute_request", {**content, "allow_stdin": False, "stop_on_error": True})
        step = Step(id_, self._limits, output)
        try:
            reason = await self._run(step, frames)
            if self.alive:
                await self._collect(step)
        except BrokenPeer as error:
            raise await self._died(step, error) from None
        except BaseException:  # cancelled, or whoever follows the output failed
            await self._stop(step)
            raise
        if reason == "time":
            told = f"the code ran longer than {self._limits.wall_seconds:g} s and was ended"
            raise CodeFailed("time", told, result=step.result(), state_lost=not self.alive)
        if failure := step.failure():
            if failure[0] == "processes":  # those that it did start go on, and there may be no end to them
                await self.end()
            raise CodeFailed(*failure, result=step.result(), state_lost=not self.alive)
        return step.result()

    async def _run(self, step: Step, frames: list[bytes]) -> Reason | None:
        """Follow the step to its end, or stop it; which of our limits stopped it."""
        with anyio.CancelScope(deadline=anyio.current_time() + self._limits.wall_seconds) as scope:
            await self._connections["shell"].send(frames)
            while not step.over and not step.too_loud:
                await step.take(await self._next("iopub"))
            await self._reply(step)
        if not scope.cancelled_caught and step.over:
            return "output" if step.too_loud else None
        await self._stop(step)
        return "output" if step.too_loud else "time"

    async def _stop(self, step: Step) -> None:
        """Interrupt the step and wait a little; then end the kernel."""
        step.mute()
        try:
            # What prints too much meets an exception of its own inside; an interrupt would only hit its handling.
            if step.too_loud and await self._ends(step, self._limits.grace_seconds / 2):
                return
            if await self._ends(step, self._limits.grace_seconds, interrupt=True):
                return
        except BrokenPeer:
            pass
        await self.end()

    async def _ends(self, step: Step, seconds: float, *, interrupt: bool = False) -> bool:
        """Whether the step ends within `seconds`; also where the caller is cancelled."""
        with anyio.move_on_after(seconds, shield=True):
            if interrupt:
                await self._connections["control"].send(request("interrupt_request", {})[1])
            while not step.over:
                await step.take(await self._next("iopub"))
            await self._reply(step)
            return True
        return False

    async def _reply(self, step: Step) -> None:
        """Take the answer to the request, which was sent before the step was over."""
        while step.over and not step.answered:
            message = await self._next("shell")
            step.answered = message.parent == step.id and bool(message.as_(Reply))

    async def _collect(self, step: Step) -> None:
        """Take out the files that the step wrote."""
        id_, frames = request("files_request", {})
        with anyio.move_on_after(_FILES_SECONDS) as scope:
            await self._connections["shell"].send(frames)
            while (message := await self._next("shell")).parent != id_:
                pass
            step.files(message.as_(Files), message.buffers)
        if scope.cancelled_caught:
            raise BrokenPeer("the kernel does not answer any more")

    async def _next(self, channel: str) -> Incoming:
        return parse(await self._connections[channel].receive())

    async def _died(self, step: Step, error: BrokenPeer) -> CodeFailed:
        """What it means that the kernel went away, or talks nonsense."""
        status = None
        with anyio.move_on_after(self._limits.grace_seconds):
            status = await self.process.wait()
        await self.end()
        if failure := step.failure():
            return CodeFailed(*failure, result=step.result(), state_lost=True)
        if status is None:
            told = f"the kernel could not be understood any more and was ended: {error}"
            return CodeFailed("crash", told, result=step.result(), state_lost=True)
        return CodeFailed(*of_status(status), result=step.result(), state_lost=True)

    async def end(self) -> None:
        """End it and remove what it left; also when the caller is cancelled. May be called again, and by several."""
        with anyio.CancelScope(shield=True):
            if self._ended is not None:
                await self._ended.wait()
                return
            self._ended = anyio.Event()
            try:
                await self.process.end()
                for connection in self._connections.values():
                    await connection.aclose()
                await anyio.to_thread.run_sync(partial(shutil.rmtree, self._home, ignore_errors=True))
            finally:
                self._ended.set()


def _home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="agentstream-code-"))
    if len(os.fsencode(home)) > _LONGEST_PATH - len("/control"):
        home.rmdir()
        home = Path(tempfile.mkdtemp(prefix="agentstream-code-", dir="/tmp"))
    return home


def _listen(path: Path) -> socket.socket:
    """A listening socket, whose path only this user can reach; the kernel gets the socket, never the path."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(1)
    listening.setblocking(False)
    return listening


def _lay(source: Path, copy: Path, target: Path) -> None:
    shutil.copyfile(source, copy)
    copy.chmod(0o444)
    copy.replace(target)
