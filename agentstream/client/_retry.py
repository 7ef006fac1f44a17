"""When to try again, and when to give up.

What comes in: failures, the time, and random numbers. What goes out: how long to wait, or that it has been long enough.
It is pure: it does not know connections, and waits for nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from agentstream.errors import InvalidInput

__all__ = ("Outage", "Phase", "Retry", "Status")

Phase: TypeAlias = Literal["connecting", "live", "waiting", "closed"]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How a client deals with a server that does not answer. All times in seconds.

    The wait before try n is random between `shortest` and twice the longest wait of try n - 1, at most `longest`: "full
    jitter", so that the clients of a server that comes back do not come all at once.

    Attributes:
        shortest, longest: bounds of one wait. A stream's `retry:` sets how long the first one may be.
        give_up: how long a server may give no usable answer; then `ServerUnreachable` is raised.
        silence: a stream without a byte for so long is dead (servers send a heartbeat each 15 s).

    Raises:
        InvalidInput: a time is negative, or `shortest` is above `longest`.
    """

    shortest: float = 0.2
    longest: float = 15.0
    give_up: float = 300.0
    silence: float = 45.0

    def __post_init__(self) -> None:
        if not (0 <= self.shortest <= self.longest and self.give_up >= 0 and self.silence > 0):
            raise InvalidInput("Retry: 0 <= shortest <= longest, give_up >= 0, silence > 0 (seconds)")


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a stream's connection stands.

    Attributes:
        phase: `connecting`, `live`, `waiting` (to try again) or `closed` (at the end, or left).
        attempts: tries that failed in a row. resumes: connections that went on where another had ended.
        reason: why the last try failed. wait: seconds until the next, while `waiting`.
    """

    phase: Phase = "closed"
    attempts: int = 0
    resumes: int = 0
    reason: str = ""
    wait: float = 0.0


class Outage:
    """Counts failures in a row.

    Args:
        random: gives numbers in [0, 1).

    Attributes:
        failures: so many tries failed since the last that did not.
    """

    __slots__ = ("_random", "_retry", "_since", "failures")

    def __init__(self, retry: Retry, random: Callable[[], float]) -> None:
        self.failures = 0
        self._retry = retry
        self._random = random
        self._since = 0.0

    def over(self) -> None:
        """Something usable came: forget the failures."""
        self.failures = 0

    def failed(self, now: float, *, base: float | None = None, at_least: float = 0.0) -> float | None:
        """Seconds to wait before the next try; None if it is time to give up.

        Args:
            base: the longest first wait, as the stream's `retry:` said.
            at_least: what `Retry-After` said.
        """
        retry = self._retry
        if not self.failures:
            self._since = now
        left = self._since + retry.give_up - now
        if left <= 0:
            return None
        base = max(retry.shortest, 2 * retry.shortest if base is None else base)
        ceiling = min(retry.longest, base * 2.0 ** min(self.failures, 30))
        self.failures += 1
        wait = retry.shortest + self._random() * max(0.0, ceiling - retry.shortest)
        return min(max(wait, at_least), left)  # the last try is made when the time is up
