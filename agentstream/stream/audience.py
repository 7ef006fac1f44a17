"""Who reads a run in this process, and how far they are.

What comes in: readers that come, go on and leave. What goes out: how many there are, the slowest of those that count,
and a wake for whoever waits for a change. It does not know what a reader is, nor what follows from nobody being there.

A reader *counts* once it has reached the tail: one that replays an old log from its beginning holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ("Audience", "Seat")


class Seat:
    """One reader. `leave` when it is gone; further calls are harmless.

    Attributes:
        seq: the last event that it took. counted: it once reached the tail.
    """

    __slots__ = ("_audience", "_close", "counted", "seq")

    def __init__(self, audience: Audience, close: Callable[[], None] | None) -> None:
        self._audience = audience
        self._close = close
        self.seq = 0
        self.counted = False

    def reached(self, seq: int) -> None:
        """It took everything up to `seq`."""
        self.seq = seq
        if not self.counted and self._close is not None and seq >= self._audience.tail():
            self.counted = True
        self._audience.progressed.set()

    def evict(self) -> None:
        """Do not count it any more, and close it: it makes no progress."""
        self.counted = False
        if self._close is not None:
            close, self._close = self._close, None
            close()

    def leave(self) -> None:
        """It is gone."""
        self._audience.leave(self)


class Audience:
    """The readers of one run.

    Args:
        tail: the seq of the newest accepted event.

    Attributes:
        progressed: set when a reader took something, came or left; whoever waits for it puts a fresh one there before.
        moved: the same, for coming and leaving only.
        seen: how many readers there ever were.
    """

    def __init__(self, tail: Callable[[], int]) -> None:
        self.tail = tail
        self.progressed = anyio.Event()
        self.moved = anyio.Event()
        self.seen = 0
        self._seats: set[Seat] = set()

    @property
    def present(self) -> int:
        """How many readers there are."""
        return len(self._seats)

    def join(self, close: Callable[[], None] | None = None) -> Seat:
        """A reader comes.

        Args:
            close: ends it; called if it makes no progress while agents wait for it. None: it is never waited for.
        """
        seat = Seat(self, close)
        self._seats.add(seat)
        self.seen += 1
        self._tell()
        return seat

    def leave(self, seat: Seat) -> None:
        """A reader goes."""
        if seat in self._seats:
            self._seats.remove(seat)
            self._tell()

    def slowest(self) -> Seat | None:
        """The counted reader that is furthest behind."""
        return min((seat for seat in self._seats if seat.counted), key=lambda seat: seat.seq, default=None)

    def _tell(self) -> None:
        self.progressed.set()
        self.moved.set()
