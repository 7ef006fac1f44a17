"""Leaves an endpoint alone that keeps failing, and finds out when it is back.

What comes in: when calls begin and how they end, with the time and randomness. What goes out: whether a call may begin
now, and when one may if not. It does not know what is called.

    closed ── too many failures ──▶ open ── its time is over ──▶ half-open ── enough successes ──▶ closed
                                     ▲                               │
                                     └────────── one failure ────────┘

Half-open admits one call at a time. A call that began before the state changed says nothing any more: its end is
ignored. A call may be forced through an open breaker as a last resort; if it succeeds the breaker is half-open at once,
if it fails nothing changes, so that last resorts do not make an outage longer.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agentstream.errors import InvalidInput
from agentstream.policy.health import Window
from agentstream.policy.retry import Reconnect

__all__ = ("Breaker", "BreakerOptions", "BreakerState", "Ticket")

_OUTAGE_WEIGHT: Final = 0.3


class BreakerState(enum.Enum):
    """What a breaker lets through: everything, nothing, one call at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """When a breaker opens and closes.

    Attributes:
        failures: so many in a row open it.
        share, least, window: as does this share of at least so many attempts in the last `window` seconds.
        successes: so many in a row close it again.
        forgiven: after so many seconds closed, the next pause is as short as the first.
        reconnect: how long it stays open.

    Raises:
        InvalidInput: a value outside its bounds.

    Source: Envoy's outlier detection (5 in a row, 30 s) and its share of failures.
    """

    failures: int = 5
    share: float = 0.5
    least: int = 20
    window: float = 30.0
    successes: int = 2
    forgiven: float = 300.0
    reconnect: Reconnect = field(default_factory=Reconnect)

    def __post_init__(self) -> None:
        if min(self.failures, self.least, self.successes) < 1:
            raise InvalidInput("breaker: failures, least and successes are at least 1")
        if not 0 < self.share <= 1:
            raise InvalidInput("breaker: share is above 0 and at most 1")
        if not (0 < self.window < math.inf and self.forgiven >= 0):
            raise InvalidInput("breaker: window is above 0, forgiven from 0")


class Ticket(NamedTuple):
    """What a call holds between its beginning and its end."""

    era: int
    probe: int


class Breaker:
    """The breaker of one endpoint and model. Times are seconds of one clock that never goes back.

    Bounds: constant memory; each call takes constant time.
    """

    __slots__ = (
        "_closed_at",
        "_down_since",
        "_era",
        "_forced",
        "_in_row",
        "_next",
        "_options",
        "_outage",
        "_probe",
        "_state",
        "_times",
        "_until",
        "_window",
        "opened",
    )

    def __init__(self, options: BreakerOptions | None = None) -> None:
        self._options = options or BreakerOptions()
        self._state = BreakerState.CLOSED
        self._era = 0  # of states: a ticket of another era is void
        self._next = 0
        self._probe = 0  # number of the one call that is let through, 0 for none
        self._forced = False
        self._in_row = 0  # failures while closed, successes while half-open
        self._times = 0  # openings in a row
        self._until = -math.inf
        self._closed_at = -math.inf
        self._down_since = 0.0
        self._outage: float | None = None  # how long outages have lasted, smoothed
        self._window = Window(self._options.window)
        self.opened = 0

    # --- questions ----------------------------------------------------------------------------------------------------
    def state(self, now: float) -> BreakerState:
        """The state; open for too long is half-open."""
        if self._state is BreakerState.OPEN and now >= self._until:
            return BreakerState.HALF_OPEN
        return self._state

    def admits(self, now: float) -> bool:
        """Whether a call may begin now."""
        state = self.state(now)
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and not self._probe)

    @property
    def probing(self) -> bool:
        """Whether a call is on its way that will decide whether it closes."""
        return self._probe != 0

    def open_for(self, now: float) -> float:
        """Seconds until a call may begin; 0 unless it is open."""
        return max(0.0, self._until - now) if self._state is BreakerState.OPEN else 0.0

    @property
    def times(self) -> int:
        """How often it opened in a row: what the length of the next pause depends on."""
        return self._times

    # --- calls --------------------------------------------------------------------------------------------------------
    def begin(self, now: float) -> Ticket:
        """A call begins. Where `admits` says no it is a last resort: allowed while no other is on its way.

        Raises:
            RuntimeError: a probe is on its way already.
        """
        state = self.state(now)
        if state is BreakerState.CLOSED:
            return Ticket(self._era, 0)
        if self._probe:
            raise RuntimeError("one call at a time while a breaker is not closed")
        if state is not self._state:  # its time is over
            self._state = state
            self._in_row = 0
        self._next += 1
        self._probe = self._next
        self._forced = state is BreakerState.OPEN
        return Ticket(self._era, self._probe)

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """A call ended well."""
        if not self._ends(ticket):
            return
        if self._state is BreakerState.CLOSED:
            self._in_row = 0
            self._window.add(now, failed=False)
            return
        if self._state is BreakerState.OPEN:
            self._state = BreakerState.HALF_OPEN
            self._in_row = 0
        self._in_row += 1
        if self._in_row >= self._options.successes:
            self._close(now)

    def failed(self, ticket: Ticket, now: float, random: float) -> None:
        """A call failed, and the endpoint is to blame; `random` in [0, 1) draws the pause."""
        if not self._ends(ticket):
            return
        if self._state is BreakerState.CLOSED:
            self._in_row += 1
            self._window.add(now, failed=True)
            if self._in_row >= self._options.failures or self._too_many(now):
                self._down_since = now
                self._open(now, random)
        elif not self._forced:
            self._open(now, random)

    def abandoned(self, ticket: Ticket) -> None:
        """A call ended without saying anything about the endpoint."""
        self._ends(ticket)

    def _ends(self, ticket: Ticket) -> bool:
        """Whether this call's end still counts; a probe's place is free again."""
        if ticket.era != self._era:
            return False
        if ticket.probe:
            if ticket.probe != self._probe:
                return False
            self._probe = 0
        return True

    # --- changes ------------------------------------------------------------------------------------------------------
    def _open(self, now: float, random: float) -> None:
        if self._state is BreakerState.CLOSED and now - self._closed_at >= self._options.forgiven:
            self._times = 0
        self._times += 1
        self.opened += 1
        self._until = now + self._options.reconnect.delay(self._times, random, outage=self._outage)
        self._turn(BreakerState.OPEN)

    def _close(self, now: float) -> None:
        lasted = max(0.0, now - self._down_since)
        self._outage = lasted if self._outage is None else self._outage + _OUTAGE_WEIGHT * (lasted - self._outage)
        self._closed_at = now
        self._window.clear()
        self._turn(BreakerState.CLOSED)

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._era += 1
        self._probe = 0
        self._in_row = 0

    def _too_many(self, now: float) -> bool:
        attempts, failures = self._window.totals(now)
        return attempts >= self._options.least and failures >= self._options.share * attempts
