"""A position in a log that moves forward."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import RunGone, StoreError
from agentstream.events import Reset
from agentstream.ports import Chunk, Tail
from agentstream.store import MemoryStore
from agentstream.stream import LogReader, Page, open_reader
from stream.logs import RUN, LossyLog, Script, Writer, chunks_of, small_run

LINES = small_run()
LOG = b"".join(line + b"\n" for line in LINES)


async def read_all(reader: LogReader, max_bytes: int) -> list[Page]:
    """All pages to the end of the run."""
    pages: list[Page] = []
    while (page := await reader.next(max_bytes)) is not None:
        assert isinstance(page, Page)
        pages.append(page)
    return pages


@pytest.mark.promise("P1", "P2")
@given(
    sizes=st.lists(st.integers(1, 9), max_size=12),
    after=st.integers(0, len(LINES)),
    max_bytes=st.integers(1, 2 * len(LOG)),
)
def test_pages_are_the_log_behind_the_cursor(sizes: list[int], after: int, max_bytes: int) -> None:
    """However the log is chunked and whatever a page may hold, the pages joined are the lines behind the cursor."""

    async def check() -> None:
        async with MemoryStore() as store:
            writer = Writer(store, chunks_of(LINES, sizes))
            await writer.write()
            reader = LogReader(store, RUN, writer.incarnation, after)
            pages = await read_all(reader, max_bytes)
        assert b"".join(page.lines for page in pages) == b"".join(line + b"\n" for line in LINES[after:])
        at = after
        for page in pages:
            assert page.first == at + 1
            assert page.lines.count(b"\n") == page.last - at
            assert len(page.lines) <= max_bytes or page.first == page.last
            assert bool(page.ends) == (page.last == len(LINES))
            at = page.last
        assert at == len(LINES)
        assert reader.cursor == writer.cursor(at)

    anyio.run(check)


@pytest.mark.anyio
async def test_waits_for_what_is_not_there_yet() -> None:
    """At the tail the reader waits, gives what is appended, and ends only after the terminal event."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [1] * len(LINES)))
        await writer.write(3)
        reader, _ = await open_reader(store, RUN, None)
        seen: list[bytes] = []

        async def read() -> None:
            seen.extend(page.lines for page in await read_all(reader, 1 << 20))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                while writer.left:
                    await anyio.wait_all_tasks_blocked()
                    assert b"".join(seen) == b""  # read_all returns at the end only
                    assert reader.after == len(LINES) - len(writer.left)
                    await writer.write(1)
    assert b"".join(seen) == LOG


@pytest.mark.anyio
async def test_cancelled_while_it_waits() -> None:
    """A cancelled wait loses nothing: the next call gives the page that came meanwhile."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [3, 2]))
        await writer.write(1)
        reader, _ = await open_reader(store, RUN, writer.cursor(3))
        with anyio.move_on_after(0):
            await reader.next()
        assert reader.after == 3
        await writer.write(1)
        page = await reader.next()
    assert isinstance(page, Page)
    assert (page.first, page.last) == (4, 5)


@pytest.mark.anyio
@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    ("reason", "incarnation", "chunks"),
    [
        ("new-log", "bbbbbb", chunks_of(LINES, [2, 2])),
        ("rollback", "aaaaaa", chunks_of(LINES, [2])[:1]),
        ("trimmed", "aaaaaa", chunks_of(LINES, [2, 2, 2, 2])[3:]),
    ],
)
async def test_log_lost_under_the_reader(reason: str, incarnation: str, chunks: list[Chunk]) -> None:
    """A log that is replaced, cut short or trimmed while it is read gives one reset, then its first retained event."""
    log = LossyLog(chunks_of(LINES, [2, 2])[:2])
    reader = LogReader(log, RUN, "aaaaaa", 0)
    assert isinstance(await reader.next(), Page)
    assert isinstance(await reader.next(), Page)
    log.chunks, log.incarnation, log.ended = chunks, incarnation, True
    first, last = chunks[0].first, chunks[-1].last
    assert await reader.next() == Reset(reason, first, last)
    assert reader.cursor == f"{RUN}.{incarnation}.{first - 1}"
    rest = b"".join([page.lines for page in await read_all(reader, 1 << 20)])
    assert rest == b"".join(chunk.lines for chunk in chunks)


@pytest.mark.anyio
@pytest.mark.promise("W-get-reads")
async def test_looks_twice_before_it_says_rollback() -> None:
    """A cursor ahead of the tail is believed when a second look at the log knows the event."""

    class Late(LossyLog):
        looks = 0

        async def tail(self, run: str) -> Tail:
            self.looks += 1
            tail = await super().tail(run)
            if self.looks > 1:
                self.chunks = chunks_of(LINES, [2, 2])
                tail = await super().tail(run)
            return tail

    late = Late(chunks_of(LINES, [2])[:1])
    reader, start = await open_reader(late, RUN, f"{RUN}.aaaaaa.4")
    assert (start.reset, reader.after, late.looks) == (None, 4, 2)
    _, start = await open_reader(LossyLog(chunks_of(LINES, [2])[:1]), RUN, f"{RUN}.aaaaaa.4")
    assert start.reset == Reset("rollback", 1, 2)


@pytest.mark.anyio
async def test_a_hole_in_the_log_is_an_error() -> None:
    """Events that are missing in the middle are never passed over."""
    chunks = chunks_of(LINES, [2, 2, 2])
    log = LossyLog(chunks)
    reader = LogReader(log, RUN, "aaaaaa", 0)
    await reader.next()
    del log.chunks[1]
    with pytest.raises(StoreError, match="no event 3"):
        await reader.next()


@pytest.mark.anyio
async def test_deleted_under_the_reader() -> None:
    """A reader of a run that is deleted gets RunGone, after whole pages."""
    async with MemoryStore() as store:
        lines = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 9000] * 20).add("run.finished").lines
        await Writer(store, chunks_of(lines, [1] * 22)).write()
        reader, _ = await open_reader(store, RUN, None)
        assert isinstance(await reader.next(), Page)
        await store.forget(RUN)
        with pytest.raises(RunGone):
            await read_all(reader, 1)
    assert 1 < reader.after < 22


@pytest.mark.anyio
@pytest.mark.promise("P9")
async def test_holds_one_read_only() -> None:
    """A reader that is given one page of a long log holds one read of it, not the rest."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 1000] * 2000)
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(script.lines, [16] * 125))
        await writer.write()
        reader, _ = await open_reader(store, RUN, None)
        page = await reader.next()
        assert isinstance(page, Page)
        assert len(page.lines) <= 32 * 1024
        assert sum(len(chunk.lines) for chunk in reader._chunks) <= 64 * 1024
