"""One reader of one run, as Python objects."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from agentstream.errors import InvalidCursor, RunUnknown
from agentstream.events import Reset, RunFinished, RunStarted, TextDelta, UnknownEvent
from agentstream.ports import Chunk
from agentstream.store import MemoryStore
from agentstream.stream import Subscription
from stream.logs import RUN, LossyLog, Script, Writer, chunks_of, small_run

LINES = small_run()
LAST = len(LINES)


async def written(store: MemoryStore, lines: list[bytes] = LINES, sizes: tuple[int, ...] = (4, 3)) -> Writer:
    """A run that is written."""
    writer = Writer(store, chunks_of(lines, sizes))
    await writer.write()
    return writer


@pytest.mark.anyio
async def test_a_whole_run() -> None:
    """All events come typed and in order, and the iteration ends after the terminal one."""
    async with MemoryStore() as store:
        writer = await written(store)
        async with Subscription(store, RUN, coalesce=False) as events:
            found = [event async for event in events]
            assert events.cursor == writer.cursor(LAST)
            with pytest.raises(StopAsyncIteration):
                await anext(events)
    assert [event.seq for event in found if not isinstance(event, Reset)] == list(range(1, LAST + 1))
    assert isinstance(found[0], RunStarted)
    assert isinstance(found[-1], RunFinished)


@pytest.mark.anyio
@pytest.mark.promise("P5")
async def test_every_position_resumes() -> None:
    """Left after any event and entered again, by cursor or as the same object, it gives exactly what follows."""
    async with MemoryStore() as store:
        await written(store)
        for cut in range(LAST + 1):
            first = Subscription(store, RUN, coalesce=False)
            async with first:
                before = [(await anext(first)).seq for _ in range(cut)]  # type: ignore[union-attr]
            async with Subscription(store, RUN, after=first.cursor or None, coalesce=False) as other:
                after = [event.seq async for event in other]  # type: ignore[union-attr]
            async with first:
                same = [event.seq async for event in first]  # type: ignore[union-attr]
            assert before + after == before + same == list(range(1, LAST + 1))


@pytest.mark.anyio
async def test_filter_moves_the_cursor() -> None:
    """What is filtered away counts as read once the reader waits behind it."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", "x").add("custom", "b.1", name="n")
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(script.lines, []))
        await writer.write()
        async with Subscription(store, RUN, agents=["a"]) as events:
            assert [(await anext(events)).seq for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
            assert events.cursor == writer.cursor(2)
            with anyio.move_on_after(0):
                await anext(events)
            assert events.cursor == writer.cursor(3)


@pytest.mark.anyio
async def test_tail() -> None:
    """`tail` gives what is new, and of an ended run its terminal event."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4, 3]))
        await writer.write(1)
        async with Subscription(store, RUN, after="tail", coalesce=False) as events:
            assert events.cursor == writer.cursor(4)
            await writer.write()
            assert (await anext(events)).seq == 5  # type: ignore[union-attr]
        async with Subscription(store, RUN, after="tail") as events:
            assert [event.seq async for event in events] == [LAST]  # type: ignore[union-attr]


@pytest.mark.anyio
@pytest.mark.promise("P6")
async def test_reset_first_and_in_the_middle() -> None:
    """A position that is lost gives one Reset, whether it is found on entering or later; unread, it is given again."""
    log = LossyLog(chunks_of(LINES, [2, 2])[:2])
    log.ended = False
    subscription = Subscription(log, RUN, after="something else", coalesce=False)
    async with subscription:
        pass
    assert subscription.cursor == "something else"
    async with subscription as events:
        assert await anext(events) == Reset("unknown-cursor", 1, 4)
        assert [(await anext(events)).seq for _ in range(4)] == [1, 2, 3, 4]  # type: ignore[union-attr]
        log.chunks, log.incarnation, log.ended = chunks_of(LINES, []), "bbbbbb", True
        assert await anext(events) == Reset("new-log", 1, LAST)
        assert events.cursor == f"{RUN}.bbbbbb.0"
        assert [event.seq async for event in events] == list(range(1, LAST + 1))  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_coalesced_text() -> None:
    """A coalesced event is one delta with the first and the last number."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", "x", "é", "z").add("run.finished")
    async with MemoryStore() as store:
        await written(store, script.lines)
        async with Subscription(store, RUN, types=["text.*"]) as events:
            found = [event async for event in events]
    assert [event.seq for event in found] == [1, 4, 5]  # type: ignore[union-attr]
    delta = found[1]
    assert isinstance(delta, TextDelta)
    assert (delta.text, delta.first_seq, delta.agent_seq) == ("xéz", 2, 3)


@pytest.mark.anyio
@pytest.mark.promise("W-unknown-types")
async def test_unknown_types_arrive() -> None:
    """An event of a type that this version does not know arrives whole."""
    script = Script().add("run.started", run=RUN, team="t").add("song.sung", "a.1", notes=[1]).add("run.finished")
    async with MemoryStore() as store:
        await written(store, script.lines)
        async with Subscription(store, RUN) as events:
            _, song, _ = [event async for event in events]
    assert isinstance(song, UnknownEvent)
    assert song.fields["notes"] == [1]


