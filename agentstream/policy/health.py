"""How well something is doing: smoothed figures of its latency and success.

What comes in: when a call began, got its first token and ended, and how. What goes out: a cost to compare endpoints by,
and a score for people. It does not know what is called, and never reads a clock.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ("Decayed", "Ewma", "Health", "PeakEwma", "Window")

_UNKNOWN_S: Final = 1.0
_LATENCY_TAU_S: Final = 10.0
_SUCCESS_TAU_S: Final = 30.0
_HALF_LIFE_S: Final = 30.0
_LEAST_SUCCESS: Final = 0.05
_CLOSE: Final = 1e-9
_LEAST_STEP_S: Final = 0.01


class Ewma:
    """An average in which what was seen `tau` seconds ago counts e times less; it begins at `value`."""

    __slots__ = ("_seen", "_tau", "value")

    def __init__(self, value: float, tau: float) -> None:
        self.value = value
        self._tau = tau
        self._seen: float | None = None

    def add(self, x: float, now: float) -> None:
        """Take in an observation. It weighs as much as the time since the one before, and at least `_LEAST_STEP_S`."""
        since = self._tau / 10 if self._seen is None else now - self._seen
        self._seen = now
        self.value += (1 - math.exp(-max(since, _LEAST_STEP_S) / self._tau)) * (x - self.value)


class PeakEwma:
    """An average that follows rises at once and falls slowly, so that trouble is seen with the first slow answer.

    Source: Finagle's peak EWMA.
    """

    __slots__ = ("_seen", "_tau", "_value")

    def __init__(self, tau: float = _LATENCY_TAU_S) -> None:
        self._tau = tau
        self._value: float | None = None
        self._seen = 0.0

    @property
    def known(self) -> bool:
        """Whether anything was observed."""
        return self._value is not None

    def add(self, x: float, now: float) -> None:
        """Take in an observation."""
        value = self._value
        if value is None or x > value:
            self._value = x
        else:
            self._value = value + (1 - math.exp(-max(0.0, now - self._seen) / self._tau)) * (x - value)
        self._seen = now

    @property
    def value(self) -> float:
        """The average; a second where nothing is known."""
        return _UNKNOWN_S if self._value is None else self._value


class Decayed:
    """A count in which what was counted `tau` seconds ago counts e times less."""

    __slots__ = ("_count", "_seen", "_tau")

    def __init__(self, tau: float = 60.0) -> None:
        self._tau = tau
        self._count = 0.0
        self._seen = 0.0

    def add(self, now: float) -> None:
        """Count one."""
        self._count = self.value(now) + 1
        self._seen = now

    def value(self, now: float) -> float:
        """The count."""
        return self._count * math.exp(-max(0.0, now - self._seen) / self._tau)


class Window:
    """Counts attempts and failures of the last `seconds`, to a thirtieth of them.

    Bounds: 31 counters whatever happens.
    """

    __slots__ = ("_counts", "_seconds")

    _SLICES: Final = 30

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._counts: deque[tuple[int, int, int]] = deque(maxlen=self._SLICES + 1)  # slice, attempts, failures

    def add(self, now: float, *, failed: bool) -> None:
        """Count one attempt."""
        current = self._slice(now)
        attempts = failures = 0
        if self._counts and self._counts[-1][0] == current:
            _, attempts, failures = self._counts.pop()
        self._counts.append((current, attempts + 1, failures + failed))

    def totals(self, now: float) -> tuple[int, int]:
        """Attempts and failures."""
        first = self._slice(now) - self._SLICES
        inside = [(attempts, failures) for slice_, attempts, failures in self._counts if slice_ > first]
        return sum(attempts for attempts, _ in inside), sum(failures for _, failures in inside)

    def clear(self) -> None:
        """Forget everything."""
        self._counts.clear()

    def _slice(self, now: float) -> int:
        return math.floor(now * self._SLICES / self._seconds)


class Health:
    """What is known of one endpoint.

    Attributes:
        first_token: seconds to the first token. success: share of attempts that succeeded, from 1.
        waiting: calls that wait for their first token, by when they began; the oldest first.
    """

    __slots__ = ("_next", "_seen", "active", "first_token", "recent", "success", "waiting")

    def __init__(self) -> None:
        self.first_token = PeakEwma()
        self.success = Ewma(1.0, _SUCCESS_TAU_S)
        self.recent = Decayed()
        self.waiting: dict[int, float] = {}
        self.active = 0
        self._next = 0
        self._seen: float | None = None  # when anything was last learned

    def began(self, now: float) -> int:
        """An attempt begins; what is returned names it to `first` and `ended`."""
        self._next += 1
        self.waiting[self._next] = now
        self.active += 1
        self.recent.add(now)
        return self._next

    def first(self, number: int, now: float) -> float:
        """Its first token is here; the seconds that it took."""
        began = self.waiting.pop(number, None)
        if began is None:
            return 0.0
        self._seen = now
        self.first_token.add(now - began, now)
        return now - began

    def observe(self, ok: bool, now: float) -> None:
        """An attempt went well, or failed and the endpoint is to blame."""
        self._seen = now
        self.success.add(1.0 if ok else 0.0, now)

    def gave_up(self, number: int, now: float) -> None:
        """An attempt failed before its first token: it would have taken longer than that."""
        began = self.waiting.pop(number, None)
        if began is not None and now - began > self.first_token.value:
            self.first_token.add(now - began, now)

    def ended(self, number: int) -> None:
        """Its place is free."""
        self.waiting.pop(number, None)
        self.active -= 1

    def cost(self, now: float, weight: float = 1.0) -> float:
        """What one more call is expected to cost here: seconds × calls in front of it / success / weight.

        While a call waits longer than the average for its first token, its waiting counts instead: a server that hangs
        is avoided long before its first failure. What is known of an endpoint that nobody asks fades, with a half-life
        of 30 s, and of a new one nothing is known; so one call finds out how it is, and not all of them. Otherwise an
        endpoint that was bad once would never be asked again.
        """
        seconds = self.first_token.value
        if self.active == 0:
            seconds = 0.0 if self._seen is None else seconds * 0.5 ** (max(0.0, now - self._seen) / _HALF_LIFE_S)
        if self.waiting:
            seconds = max(seconds, now - next(iter(self.waiting.values())))
        return max(seconds, _CLOSE) * (self.active + 1) / max(self.success.value, _LEAST_SUCCESS) / weight

    def score(self, now: float) -> float:
        """From 0 to 1, for people: the success, less where a call now waits longer than calls usually do."""
        usual = self.first_token.value
        oldest = next(iter(self.waiting.values()), now)
        patience = min(1.0, 3 * usual / max(now - oldest, _CLOSE))
        return self.success.value * patience
