"""Whether a failed call is made again, and how long to wait before that.

What comes in: what failed and how often, randomness, what the other side asked for. What goes out: seconds, or None for
"give up". It does not know what is called, and it does not wait.

Two kinds of waiting are kept apart: `backoff` is the pause of *one call* before its next attempt, `Reconnect` the pause
of *one endpoint* before anybody tries it again.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final, Literal

from agentstream.errors import (
    InvalidInput,
    LLMAuthError,
    LLMConnectionError,
    LLMError,
    LLMParseError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMServerError,
    LLMTimeout,
    LLMValidationError,
    StreamBroken,
)

__all__ = ("MAX_WAIT_S", "Fault", "Reconnect", "Retry", "backoff", "fault_of", "wait_after", "worth_another")

_FIRST_S: Final = 0.5
_LONGEST_S: Final = 8.0

MAX_WAIT_S: Final = 60.0
"""A provider that asks for a longer pause is not waited for: a person would have left."""


# --- the pause of one call --------------------------------------------------------------------------------------------
def backoff(failures: int, random: float, *, first: float = _FIRST_S, longest: float = _LONGEST_S) -> float:
    """Seconds to wait after `failures` failures in a row (1 or more); `random` is in [0, 1).

    Exponential with full jitter, at most `longest`: clients that failed together do not come back together.
    """
    # Bounded before the power is taken: 2.0**1100 is no number any more.
    return random * min(longest, first * 2.0 ** min(failures - 1, 64))


def wait_after(
    failures: int, random: float, retry_after: float | None, *, longest_pause: float = MAX_WAIT_S
) -> float | None:
    """As `backoff`, but what the provider asked for goes before, plus at most a tenth; None where that is too long."""
    if retry_after is None:
        return backoff(failures, random)
    return retry_after * (1 + random / 10) if retry_after <= longest_pause else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how long one call is tried.

    Attributes:
        attempts: most attempts of a call, the first included.
        first, longest: seconds of the first and of the longest pause between two attempts at the same endpoint; a
            random share of it is waited. Between two endpoints nothing is waited.
        max_wait: seconds from the call to its first token, all attempts and pauses together.
        longest_pause: seconds that a provider may ask to wait; a call that would wait longer fails at once.
        budget: most tokens of the retry budget, which all calls share: a failure costs one, a success earns
            `refund`, and nothing is tried again while half of them or more are gone.

    Raises:
        InvalidInput: a value outside its bounds.

    Source: gRPC A6 (retry throttling), full jitter as in the SDKs of AWS; 4 attempts inside 120 s are what a person
    waits for an answer's beginning.
    """

    attempts: int = 4
    first: float = _FIRST_S
    longest: float = _LONGEST_S
    max_wait: float = 120.0
    longest_pause: float = MAX_WAIT_S
    budget: float = 10.0
    refund: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 100:
            raise InvalidInput("retry: attempts is 1 to 100")
        for name in ("first", "longest", "max_wait", "longest_pause", "budget", "refund"):
            value: float = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInput(f"retry: {name} is a number from 0")

    def pause(self, failures: int, random: float) -> float:
        """Seconds before the same endpoint is asked again; see `backoff`."""
        return backoff(failures, random, first=self.first, longest=self.longest)


# --- the pause of one endpoint ----------------------------------------------------------------------------------------
_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """How long a failed endpoint is left alone before it is tried again.

    Attributes:
        kind: exponential doubles the pause each time, linear adds `first` each time, fixed keeps it. Adaptive learns:
            it begins with half of what this endpoint's outages have lasted, so that a server that restarts in two
            seconds is asked after one, and grows by half; until it has seen an outage it is exponential.
        first: seconds of the first pause. longest: most seconds, before jitter.
        jitter: the share by which a pause is made longer or shorter at random.

    Raises:
        InvalidInput: a value outside its bounds.
    """

    kind: Literal["exponential", "linear", "fixed", "adaptive"] = "exponential"
    first: float = 5.0
    longest: float = 300.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in ("exponential", "linear", "fixed", "adaptive"):
            raise InvalidInput("reconnect: kind is exponential, linear, fixed or adaptive")
        if not (0 < self.first <= self.longest < math.inf):
            raise InvalidInput("reconnect: first is above 0 and at most longest")
        if not 0 <= self.jitter < 1:
            raise InvalidInput("reconnect: jitter is from 0 to below 1")

    def delay(self, times: int, random: float, *, outage: float | None = None) -> float:
        """Seconds to wait after the endpoint was given up `times` times in a row (1 or more).

        Args:
            random: in [0, 1).
            outage: seconds that its outages have lasted so far, smoothed; None where there was none.
        """
        if self.kind == "fixed":
            pause = self.first
        elif self.kind == "linear":
            pause = self.first * times
        elif self.kind == "adaptive" and outage is not None:
            pause = max(self.first / 10, outage / 2 * _GROWTH ** min(times - 1, 64))
        else:
            pause = self.first * 2.0 ** min(times - 1, 64)
        return min(self.longest, pause) * (1 - self.jitter + 2 * self.jitter * random)


# --- what failed ------------------------------------------------------------------------------------------------------
class Fault(enum.Enum):
    """Who has to mend a failure; it decides what is done about it.

    Attributes:
        again: whether another attempt may help.
        counts: whether it is held against the endpoint, and costs the retry budget.
    """

    TRANSPORT = ("transport", True, True)
    """No connection, or none that lasted to the answer's head."""
    SERVER = ("server", True, True)
    """The provider failed, or its answer could not be used."""
    RATE = ("rate", True, False)
    """Too many requests: the endpoint is well, and wants to be left alone for a while."""
    ACCOUNT = ("account", True, False)
    """No quota or no money left: another endpoint may have some."""
    AUTH = ("auth", True, False)
    """The key was refused: another endpoint helps if it has another key."""
    REQUEST = ("request", False, False)
    """The request itself is wrong: it is so everywhere."""
    MIDSTREAM = ("midstream", True, True)
    """The answer broke off."""

    def __init__(self, word: str, again: bool, counts: bool) -> None:
        self.word = word
        self.again = again
        self.counts = counts


_FAULTS: Final[tuple[tuple[type[LLMError], Fault], ...]] = (
    (LLMConnectionError, Fault.TRANSPORT),
    (LLMTimeout, Fault.TRANSPORT),
    (LLMServerError, Fault.SERVER),
    (LLMParseError, Fault.SERVER),
    # Raised where the caller's own check of an answer refused it: a broken endpoint, until another says the same.
    (LLMValidationError, Fault.SERVER),
    (LLMRateLimited, Fault.RATE),
    (LLMQuotaExceeded, Fault.ACCOUNT),
    (LLMAuthError, Fault.AUTH),
    (StreamBroken, Fault.MIDSTREAM),
)


def fault_of(error: LLMError) -> Fault:
    """What kind of failure this is. A kind that is not known counts as the request's own, unless it is retryable."""
    for class_, fault in _FAULTS:
        if isinstance(error, class_):
            return fault
    return Fault.SERVER if error.retryable else Fault.REQUEST


def worth_another(error: LLMError, fault: Fault) -> bool:
    """Whether another attempt may help. What the provider says about that goes before; a wrong request stays wrong."""
    advice = error.details.get("should_retry")
    if isinstance(advice, bool) and fault is not Fault.REQUEST:
        return advice
    return fault.again
