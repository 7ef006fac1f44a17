"""Claims about resuming: whatever cuts a stream, its reader loses nothing and gets nothing twice.

Comes in: a seed. Goes out: how many events were lost or came twice when connections were cut at every byte, at random
places of a live run, and by killing the server.
It deliberately does not know the package's own client: its reader keeps the last complete id and nothing else.
"""

from __future__ import annotations

import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

import anyio

from agentstream.store import open_store
from claims import Figure, claim, exactly
from claims._frames import lost_and_doubled, read_frames, split_frames, wrong_numbers
from claims._proxy import Cut, CuttingProxy
from claims._server import Server
from claims._streams import Resuming, ask

_HOW: Final[tuple[Literal["FIN", "RST"], ...]] = ("FIN", "RST")
_LEAST_BYTES: Final = 1_400
_SHARES: Final = 4  # cuts at once

_LIVE_READERS: Final = 12
_HEAD_BYTES: Final = 400  # of an answer: a cut behind them nearly always leaves something
_LIVE: Final = {"deltas": 600, "pause": 0.008}

_LANES: Final = 4
_KILLS: Final = 5  # in each lane
_KILLED: Final = {"deltas": 400, "pause": 0.01}
_LIMITS: Final = {"lease": 2.0, "renew": 0.5, "stop_grace": 0.5, "emit_timeout": 1.0, "poll": 0.2}


@dataclass
class Tally:
    """What was found, added up.

    Attributes:
        wrong: events lost, doubled, or breaking a rule; answers that were refused.
        resumed: connections that came back with an id or from the start after a cut.
        story: figures for people.
    """

    wrong: int = 0
    resumed: int = 0
    story: dict[str, object] = field(default_factory=dict)

    def judge(self, expected: Sequence[bytes], reader: Resuming) -> None:
        """Hold what a reader got against the log."""
        lost, doubled = lost_and_doubled(expected, reader.frames)
        self.wrong += lost + doubled + len(reader.refused)
        self.resumed += reader.connections - 1

    def __iadd__(self, other: Tally) -> Self:
        self.wrong += other.wrong
        self.resumed += other.resumed
        self.story |= other.story
        return self


def _events(run: str) -> str:
    return f"/runs/{run}/events?coalesce=0"


def _whole(server: Server, run: str) -> list[bytes]:
    """The run's frames, read at once; they must be right in themselves."""
    answer = ask(server.port, _events(run))
    assert answer.complete
    frames = split_frames(bytes(answer.body))
    events, ill_formed = read_frames(frames)
    assert ill_formed == wrong_numbers(events) == 0
    return frames


# --- every byte of a finished run -------------------------------------------------------------------------------------
def every_byte(server: Server, task: dict[str, object]) -> Tally:
    """Cut the answer, head and all, after each number of bytes that it has, once by FIN and once by RST."""
    run = server.start_run("trio", task)
    Resuming(_events(run)).read(server.port, seconds=30)
    expected = _whole(server, run)
    body = sum(len(frame) + 2 for frame in expected)
    agents = {frame.event.get("agent") for frame in read_frames(expected)[0]} - {None}
    assert body >= _LEAST_BYTES
    assert len(agents) == 3
    assert not b"".join(expected).isascii()
    with CuttingProxy(server.port, lambda: None) as proxy:
        ask(proxy.port, _events(run))
        size = proxy.bytes
    cuts = [Cut(at, how) for how in _HOW for at in range(size)]
    tallies = [Tally() for _ in range(_SHARES)]

    def cut(share: int) -> None:
        plan: list[Cut] = []
        mine = cuts[share::_SHARES]
        with CuttingProxy(server.port, lambda: plan.pop() if plan else None) as proxy:
            for one in mine:
                plan.append(one)
                reader = Resuming(_events(run))
                reader.read(proxy.port, seconds=30)
                tallies[share].judge(expected, reader)
            tallies[share].wrong += proxy.cuts != len(mine)  # a cut that did not happen proves nothing

    _at_once(cut, _SHARES)
    total = Tally()
    for tally in tallies:
        total += tally
    total.story["every byte"] = (
        f"{len(cuts)} cuts, FIN and RST at each of {size} bytes ({body} of body, {len(expected)} events, "
        f"{len(agents)} agents)"
    )
    return total


