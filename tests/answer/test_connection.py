"""One open stream in virtual time: heartbeats, sends that hang, servers that never wait, draining."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import anyio
import pytest
import trio

from agentstream.answer import AnswerOptions, DrainSwitch, EventStreamAnswer
from agentstream.errors import StreamAborted
from agentstream.store import MemoryStore
from agentstream.wire import HEARTBEAT, Decoder
from answer.asking import Exchange, scope_of
from stream.logs import RUN, Script, Writer, chunks_of, small_run

LINES = small_run()
LAST = len(LINES)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Virtual time: the clock jumps whenever everybody waits."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Timed(Exchange):
    """Notes when each piece was sent."""

    def __init__(self, answer: EventStreamAnswer, path: str = "/?coalesce=0", **options: Any) -> None:
        super().__init__(answer, scope_of(path), **options)
        self.times: list[float] = []
        self.begun = anyio.current_time()

    async def send(self, message: Any) -> None:
        await super().send(message)
        self.times.append(anyio.current_time() - self.begun)

    @property
    def beats(self) -> list[float]:
        """When heartbeats were sent."""
        return [at for at, message in zip(self.times, self.sent, strict=True) if message.get("body") == HEARTBEAT]


@pytest.mark.promise("W-heartbeat")
async def test_heartbeats_while_nothing_happens() -> None:
    """A silent stream sends a comment each 15 s or so, never at the same distance, and no other byte."""
    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write(1)
        got = Timed(EventStreamAnswer(store, RUN))
        async with anyio.create_task_group() as group:
            group.start_soon(got.run)
            await anyio.sleep(100)
            got.leave()
    distances = [later - earlier for earlier, later in zip([0.0, *got.beats], got.beats, strict=False)]
    assert len(distances) in (6, 7)
    assert all(13.5 <= distance <= 16.5 for distance in distances)
    assert len({round(distance, 6) for distance in distances}) > 1
    assert b"".join(got.pieces[2:]) == HEARTBEAT * len(distances)
    assert len(got.frames) == 4


@pytest.mark.promise("W-heartbeat")
async def test_events_push_heartbeats_back() -> None:
    """As long as something is sent more often than that there is no heartbeat; frames are never torn by one."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 100_000] * 12).add("run.finished")
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(script.lines, [1] * 14))
        await writer.write(1)
        got = Timed(EventStreamAnswer(store, RUN))
        async with anyio.create_task_group() as group:
            group.start_soon(got.run)
            for _ in range(6):
                await anyio.sleep(10)
                await writer.write(1)
            assert got.beats == []
            for _ in range(7):
                await anyio.sleep(20)
                await writer.write(1)
    assert len(got.beats) == 7
    assert got.clean
    whole = b"".join(piece for piece in got.pieces if piece != HEARTBEAT)
    assert Decoder().feed(got.body) == Decoder().feed(whole)
    assert len(got.frames) == 14


@pytest.mark.promise("W-heartbeat")
async def test_a_heartbeat_that_waits_holds_the_next_frame() -> None:
    """While a heartbeat waits for the client, events wait behind it: two sends are never under way at once."""
    under_way = 0

    async def slowly(message: Any) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await anyio.sleep(5)
        under_way -= 1

    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4]))
        await writer.write(1)
        got = Timed(EventStreamAnswer(store, RUN), on_send=slowly)
        async with anyio.create_task_group() as group:
            group.start_soon(got.run)
            # Head, first bytes and the four events take 5 s each; the heartbeat begins about 15 s after the last of
            # them began, and is under way for 5 s.
            await anyio.sleep(10 + 15 + 2.5)
            assert (under_way, len(got.sent)) == (1, 3)
            await writer.write()
    assert got.error is None
    assert got.clean
    assert len(got.beats) == 1
    assert len(got.frames) == LAST


@pytest.mark.promise("W-pieces", "P9", "W-abort")
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_client_that_takes_nothing(at: int) -> None:
    """A send that takes longer than the send timeout ends the stream abortively, exactly then, whichever send it is."""

    def hang(message: Any) -> Awaitable[None] | None:
        return anyio.sleep_forever() if len(got.sent) == at else None

    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write(1)
        got = Timed(EventStreamAnswer(store, RUN, options=AnswerOptions(send_timeout=2.0)), on_send=hang)
        await got.run()
    assert isinstance(got.error, StreamAborted)
    assert anyio.current_time() - got.begun == pytest.approx(2.0)
    assert not got.clean


