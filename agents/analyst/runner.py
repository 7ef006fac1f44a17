"""Runs a program in a process of its own, with limits, and gives back what it made.

What comes in: code, files to lay beside it, and a function that takes its output while it runs. What goes out: a
`CodeResult`, or `CodeFailed` with the limit or error that ended it; no process and no folder stays behind. It does not
know what the code is for, and it is no sandbox: see `RuleRunner`.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import ClassVar, Final, Literal, Protocol

import anyio
import anyio.abc
import msgspec

from agentstream.agent.code import Reason as CodeReason
from agentstream.errors import MissingExtra, ToolError
from agentstream.events import Json

__all__ = ("CodeFailed", "CodeResult", "CodeRunner", "Limits", "Output", "Reason", "RuleRunner")

Reason = CodeReason | Literal["module", "result"]
Output = Callable[[str, str], Awaitable[None]]
"""Takes the channel (`stdout` or `stderr`) and more text of it."""


class CodeFailed(ToolError):
    """The program did not end well. `reason` names the limit or error; `detail` may be shown to people and models."""

    code: ClassVar[str] = "code_failed"

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail, details={"reason": reason})
        self.reason: Reason = reason


class CodeResult(msgspec.Struct, frozen=True):
    """What a program left behind.

    Attributes:
        result: what it called `result`, as JSON.
        table: what it called `table`, as CSV text (at most 10,000 rows); empty where there was none.
        picture: its last matplotlib figure as PNG; empty where there was none.
        plotly: what it called `plotly_figure`, as JSON text; empty where there was none.
        seconds: from start to end of the process.
    """

    result: Json
    table: str = ""
    picture: bytes = b""
    plotly: str = ""
    seconds: float = 0.0


class CodeRunner(Protocol):
    """Something that runs Python programs: the runner below, a sandbox, a machine elsewhere."""

    @property
    def trusted(self) -> bool:
        """Whether it may be given code that a language model wrote: only a sandbox may."""
        ...

    async def run(self, code: str, *, files: Mapping[str, Path], output: Output) -> CodeResult:
        """Run `code` in an empty folder that holds `files` under their names.

        Raises:
            CodeFailed: the program failed, or broke a limit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use. Bytes of memory are addresses, as `RLIMIT_AS` counts them."""

    wall_seconds: float = 60.0
    cpu_seconds: int = 30
    memory_bytes: int = 2 * 1024**3  # pandas and matplotlib together address about 0.7 GiB before any data
    file_bytes: int = 32 * 1024**2
    output_bytes: int = 256 * 1024
    result_bytes: int = 96 * 1024  # it travels in events, which end at 256 KiB


# A program's libraries start a thread for each core otherwise, each with its own address space.
_ONE_THREAD: Final = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
_CHILD: Final = Path(__file__).with_name("child.py")
_READ: Final = 16 * 1024
_END_SECONDS: Final = 5.0
_REASONS: Final[dict[str, str]] = {
    "memory": "the code needs more memory than it may have",
    "file_size": "the code wrote a file larger than it may",
    "processes": "the code tried to start a process, which it may not",
}


@dataclass(frozen=True, slots=True)
class RuleRunner:
    """Runs code that our own rules wrote, as this user, with limits of time, memory, output, files and processes.

    The code can read whatever this user can read and reach the network: never give it code that somebody else wrote.

    Attributes:
        cache: where matplotlib keeps its list of fonts between runs (making it takes seconds).
    """

    limits: Limits = Limits()
    cache: Path = field(default_factory=lambda: _cache_home() / "agentstream" / "matplotlib")

    @property
    def trusted(self) -> bool:
        """Not for a language model's code."""
        return False

    async def run(self, code: str, *, files: Mapping[str, Path], output: Output) -> CodeResult:
        """Run `code`; on cancellation the process ends before this returns.

        Raises:
            CodeFailed: the program failed or broke a limit. MissingExtra: pandas or matplotlib is not installed.
        """
        for module in ("pandas", "matplotlib"):
            if importlib.util.find_spec(module) is None:
                raise MissingExtra(f"running the analyst's code needs {module}: pip install 'agentstream[exec]'")
        async with _folder() as folder:
            await anyio.to_thread.run_sync(_lay_out, folder, code, dict(files))
            began = monotonic()
            status = await self._process(folder, output)
            read = await anyio.to_thread.run_sync(_collect, folder / "out", status, self.limits, abandon_on_cancel=True)
            return msgspec.structs.replace(read, seconds=round(monotonic() - began, 3))

    async def _process(self, folder: Path, output: Output) -> int:
        limits = self.limits
        spec = {
            "program": str(folder / "program.py"),
            "out": str(folder / "out"),
            "cpu_seconds": limits.cpu_seconds,
            "wall_seconds": limits.wall_seconds,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
        }
        command = [sys.executable, "-I", "-X", "utf8", str(_CHILD), msgspec.json.encode(spec).decode()]
        process = await anyio.open_process(
            command, stdin=subprocess.DEVNULL, cwd=folder / "work", env=self._environment(), start_new_session=True
        )
        try:
            with anyio.move_on_after(limits.wall_seconds) as scope:
                await _watch(process, limits.output_bytes, output)
                return await process.wait()
            assert scope.cancelled_caught
            raise CodeFailed("time", f"the code ran longer than {limits.wall_seconds:g} s and was ended")
        finally:
            await _end(process)

    def _environment(self) -> dict[str, str]:
        """Nothing of ours but where programs lie: a server's environment holds its keys."""
        return {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "MPLBACKEND": "Agg",
            "MPLCONFIGDIR": str(self.cache),
            **_ONE_THREAD,
        }


