"""What code that agents run can and cannot do here: attacks, limits, and what is left behind.

Comes in: the runners of the library, on this machine. Goes out: tables and figures.
It deliberately judges from outside: by processes, files and typed errors, not by what a runner says of itself.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio
import msgspec

from agentstream import events as ev
from agentstream.agent import Assistant
from agentstream.agent.code import (
    CodeFailed,
    CodeResult,
    CodeSession,
    Limits,
    OutputCallback,
    UnsafeSubprocess,
    code_tool,
)
from agentstream.agent.code.jupyter import JupyterRunner
from agentstream.llm import ToolCall
from agentstream.testing import ScriptedModel, record
from claims import Figure, at_most, claim, exactly, real
from claims._attacks import DOCUMENTED, targets, try_all

_RUNS: Final = 100
_LIMITS: Final = Limits(wall_seconds=15, cpu_seconds=4, memory_bytes=1 << 30, file_bytes=64 << 20)


# --- attacks ----------------------------------------------------------------------------------------------------------
@claim(
    "sandbox.attacks",
    "Fourteen attacks end in the default runner as documented, and 100 runs leave no process, file or kernel",
    unit="attacks that end otherwise, and things left behind",
    quick=False,
    limit=900.0,
)
async def attacks() -> Figure:
    """Try each attack in a sandbox and, to compare, in a plain process; then run, fail, break off and count."""
    real("bwrap")
    with targets() as aim:
        async with JupyterRunner(limits=_LIMITS, warm=1) as runner:
            sandboxed = await try_all(runner, aim)
        plain = await try_all(UnsafeSubprocess(limits=_LIMITS), aim)
    otherwise = [attack for attack, outcome in sandboxed.items() if not outcome.startswith(DOCUMENTED[attack])]
    left = await _left_behind(_RUNS)
    return Figure(
        len(otherwise) + sum(left.values()),
        n=len(sandboxed) + _RUNS,
        bound=exactly(0),
        detail={
            **{
                f"{attack:34}": f"{outcome:14} (UnsafeSubprocess: {plain[attack]})"
                for attack, outcome in sandboxed.items()
            },
            "not as documented": otherwise or "none",
            f"left after {_RUNS} runs": dict(left),
        },
    )


_WAYS: Final = (
    "1 + 1",
    "open('kept.txt', 'w').write('x')",
    "1 / 0",
    "import os; os._exit(1)",
    "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)",
    "while True: pass",  # broken off by us
)


async def _left_behind(runs: int) -> Counter[str]:
    """What is left of so many runs, each ended in one of several ways."""
    seen: set[tuple[int, str]] = set()
    left: Counter[str] = Counter(processes=0, files=0, descriptors=0)
    with _own_temporary_folder() as folder:
        before = _descriptors()
        async with JupyterRunner(warm=1, limits=Limits(grace_seconds=0.5)) as runner:
            for number in range(runs):
                async with runner.session() as session:
                    seen |= set(_descendants())
                    with anyio.move_on_after(0.3):
                        try:
                            await session.run(_WAYS[number % len(_WAYS)])
                        except CodeFailed:
                            pass
                    seen |= set(_descendants())
        left["processes"] = sum(_started(pid) == when for pid, when in seen)
        left["files"] = _entries(folder)
        left["descriptors"] = max(0, _descriptors() - before)
    if len(seen) < runs:
        left["kernels that were not seen"] = runs - len(seen)
    return left


def _entries(folder: Path) -> int:
    return len(list(folder.iterdir()))


def _descriptors() -> int:
    return _entries(Path("/proc/self/fd"))


@contextmanager
def _own_temporary_folder() -> Iterator[Path]:
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def _descendants() -> Iterator[tuple[int, str]]:
    """All processes below this one, with the time of their start: a process id alone may be used again."""
    todo = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    while todo:
        pid = todo.pop()
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children = [int(child) for child in path.read_text().split()]
            except OSError:
                continue
            todo += children
            for child in children:
                if when := _started(child):
                    yield child, when


def _started(pid: int) -> str:
    """When the process started, in the kernel's ticks; empty where there is none, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


