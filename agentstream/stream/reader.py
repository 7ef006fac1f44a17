"""A position in a run's log that moves forward.

What comes in: a log, a run and a position. What goes out: pages of whole lines that follow it, cut at the position, or
the notice that the position could not be kept. It does not know filters, frames, or who reads.

There is no queue: a reader that does not ask costs the pages it was given and at most one read of the log (64 KiB, or
one chunk). What is live and what is replayed come the same way: read, and wait for the log only when it has no more.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from agentstream.errors import StoreError
from agentstream.events import Reset, ResetReason
from agentstream.ids import Cursor
from agentstream.ports import Chunk, EventLog, Tail
from agentstream.stream.resume import Start, decide, reset_to_first

__all__ = ("PAGE_BYTES", "LogReader", "Page", "open_reader", "skip_lines")

PAGE_BYTES: Final = 32 * 1024
"""Most bytes of a page, unless a single line is longer (an event has at most 256 KiB)."""

_READ_BYTES: Final = 64 * 1024


class Page(msgspec.Struct, frozen=True, gc=False):
    """Neighbouring lines of a log: `last - first + 1` of them. `ends` as in `ports.Chunk`.

    `parts` joined are the lines. They are joined when somebody looks: a page that was framed before needs its numbers
    only.
    """

    first: int
    last: int
    parts: tuple[bytes, ...]
    ends: str = ""

    @property
    def lines(self) -> bytes:
        """The lines, each ended by LF."""
        return b"".join(self.parts)


def skip_lines(lines: bytes, count: int, offset: int = 0) -> int:
    """The offset at which line `count` after `offset` begins."""
    for _ in range(count):
        offset = lines.index(b"\n", offset) + 1
    return offset


class LogReader:
    """Reads one run from a position on.

    Args:
        log: where the run is kept.
        run: its id.
        incarnation: the life of the log that `after` belongs to.
        after: the position; the next event has seq `after + 1`.

    Attributes:
        run, incarnation, after: where the reader stands now. `after` is the last seq of the last page.

    Bounds: one read of the log, 64 KiB or one chunk (at most 512 KiB).
    """

    __slots__ = ("_chunks", "_ended", "_log", "_offset", "after", "incarnation", "run")

    def __init__(self, log: EventLog, run: str, incarnation: str, after: int) -> None:
        self.run = run
        self.incarnation = incarnation
        self.after = after
        self._log = log
        self._chunks: deque[Chunk] = deque()
        self._offset = 0  # where the line of `after + 1` begins in the first of them
        self._ended = False

    @property
    def cursor(self) -> str:
        """The id of the position."""
        return str(Cursor(self.run, self.incarnation, self.after))

    async def next(self, max_bytes: int = PAGE_BYTES) -> Page | Reset | None:
        """The page that follows, as soon as there is one; None once the run's last event was in a page.

        A `Reset` says that the log has another incarnation or lost what was read; the reader then stands before the
        first retained event, and the next page begins there. Cancelled while it waits, nothing is lost.

        Args:
            max_bytes: most bytes of the page, unless its only line is longer.

        Raises:
            RunGone, RunUnknown: the run was deleted meanwhile.
            StoreDown: the store cannot be reached; calling again goes on from the same position.
        """
        if not self._chunks:
            if self._ended:
                return None
            notice = await self._load()
            if notice is not None:
                return notice
        return self.ready(max_bytes)

    def ready(self, max_bytes: int = PAGE_BYTES) -> Page | None:
        """The page that follows if it was read already, without waiting; else None."""
        if not self._chunks:
            return None
        return self._take_chunks(max_bytes) or self._take_lines(max_bytes)

    async def _load(self) -> Reset | None:
        """Fill `_chunks`, or find that the run has ended or the position is lost."""
        while True:
            chunks = await self._log.read(self.run, self.after, max_bytes=_READ_BYTES)
            # Asked after the read: an incarnation never comes back, so what was read belongs to this one.
            tail = await self._log.tail(self.run)
            reason = self._lost(tail)
            if reason is not None:
                self.incarnation, self.after = tail.incarnation, tail.first - 1
                return reset_to_first(reason, tail)
            if chunks:
                first = chunks[0]
                if first.first > self.after + 1:
                    raise StoreError(f"the log has no event {self.after + 1}, but later ones")
                self._offset = skip_lines(first.lines, self.after + 1 - first.first)
                self._chunks.extend(chunks)
                return None
            if tail.ended and tail.last == self.after:
                self._ended = True
                return None
            if tail.last <= self.after:
                await self._log.changed(self.run, self.after)

    def _lost(self, tail: Tail) -> ResetReason | None:
        if tail.incarnation != self.incarnation:
            return "new-log"
        if tail.last < self.after:
            return "rollback"
        if tail.first > self.after + 1:
            return "trimmed"
        return None

    def _take_chunks(self, max_bytes: int) -> Page | None:
        """As many whole chunks (of the first one, the rest) as fit; None if the first does not."""
        parts: list[bytes] = []
        first, ends = self.after + 1, ""
        while self._chunks:
            chunk = self._chunks[0]
            max_bytes -= len(chunk.lines) - self._offset
            if max_bytes < 0:
                break
            parts.append(chunk.lines[self._offset :])  # of a whole chunk this is the same object, not a copy
            self._pass(chunk)
            ends = chunk.ends
        return Page(first, self.after, tuple(parts), ends) if parts else None

    def _take_lines(self, max_bytes: int) -> Page:
        """As many lines of the first chunk as fit, and at least one."""
        chunk = self._chunks[0]
        lines, start = chunk.lines, self._offset
        end = lines.rfind(b"\n", start, start + max_bytes) + 1
        if not end:
            end = lines.index(b"\n", start) + 1
        first, ends = self.after + 1, ""
        self.after += lines.count(b"\n", start, end)
        self._offset = end
        if self.after == chunk.last:
            self._pass(chunk)
            ends = chunk.ends
        return Page(first, self.after, (lines[start:end],), ends)

    def _pass(self, chunk: Chunk) -> None:
        self._chunks.popleft()
        self._offset = 0
        self.after = chunk.last
        self._ended = bool(chunk.ends)


async def open_reader(log: EventLog, run: str, cursor: str | None) -> tuple[LogReader, Start]:
    """A reader that stands where the resume table puts this cursor, and the table's answer.

    Args:
        cursor: the id of an event, `TAIL`, or None.

    Raises:
        InvalidCursor: longer than 128 bytes, or not printable ASCII.
        RunUnknown, RunGone, StoreDown: as the store says.
    """
    start = decide(cursor, run, await log.tail(run))
    if start.reset is not None and start.reset.reason == "rollback":
        start = decide(cursor, run, await log.tail(run))
    return LogReader(log, run, start.incarnation, start.after), start
