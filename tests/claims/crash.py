"""Claims about crashes: a run goes on after its process was killed, and a process that wakes up writes nothing more.

Comes in: a seed. Goes out: how many runs ended wrongly, events were lost or doubled, or recorded work was done again.
It deliberately does not know the runtime: processes are killed and stopped from outside or by themselves, and the log
is read from the store.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import anyio
import msgspec

import agentstream
from agentstream.store import open_store
from claims import Figure, claim, exactly
from claims._crash_team import PLACES
from claims._frames import lost_and_doubled, read_frames, wrong_numbers
from claims._server import Server
from claims._streams import Resuming

__all__ = ["continued", "zombies"]

_PROGRAM: Final = Path(__file__).with_name("_crash_victim.py")
_LIMITS: Final = {"lease": 1.0, "renew": 0.3, "stop_grace": 0.3, "emit_timeout": 0.4, "poll": 0.2}
_LANES: Final = 4
_RUNS: Final = 100
_ZOMBIES: Final = 50
_PATIENCE_S: Final = 60.0
_TRIES: Final = 20  # kills that may miss, of one run

Event = dict[str, Any]  # Any: JSON


@dataclass
class Tally:
    """What was found, added up. `wrong` says what, by name; it is empty if all is well."""

    runs: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Tally) -> Self:
        self.runs += other.runs
        self.wrong += other.wrong
        self.counts += other.counts
        return self


class _Victim:
    """A process that runs one run. `with _Victim(…) as victim`; it is gone afterwards."""

    def __init__(self, folder: Path, task: dict[str, object], seed: int) -> None:
        self.misses = folder / "misses"
        root = str(Path(agentstream.__file__).resolve().parents[1])
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL", "PATH") if name in os.environ}
        job = {"store": _address(folder), "limits": _LIMITS, "task": task, "misses": str(self.misses), "seed": seed}
        with (folder / "victim.err").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), json.dumps(job)],
                env={**kept, "PYTHONPATH": root, "AGENTSTREAM_CLAIM_VICTIM": "1", "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def line(self) -> list[str]:
        """The words of its next line; none if it ended."""
        assert self.process.stdout is not None
        timer = threading.Timer(_PATIENCE_S, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline().decode().split()
        finally:
            timer.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _address(folder: Path) -> str:
    return f"sqlite:{folder / 'runs.db'}"


async def _frames(address: str, run: str) -> list[bytes]:
    """The run's frames, made from what the store holds."""
    async with open_store(address) as store:
        tail = await store.tail(run)
        chunks = await store.read(run, 0, max_bytes=1 << 30)
    lines = b"".join(chunk.lines for chunk in chunks).split(b"\n")[:-1]
    head = b"id: %b.%b." % (run.encode(), tail.incarnation.encode())
    return [b"%b%d\ndata: %b" % (head, n, line) for n, line in enumerate(lines, 1)]


def _events(frames: list[bytes]) -> list[Event]:
    return [msgspec.json.decode(frame.split(b"data: ", 1)[1]) for frame in frames]


# --- kill -9 ----------------------------------------------------------------------------------------------------------
def _one_kill(server: Server, folder: Path, place: str, seed: int) -> Tally:
    """A run that dies at `place`, seen to its end by a reader that stayed through; a kill that missed is repeated."""
    tally = Tally()
    for number in range(_TRIES):
        effects = folder / f"effects-{seed}-{number}"
        effects.touch()
        with _Victim(folder, {"effects": str(effects), "place": place}, seed + number) as victim:
            words = victim.line()
            assert words[:1] == ["run"], (folder / "victim.err").read_text()
            run = words[1]
            reader = Resuming(f"/runs/{run}/events?coalesce=0")
            reader.read(server.port, seconds=_PATIENCE_S)
            died = victim.process.wait(_PATIENCE_S) == -signal.SIGKILL
            misses = victim.misses.read_text().count("\n") if victim.misses.exists() else 0
            victim.misses.unlink(missing_ok=True)
        tally.counts["kills that came too late"] += misses
        frames = anyio.run(_frames, _address(folder), run)
        _judge(tally, frames, reader, effects.read_text().split("\n")[:-1])
        if died and any(event["type"] == "run.attempt" for event in _events(frames)):
            tally.runs += 1
            tally.counts[f"killed in {place}"] += 1
            return tally
    tally.wrong["never hit"] += 1
    return tally


