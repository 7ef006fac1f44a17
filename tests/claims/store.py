"""Claims about a store that takes nothing more: runs halt, say so, and go on when it takes again.

Comes in: nothing. Goes out: how many things went wrong on a full disk and on a database that became read-only.
It deliberately uses SQLite's own errors: a small disk that is filled, and a connection that is switched to read-only.
"""

from __future__ import annotations

import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import anyio

from agentstream.agent import Context, Team, as_agent
from agentstream.events import AnyEvent, is_terminal
from agentstream.runtime import Run, Runtime, RuntimeOptions
from agentstream.store.sqlite import SqliteStore
from claims import Figure, MissingPart, claim, exactly
from run_kit import check_log, log_of

_RUNS: Final = 4
_STEPS: Final = 120
_QUICK: Final = RuntimeOptions(stop_grace=0.3, emit_timeout=0.5, renew=0.3, lease=2.0, poll=0.1)
_SETTLE_S: Final = 3.0


class _Switched(sqlite3.Connection):
    """A connection that takes nothing while `read_only` is set; the error is SQLite's."""

    read_only = threading.Event()

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:  # Any: as the parent takes them
        """Run one statement; before each transaction the switch is looked at."""
        if sql.startswith("BEGIN"):
            super().execute(f"PRAGMA query_only = {int(self.read_only.is_set())}")
        return super().execute(sql, *args)


@contextmanager
def _full_disk(folder: Path) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """A disk of 48 MiB; what fills it, and what makes room again."""
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, timeout=10, check=False)
    except FileNotFoundError:
        raise MissingPart("mount") from None
    if done.returncode:
        raise MissingPart("mounting a small disk needs root")
    filler = folder / "filler"

    def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            for size in (65_536, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    try:
        yield fill, partial(filler.unlink, missing_ok=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], timeout=10, check=True)


@contextmanager
def _read_only(folder: Path) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """The database's writer is switched to read-only and back."""
    connect = partial(sqlite3.connect, factory=_Switched)
    with mock.patch("agentstream.store._schema.sqlite3.connect", connect):
        try:
            yield _Switched.read_only.set, _Switched.read_only.clear
        finally:
            _Switched.read_only.clear()


def _working(effects: list[float]) -> Team[Any, Any]:
    async def effect(number: int) -> int:
        effects.append(anyio.current_time())
        await anyio.sleep(0.005)
        return number

    @as_agent
    async def worker(ctx: Context, task: int) -> int:
        async with ctx.text() as block:
            for number in range(_STEPS):
                await block.write("x" * 200)
                await ctx.step("effect", effect, number)
        return task

    return Team("worker", worker)


async def _trouble(folder: Path, cause: Callable[[], None], mend: Callable[[], None]) -> list[str]:
    """Everything that is wrong with runs that met the trouble in their middle."""
    wrong: list[str] = []
    effects: list[float] = []
    team = _working(effects)
    async with SqliteStore(folder / "runs.db") as store, Runtime(store, teams=[team], options=_QUICK) as runtime:
        runs = [await runtime.start(team, number) for number in range(_RUNS)]
        while len(effects) < _RUNS * 10:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        cause()
        while any([(await run.state()).halted != "store" for run in runs]) or runtime.statistics().runs:  # noqa: ASYNC110
            await anyio.sleep(0.05)
        before, done = [await log_of(run) for run in runs], len(effects)
        await anyio.sleep(_SETTLE_S)
        if len(effects) != done:
            wrong.append(f"{len(effects) - done} side effects after the halt")
        mend()
        for run, accepted in zip(runs, before, strict=True):
            wrong += await _ended(run, accepted)
    return wrong


async def _ended(run: Run[Any], accepted: list[AnyEvent]) -> list[str]:
    """How the run ended: once, behind everything that had been accepted."""
    try:
        await run.result()
    except Exception as error:  # noqa: BLE001  (its events say the rest)
        ended = f"{run.id} did not go on: {error}"
    else:
        ended = ""
    events = await log_of(run)
    wrong = [ended] if ended else []
    if events[: len(accepted)] != accepted:
        wrong.append(f"{run.id} lost what was accepted")
    if sum(map(is_terminal, events)) != 1:
        wrong.append(f"{run.id} has not one terminal event")
    try:
        check_log(events)
    except AssertionError as error:
        wrong.append(f"{run.id}: {error}")
    return wrong


@claim(
    "store.full",
    "On a full disk or a read-only database runs halt and say so, do nothing more, and go on when the store does",
    unit="wrong",
    quick=False,
    limit=300,
    promises=("P1", "P7"),
)
async def full() -> Figure:
    """Both troubles, each in the middle of runs that work side by side."""
    wrong: dict[str, list[str]] = {}
    for name, trouble in (("full disk", _full_disk), ("read-only", _read_only)):
        with tempfile.TemporaryDirectory() as place, trouble(Path(place)) as (cause, mend):
            with anyio.fail_after(120):
                wrong[name] = await _trouble(Path(place), cause, mend)
    return Figure(sum(map(len, wrong.values())), n=2 * _RUNS, bound=exactly(0), detail=wrong)
