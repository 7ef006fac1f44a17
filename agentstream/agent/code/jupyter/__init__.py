"""The default runner: IPython kernels in bubblewrap sandboxes. The door of the extra `exec`. Linux only.

What comes in: code, step after step. What goes out: results with pictures, tables, figures and files. It does not know
agents; `code_tool` makes a tool of it.

It runs on every event loop: what Jupyter offers for this (the managers of `jupyter_client`) is for asyncio alone, so
the few messages that are needed are spoken directly, see `_zmtp` and `_messages`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.to_thread

from agentstream.agent.code.bubblewrap import Sandbox, probe
from agentstream.agent.code.contract import CodeFailed, CodeResult, Limits, OutputCallback, check_files
from agentstream.agent.code.jupyter._kernel_process import Kernel
from agentstream.errors import InvalidInput, MissingExtra, UsageError

if importlib.util.find_spec("ipykernel") is None:
    raise MissingExtra("running code in a sandbox needs `agentstream[exec]`: pip install 'agentstream[exec]'")

__all__ = ("JupyterRunner", "JupyterSession")

_MAX_CODE: Final = 1 << 20


class JupyterRunner:
    """Runs code in IPython kernels, each in a sandbox of its own.

        async with JupyterRunner(warm=2) as runner, runner.session() as session:
            await session.run("x = 20")
            result = await session.run("x + 22")        # result.text == "42"

    It may be shared by many agents and tasks. A session has one kernel and gives it back to nobody: it ends with it.

    Args:
        limits: of each session. They are fixed when its kernel starts, before anybody knows what it will run.
        warm: kernels that wait, started, for sessions to come; each takes some 60 MB. 0: every session starts its own.
        preload: modules that a kernel imports before it takes steps, for instance `pandas`.
        most: sessions at the same time; further ones wait.

    Raises:
        NoSandbox: (when entered) nothing can be isolated on this machine. MissingExtra: ipykernel is not installed.
    """

    def __init__(
        self, *, limits: Limits | None = None, warm: int = 1, preload: Sequence[str] = (), most: int = 8
    ) -> None:
        if warm < 0 or most < 1:
            raise InvalidInput("warm is 0 or more kernels that wait, most at least 1 session")
        self.limits = Limits() if limits is None else limits
        self._warm_wanted = warm
        self._preload = tuple(preload)
        self._most = most
        self._sandbox: Sandbox | None = None
        self._places: anyio.CapacityLimiter | None = None
        self._warm: list[Kernel] = []
        self._used: set[Kernel] = set()

    @property
    def isolated(self) -> bool:
        """It is made for code that nobody has read."""
        return True

    async def __aenter__(self) -> Self:
        if self._sandbox is not None:
            raise UsageError("this runner is entered already")
        report = await anyio.to_thread.run_sync(probe)
        report.require()
        self._sandbox = Sandbox(report.bwrap, python=report.python, limits=self.limits)
        self._places = anyio.CapacityLimiter(self._most)
        try:
            while len(self._warm) < self._warm_wanted:
                self._warm.append(self._start())
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    def session(self) -> JupyterSession:
        """A kernel of one's own, for the length of an `async with`."""
        return JupyterSession(self)

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        """Run one step in a kernel of its own; raises as `CodeSession.run`."""
        async with self.session() as session:
            return await session.run(code, files=files, output=output)

    # --- kernels ------------------------------------------------------------------------------------------------------
    def _start(self) -> Kernel:
        if self._sandbox is None:
            raise UsageError("enter the runner first: `async with JupyterRunner() as runner`")
        return Kernel(self._sandbox, self.limits, preload=self._preload)

    async def _take(self) -> Kernel:
        """A kernel that takes steps; another one is started in its place."""
        while True:
            kernel = self._warm.pop(0) if self._warm else self._start()
            self._used.add(kernel)
            try:
                await kernel.connect()
            except BaseException as error:
                dead = isinstance(error, CodeFailed) and not kernel.alive and len(self._warm) > 0
                await self._drop(kernel)
                if dead:  # it died while it waited, for instance of a lack of memory; the next may live
                    continue
                raise
            while len(self._warm) < self._warm_wanted:
                self._warm.append(self._start())
            return kernel

    async def _drop(self, kernel: Kernel) -> None:
        await kernel.end()
        self._used.discard(kernel)

    async def _end(self) -> None:
        self._sandbox = None
        kernels = [*self._warm, *self._used]
        self._warm.clear()
        with anyio.CancelScope(shield=True):  # each ends within seconds
            async with anyio.create_task_group() as group:
                for kernel in kernels:
                    group.start_soon(self._drop, kernel)


class JupyterSession:
    """One kernel, step after step. Steps that are asked for at the same time run one after the other."""

    def __init__(self, runner: JupyterRunner) -> None:
        self._runner = runner
        self._kernel: Kernel | None = None
        self._files: dict[str, Path] = {}
        self._turn: anyio.Lock | None = None

    async def __aenter__(self) -> Self:
        if self._runner._places is None:
            raise UsageError("enter the runner first: `async with JupyterRunner() as runner`")
        if self._turn is not None:
            raise UsageError("a session is entered once; ask the runner for another")
        await self._runner._places.acquire_on_behalf_of(self)
        try:
            self._kernel = await self._runner._take()
        except BaseException:
            self._runner._places.release_on_behalf_of(self)
            raise
        self._turn = anyio.Lock()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kernel, self._kernel = self._kernel, None
        try:
            if kernel is not None:
                await self._runner._drop(kernel)
        finally:
            assert self._runner._places is not None
            self._runner._places.release_on_behalf_of(self)

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        """Run one step; after one that lost the state the next begins anew, with the same files.

        Cancelling interrupts the step; variables stay, unless the interrupt did not help.

        Raises:
            CodeFailed: the code failed or broke a limit. InvalidInput: a name that is no plain file name, or more than
                1 MiB of code.
        """
        if self._turn is None:
            raise UsageError("enter the session first: `async with runner.session() as session`")
        if len(code) > _MAX_CODE:
            raise InvalidInput(f"a step has at most {_MAX_CODE:,} characters of code")
        check_files(files or {})
        async with self._turn:
            fresh = dict(files or {})
            self._files |= fresh
            if self._kernel is None or not self._kernel.alive:
                await self._replace()
                fresh = self._files
            assert self._kernel is not None
            await self._kernel.lay(fresh)
            return await self._kernel.run(code, output)

    async def _replace(self) -> None:
        lost, self._kernel = self._kernel, None
        if lost is not None:
            await self._runner._drop(lost)
        self._kernel = await self._runner._take()