@pytest.mark.anyio
async def test_entering_checks() -> None:
    """A cursor that is none, and a run that is not there, are refused on entering."""
    async with MemoryStore() as store:
        with pytest.raises(RunUnknown):
            async with Subscription(store, RUN):
                pass
        await written(store)
        with pytest.raises(InvalidCursor):
            async with Subscription(store, RUN, after="x" * 129):
                pass


@pytest.mark.anyio
async def test_others_get_turns() -> None:
    """A loop over a long past does not keep others from running."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 100] * 5000).add("run.finished")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with MemoryStore() as store:
        await written(store, script.lines, (100,) * 50)
        async with anyio.create_task_group() as group:
            group.start_soon(count)
            async with Subscription(store, RUN, coalesce=False) as events:
                assert len([event async for event in events]) == 5002
            group.cancel_scope.cancel()
    assert turns >= 20


class Reading(RuleBasedStateMachine):
    """A writer appends, readers read, stop and resume anywhere: each has exactly the log's prefix up to its cursor.

    All steps run on one loop; a reader at the tail of a run that goes on gives up after a moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.store = MemoryStore()
        self.script = Script()
        self.writer = Writer(self.store, [])
        self.ended = False
        self.readers: list[dict[str, Any]] = []

    def teardown(self) -> None:
        self.loop.close()

    @initialize()
    def begin(self) -> None:
        self.append(1)

    def append(self, count: int, *, end: bool = False) -> None:
        before = len(self.script.lines)
        if before == 0:
            self.script.add("run.started", run=RUN, team="t")
        for n in range(count):
            at = len(self.script.lines) + n
            if at % 3:
                self.script.text("a.1" if at % 7 else "b.1", f"<{at}>")
            else:
                self.script.add("custom", "c.1", name="n", value=at)
        if end:
            self.script.add("run.finished")
            self.ended = True
        lines = self.script.lines[before:]
        body = b"".join(line + b"\n" for line in lines)
        self.writer.left.append(Chunk(before + 1, len(self.script.lines), body, ends="finished" if end else ""))

        async def steps() -> None:
            if before == 0:
                await self.store.__aenter__()
            await self.writer.write()

        self.loop.run(steps())

    @precondition(lambda self: not self.ended)
    @rule(count=st.integers(1, 5))
    def write(self, count: int) -> None:
        self.append(count)

    @precondition(lambda self: not self.ended)
    @rule()
    def finish(self) -> None:
        self.append(0, end=True)

    @precondition(lambda self: len(self.readers) < 4)
    @rule(coalesce=st.booleans(), only=st.sampled_from([(), ("text.*",)]))
    def join(self, coalesce: bool, only: tuple[str, ...]) -> None:
        self.readers.append({"cursor": None, "seen": [], "coalesce": coalesce, "types": only})

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 3), count=st.integers(0, 9))
    def read(self, which: int, count: int) -> None:
        reader = self.readers[which % len(self.readers)]

        async def steps() -> None:
            options = {"coalesce": reader["coalesce"], "types": reader["types"]}
            subscription = Subscription(self.store, RUN, after=reader["cursor"], **options)
            async with subscription as events:
                for _ in range(count):
                    with anyio.move_on_after(0.001 if not self.ended else None) as scope:
                        try:
                            event = await anext(events)
                        except StopAsyncIteration:
                            assert self.ended
                            break
                        assert not isinstance(event, Reset)
                        reader["seen"].append(event)
                    if scope.cancelled_caught:
                        break
            reader["cursor"] = subscription.cursor or None
            self.check(reader)

        self.loop.run(steps())

    def check(self, reader: dict[str, Any]) -> None:
        """The events handed out so far are the shown part of the log's prefix up to the cursor, joined or not."""
        at = int(reader["cursor"].rpartition(".")[2]) if reader["cursor"] else 0
        shown = [json.loads(line) for line in self.script.lines[:at]]
        if reader["types"]:
            shown = [event for event in shown if event["type"] == "text.delta" or "inv" not in event]
        got = list(reader["seen"])
        texts = [(event["inv"], event["text"]) for event in shown if event["type"] == "text.delta"]
        for inv in ("a.1", "b.1"):
            expected = "".join(text for of, text in texts if of == inv)
            assert "".join(event.text for event in got if event.type == "text.delta" and event.inv == inv) == expected
        others = [event["seq"] for event in shown if event["type"] != "text.delta"]
        assert [event.seq for event in got if event.type != "text.delta"] == others
        seqs = [event.seq for event in got]
        assert seqs == sorted(set(seqs))
        if not reader["coalesce"]:
            assert seqs == [event["seq"] for event in shown]


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
