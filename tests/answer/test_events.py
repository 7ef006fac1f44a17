"""A run's events as one HTTP answer: what is asked, what comes, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.answer import DrainSwitch, EventStreamAnswer, FrameCache
from agentstream.errors import InvalidField, StoreDown, StreamAborted, UsageError
from agentstream.ports import Chunk, Tail
from agentstream.store import MemoryStore
from agentstream.wire import Decoder
from answer.asking import Exchange, ask, scope_of
from stream.logs import RUN, LossyLog, Script, Writer, chunks_of, small_run

LINES = small_run()
LAST = len(LINES)
OTHER = "Run0000000000000000002"


async def finished(store: MemoryStore, lines: list[bytes] = LINES, sizes: tuple[int, ...] = (4, 3)) -> Writer:
    """A run that is written and has ended."""
    writer = Writer(store, chunks_of(lines, sizes))
    await writer.write()
    return writer


@pytest.mark.anyio
@pytest.mark.promise("W-headers", "W-first-bytes", "W-id", "W-data")
async def test_the_stream_of_a_finished_run() -> None:
    """Headers, first bytes and frames are exactly those of the wire, and the end is clean."""
    async with MemoryStore() as store:
        writer = await finished(store)
        got = await ask(EventStreamAnswer(store, RUN, location=f"/runs/{RUN}/events"), "/?coalesce=0")
    assert got.error is None
    assert got.clean
    assert got.status == 200
    assert got.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
        "x-run-id": RUN,
        "content-location": f"/runs/{RUN}/events",
        "agentstream-resume": f"exact; after={writer.cursor(0)}",
    }
    assert got.pieces[0] == b"retry: 2000\n: ok\n"
    frames = b"".join(b"id: %b\ndata: %b\n\n" % (writer.cursor(n).encode(), line) for n, line in enumerate(LINES, 1))
    assert got.body == b"retry: 2000\n: ok\n" + frames
    assert max(len(frame.id) for frame in got.frames) <= 64


@pytest.mark.anyio
@pytest.mark.promise("W-resume", "W-204", "W-unknown-cursor")
@pytest.mark.parametrize("ended", [False, True])
async def test_resume_table(ended: bool) -> None:
    """Each row of the table, asked over HTTP, by header and by query, of a run that goes on and of one that ended."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4, 3]))
        await writer.write(None if ended else 2)
        last = LAST if ended else 7
        table: list[tuple[str, int, int, str]] = [
            # cursor, status, first seq sent, reset
            ("", 200, 1, ""),
            (writer.cursor(0), 200, 1, ""),
            (writer.cursor(3), 200, 4, ""),
            (writer.cursor(last), 204 if ended else 200, 0, ""),
            (writer.cursor(last + 1), 200, 1, "rollback"),
            (f"{RUN}.zzzzzz.3", 200, 1, "new-log"),
            (f"{OTHER}.{writer.incarnation}.3", 200, 1, "unknown-cursor"),
            ("17", 200, 1, "unknown-cursor"),
            ("x" * 128, 200, 1, "unknown-cursor"),
            ("x" * 129, 400, 0, ""),
        ]
        for cursor, status, first, reset in table:
            for path, headers in (("/", {"Last-Event-ID": cursor}), (f"/?after={cursor}", {})):
                got = Exchange(EventStreamAnswer(store, RUN), scope_of(f"{path}", headers=headers))
                await run_until_idle(got)
                assert got.status == status, cursor
                if status != 200:
                    continue
                frames = got.frames
                if reset:
                    notice = json.loads(frames.pop(0).data)
                    assert notice == {"type": "reset", "reason": reset, "first": 1, "tail": last}
                    assert Decoder().feed(got.body)[0].id == writer.cursor(0)
                    assert got.headers["agentstream-resume"] == f"reset; after={writer.cursor(0)}"
                assert [json.loads(frame.data)["seq"] for frame in frames][:1] == ([first] if first else [])


