"""The bus against what bounds it: CPU time an event, from hot producers to server-sent frames.

    python benchmarks/bus.py [--agents 1,16,100] [--events 64000] [--rounds 7]

Rows, in rotation, medians of CPU µs an event (this process only, so neighbours on the machine hardly count):

    loop        no concurrency at all: construct, number, encode, frame, join 256. The limit of a Python loop.
    queue       a verb that numbers and puts into an asyncio.Queue(256), and an async generator of frames: what most
                people write. No log, no resume, no second reader.
    write       the public bus: `block.write(text)` by every agent; reassembler, sequencer, memory log, the reader and
                the framer that the HTTP answer uses. The row that the claim `speed.bus` is about.
    emit        the same, with `emitter.emit(TextDelta(…))`.

The limit's event has the fields of the log's line, so that all rows make the same bytes (about 200 an event).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable

import anyio
import msgspec

from agentstream.answer import FrameCache
from agentstream.answer.frames import Framer
from agentstream.events import TextDelta
from agentstream.runtime import Bus
from agentstream.stream import View, open_reader

TOKEN = " token"
PREFIX = b"RUNRUNRUNRUNRUNRUNRUNR.abcdef."
BOUND = 256


class Line(msgspec.Struct, gc=False):
    """The line of the log, as a struct."""

    seq: int
    at: int
    type: str
    agent: str
    inv: str
    agent_seq: int
    block: str
    text: str


_encode = msgspec.json.Encoder().encode


def loop_row(agents: int, events: int) -> tuple[float, int]:
    """The limit: one loop, nothing else."""
    frames: list[bytes] = []
    size = 0
    begin = time.process_time()
    for seq in range(1, events + 1):
        line = Line(0, 1789000000000, "text.delta", "agent", "agent.1", seq, "agent.1.1", TOKEN)
        line.seq = seq
        frames.append(b"id: %b%d\ndata: %b\n\n" % (PREFIX, seq, _encode(line)))
        if len(frames) == BOUND:
            size += len(b"".join(frames))
            frames.clear()
    return (time.process_time() - begin) / events, size


class QueueBus:
    """What most people write: a bounded queue, a verb that numbers and puts, an async generator of frames for a
    handler."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Line] = asyncio.Queue(BOUND)
        self._numbers: dict[str, int] = {}

    async def emit(self, agent: str, inv: str, block: str, text: str) -> None:
        """Number one delta of an agent and put it into the queue."""
        number = self._numbers[inv] = self._numbers.get(inv, 0) + 1
        await self._queue.put(Line(0, 1789000000000, "text.delta", agent, inv, number, block, text))

    async def frames(self, events: int) -> AsyncIterator[bytes]:
        """The frames of so many events."""
        for seq in range(1, events + 1):
            line = await self._queue.get()
            line.seq = seq
            yield b"id: %b%d\ndata: %b\n\n" % (PREFIX, seq, _encode(line))


def queue_row(agents: int, events: int) -> tuple[float, int]:
    """The queue, used as the bus is used."""

    async def main() -> tuple[float, int]:
        bus = QueueBus()
        each = events // agents

        async def produce(inv: str) -> None:
            for _ in range(each):
                await bus.emit("agent", inv, "agent.1.1", TOKEN)

        size = 0
        begin = time.process_time()
        async with asyncio.TaskGroup() as group:
            for number in range(agents):
                group.create_task(produce(f"agent.{number}"))
            async for frame in bus.frames(each * agents):
                size += len(frame)
        return (time.process_time() - begin) / (each * agents), size

    return asyncio.run(main())


def bus_row(agents: int, events: int, *, blocks: bool) -> tuple[float, int]:
    """The public bus, from the verb to the frames."""

    async def main() -> tuple[float, int]:
        each = events // agents
        size = 0
        begin = time.process_time()
        async with anyio.create_task_group() as readers, Bus() as bus:

            async def read() -> None:
                nonlocal size
                reader, _ = await open_reader(bus.store, bus.run_id, None)
                framer = Framer(View((), (), coalesce=False), batch=False, cache=FrameCache(0))
                while (page := await reader.next(1 << 16)) is not None:
                    for piece in framer.page(reader, page):  # type: ignore[arg-type]  # no reset: nothing is lost here
                        size += len(piece)

            async def produce() -> None:
                async with bus.emitter("agent") as emitter, emitter.text() as block:
                    if blocks:
                        for _ in range(each):
                            await block.write(TOKEN)
                    else:
                        for _ in range(each):
                            await emitter.emit(TextDelta(block.id, TOKEN))

            readers.start_soon(read)
            async with anyio.create_task_group() as producers:
                for _ in range(agents):
                    producers.start_soon(produce)
        return (time.process_time() - begin) / (each * agents), size

    return anyio.run(main)


ROWS: dict[str, Callable[[int, int], tuple[float, int]]] = {
    "loop": loop_row,
    "queue": queue_row,
    "write": lambda agents, events: bus_row(agents, events, blocks=True),
    "emit": lambda agents, events: bus_row(agents, events, blocks=False),
}


def measure(agents: int, events: int, rounds: int) -> dict[str, list[float]]:
    """CPU µs an event of every row, in rotation; a first round warms up and does not count."""
    figures: dict[str, list[float]] = {name: [] for name in ROWS}
    for number in range(rounds + 1):
        for name, row in ROWS.items():
            gc.collect()
            seconds, size = row(agents, events)
            assert size > events * 100, f"{name} made {size} bytes"
            if number:
                figures[name].append(seconds * 1e6)
    return figures


def main() -> None:
    """Print the rows, and ratios round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", default="1,16,100")
    parser.add_argument("--events", type=int, default=64_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = {}
    for agents in map(int, options.agents.split(",")):
        figures = measure(agents, options.events, options.rounds)
        table[agents] = figures
        if options.json:
            continue
        print(f"{agents} agents, {options.events:,} events, median of {options.rounds} rounds")
        for name, values in figures.items():
            ratios = {row: statistics.median(map(_ratio, values, figures[row])) for row in ("loop", "queue")}
            against = [f"{ratio:5.2f} × {row}" for row, ratio in ratios.items()]
            print(f"  {name:8}{statistics.median(values):7.3f} µs   {'   '.join(against)}")
    if options.json:
        print(json.dumps(table))


def _ratio(a: float, b: float) -> float:
    return a / b


if __name__ == "__main__":
    main()
