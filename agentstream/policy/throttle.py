"""How much may be asked: a budget for repeats, and what a provider says is left of its own limits.

What comes in: outcomes, and what headers say about limits, with the time. What goes out: whether a repeat is allowed,
until when an endpoint has nothing left, and how near its limit it is. It does not know headers, endpoints or calls.
"""

from __future__ import annotations

from typing import Final

__all__ = ("Allowance", "RetryBudget")

_SLACK: Final = 1e-9


class RetryBudget:
    """A bucket of tokens that keeps repeats from multiplying an outage.

    A failure takes one token, a success gives `refund` back; repeats are allowed while more than half are left. So
    however many calls fail, at most half the bucket is spent on repeats, and afterwards one repeat for each
    `1 / refund` successes: ten per cent by default.

    Source: gRPC A6, retry throttling.
    """

    __slots__ = ("_most", "_refund", "_tokens")

    def __init__(self, most: float = 10.0, refund: float = 0.1) -> None:
        self._most = most
        self._refund = refund
        self._tokens = most

    @property
    def tokens(self) -> float:
        """What is left, from 0 to the most."""
        return self._tokens

    @property
    def allows(self) -> bool:
        """Whether a call may be repeated now."""
        # Tenths do not add up exactly: ten refunds of 0.1 are not one failure.
        return self._tokens > self._most / 2 + _SLACK

    def failed(self) -> None:
        """An attempt failed."""
        self._tokens = max(0.0, self._tokens - 1.0)

    def succeeded(self) -> None:
        """An attempt succeeded."""
        self._tokens = min(self._most, self._tokens + self._refund)


class Allowance:
    """What a provider says is left of its limits, by the limit's name (`requests`, `tokens`).

    Bounds: at most 8 names; further ones are ignored.
    """

    __slots__ = ("_left",)

    _MOST: Final = 8

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float, float]] = {}  # name → limit (0: not said), remaining, until

    def observe(self, name: str, limit: float, remaining: float, reset: float, now: float) -> None:
        """An answer said that `remaining` of `limit` (0: not said) are left and that it resets in `reset` seconds."""
        if name in self._left or len(self._left) < self._MOST:
            self._left[name] = (limit, remaining, now + max(0.0, reset))

    def blocked_until(self, now: float) -> float:
        """When the last limit with nothing left resets; `now` or earlier where none is used up."""
        return max((until for _, remaining, until in self._left.values() if remaining <= 0), default=now)

    def left(self, now: float) -> float:
        """The smallest share that is left of a limit, from 0 to 1; 1 where nothing is known or all have reset."""
        shares = (remaining / limit for limit, remaining, until in self._left.values() if limit > 0 and until > now)
        return max(0.0, min(shares, default=1.0))
