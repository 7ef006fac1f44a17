"""A thread that says which code blocks the event loop.

What comes in: a stamp that the loop renews. What goes out: one log record with the stack of the loop's thread, each
time the loop was silent for a second. It does not end anything: code that does not await cannot be ended from inside.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Final

import anyio

from agentstream.clock import Clock

__all__ = ("SILENT_FOR", "STAMP_EVERY", "Watchdog")

_log = logging.getLogger("agentstream.runtime")

STAMP_EVERY: Final = 0.25
SILENT_FOR: Final = 1.0
_JOIN: Final = 2.0


class Watchdog:
    """Watches the loop on which `watch` runs.

    Attributes:
        blocked: how often the loop was silent for a second or more.
    """

    def __init__(self, clock: Clock) -> None:
        self.blocked = 0
        self._clock = clock
        self._stamp = clock.monotonic()

    async def watch(self) -> None:
        """Stamp until cancelled; the thread ends with it."""
        self._stamp = self._clock.monotonic()
        stop = threading.Event()
        thread = threading.Thread(
            target=self._look, args=(threading.get_ident(), stop), name="agentstream-watchdog", daemon=True
        )
        thread.start()
        try:
            while True:
                self._stamp = self._clock.monotonic()
                await anyio.sleep(STAMP_EVERY)
        finally:
            stop.set()
            thread.join(_JOIN)

    def _look(self, loop_thread: int, stop: threading.Event) -> None:
        told: float | None = None
        while not stop.wait(STAMP_EVERY):
            stamp = self._stamp
            silent = self._clock.monotonic() - stamp
            if silent >= SILENT_FOR and stamp != told:
                told = stamp
                self.blocked += 1
                frame = sys._current_frames().get(loop_thread)  # the documented way to another thread's stack
                stack = "".join(traceback.format_stack(frame)) if frame is not None else "(no stack)"
                _log.error("the event loop has been blocked for %.1f s; no run goes on. It is here:\n%s", silent, stack)
