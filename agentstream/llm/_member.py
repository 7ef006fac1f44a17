"""One endpoint of a pool while it is in use: its client, what is known of it, and whether it may be asked.

What comes in: beginnings and ends of attempts, what headers say, an operator's wishes. What goes out: whether it may be
asked now, what that is expected to cost, and its figures. It does not wait, and does not know the other endpoints.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from agentstream.clock import SYSTEM_CLOCK
from agentstream.errors import LLMError
from agentstream.llm._limits import read_limits
from agentstream.llm._watch import Watched
from agentstream.llm.contract import LLM
from agentstream.llm.endpoint import Endpoint
from agentstream.llm.statistics import CheckResult, EndpointStatistics
from agentstream.policy import Allowance, Breaker, BreakerOptions, BreakerState, Fault, Health, Ticket

__all__ = ("Attempt", "Member", "Obstacle")

_log = logging.getLogger("agentstream.llm.pool")

_ACCOUNT_S: Final = 900.0
_WELL: Final = 0.9
_RATE_FIRST_S: Final = 1.0
_RATE_LONGEST_S: Final = 60.0
_ASKED_LONGEST_S: Final = 900.0  # what a provider may ask for; a date in a far year is a mistake

Obstacle: TypeAlias = Literal["", "busy", "probing", "open", "rate", "account", "auth", "failover", "removed"]
"""Why an endpoint cannot be asked now; empty where it can."""


class Attempt(NamedTuple):
    """What an attempt holds of its endpoint between its beginning and its end."""

    ticket: Ticket
    number: int
    began: float


class Member:
    """An endpoint in a pool. Times are seconds of the event loop's clock."""

    def __init__(self, pool: str, endpoint: Endpoint, name: str, breaker: BreakerOptions | None) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.name = name
        self.breaker = Breaker(breaker)
        self.health = Health()
        self.allowance = Allowance()
        self.credential = ""
        self.llm: LLM | None = None
        self.http: Watched | None = None
        self.removed = False
        self.refused_key = False
        self.fetch: Callable[[], Awaitable[int]] | None = None
        self.part: Callable[[], Awaitable[None]] | None = None  # set once removed: closes what is left of it
        self.checked_only = False  # tried again by active checks, not by calls
        self.debug = False
        self._not_before: dict[Obstacle, float] = {}
        self._rates = 0  # refusals for the rate, in a row
        self.used_at = -math.inf
        self.checked_at = -math.inf
        self.last_check: CheckResult | None = None
        self.last_error = ""
        self.total = self.succeeded = self.failed = self.refused = self.cancelled = 0
        self.reconnects = 0
        self.connections = 0
        self._connecting = 0.0
        self._latency = 0.0

    # --- for choosing -------------------------------------------------------------------------------------------------
    @property
    def tier(self) -> int:
        """Lower ones first."""
        return self.endpoint.tier

    @property
    def weight(self) -> float:
        """How often it is chosen, relative to others."""
        return self.endpoint.weight

    def cost(self, now: float) -> float:
        """What one more call is expected to cost."""
        return self.health.cost(now, self.endpoint.weight)

    def obstacle(self, now: float) -> Obstacle:
        """Why it cannot be asked now."""
        if self.removed:
            return "removed"
        if self.refused_key:
            return "auth"
        for kind, until in self._not_before.items():
            if until > now:
                return kind
        if self.allowance.blocked_until(now) > now:
            return "rate"
        if not self.breaker.admits(now):
            return "open" if self.breaker.state(now) is BreakerState.OPEN else "probing"
        if self.checked_only and self.breaker.state(now) is not BreakerState.CLOSED:
            return "open"
        if self.health.active >= self.endpoint.max_concurrency:
            return "busy"
        return ""

    def is_well(self, now: float) -> bool:
        """Whether there is no sign of trouble: hardly a failure of late, and nothing to find out first."""
        return self.breaker.state(now) is BreakerState.CLOSED and self.health.success.value >= _WELL

    def ready_at(self, now: float) -> float:
        """When it may be asked as far as time alone decides; infinite where it does not."""
        if self.removed or self.refused_key:
            return math.inf
        times = [now + self.breaker.open_for(now), *self._not_before.values(), self.allowance.blocked_until(now)]
        return max(now, *times)

    def take_out(self, kind: Obstacle, until: float) -> None:
        """Leave it alone until then."""
        self._not_before[kind] = until

    def take_back(self) -> None:
        """Forget why it was taken out, except by its breaker: somebody has acted."""
        self._not_before.clear()
        self.refused_key = False

    # --- attempts -----------------------------------------------------------------------------------------------------
    def begin(self, now: float) -> Attempt:
        """An attempt begins."""
        if self.breaker.state(now) is not BreakerState.CLOSED:
            self.reconnects += 1
        self.total += 1
        self.used_at = now
        return Attempt(self.breaker.begin(now), self.health.began(now), now)

    def first(self, attempt: Attempt, now: float) -> None:
        """Its first delta is here."""
        self.health.first(attempt.number, now)

    def succeed(self, attempt: Attempt, now: float) -> bool:
        """Its answer is whole. Whether that closed the breaker."""
        self.succeeded += 1
        self._rates = 0
        self._latency += now - attempt.began
        if not self.endpoint.health_check.passive:
            self.breaker.abandoned(attempt.ticket)
            return False
        was = self.breaker.state(now)
        self.breaker.succeeded(attempt.ticket, now)
        self.health.observe(True, now)
        return was is not BreakerState.CLOSED and self.breaker.state(now) is BreakerState.CLOSED

    def fail(self, attempt: Attempt, error: LLMError, fault: Fault, now: float, random: Callable[[], float]) -> bool:
        """It failed. Whether that opened the breaker."""
        self.last_error = error.code
        if fault is Fault.REQUEST:
            self.refused += 1
            self._rates = 0
        elif fault.counts:
            self.failed += 1
        else:
            self.refused += 1
            self._refuse(fault, error, now)
        if fault.counts and error.retry_after is not None:
            self.take_out("rate", now + min(error.retry_after, _ASKED_LONGEST_S))
        if not (fault.counts and self.endpoint.health_check.passive):
            self.breaker.abandoned(attempt.ticket)
            return False
        opened = self.breaker.opened
        self.health.gave_up(attempt.number, now)
        self.breaker.failed(attempt.ticket, now, random())
        self.health.observe(False, now)
        return self.breaker.opened > opened

    def _refuse(self, fault: Fault, error: LLMError, now: float) -> None:
        if fault is Fault.AUTH:
            self.refused_key = True
        elif fault is Fault.ACCOUNT:
            self.take_out("account", now + _ACCOUNT_S)
        else:
            self._rates += 1
            pause = min(_RATE_LONGEST_S, _RATE_FIRST_S * 2.0 ** min(self._rates - 1, 16))
            asked = error.retry_after
            self.take_out("rate", now + (pause if asked is None else min(asked, _ASKED_LONGEST_S)))

    def abandon(self, attempt: Attempt) -> None:
        """Whoever asked has left, or went elsewhere: nothing is known of the endpoint by that."""
        self.cancelled += 1
        self.breaker.abandoned(attempt.ticket)

    def end(self, attempt: Attempt) -> None:
        """Its connection is free."""
        self.health.ended(attempt.number)

    # --- what its client tells ----------------------------------------------------------------------------------------
    def connected(self, call: str, connection: int, seconds: float) -> None:
        """A connection was established."""
        self.connections += 1
        self._connecting += seconds
        ms = round(seconds * 1_000)
        self.say("%s: connection %s#%d established in %d ms", call or "check", self.name, connection, ms)

    def answered(self, call: str, connection: int, headers: Mapping[str, str], now: float) -> None:
        """An answer's head is here."""
        for limit in read_limits(headers, SYSTEM_CLOCK.wall_ms() / 1_000):
            reset = min(limit.reset, _RATE_LONGEST_S)
            self.allowance.observe(limit.name, limit.limit, limit.remaining, reset, now)
        self.say("%s: answered over connection %s#%d", call or "check", self.name, connection)

    def say(self, message: str, *values: object) -> None:
        """Write a line for whoever looks for the way of one call; values are names and numbers, never contents."""
        level = logging.INFO if self.debug else logging.DEBUG
        if _log.isEnabledFor(level):
            _log.log(level, "pool %s: " + message, self.pool, *values)

    # --- figures ------------------------------------------------------------------------------------------------------
    @property
    def connect_seconds(self) -> float:
        """Spent on connecting, in all."""
        return self._connecting

    def statistics(self, now: float, recent: float) -> EndpointStatistics:
        """Its figures; `recent` is the weight of all recent attempts of the pool."""
        obstacle = self.obstacle(now)
        ready = self.ready_at(now)
        endpoint = self.endpoint
        first = self.health.first_token
        return EndpointStatistics(
            name=self.name,
            url=endpoint.address,
            model=endpoint.model,
            provider=endpoint.provider,
            tier=endpoint.tier,
            weight=endpoint.weight,
            max_concurrency=endpoint.max_concurrency,
            state=obstacle or ("up" if self.breaker.state(now) is BreakerState.CLOSED else "probing"),
            available_in=-1.0 if math.isinf(ready) else round(ready - now, 3),
            health=0.0 if obstacle not in ("", "busy", "probing") else round(self.health.score(now), 4),
            breaker=self.breaker.state(now).value,
            opened=self.breaker.opened,
            active=self.health.active,
            total=self.total,
            succeeded=self.succeeded,
            failed=self.failed,
            refused=self.refused,
            cancelled=self.cancelled,
            success_rate=round(self.health.success.value, 4),
            first_token=round(first.value, 4) if first.known else 0.0,
            latency=round(self._latency / self.succeeded, 4) if self.succeeded else 0.0,
            share=round(self.health.recent.value(now) / recent, 4) if recent > 0 else 0.0,
            connections=self.connections,
            connect_time=round(self._connecting / self.connections, 6) if self.connections else 0.0,
            reconnects=self.reconnects,
            allowance_left=round(self.allowance.left(now), 4),
            last_error=self.last_error,
            last_check=self.last_check,
        )
