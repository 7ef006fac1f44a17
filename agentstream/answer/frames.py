"""Pages of a log as pieces of an event stream, shared by all who read the same.

What comes in: pages, and the view and form that a reader asked for. What goes out: bytes to send, in pieces of at most
32 KiB. It does not know connections, time, or how many readers there are.

Framing is a pure function of page, view and form, so readers of one run that ask for the same get the same objects: the
next reader costs a look-up. Views with filters are nearly always one reader's own and are not kept.
"""

from __future__ import annotations

from itertools import chain
from typing import Final, TypeAlias

from agentstream import wire
from agentstream.errors import InvalidField
from agentstream.events import Reset, UpToDate
from agentstream.ids import Cursor
from agentstream.stream import LogReader, Page, View

__all__ = ("PIECE_BYTES", "FrameCache", "Framer", "Pieces")

PIECE_BYTES: Final = 32 * 1024
"""Most bytes of one send: servers look at their high-water mark before they take a body, whatever its size."""

Pieces: TypeAlias = tuple[bytes, ...]
_Key: TypeAlias = tuple[bytes, int, int, int]


class FrameCache:
    """The newest framed pages of all runs.

    Args:
        max_bytes: bound of what is kept; what was framed first goes first. 0 keeps nothing.

    Attributes:
        hits, misses: how often a page was found, and was not.
    """

    __slots__ = ("_max_bytes", "_pages", "_size", "hits", "misses")

    def __init__(self, max_bytes: int = 4 << 20) -> None:
        self._max_bytes = max_bytes
        self._pages: dict[_Key, tuple[int, Pieces]] = {}
        self._size = 0
        self.hits = 0
        self.misses = 0

    @property
    def size(self) -> int:
        """Bytes kept now."""
        return self._size

    def get(self, key: _Key) -> Pieces | None:
        """The pieces kept under this key."""
        found = self._pages.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        return found[1]

    def put(self, key: _Key, pieces: Pieces) -> None:
        """Keep pieces; the oldest go when there is no more room (readers are near each other: no order of use)."""
        size = sum(map(len, pieces))
        if size > self._max_bytes or key in self._pages:
            return
        self._pages[key] = (size, pieces)
        self._size += size
        while self._size > self._max_bytes:
            self._size -= self._pages.pop(next(iter(self._pages)))[0]


class Framer:
    """Frames what one reader is sent.

    Args:
        view: filters and coalescing.
        batch: one SSE event, a JSON array, for each page.
        cache: shared with the other readers.
    """

    __slots__ = ("_batch", "_cache", "_form", "_of", "_prefix", "_view")

    def __init__(self, view: View, *, batch: bool, cache: FrameCache) -> None:
        self._view = view
        self._batch = batch
        self._cache = cache
        self._form = view.coalesces << 1 | batch
        self._of = ("", "")
        self._prefix = b""

    def page(self, reader: LogReader, page: Page) -> Pieces:
        """The pieces for a page that `reader` gave; none if the view shows nothing of it."""
        if self._of != (reader.run, reader.incarnation):
            self._of = (reader.run, reader.incarnation)
            self._prefix = f"{reader.run}.{reader.incarnation}.".encode("ascii")
        if self._view.filters:
            return _cut(self._frames(page))
        key = (self._prefix, page.first, page.last, self._form)
        pieces = self._cache.get(key)
        if pieces is None:
            pieces = _cut(self._frames(page))
            self._cache.put(key, pieces)
        return pieces

    def notice(self, reader: LogReader, notice: Reset | UpToDate) -> Pieces:
        """The frame of a notice about the reader's position, which is its id."""
        line = wire.encode_event(notice)
        cursor = Cursor(reader.run, reader.incarnation, reader.after)
        return (wire.frame(str(cursor).encode("ascii"), b"[%b]" % line if self._batch else line),)

    def _frames(self, page: Page) -> bytes:
        lines = page.lines
        if not (self._batch or self._view.coalesces or self._view.filters):
            return wire.frames(self._prefix, page.first, lines)
        if b"\r" in lines:
            raise InvalidField("a line of the log holds a raw CR: JSON escapes it")
        rows = self._view.rows(page)
        if not self._batch:
            # One formatting call for the page, as in `wire.frames`: a third of the cost of one a row.
            return (b"id: %b%%d\ndata: %%b\n\n" % self._prefix * len(rows)) % tuple(chain.from_iterable(rows))
        if not rows:
            return b""
        return b"id: %b%d\ndata: [%b]\n\n" % (self._prefix, rows[-1][0], b",".join([line for _, line in rows]))


def _cut(data: bytes) -> Pieces:
    """Anywhere, also inside a frame: what comes between two pieces of a page is only ever the end of the connection."""
    if len(data) <= PIECE_BYTES:
        return (data,) if data else ()
    return tuple(data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))