async def run_until_idle(exchange: Exchange) -> None:
    """Run an exchange until it ends or waits for the log; then the client leaves."""
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(exchange.run)
            await anyio.wait_all_tasks_blocked()
            exchange.leave()
    assert exchange.error is None


@pytest.mark.anyio
async def test_header_before_query() -> None:
    """`Last-Event-ID` counts more than `after`: a native EventSource cannot change its address."""
    async with MemoryStore() as store:
        writer = await finished(store)
        got = await ask(
            EventStreamAnswer(store, RUN), f"/?after={writer.cursor(2)}", Last_Event_ID=writer.cursor(LAST - 1)
        )
    assert [frame.id for frame in got.frames] == [writer.cursor(LAST)]


@pytest.mark.anyio
@pytest.mark.promise("W-after-tail")
async def test_after_tail() -> None:
    """`after=tail` first says where the reader stands; of an ended run it gives the terminal event and ends."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4]))
        await writer.write(1)
        live = Exchange(EventStreamAnswer(store, RUN), scope_of("/?after=tail"))
        await run_until_idle(live)
        assert [(frame.id, frame.data) for frame in live.frames] == [
            (writer.cursor(4), b'{"type":"up-to-date","seq":4}')
        ]
        await writer.write()
        ended = await ask(EventStreamAnswer(store, RUN), "/?after=tail")
    assert ended.clean
    assert [frame.id for frame in ended.frames] == [writer.cursor(LAST - 1), writer.cursor(LAST)]
    assert json.loads(ended.frames[1].data)["type"] == "run.finished"


@pytest.mark.promise("P5")
@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(1, 6), max_size=8),
    query=st.sampled_from(["", "coalesce=0", "batch=1", "types=text.*", "agents=planner&coalesce=0"]),
)
def test_cut_at_every_byte(sizes: list[int], query: str) -> None:
    """Cut behind any byte and resumed with the last whole id, a reader has every event that the view shows once."""

    async def check() -> None:
        async with MemoryStore() as store:
            await finished(store, LINES, tuple(sizes))
            answer = EventStreamAnswer(store, RUN, frames=FrameCache())
            whole = (await ask(answer, f"/?{query}")).body
            expected = texts_of([frame.data for frame in Decoder().feed(whole)])
            resumed: dict[str, list[bytes]] = {}
            for offset in range(len(whole) + 1):
                decoder = Decoder()
                before = [frame.data for frame in decoder.feed(whole[:offset])]
                cursor = decoder.last_event_id
                if cursor not in resumed:
                    got = await ask(answer, f"/?{query}", Last_Event_ID=cursor)
                    resumed[cursor] = [frame.data for frame in got.frames] if got.status == 200 else []
                    assert got.status == 200 or cursor.endswith(f".{LAST}")
                assert texts_of(before + resumed[cursor]) == expected

    anyio.run(check)


def texts_of(datas: list[bytes]) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """The text of each block, and every other event: what has to be the same however deltas were joined."""
    texts: dict[str, str] = {}
    others: list[tuple[str, int]] = []
    for data in datas:
        decoded = json.loads(data)
        for event in decoded if isinstance(decoded, list) else [decoded]:
            if "text" in event:
                key = event.get("block") or event["call"]
                texts[key] = texts.get(key, "") + event["text"]
            else:
                others.append((event["type"], event["seq"]))
    return texts, others


@pytest.mark.promise("W-batch")
@pytest.mark.anyio
async def test_batch() -> None:
    """`batch=1` gives arrays, each with the id of its last event."""
    async with MemoryStore() as store:
        writer = await finished(store)
        got = await ask(EventStreamAnswer(store, RUN), "/?batch=1&coalesce=0")
        reset = await ask(EventStreamAnswer(store, RUN), "/?batch=1", Last_Event_ID="17")
    seqs = [[event["seq"] for event in json.loads(frame.data)] for frame in got.frames]
    assert [seq for batch in seqs for seq in batch] == list(range(1, LAST + 1))
    assert [frame.id for frame in got.frames] == [writer.cursor(batch[-1]) for batch in seqs]
    assert json.loads(reset.frames[0].data)[0]["type"] == "reset"


@pytest.mark.anyio
@pytest.mark.promise("W-before-200", "W-problem")
@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/?coalesce=maybe", {}, 422, "invalid_input"),
        ("/?batch=2", {}, 422, "invalid_input"),
        ("/?wait=61", {"Accept": "application/json"}, 422, "invalid_input"),
        ("/?wait=nan", {"Accept": "application/json"}, 422, "invalid_input"),
        ("/?wait=-1", {"Accept": "application/json"}, 422, "invalid_input"),
        ("/?limit=0", {"Accept": "application/json"}, 422, "invalid_input"),
        ("/?limit=1001", {"Accept": "application/json"}, 422, "invalid_input"),
        ("/?dialect=klingon", {}, 400, "usage"),
        ("/?" + "&".join(f"x{n}=1" for n in range(65)), {}, 400, "usage"),
        ("/?types=" + "x" * 65, {}, 422, "invalid_input"),
        ("/", {"Last-Event-ID": "a\x07b"}, 400, "invalid_cursor"),
        ("/", {"Last-Event-ID": "ü"}, 400, "invalid_cursor"),
        ("/", {"Accept": "text/html"}, 406, "not_acceptable"),
        ("/", {"Accept": "text/event-stream;q=0, application/json;q=0"}, 406, "not_acceptable"),
    ],
)
async def test_what_is_wrong_is_found_before_the_200(
    path: str, headers: dict[str, str], status: int, code: str
) -> None:
    """Input that does not fit gets a problem document with a code, and no stream."""
    async with MemoryStore() as store:
        await finished(store)
        got = await Exchange(EventStreamAnswer(store, RUN), scope_of(path, headers=headers)).run()
    assert got.error is None
    assert (got.status, json.loads(got.body)["code"]) == (status, code)
    assert got.headers["content-type"] == "application/problem+json"


@pytest.mark.anyio
@pytest.mark.promise("W-problem")
async def test_runs_that_are_not_there() -> None:
    """Unknown and malformed run ids answer alike; a deleted run answers 410."""
    async with MemoryStore() as store:
        await finished(store)
        unknown = await ask(EventStreamAnswer(store, OTHER))
        malformed = await ask(EventStreamAnswer(store, "x\r\ny: z"))
        await store.forget(RUN)
        gone = await ask(EventStreamAnswer(store, RUN))
    assert (unknown.status, unknown.body) == (malformed.status, malformed.body)
    assert (unknown.status, gone.status) == (404, 410)
    assert json.loads(gone.body)["code"] == "run_gone"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream", "text/event-stream"),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("text/event-stream;q=0.5, application/json", "application/json"),
        ("APPLICATION/JSON", "application/json"),
    ],
)
async def test_form_by_accept(accept: str, kind: str) -> None:
    """The form is what the client wants most, and the stream where it does not care."""
    async with MemoryStore() as store:
        await finished(store)
        got = await ask(EventStreamAnswer(store, RUN), Accept=accept)
    assert got.headers["content-type"] == kind


@pytest.mark.anyio
@pytest.mark.promise("W-head")
async def test_head() -> None:
    """HEAD gives the headers and starts nothing, also of a run that goes on and while the process drains."""
    drain = DrainSwitch()
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4]))
        await writer.write(1)
        for _ in range(2):
            got = await ask(EventStreamAnswer(store, RUN, drain=drain), method="HEAD")
            assert (got.status, got.body, got.clean, got.error) == (200, b"", True, None)
            assert got.headers["content-type"] == "text/event-stream"
            poll = await ask(
                EventStreamAnswer(store, RUN), "/?wait=60&after=tail", method="HEAD", Accept="application/json"
            )
            assert (poll.status, poll.body) == (200, b"")
            drain.drain()
        await writer.write()
        got = await ask(EventStreamAnswer(store, RUN), method="HEAD", Last_Event_ID=writer.cursor(LAST))
    assert (got.status, got.body) == (204, b"")


@pytest.mark.anyio
@pytest.mark.promise("W-drain", "W-abort")
async def test_draining() -> None:
    """A stream asked for while the process drains is 200, `retry`, and an abortive end; who has everything gets 204."""
    drain = DrainSwitch()
    drain.drain()
    async with MemoryStore() as store:
        writer = await finished(store)
        answer = EventStreamAnswer(store, RUN, drain=drain)
        got = await ask(answer, Last_Event_ID=writer.cursor(3))
        assert isinstance(got.error, StreamAborted)
        assert (got.status, got.clean, got.frames) == (200, False, [])
        decoder = Decoder()
        decoder.feed(got.body)
        assert decoder.retry_ms is not None
        assert 1000 <= decoder.retry_ms <= 5000
        assert (await ask(answer, Last_Event_ID=writer.cursor(LAST))).status == 204
        assert (await ask(answer, Accept="application/json")).status == 200


class AwayLog(LossyLog):
    """A log whose store is away from its `calls`-th call on."""

    def __init__(self, chunks: list[Chunk], calls: int) -> None:
        super().__init__(chunks)
        self.calls = calls

    def count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise StoreDown("away")

    async def tail(self, run: str) -> Tail:
        self.count()
        return await super().tail(run)

    async def read(self, run: str, after: int, *, max_bytes: int = 262_144) -> list[Chunk]:
        self.count()
        return await super().read(run, after, max_bytes=max_bytes)


@pytest.mark.anyio
@pytest.mark.promise("W-abort")
async def test_a_store_that_goes_away() -> None:
    """While the store is away a stream is 200 with `retry` and an abortive end behind whole frames; a poll is 503."""
    cut_at: set[int] = set()
    for calls in range(12):
        got = await ask(EventStreamAnswer(AwayLog(chunks_of(LINES, [4, 3, 5]), calls), RUN), "/?coalesce=0")
        assert got.status == 200
        assert got.body.count(b"retry: ") == 1 + (not got.clean)
        seqs = [json.loads(frame.data)["seq"] for frame in got.frames]
        assert seqs == list(range(1, len(seqs) + 1))
        assert got.clean == (seqs[-1:] == [LAST])
        assert got.clean == (got.error is None)
        assert isinstance(got.error, StreamAborted | None)
        cut_at.add(len(seqs))
    assert cut_at == {0, 4, 7, 12, LAST}
    poll = await ask(EventStreamAnswer(AwayLog([], 0), RUN), Accept="application/json")
    assert (poll.status, poll.headers["retry-after"]) == (503, "2")


@pytest.mark.anyio
@pytest.mark.promise("P6")
async def test_reset_in_the_middle() -> None:
    """A log that is replaced while it is read: one reset, then the new log, on the same connection."""
    log = LossyLog(chunks_of(LINES, [4, 3])[:2])
    log.ended = False

    def replace(message: Any) -> None:
        if b'"seq":5' in message.get("body", b""):
            log.chunks, log.incarnation, log.ended = chunks_of(LINES, []), "bbbbbb", True

    got = await Exchange(EventStreamAnswer(log, RUN), scope_of("/?coalesce=0"), on_send=replace).run()
    seen = [(frame.id, json.loads(frame.data)) for frame in got.frames]
    assert got.clean
    assert [event.get("seq") for _, event in seen[:7]] == [1, 2, 3, 4, 5, 6, 7]
    assert seen[7] == (f"{RUN}.bbbbbb.0", {"type": "reset", "reason": "new-log", "first": 1, "tail": LAST})
    assert [id_ for id_, _ in seen[8:]] == [f"{RUN}.bbbbbb.{n}" for n in range(1, LAST + 1)]


@pytest.mark.anyio
@pytest.mark.promise("P8")
@pytest.mark.parametrize("error", [OSError("gone"), anyio.BrokenResourceError(), anyio.ClosedResourceError()])
async def test_a_server_that_says_the_client_left(error: Exception) -> None:
    """A send that raises because nobody is there ends the answer quietly, with nothing left running."""
    calls = 0

    def refuse(message: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error

    async with MemoryStore() as store:
        await finished(store)
        got = await Exchange(EventStreamAnswer(store, RUN), scope_of(), on_send=refuse).run()
    assert (got.error, got.clean, calls) == (None, False, 3)


@pytest.mark.anyio
async def test_other_errors_come_out_plain() -> None:
    """What is neither ours nor a client that left comes out as it is, not in a group."""

    def fail(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise LookupError("a bug")

    async with MemoryStore() as store:
        await finished(store)
        got = await Exchange(EventStreamAnswer(store, RUN), scope_of(), on_send=fail).run()
        assert isinstance(got.error, LookupError)
        broken = LossyLog([Chunk(1, 1, b'{"seq":1}\r\n', ends="finished")])
        for query in ("", "?coalesce=0"):
            assert isinstance((await ask(EventStreamAnswer(broken, RUN), f"/{query}")).error, InvalidField)
        with pytest.raises(UsageError, match="websocket"):
            await EventStreamAnswer(store, RUN)({"type": "websocket"}, got.receive, got.send)


@pytest.mark.anyio
@pytest.mark.promise("W-pieces")
async def test_large_events_go_in_pieces() -> None:
    """An event of 250 KiB is sent in pieces of at most 32 KiB, and arrives whole."""
    text = "x" * 250_000
    script = Script().add("run.started", run=RUN, team="t").text("a.1", text).add("run.finished")
    async with MemoryStore() as store:
        await finished(store, script.lines)
        got = await ask(EventStreamAnswer(store, RUN))
    assert max(map(len, got.pieces)) <= 32 * 1024
    assert json.loads(got.frames[1].data)["text"] == text


@pytest.mark.anyio
@pytest.mark.promise("P2", "P9")
async def test_readers_share_frames() -> None:
    """Several readers get the same bytes, framed once; what is kept has a bound; filtered views are not kept."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 1000] * 200).add("run.finished")
    cache = FrameCache(100_000)
    async with MemoryStore() as store:
        await finished(store, script.lines, (16,) * 13)
        bodies: list[bytes] = []

        async def read() -> None:
            bodies.append((await ask(EventStreamAnswer(store, RUN, frames=cache), "/?coalesce=0")).body)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(read)
        assert len(set(bodies)) == 1
        assert cache.hits == 4 * cache.misses
        assert 50_000 < cache.size <= 100_000
        counts = (cache.hits, cache.misses)
        await ask(EventStreamAnswer(store, RUN, frames=cache), "/?types=text.*")
        assert (cache.hits, cache.misses) == counts


Leave = Callable[[Exchange], Awaitable[None]]


@pytest.mark.anyio
@pytest.mark.promise("P8")
@pytest.mark.parametrize("when", ["before", "waiting", "sending"])
async def test_the_client_leaves(when: str) -> None:
    """A client that leaves before, while waiting or during a send that hangs: the answer ends, quietly and at once."""
    stuck = anyio.Event()

    def hang(message: Any) -> Awaitable[None] | None:
        if when == "sending" and message["type"] == "http.response.body":
            stuck.set()
            return anyio.sleep_forever()
        return None

    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4]))
        await writer.write(1)
        got = Exchange(EventStreamAnswer(store, RUN), scope_of(), on_send=hang)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                if when == "before":
                    got.leave()
                group.start_soon(got.run)
                await anyio.wait_all_tasks_blocked()
                got.leave()
                await got.ended.wait()
    assert (got.error, got.clean) == (None, False)