# --- limits -----------------------------------------------------------------------------------------------------------
_PROGRAMS: Final = {
    "a runaway loop": ("while True: pass", "time"),
    "a memory hog": ("parts = []\nwhile True: parts.append(bytearray(64 << 20))", "memory"),
    "a fork bomb": ("import os\nwhile True: os.fork()", "processes"),
    "200 MB of output": ("for _ in range(2000): print('x' * 100_000)", "output"),
    "after all that": ("20 + 22", "42"),
}


class _Noting:
    """A session that notes how each step ended."""

    def __init__(self, session: CodeSession) -> None:
        self.session = session
        self.ends: list[str] = []

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        """Run, and note the reason or the value."""
        try:
            result = await self.session.run(code, files=files, output=output)
        except CodeFailed as failure:
            self.ends.append(failure.reason)
            raise
        self.ends.append(result.text)
        return result


@claim(
    "sandbox.limits",
    "A kernel is ready soon and interrupted at once; code that breaks a limit is a typed tool error, the run goes on",
    unit="s until a cold kernel is ready, median of 5",
    limit=120.0,
)
async def limits() -> Figure:
    """Start kernels cold and warm, interrupt them, and have an agent run four programs that break limits."""
    real("bwrap")
    cold = [await _ready(JupyterRunner(warm=0)) for _ in range(5)]
    warm: list[float] = []
    interrupts: list[float] = []
    async with JupyterRunner(warm=1) as runner:
        for _ in range(5):
            await anyio.sleep(1.5)  # the kernel that waits gets ready by itself
            began = time.perf_counter()
            async with runner.session() as session:
                warm.append(time.perf_counter() - began)
                interrupts.append(await _interrupt(session))
    async with (
        JupyterRunner(limits=Limits(wall_seconds=1.5, memory_bytes=1 << 30)) as runner,
        runner.session() as session,
    ):
        noting = _Noting(session)
        calls = [
            ToolCall(str(number), "python", msgspec.json.encode({"code": code}).decode())
            for number, (code, _) in enumerate(_PROGRAMS.values())
        ]
        agent = Assistant("Run what you are told.", tools=[code_tool(noting)], name="careless")
        recorded = await record(agent, "go", models=ScriptedModel(*calls, "all done"))
    ends = dict(zip(_PROGRAMS, noting.ends, strict=True))
    failed = [failure.code for failure in recorded.of(ev.ToolFailed)]
    return Figure(
        statistics.median(cold),
        n=len(cold) + len(warm) + len(interrupts) + len(ends),
        bound=at_most(1.5),
        ok=statistics.median(warm) < 0.1
        and statistics.median(interrupts) < 0.2
        and list(ends.values()) == [wanted for _, wanted in _PROGRAMS.values()]
        and failed == ["code_failed"] * 4
        and recorded.result == "all done",
        detail={
            "cold": _ms(cold),
            "from the warm pool": f"{_ms(warm)} (< 100 ms)",
            "interrupt": f"{_ms(interrupts)} (< 200 ms)",
            **ends,
            "the run": recorded.result,
        },
    )


async def _ready(runner: JupyterRunner) -> float:
    async with runner:
        began = time.perf_counter()
        async with runner.session():
            return time.perf_counter() - began


async def _interrupt(session: CodeSession) -> float:
    """Seconds from the cancellation of a step until it has ended; its variables are still there."""
    began = 0.0

    async def started(_channel: str, _text: str) -> None:
        nonlocal began
        began = time.perf_counter()
        scope.cancel()

    with anyio.CancelScope() as scope:
        await session.run("kept = 42\nprint('on', flush=True)\nwhile True: pass", output=started)
    took = time.perf_counter() - began
    assert (await session.run("kept")).text == "42"
    return took


def _ms(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds) * 1e3:.0f} ms of " + " ".join(f"{one * 1e3:.0f}" for one in seconds)
