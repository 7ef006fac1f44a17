"""One reader of one run, as Python objects.

What comes in: a log, a run, a cursor and what the reader wants to see. What goes out: events, one after the other, and
at any moment a cursor that goes on behind the last one. It does not know HTTP, dialects, or how far other readers are.

There is no task, queue or buffer behind it: an iterator over a position in the log. Leaving costs nothing, and a reader
that stops reading holds nothing up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

import anyio

from agentstream.events import AnyEvent, Reset
from agentstream.ids import Cursor
from agentstream.loops import current_loop
from agentstream.stream.audience import Audience, Seat
from agentstream.stream.reader import LogReader, open_reader
from agentstream.stream.view import View
from agentstream.wire import decode_event

if TYPE_CHECKING:
    from agentstream.ports import EventLog

__all__ = ("Subscription",)


@final
class Subscription:
    """Iterate over a run's events, from a cursor to its end, across live and past alike.

    Use it as `async with … as events: async for event in events`. The iteration ends after the run's terminal event,
    and only then. One task reads at a time.

    Args:
        log: where the run is kept.
        run: its id.
        after: begin behind this cursor (an earlier `.cursor`, or the `id` of a frame), or `"tail"` for what is new; of
            an ended run `"tail"` gives its terminal event. None begins with the first retained event.
        agents, types: only events of these agents (or invocations) and types, with `*` and `?`; run-level events
            always.
        coalesce: join neighbouring deltas of one block that are there already; the event then has `first_seq`.

    Raises:
        InvalidCursor: on entering; not a cursor at all.
        RunUnknown, RunGone: on entering, or later if the run is deleted.
        StoreDown: the store cannot be reached; the iteration may be continued.
    """

    __slots__ = (
        "_after",
        "_audience",
        "_guard",
        "_log",
        "_notice",
        "_reader",
        "_rows",
        "_run",
        "_seat",
        "_seq",
        "_view",
    )

    def __init__(
        self,
        log: EventLog,
        run: str,
        *,
        after: str | None = None,
        agents: Sequence[str] = (),
        types: Sequence[str] = (),
        coalesce: bool = True,
        audience: Audience | None = None,
    ) -> None:
        self._audience = audience
        self._seat: Seat | None = None
        self._log = log
        self._run = run
        self._after = after
        self._view = View(agents, types, coalesce=coalesce)
        self._reader: LogReader | None = None
        self._notice: Reset | None = None
        self._rows: deque[tuple[int, bytes]] = deque()
        self._seq = 0
        self._guard = anyio.ResourceGuard("iterating over")

    @property
    def cursor(self) -> str:
        """Where a later subscription goes on: behind everything that was handed out or filtered away so far.

        Before the first event (or `Reset`) it is what was given as `after`, or empty.
        """
        if self._reader is None or self._notice is not None:
            return self._after or ""
        return str(Cursor(self._run, self._reader.incarnation, self._seq))

    async def __aenter__(self) -> Self:
        self._reader, start = await open_reader(self._log, self._run, self.cursor or None)
        self._rows.clear()
        self._notice = start.reset
        self._seq = start.after
        if self._audience is not None:
            self._seat = self._audience.join(_not_closed)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading. The cursor stays valid."""
        if self._reader is not None:
            self._after = self.cursor
            self._reader = None
        if self._seat is not None:
            self._seat.leave()
            self._seat = None
        self._rows.clear()
        self._notice = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyEvent | Reset:
        if self._notice is not None:
            notice, self._notice = self._notice, None
            return notice
        while not self._rows:
            reset = await self._load()
            if reset is not None:
                return reset
        self._seq, line = self._rows.popleft()
        return decode_event(line)

    async def _load(self) -> Reset | None:
        """Fill `_rows` from the next page; the notice if the position was lost."""
        if self._reader is None:
            raise StopAsyncIteration
        with self._guard:
            # What was read so far has been handed out; what was filtered away behind it was scanned.
            self._seq = self._reader.after
            if self._seat is not None:
                self._seat.reached(self._seq)
            page = await self._reader.next()
            if page is None:
                raise StopAsyncIteration
            if isinstance(page, Reset):
                self._seq = self._reader.after
                return page
            self._rows.extend(self._view.rows(page))
            # Decoding a page takes about 100 µs, and a log in memory never waits: others get a turn here.
            await current_loop().turn()
            return None


def _not_closed() -> None:
    """A reader that does not ask for the next event cannot be told to end; it only counts no more."""