def _judge(tally: Tally, frames: list[bytes], reader: Resuming, effects: list[str]) -> None:
    """Hold the log, what the reader got, and what was really done against each other."""
    lost, doubled = lost_and_doubled(frames, reader.frames)
    parsed, ill_formed = read_frames(frames)
    events = _events(frames)
    tally.wrong["lost"] += lost
    tally.wrong["doubled"] += doubled
    tally.wrong["reader had to come back"] += reader.connections - 1 + len(reader.refused)
    tally.wrong["ill-formed"] += ill_formed + wrong_numbers(parsed)
    tally.wrong["not finished"] += events[-1]["type"] != "run.finished"
    done = Counter(effects)
    names: dict[str, str] = {}
    recorded: Counter[str] = Counter()
    first_done: dict[str, int] = {}
    for event in events:
        if event["type"] == "step.started":
            names[event["step"]] = event["name"]
        elif event["type"] == "tool.called":
            names[event["call"]] = event["arguments"]["unit"]
        elif event["type"] in ("step.finished", "tool.finished"):
            name = names[event.get("step") or event["call"]]
            recorded[name] += 1
            first_done.setdefault(name, event["seq"])
    # After its result was recorded a unit is neither begun again nor done again.
    begun = Counter(names.values())
    attempts = [event["seq"] for event in events if event["type"] == "run.attempt"]
    for name, count in recorded.items():
        tally.wrong["recorded twice"] += count > 1
        again = begun[name] - 1  # an attempt that was open when its process died may have had its effect
        tally.wrong["done again"] += name != "generate" and done[name] > 1 + again
        if attempts and first_done[name] < attempts[0]:
            tally.wrong["done again"] += again > 0 or (name != "generate" and done[name] != 1)
    tally.wrong["not done"] += sum(done[name] == 0 for name in recorded if name != "generate")
    tally.counts["recorded units"] += len(recorded)
    tally.counts["recorded before the kill"] += sum(bool(attempts) and at < attempts[0] for at in first_done.values())
    tally.counts["attempts"] += len(attempts)


def continued(folder: Path, places: list[str], seed: int) -> Tally:
    """One run after the other, each killed at its place, on one store with one server that stays."""
    tally = Tally()
    with Server(_address(folder), limits=_LIMITS) as server:
        for number, place in enumerate(places):
            tally += _one_kill(server, folder, place, seed * 10_000 + number * 100)
    return tally