# --- while the run goes on --------------------------------------------------------------------------------------------
def while_live(server: Server, seed: int) -> Tally:
    """Many readers of one live run, each cut again and again after a random number of bytes."""
    run = server.start_run("trio", {**_LIVE, "seed": seed})
    readers = [Resuming(_events(run)) for _ in range(_LIVE_READERS)]
    cuts = [0] * len(readers)

    def read(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        mean = 200 * 4 ** (number % 4)  # from about one frame to a hundred

        def next_cut() -> Cut | None:
            kind = chance.random()
            if kind < 0.02:
                return None
            head = 0 if kind < 0.1 else _HEAD_BYTES
            return Cut(head + int(chance.expovariate(1 / mean)), chance.choice(_HOW))

        with CuttingProxy(server.port, next_cut) as proxy:
            readers[number].read(proxy.port, seconds=60)
            cuts[number] = proxy.cuts

    _at_once(read, len(readers))
    expected = _whole(server, run)
    tally = Tally()
    for reader in readers:
        tally.judge(expected, reader)
    tally.story["live"] = f"{sum(cuts)} cuts of {len(readers)} readers while {len(expected)} events were written"
    return tally


# --- kill -9 ----------------------------------------------------------------------------------------------------------
def killed(folder: Path, lane: str, kills: int) -> Tally:
    """Kill the server in the middle of a run, start it again on the same store, and see the run go on to its end."""
    chance = random.Random(lane)
    address = f"sqlite:{folder / 'runs.db'}"
    tally = Tally()
    surely = taken = 0
    with Server(address, limits=_LIMITS) as server:
        for number in range(kills):
            ledger = folder / f"ledger-{number}"
            run = server.start_run("trio", {**_KILLED, "seed": chance.randrange(2**31), "ledger": str(ledger)})
            reader = Resuming(_events(run))
            _read_and_kill(server, reader, chance.randint(20, 500))
            expected = anyio.run(_log, address, run)
            tally.judge(expected, reader)
            events, ill_formed = read_frames(expected)
            tally.wrong += ill_formed + wrong_numbers(events)  # one terminal event, and it is the last
            # The next process goes on with the run; where the kill came after its end there is nothing to go on with.
            tally.wrong += events[-1].event["type"] != "run.finished"
            taken += sum(event.event["type"] == "run.attempt" for event in events)
            lost, noted = _missing(ledger, Counter(str(event.event.get("inv")) for event in events))
            tally.wrong += lost
            surely += noted
    tally.wrong += not taken  # kills that no run went on after prove nothing
    told = f"{tally.resumed} returns, {taken} runs gone on with, {surely} events surely accepted before"
    tally.story[lane] = f"{kills} kills, {told}"
    return tally


def _read_and_kill(server: Server, reader: Resuming, frames: int) -> None:
    """Follow the run; kill the server once this many frames came, start it again, and read on to the end."""
    reached = threading.Event()

    def took(count: int) -> None:
        if count >= frames:
            reached.set()

    def kill() -> None:
        if reached.wait(30):
            server.kill()
            server.start()

    killer = threading.Thread(target=kill, name="killer")
    killer.start()
    try:
        reader.read(server.port, seconds=60, took=took)
    finally:
        killer.join()


async def _log(address: str, run: str) -> list[bytes]:
    """The run's frames, made from what the store holds and not by the server."""
    async with open_store(address) as store:
        tail = await store.tail(run)
        chunks = await store.read(run, 0, max_bytes=1 << 30)
    lines = b"".join(chunk.lines for chunk in chunks).split(b"\n")[:-1]
    return [
        b"id: %b.%b.%d\ndata: %b" % (run.encode(), tail.incarnation.encode(), n, line)
        for n, line in enumerate(lines, 1)
    ]


def _missing(ledger: Path, held: Counter[str]) -> tuple[int, int]:
    """How many events that were surely accepted are not in the log, and how many there were."""
    noted: dict[str, int] = {}
    for line in ledger.read_text().splitlines() if ledger.exists() else ():
        inv, number = line.split()
        noted[inv] = int(number)
    return sum(max(0, number - held[inv]) for inv, number in noted.items()), sum(noted.values())


def _at_once(work: Callable[[int], None], count: int) -> None:
    """Call `work(0)` … `work(count - 1)` in threads; raise what one of them raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised below, on the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,), name=f"claim {number}") for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@claim(
    "resume.every-byte",
    "A stream cut at every byte, FIN and RST, live and by kill -9 of the server, resumes without loss or repetition",
    unit="events lost, doubled or out of order",
    limit=300.0,
    promises=("P5", "P7", "P8", "P12", "W-resume", "W-204"),
)
def every_byte_resumes(seed: int) -> Figure:
    """Cut a finished run at every byte, a live one at random places, and kill the server in the middle of runs."""
    total = Tally()
    with tempfile.TemporaryDirectory(prefix="agentstream-resume-") as folder:
        with Server(f"sqlite:{Path(folder, 'runs.db')}") as server:
            total += every_byte(server, {"deltas": 1, "seed": seed})
            total += while_live(server, seed)
        tallies: list[Tally] = []

        def lane(number: int) -> None:
            own = Path(folder, f"lane-{number}")
            own.mkdir()
            tallies.append(killed(own, f"kill -9, {seed}/{number}", _KILLS))

        _at_once(lane, _LANES)
    for tally in tallies:
        total += tally
    return Figure(total.wrong, n=total.resumed, bound=exactly(0), seed=seed, detail=total.story)
