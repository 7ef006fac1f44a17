"""The clock of a store that several processes of one machine share.

What comes in: nothing. What goes out: a `Clock` whose seconds all processes of this boot agree on, and the boot's name.
It does not know leases: who compares a time from another boot finds another name beside it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import final

from agentstream.clock import Clock

__all__ = ("BootClock", "boot_of")


@final
class BootClock:
    """Seconds since the boot, counting sleep (`CLOCK_BOOTTIME`); wall seconds where the kernel has no such clock.

    A laptop that slept must find its leases lapsed, so `CLOCK_MONOTONIC`, which stops on sleep, will not do.
    """

    __slots__ = ("boot",)

    def __init__(self) -> None:
        self.boot = ""
        if hasattr(time, "CLOCK_BOOTTIME"):
            try:
                self.boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            except OSError:
                # Without a name for the boot its seconds cannot be told from another one's.
                self.boot = ""

    def monotonic(self) -> float:
        """Seconds that every process of this boot reads alike."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) if self.boot else time.time()

    def wall_ms(self) -> int:
        """Whole milliseconds since the epoch; may jump."""
        return time.time_ns() // 1_000_000


def boot_of(clock: Clock) -> str:
    """The name of the boot whose seconds `clock` counts; empty for a clock that counts on across boots."""
    return clock.boot if isinstance(clock, BootClock) else ""
