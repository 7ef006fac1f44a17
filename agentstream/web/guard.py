"""A thread that ends a process whose event loop cannot.

What comes in: stamps that the loop renews, and a time by which the process must be gone. What goes out: one call, from
a thread, when the loop stood still for too long or the time is up. It does not know why: code that does not await, or
an agent that swallows its cancellation, cannot be ended from inside.

Silence is counted in turns of the thread, not by the clock: a process that was stopped as a whole was not silent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import anyio

__all__ = ("Guard",)

_EVERY: Final = 0.25
_JOIN: Final = 2.0


class Guard:
    """Use it as a context manager around the loop's work, with `stamp` as a task inside.

    Args:
        silent_for: seconds without a stamp that are too long.
        leave: called once, on the thread, with the reason.
    """

    def __init__(self, silent_for: float, leave: Callable[[str], None]) -> None:
        self._silent_for = silent_for
        self._leave = leave
        self._stamps = 0
        self._left: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="agentstream-guard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN)

    async def stamp(self) -> None:
        """Stamp until cancelled."""
        while True:
            self._stamps += 1
            await anyio.sleep(_EVERY)

    def end_within(self, seconds: float) -> None:
        """From now on the process has at most so many seconds; the shortest call counts. Safe in a signal handler."""
        self._left = seconds if self._left is None else min(self._left, seconds)

    def _look(self) -> None:
        seen, silent = self._stamps, 0.0
        while not self._over.wait(_EVERY):
            silent = silent + _EVERY if seen == self._stamps else 0.0
            seen = self._stamps
            if self._left is not None:
                self._left -= _EVERY
                if self._left <= 0:
                    self._leave("it did not end within its limit")
                    return
            if silent >= self._silent_for:
                self._leave(f"its event loop stood still for {silent:.0f} s")
                return
