"""How long to wait before a failed call is made again.

What comes in: how often it failed, randomness, what the other side asked for. What goes out: seconds, or None for "give
up". It does not know what is called, and it does not wait.
"""

from __future__ import annotations

from typing import Final

__all__ = ("MAX_WAIT_S", "backoff", "wait_after")

_FIRST_S: Final = 0.5
_LONGEST_S: Final = 8.0

MAX_WAIT_S: Final = 60.0
"""A provider that asks for a longer pause is not waited for: a person would have left."""


def backoff(failures: int, random: float) -> float:
    """Seconds to wait after `failures` failures in a row (1 or more); `random` is in [0, 1).

    Exponential with full jitter, at most 8 s: clients that failed together do not come back together.
    """
    return random * min(_LONGEST_S, _FIRST_S * 2.0 ** (failures - 1))


def wait_after(failures: int, random: float, retry_after: float | None) -> float | None:
    """As `backoff`, but what the provider asked for goes before, plus at most a tenth; None where that is too long."""
    if retry_after is None:
        return backoff(failures, random)
    return retry_after * (1 + random / 10) if retry_after <= MAX_WAIT_S else None