# --- stopped and continued --------------------------------------------------------------------------------------------
def _holds_lock(folder: Path) -> bool:
    """Whether the process that was stopped stands inside of a commit: then nobody else can write to the file."""
    connection = sqlite3.connect(folder / "runs.db", timeout=0.15, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


def zombies(folder: Path, count: int, seed: int) -> Tally:
    """Stop a process in the middle of its run; let it go on when another one has the run."""
    tally = Tally()
    with Server(_address(folder), limits=_LIMITS) as server:
        for number in range(count):
            effects = folder / f"effects-{number}"
            task = {"effects": str(effects), "deltas": 150, "pause": 0.004}
            with _Victim(folder, task, seed + number) as victim:
                run = victim.line()[1]
                _wait_for(folder, run, "text.delta", 10)
                pid = victim.process.pid
                os.kill(pid, signal.SIGSTOP)
                while _holds_lock(folder):
                    tally.counts["stopped inside a commit"] += 1
                    os.kill(pid, signal.SIGCONT)
                    time.sleep(0.003)
                    os.kill(pid, signal.SIGSTOP)
                _wait_for(folder, run, "run.attempt", 1)
                os.kill(pid, signal.SIGCONT)
                said = victim.line()
            reader = Resuming(f"/runs/{run}/events?coalesce=0")
            reader.read(server.port, seconds=_PATIENCE_S)
            frames = anyio.run(_frames, _address(folder), run)
            events = _events(frames)
            taken = next(event["seq"] for event in events if event["type"] == "run.attempt")
            own = f"process {pid} "
            tally.wrong["events of the zombie"] += sum(own in str(event) for event in events[taken:])
            refused = int(said[1]) if said[:1] == ["refused"] else 0
            tally.counts["refused appends"] += refused
            tally.wrong["no append refused"] += refused == 0
            _judge(tally, frames, reader, effects.read_text().split("\n")[:-1])
            tally.runs += 1
    return tally


def _wait_for(folder: Path, run: str, type_: str, count: int) -> None:
    """Wait until the log holds so many events of a type."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        events = _events(anyio.run(_frames, _address(folder), run))
        if sum(event["type"] == type_ for event in events) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {type_} in time")


# --- the claims -------------------------------------------------------------------------------------------------------
def _in_lanes(work: list[Any], folder: str) -> Tally:  # Any: functions of a folder
    """Call each with a folder of its own, at once."""
    tallies: list[Tally] = []
    errors: list[BaseException] = []

    def lane(number: int) -> None:
        own = Path(folder, f"lane-{number}")
        own.mkdir()
        try:
            tallies.append(work[number](own))
        except BaseException as error:  # noqa: BLE001 - raised below, on the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=lane, args=(number,), name=f"lane {number}") for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    total = Tally()
    for tally in tallies:
        total += tally
    return total


@claim(
    "crash.continue",
    "Runs whose process is killed with kill -9 in a model call, tool, step, map or commit go on and end, nothing twice",
    unit="runs ended wrongly, events lost or doubled, recorded work done again",
    quick=False,
    limit=900.0,
    promises=("P5", "P7", "P10", "P11"),
)
def crash_continue(seed: int) -> Figure:
    """Kill a hundred runs, four at a time, twenty at each place."""
    each = _RUNS // _LANES
    plan = [PLACES[number % len(PLACES)] for number in range(_RUNS)]
    with tempfile.TemporaryDirectory(prefix="agentstream-crash-") as folder:
        work = [
            lambda own, lane=lane: continued(own, plan[lane * each : (lane + 1) * each], seed * 10 + lane)
            for lane in range(_LANES)
        ]
        total = _in_lanes(work, folder)
    enough = total.runs == _RUNS and all(total.counts[f"killed in {place}"] >= 10 for place in PLACES)
    detail = {"found": dict(+total.wrong), **total.counts}
    return Figure(total.wrong.total(), n=total.runs, bound=exactly(0), ok=enough, seed=seed, detail=detail)


@claim(
    "crash.zombie",
    "A process that was stopped, lost its run to another and goes on again writes nothing more",
    unit="events of a stopped process after the takeover, or anything else wrong",
    quick=False,
    limit=900.0,
    promises=("P7", "P10"),
)
def crash_zombie(seed: int) -> Figure:
    """Stop fifty processes in the middle of their runs, and continue them after the takeover."""
    shares = [_ZOMBIES // _LANES + (lane < _ZOMBIES % _LANES) for lane in range(_LANES)]
    with tempfile.TemporaryDirectory(prefix="agentstream-zombie-") as folder:
        work = [lambda own, lane=lane: zombies(own, shares[lane], seed * 1_000 + lane) for lane in range(_LANES)]
        total = _in_lanes(work, folder)
    enough = total.runs == _ZOMBIES and total.counts["refused appends"] >= _ZOMBIES
    detail = {"found": dict(+total.wrong), **total.counts}
    return Figure(total.wrong.total(), n=total.runs, bound=exactly(0), ok=enough, seed=seed, detail=detail)
