"""The clock: seconds that never go back, milliseconds of the day."""

from __future__ import annotations

import time

from agentstream.clock import SYSTEM_CLOCK


def test_monotonic_never_goes_back() -> None:
    """Each reading is at least the one before, in seconds."""
    readings = [SYSTEM_CLOCK.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)
    assert abs(readings[-1] - time.monotonic()) < 60


def test_wall_time_is_whole_milliseconds() -> None:
    """An int near the machine's own time."""
    now = SYSTEM_CLOCK.wall_ms()
    assert isinstance(now, int)
    assert abs(now - time.time() * 1000) < 60_000
