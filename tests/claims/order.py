"""Claims about order: every reader gets the same bytes, and they are what the agents emitted.

Comes in: a seed. Goes out: how many events differ between two live readers, a replay, and the agents' own notes, on
every event loop and store.
It deliberately does not know sockets: the answer is called as a server calls it. `resume.*` goes over real ones.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from agentstream.agent import Agent, Context, as_agent
from agentstream.answer import Message, Scope
from agentstream.events import Custom
from agentstream.runtime import Run, Runtime
from claims import Figure, claim, exactly, real
from claims._frames import Note, differing, read_frames, split_frames, wrong_notes, wrong_numbers

_AGENTS: Final = 16
_EVENTS: Final = 5_000
_LIMIT_S: Final = 60.0

_LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {  # Any: options of a foreign loop
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

# Everything that has broken a stream of text somewhere: field names, every kind of line end, formats, wide characters.
_TEXTS: Final = (
    *("plain ", "ü", "数据", "🙂‍↔️", "\u2028", "\x85", "\0", "\n\n", "\r\n", "\r"),
    *("data: ", "%d %s %", '"\\', "\nid: 7\n\n", ": hb\n"),
)


class Delays:
    """Random waits of a few kinds; mostly none."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    async def wait(self) -> None:
        """Go on at once, or after some turns of the loop, or after up to a millisecond."""
        kind = self.random.random()
        if kind < 0.85:
            return
        if kind < 0.99:
            for _ in range(self.random.choice((1, 1, 1, 2, 5))):
                await anyio.lowlevel.checkpoint()
        else:
            await anyio.sleep(self.random.uniform(0, 0.001))


class Writer:
    """Emits events of several kinds through one context, and writes down what it emitted."""

    def __init__(self, ctx: Context, seed: str, events: int) -> None:
        self.notes: list[Note] = []
        self._ctx = ctx
        self._delays = Delays(seed)
        self._random = self._delays.random
        self._events = events

    async def write(self) -> None:
        """Emit exactly as many events as were asked for."""
        kinds = (self._text, self._text, self._thinking, self._custom, self._progress, self._from_a_thread)
        weights = (3, 3, 2, 8, 4, 0.3)
        while (left := self._events - len(self.notes)) > 0:
            if left < 50:
                await self._custom()
            else:
                await self._random.choices(kinds, weights)[0]()

    def _words(self) -> str:
        return "".join(self._random.choices(_TEXTS, k=self._random.randint(1, 4)))

    async def _text(self) -> None:
        async with self._ctx.text() as block:
            self.notes.append(("text.started", {"block": block.id}))
            await self._fill("text.delta", block.id, block.write)
        self.notes.append(("text.finished", {"block": block.id}))

    async def _thinking(self) -> None:
        async with self._ctx.thinking() as block:
            self.notes.append(("thinking.started", {"block": block.id}))
            await self._fill("thinking.delta", block.id, block.write)
        self.notes.append(("thinking.finished", {"block": block.id}))

    async def _fill(self, kind: str, block: str, write: Callable[[str], Awaitable[None]]) -> None:
        for _ in range(self._random.randint(1, 30)):
            words = self._words()
            self.notes.append((kind, {"block": block, "text": words}))
            await write(words)
            await self._delays.wait()

    async def _custom(self) -> None:
        noted = {"n": len(self.notes), "words": [self._words(), None, True, -1.5e300, 2**53]}
        value = dict(noted)
        self.notes.append(("custom", {"name": "number", "value": noted}))
        await self._ctx.custom("number", value)
        value["n"] = "changed after the emit, which must not be seen"
        await self._delays.wait()

    async def _progress(self) -> None:
        words = self._words()
        self.notes.append(("agent.progress", {"message": words, "done": len(self.notes), "total": self._events}))
        await self._ctx.progress(words, done=len(self.notes) - 1, total=self._events)
        await self._delays.wait()

    async def _from_a_thread(self) -> None:
        emitter = self._ctx.blocking()
        values = [self._words() for _ in range(self._random.randint(2, 20))]

        def emit() -> None:
            for value in values:
                emitter.emit(Custom("thread", value=value))

        self.notes += [("custom", {"name": "thread", "value": value}) for value in values]
        await anyio.to_thread.run_sync(emit)


@dataclass
class Reader:
    """One client of the answer, called as a server would call it; what it got is in `body`."""

    delays: Delays | None = None
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    status: int = 0

    async def read(self, run: Run[Any]) -> None:  # Any: no result is looked at
        """Read the run's events from the first to the end."""
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": f"/runs/{run.id}/events",
            "query_string": b"coalesce=0",
            "headers": [(b"accept", b"text/event-stream")],
            "extensions": {},
        }
        await run.asgi()(scope, anyio.sleep_forever, self._send)  # type: ignore[arg-type]  # receive: nobody leaves

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)
        if self.delays is not None:
            await self.delays.wait()


