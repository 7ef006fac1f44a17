"""The only place that reads time.

What comes in: nothing. What goes out: a `Clock`, with monotonic seconds for limits and wall milliseconds for stamps.
It does not know who waits: waiting is the business of the rooms above, and tests hand in a clock of their own.
"""

from __future__ import annotations

import time
from typing import Protocol, final

__all__ = ("SYSTEM_CLOCK", "Clock", "SystemClock")


class Clock(Protocol):
    """Reads time. Monotonic seconds measure limits; wall milliseconds stamp events."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point, never going back."""
        ...

    def wall_ms(self) -> int:
        """Whole milliseconds since the epoch; may jump."""
        ...


@final
class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Seconds from an arbitrary point, never going back."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Whole milliseconds since the epoch; may jump."""
        return time.time_ns() // 1_000_000


SYSTEM_CLOCK = SystemClock()
