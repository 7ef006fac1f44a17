"""Lockstep: agents wait for their slowest reader.

What comes in: a run's readers, and how far its log is. What goes out: a gate that the bus asks before it takes what
waits. It does not know agents: while the gate is closed the bus has no room, so every emit waits.

A run that ends goes on without the gate: what closes it never waits for a reader.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from agentstream.agent import Lockstep
from agentstream.stream import Audience

__all__ = ("Pace",)


class Pace:
    """The gate of one run in lockstep; `await pace()` returns when the log may grow.

    Args:
        last: seq of the newest accepted event.
        leave_alone: called once when no reader is counted for `grace` seconds and the run is to stop then.
    """

    def __init__(
        self, how: Lockstep, audience: Audience, last: Callable[[], int], leave_alone: Callable[[], None]
    ) -> None:
        self._how = how
        self._audience = audience
        self._last = last
        self._leave_alone = leave_alone
        self._is_open = False
        self._alone_at: float | None = None  # since when, and
        self._alone_from = 0  # at which event, no reader is counted

    def open(self) -> None:
        """The run ends: nothing waits any more."""
        self._is_open = True
        self._audience.progressed.set()

    async def __call__(self) -> None:
        """Return when the slowest counted reader is less than `ahead` events behind, or there is none to wait for."""
        began = anyio.current_time()
        waited_for, taken = None, -1
        while not self._is_open:
            seat = self._audience.slowest()
            if seat is None:
                left = self._left_alone()
            else:
                self._alone_at = None
                if self._last() - seat.seq < self._how.ahead:
                    return
                if waited_for is not seat or taken != seat.seq:  # another one, or it made progress
                    waited_for, taken, began = seat, seat.seq, anyio.current_time()
                left = began + self._how.stall - anyio.current_time()
            if left is None:
                return
            if left <= 0:
                if seat is not None:
                    seat.evict()
                continue
            self._audience.progressed = anyio.Event()
            with anyio.move_on_after(left):
                await self._audience.progressed.wait()

    def _left_alone(self) -> float | None:
        """Seconds for which agents go on waiting for a reader; None if they do not wait now."""
        now = anyio.current_time()
        if self._alone_at is None:
            self._alone_at, self._alone_from = now, self._last()
        if self._last() - self._alone_from < self._how.ahead:
            return None
        left = self._alone_at + self._how.grace - now
        if left > 0:
            return left
        if self._how.alone == "stop":
            self._leave_alone()
        return None