@dataclass(frozen=True)
class Heard:
    """What one run gave.

    Attributes:
        bodies: what two live readers and a replay got.
        notes: what the agents wrote down, by invocation.
        live: the share that both live readers had read when the last agent had emitted its last event.
    """

    bodies: tuple[bytes, bytes, bytes]
    notes: dict[str, list[Note]]
    live: float

    def check(self) -> tuple[int, int, int]:
        """The number of differences, of events that were compared, and how often another agent had its turn."""
        first, second, replay = (split_frames(body) for body in self.bodies)
        frames, ill_formed = read_frames(first)
        wrong = ill_formed + differing(first, second) + differing(first, replay)
        wrong += wrong_numbers(frames) + wrong_notes(frames, self.notes)
        authors = [frame.event.get("inv") for frame in frames]
        return wrong, len(first), sum(one != other for one, other in pairwise(authors))


def crowd(
    seed: str, agents: int, events: int, notes: dict[str, list[Note]], emitted: Callable[[], None]
) -> Agent[Any, Any]:  # Any: the types of its task and result are its own business
    """An agent that starts `agents` others at once, each of which emits `events` events and leaves its notes.

    Args:
        emitted: called when the last of them has emitted its last event.
    """

    @as_agent
    async def writer(ctx: Context, task: int) -> int:
        """Emit, and write down what was emitted."""
        pen = Writer(ctx, f"{seed}/{task}", events)
        notes[ctx.inv] = pen.notes
        await pen.write()
        if sum(map(len, notes.values())) == agents * events:
            emitted()
        return len(pen.notes)

    @as_agent
    async def lead(ctx: Context, task: str) -> int:
        """Start all of them."""
        calls = [await ctx.start(writer, number) for number in range(agents)]
        return sum([await call.result() for call in calls])

    return lead


async def listen(store: str, seed: int, *, agents: int, events: int) -> Heard:
    """Run a crowd of agents with two live readers, then replay it."""
    notes: dict[str, list[Note]] = {}
    early, slow, replay = Reader(), Reader(Delays(f"{seed}/reader")), Reader()
    live = 0

    def emitted() -> None:
        nonlocal live
        live = min(len(early.body), len(slow.body))

    with anyio.fail_after(_LIMIT_S):
        async with Runtime(store) as runtime:
            run = await runtime.start(crowd(str(seed), agents, events, notes, emitted), "go")
            async with anyio.create_task_group() as readers:
                readers.start_soon(early.read, run)
                readers.start_soon(slow.read, run)
            assert await run.result() == agents * events
            await replay.read(run)
    assert all(reader.complete and reader.status == 200 for reader in (early, slow, replay)), "a stream was cut"
    bodies = bytes(early.body), bytes(slow.body), bytes(replay.body)
    return Heard(bodies, notes, live / len(early.body))


def on_every_loop(seed: int, *, agents: int, events: int) -> dict[str, Heard]:
    """What was heard on each of three loops with each of two stores."""
    heard: dict[str, Heard] = {}
    for loop, (backend, options) in _LOOPS.items():
        for store in ("memory", "sqlite"):
            with tempfile.TemporaryDirectory(prefix="agentstream-order-") as folder:
                address = "memory:" if store == "memory" else f"sqlite:{Path(folder, 'runs.db')}"
                work = partial(listen, address, seed, agents=agents, events=events)
                heard[f"{loop}, {store}"] = anyio.run(work, backend=backend, backend_options=options)
    return heard


@claim(
    "order.identical",
    "Two live readers and a replay of 16 agents × 5,000 events get the same bytes, and what the agents emitted",
    unit="differing events",
    limit=240.0,
    promises=("P1", "P2", "P3", "W-id", "W-data"),
)
def identical(seed: int) -> Figure:
    """Compare byte by byte, number by number, and with the agents' own notes, on six pairs of loop and store."""
    real("uvloop")
    real("trio")
    wrong = events = 0
    detail: dict[str, object] = {}
    heard = on_every_loop(seed, agents=_AGENTS, events=_EVENTS)
    for name, one in heard.items():
        differ, compared, turns = one.check()
        wrong += differ
        events += compared
        detail[name] = f"{differ} differ of {compared} in {turns} turns; {one.live:.0%} was read before the last emit"
    # A reader that only ever replays would show nothing about the live stream.
    all_live = all(one.live > 0.5 for one in heard.values())
    return Figure(wrong, n=events, bound=exactly(0), ok=all_live, seed=seed, detail=detail)