def _cache_home() -> Path:
    """The user's folder for caches, or one for temporary files where there is none to write to."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path(os.environ.get("HOME") or "/nonexistent") / ".cache")
    parent = next((folder for folder in (Path(home), *Path(home).parents) if folder.exists()), None)
    if parent is not None and os.access(parent, os.W_OK):
        return Path(home)
    return Path(tempfile.gettempdir()) / f"agentstream-{os.getuid()}"


# --- the folder -------------------------------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp, None, "agentstream-code-"))
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def _lay_out(folder: Path, code: str, files: dict[str, Path]) -> None:
    """`work` is where the program runs; its text and what it leaves lie outside, where it writes by mistake only."""
    for name in ("work", "out"):
        (folder / name).mkdir()
    (folder / "program.py").write_text(code, encoding="utf-8")
    for name, path in files.items():
        if Path(name).name != name:
            raise CodeFailed("result", f"{name!r} is no plain file name")
        shutil.copyfile(path, folder / "work" / name)  # a copy: the program may spoil it


# --- the process ------------------------------------------------------------------------------------------------------
async def _watch(process: anyio.abc.Process, most_bytes: int, output: Output) -> None:
    """Pass on what the process writes, until it closes both channels; end it when that is too much."""
    left = most_bytes

    async def read(channel: str, stream: anyio.abc.ByteReceiveStream | None) -> None:
        nonlocal left
        assert stream is not None
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while True:
            try:
                data = await stream.receive(_READ)
            except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
                break
            kept = data[: max(0, left)]
            left -= len(data)
            if text := decode(kept):
                await output(channel, text)
            if left < 0:
                raise CodeFailed("output", f"the code wrote more than {most_bytes:,} bytes of output and was ended")
        if text := decode(b"", final=True):
            await output(channel, text)

    failures: list[CodeFailed] = []

    async def guarded(channel: str, stream: anyio.abc.ByteReceiveStream | None) -> None:
        try:
            await read(channel, stream)
        except CodeFailed as failure:  # raised below without the group around it
            failures.append(failure)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(guarded, "stdout", process.stdout)
        group.start_soon(guarded, "stderr", process.stderr)
    if failures:
        raise failures[0]


async def _end(process: anyio.abc.Process) -> None:
    """End the whole process group, wait for it, and close the pipes; also when the caller is cancelled."""
    with anyio.move_on_after(_END_SECONDS, shield=True):
        # Also after a good end: what it left running in its group ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await process.aclose()


# --- the result -------------------------------------------------------------------------------------------------------
class _Outcome(msgspec.Struct):
    ok: bool
    result: Json = None
    reason: str = ""
    message: str = ""


def _collect(out: Path, status: int, limits: Limits) -> CodeResult:
    raw = _bounded(out / "outcome.json", limits.result_bytes)
    if not raw:
        raise _ended(status, limits)
    outcome = msgspec.json.decode(raw, type=_Outcome)
    if not outcome.ok:
        if outcome.reason == "module":
            raise MissingExtra(f"{outcome.message.strip().splitlines()[-1]}: pip install 'agentstream[exec]'")
        reason: Reason = outcome.reason if outcome.reason in _REASONS else "exception"  # type: ignore[assignment]
        raise CodeFailed(reason, _REASONS.get(reason, f"the code failed:\n{outcome.message}"))
    return CodeResult(
        result=outcome.result,
        table=_bounded(out / "table.csv", limits.file_bytes).decode("utf-8", "replace"),
        picture=_bounded(out / "picture.png", limits.file_bytes),
        plotly=_bounded(out / "plotly.json", limits.file_bytes).decode("utf-8", "replace"),
    )


def _bounded(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError:
        return b""
    if len(data) > most_bytes:
        raise CodeFailed("result", f"{path.name} of the code is larger than {most_bytes:,} bytes")
    return data


def _ended(status: int, limits: Limits) -> CodeFailed:
    """What it means that a process left no outcome."""
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return CodeFailed("cpu", f"the code used more than {limits.cpu_seconds} s of processor time and was ended")
    if status == -signal.SIGALRM:
        return CodeFailed("time", f"the code ran longer than {limits.wall_seconds:g} s and was ended")
    if status in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
        return CodeFailed("crash", "the process that ran the code crashed")
    return CodeFailed("crash", f"the process that ran the code ended with status {status} and left no result")