@pytest.mark.promise("W-pieces")
async def test_a_send_that_begins_late_has_its_whole_time() -> None:
    """The send timeout counts from the send's own beginning, also after a silence; a heartbeat may hang as well."""

    def hang(message: Any) -> Awaitable[None] | None:
        return anyio.sleep_forever() if b'"seq":5' in message.get("body", b"") else None

    def hang_on_beat(message: Any) -> Awaitable[None] | None:
        return anyio.sleep_forever() if message.get("body") == HEARTBEAT else None

    options = AnswerOptions(send_timeout=7.0, heartbeat=15.0)
    silent = AnswerOptions(send_timeout=7.0, heartbeat=100.0)
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4]))
        await writer.write(1)
        got = Timed(EventStreamAnswer(store, RUN, options=silent), on_send=hang)
        async with anyio.create_task_group() as group:
            group.start_soon(got.run)
            await anyio.sleep(11)
            await writer.write()
            await got.ended.wait()
        assert anyio.current_time() - got.begun == pytest.approx(18.0)
        assert isinstance(got.error, StreamAborted)
    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write(1)
        got = Timed(EventStreamAnswer(store, RUN, options=options), on_send=hang_on_beat)
        await got.run()
        assert isinstance(got.error, StreamAborted)
        assert 13.5 + 7 <= anyio.current_time() - got.begun <= 16.5 + 7


@pytest.mark.promise("W-drain", "W-abort")
async def test_drain_ends_open_streams() -> None:
    """On drain a waiting stream ends at once and one in the middle of a page behind it: `retry`, then abortively."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 60_000] * 3)
    drain = DrainSwitch()

    async def slowly(message: Any) -> None:
        await anyio.sleep(0.25)

    async with MemoryStore() as store:
        await Writer(store, chunks_of(script.lines, [])).write()
        waiting = Timed(EventStreamAnswer(store, RUN, drain=drain))
        sending = Timed(EventStreamAnswer(store, RUN, drain=drain), on_send=slowly)
        async with anyio.create_task_group() as group:
            group.start_soon(waiting.run)
            group.start_soon(sending.run)
            await anyio.sleep(0.9)
            drain.drain()
            await waiting.ended.wait()
            assert anyio.current_time() - waiting.begun == pytest.approx(0.9)
            await sending.ended.wait()
    assert len(waiting.frames) == 4
    assert 1 <= len(sending.frames) < 4
    for got in (waiting, sending):
        assert isinstance(got.error, StreamAborted)
        assert not got.clean
        body = got.body
        decoder = Decoder()
        decoder.feed(body)
        assert body.endswith(b"\n")
        assert b"\n\nretry: " in body[30:]
        assert decoder.retry_ms is not None
        assert 1000 <= decoder.retry_ms <= 5000


@pytest.mark.promise("W-drain")
async def test_drain_and_an_event_at_once() -> None:
    """An event that comes in the same moment as the drain is sent whole or not at all."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", "x" * 100_000)
    drain = DrainSwitch()
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(script.lines, [1]))
        await writer.write(1)
        got = Timed(EventStreamAnswer(store, RUN, drain=drain))
        async with anyio.create_task_group() as group:
            group.start_soon(got.run)
            await anyio.sleep(1)
            await writer.write(1)
            drain.drain()
    assert isinstance(got.error, StreamAborted)
    assert [frame.id for frame in got.frames] in ([writer.cursor(1)], [writer.cursor(1), writer.cursor(2)])
    assert b"\n\nretry: " in got.body[30:]


@pytest.mark.promise("W-drain")
async def test_drain_does_not_wait_for_who_takes_nothing() -> None:
    """A stream whose send hangs ends 2 s after the drain began, not after the send timeout."""
    drain = DrainSwitch()
    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write(1)
        got = Timed(
            EventStreamAnswer(store, RUN, drain=drain),
            on_send=lambda message: anyio.sleep_forever() if b"data" in message.get("body", b"") else None,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(got.run)
            await anyio.sleep(5)
            drain.drain()
            await got.ended.wait()
    assert isinstance(got.error, StreamAborted)
    assert anyio.current_time() - got.begun == pytest.approx(7.0)


async def test_switch() -> None:
    """The switch calls each listener once, late ones at once, none that left, and can be waited for."""
    switch = DrainSwitch()
    heard: list[str] = []
    switch.listen(lambda: heard.append("a"))
    leave = switch.listen(lambda: heard.append("b"))
    leave()
    leave()
    async with anyio.create_task_group() as group:
        group.start_soon(switch.wait)
        group.start_soon(switch.wait)
        await anyio.wait_all_tasks_blocked()
        assert not switch.draining
        switch.drain()
        switch.drain()
    assert switch.draining
    switch.listen(lambda: heard.append("c"))
    await switch.wait()
    assert heard == ["a", "c"]
