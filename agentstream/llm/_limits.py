"""What a provider's headers say is left of its limits.

What comes in: the headers of an answer, and the wall clock. What goes out: each limit by its name, with the seconds
until it resets. It does not know what is done about it; a header that makes no sense is left out.

Two families are known: `x-ratelimit-remaining-requests` and its like (OpenAI, Groq, Azure; resets as `6m0s`), and
`anthropic-ratelimit-requests-remaining` (resets as a date).
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

__all__ = ("Limit", "read_limits")

_KINDS: Final = ("requests", "tokens", "input-tokens", "output-tokens")
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_LONGEST: Final = 64  # characters; the longest known is a date of 30


class Limit(NamedTuple):
    """One limit: how much of it (0: not said) remains, and for how many seconds."""

    name: str
    limit: float
    remaining: float
    reset: float


def read_limits(headers: Mapping[str, str], wall: float) -> list[Limit]:
    """The limits that the headers tell; `wall` is seconds since the epoch."""
    found: list[Limit] = []
    for kind in _KINDS:
        for names in (f"x-ratelimit-{{}}-{kind}", f"anthropic-ratelimit-{kind}-{{}}"):
            remaining = _number(headers.get(names.format("remaining"), ""))
            if remaining is not None:
                reset = _seconds(headers.get(names.format("reset"), ""), wall)
                found.append(Limit(kind, _number(headers.get(names.format("limit"), "")) or 0.0, remaining, reset))
    return found


def _number(text: str) -> float | None:
    if not text or len(text) > _LONGEST:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _seconds(text: str, wall: float) -> float:
    """Seconds from now: a number, a span like `6m0s`, or a date; 0 for anything else."""
    number = _number(text)
    if number is not None:
        return number
    spans = list(_SPAN.finditer(text)) if len(text) <= _LONGEST else []
    if spans and "".join(span.group() for span in spans) == text:
        return sum(float(span[1]) * _UNITS[span[2]] for span in spans)
    try:
        date = msgspec.convert(text[:_LONGEST], dt.datetime)
    except msgspec.ValidationError:
        return 0.0
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp() - wall)
