"""A runner without walls: a process of this user with limits of resources, for code that you would run yourself.

What comes in: code. What goes out: what it printed and wrote; no process of its group and no folder stays. It does not
isolate anything: the code reads this user's files, talks to the network and signals this user's processes. It is used
only by who names it, and never in place of a sandbox that does not work.
"""

from __future__ import annotations

import codecs
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from agentstream.agent.code._reasons import explain, of_exception, of_status
from agentstream.agent.code.contract import (
    CodeFailed,
    CodeResult,
    Limits,
    OutputCallback,
    RichOutput,
    check_files,
    mime_of,
)

__all__ = ("UnsafeSession", "UnsafeSubprocess")

_PROGRAM: Final = Path(__file__).with_name("_plain.py")
_READ: Final = 16 << 10
_END_SECONDS: Final = 5.0
_MAX_FILES: Final = 64


class UnsafeSubprocess:
    """Runs each step as a process of this user. The name says what it is.

    Limits of time, processor time, addresses, file size and output hold; that of processes does not hold for root, and
    that of the folder is not there. Variables do not last from step to step, files do.
    """

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.limits = Limits() if limits is None else limits

    @property
    def isolated(self) -> bool:
        """It is not for code that nobody has read."""
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sessions end by themselves."""

    def session(self) -> UnsafeSession:
        """A folder of its own, for the length of an `async with`."""
        return UnsafeSession(self.limits)

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        """Run one step; raises as `CodeSession.run`."""
        async with self.session() as session:
            return await session.run(code, files=files, output=output)


class UnsafeSession:
    """One folder. Each step is a new process in it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._folder: Path | None = None
        self._seen: dict[str, tuple[int, int]] = {}

    async def __aenter__(self) -> Self:
        self._folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp, None, "agentstream-unsafe-"))
        (self._folder / "work").mkdir()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        """Run one step; it has ended, with its process group, before this returns or is cancelled.

        Raises:
            CodeFailed: the code failed or broke a limit. InvalidInput: a name that is no plain file name.
        """
        assert self._folder is not None, "enter the session first"
        check_files(files or {})
        step = _Printed(self._limits.output_bytes, output)
        began = monotonic()
        await anyio.to_thread.run_sync(self._lay_out, self._folder, code, dict(files or {}))
        status = await self._process(self._folder, step)
        outputs, left_out = await anyio.to_thread.run_sync(self._changed, self._folder / "work")
        result = CodeResult(
            stdout="".join(step.text["stdout"]),
            stderr="".join(step.text["stderr"]),
            outputs=outputs,
            left_out=left_out,
            seconds=round(monotonic() - began, 3),
        )
        if step.left < 0:
            told = f"the code printed more than {self._limits.output_bytes:,} bytes and was ended"
            raise CodeFailed("output", told, result=result)
        if status is None:
            told = f"the code ran longer than {self._limits.wall_seconds:g} s and was ended"
            raise CodeFailed("time", told, result=result)
        if status == 1 and result.stderr.strip():
            name, _, text = result.stderr.strip().splitlines()[-1].partition(": ")
            reason = of_exception(name, text)
            raise CodeFailed(reason, explain(reason, result.stderr), result=result)
        if status:
            raise CodeFailed(*of_status(status if status > 0 else 128 - status), result=result)
        return result

    async def _process(self, folder: Path, step: _Printed) -> int | None:
        """Run the process to its end; its status, or None where it took too long."""
        limits = msgspec.json.encode(asdict(self._limits)).decode()
        process = await anyio.open_process(
            [sys.executable, "-I", "-u", "-X", "utf8", str(_PROGRAM), limits, str(folder / "program.py")],
            stdin=subprocess.DEVNULL,
            cwd=folder / "work",
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "MPLBACKEND": "Agg", "HOME": str(folder)},
            start_new_session=True,
        )
        try:
            with anyio.move_on_after(self._limits.wall_seconds):
                await step.follow(process)
                return await process.wait()
            return None
        finally:
            await _end(process)

    def _lay_out(self, folder: Path, code: str, files: dict[str, Path]) -> None:
        (folder / "program.py").write_text(code, encoding="utf-8")
        for name, path in files.items():
            shutil.copyfile(path, folder / "work" / name)
            state = (folder / "work" / name).lstat()
            self._seen[name] = (state.st_mtime_ns, state.st_size)

    def _changed(self, work: Path) -> tuple[tuple[RichOutput, ...], tuple[str, ...]]:
        outputs: list[RichOutput] = []
        left_out: list[str] = []
        for path in sorted(path for path in work.rglob("*") if path.is_file() and not path.is_symlink()):
            name, state = path.relative_to(work).as_posix(), path.lstat()
            if self._seen.get(name) == (state.st_mtime_ns, state.st_size):
                continue
            self._seen[name] = (state.st_mtime_ns, state.st_size)
            if state.st_size > self._limits.result_bytes or len(outputs) >= _MAX_FILES:
                left_out.append(name)
            else:
                outputs.append(RichOutput(name.replace("/", "-"), mime_of(name), path.read_bytes(), "file"))
        return tuple(outputs), tuple(left_out[:_MAX_FILES])


class _Printed:
    """What a process prints, passed on and kept up to the limit."""

    def __init__(self, most: int, output: OutputCallback | None) -> None:
        self.left = most
        self.text: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._output = output

    async def follow(self, process: anyio.abc.Process) -> None:
        """Read both streams until they end, or there was too much."""
        failures: list[Exception] = []

        async def read(channel: str, stream: anyio.abc.ByteReceiveStream | None) -> None:
            try:
                await self._read(channel, stream)
            except Exception as error:  # noqa: BLE001  (raised below, without the group around it)
                failures.append(error)
                group.cancel_scope.cancel()
            if self.left < 0:
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(read, "stdout", process.stdout)
            group.start_soon(read, "stderr", process.stderr)
        if failures:
            raise failures[0]
        if self.left < 0:
            process.kill()

    async def _read(self, channel: str, stream: anyio.abc.ByteReceiveStream | None) -> None:
        assert stream is not None
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while self.left >= 0:
            try:
                data = await stream.receive(_READ)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            text = decode(data[: max(0, self.left)])
            self.left -= len(data)
            if text:
                self.text[channel].append(text)
                if self._output is not None:
                    await self._output(channel, text)


async def _end(process: anyio.abc.Process) -> None:
    """End the process group and close the pipes; also when the caller is cancelled."""
    with anyio.move_on_after(_END_SECONDS, shield=True):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await process.aclose()
