"""Any history of calls drives the breaker as a plain model of its rules says."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentstream.errors import InvalidInput
from agentstream.policy import Breaker, BreakerOptions, BreakerState, Reconnect, Ticket

OPTIONS = BreakerOptions(reconnect=Reconnect(jitter=0.0))


class BreakerMachine(RuleBasedStateMachine):
    """The model: every outcome since the breaker closed, when it opened, and which call is the probe.

    Times are whole seconds, so that the window's thirtieths are exactly the seconds of the model.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(OPTIONS)
        self.now = 1_000.0
        self.calls: list[tuple[Ticket, int, bool]] = []  # ticket, era, whether it is a probe
        self.forced: Ticket | None = None
        self.era = 0
        self.outcomes: list[tuple[float, bool]] = []
        self.until = -math.inf
        self.state = BreakerState.CLOSED
        self.times = 0
        self.closed_at = -math.inf
        self.good = 0
        self.probe: Ticket | None = None

    # --- the model ----------------------------------------------------------------------------------------------------
    @property
    def seen(self) -> BreakerState:
        if self.state is BreakerState.OPEN and self.now >= self.until:
            return BreakerState.HALF_OPEN
        return self.state

    def open(self) -> None:
        if self.state is BreakerState.CLOSED and self.now - self.closed_at >= 300:
            self.times = 0
        self.times += 1
        self.until = self.now + min(300, 5 * 2 ** (self.times - 1))
        self.turn(BreakerState.OPEN)

    def turn(self, state: BreakerState) -> None:
        self.state = state
        self.era += 1
        self.outcomes = []
        self.good = 0
        self.probe = self.forced = None

    def must_open(self) -> bool:
        last = [ok for _, ok in self.outcomes]
        in_row = next((count for count, ok in enumerate(reversed(last)) if ok), len(last))
        recent = [ok for at, ok in self.outcomes if at > self.now - 30]
        return in_row >= 5 or (len(recent) >= 20 and 2 * recent.count(False) >= len(recent))

    # --- rules --------------------------------------------------------------------------------------------------------
    @rule(seconds=st.sampled_from([0, 1, 1, 2, 4, 5, 9, 29, 31, 299, 301]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def begin(self) -> None:
        """A call begins, or is refused."""
        if not self.breaker.admits(self.now):
            return
        probe = self.seen is not BreakerState.CLOSED
        if probe and self.state is BreakerState.OPEN:
            self.state, self.good = BreakerState.HALF_OPEN, 0
        ticket = self.breaker.begin(self.now)
        if probe:
            self.probe = ticket
        self.calls.append((ticket, self.era, probe))

    @precondition(lambda self: self.seen is BreakerState.OPEN and self.probe is None)
    @rule()
    def force(self) -> None:
        """A call begins although the breaker is open."""
        ticket = self.breaker.begin(self.now)
        self.probe = self.forced = ticket
        self.calls.append((ticket, self.era, True))

    @precondition(lambda self: self.probe is not None)
    @rule()
    def no_second_probe(self) -> None:
        """While one call finds out, no other begins."""
        assert not self.breaker.admits(self.now)
        with pytest.raises(RuntimeError):
            self.breaker.begin(self.now)

    @rule(count=st.integers(1, 25), end=st.sampled_from(["ok", "failed", "failed"]))
    def several(self, count: int, end: str) -> None:
        """Some calls begin and end at once, as far as they may begin."""
        for _ in range(count):
            before = len(self.calls)
            self.begin()
            if len(self.calls) > before:
                self.finish(len(self.calls) - 1, end)
            self.agrees()

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 100), end=st.sampled_from(["ok", "failed", "failed", "failed", "abandoned"]))
    def end(self, which: int, end: str) -> None:
        """Some call ends, however long ago it began."""
        self.finish(which % len(self.calls), end)

    def finish(self, which: int, end: str) -> None:
        """A call ends, in the breaker and in the model."""
        ticket, era, probe = self.calls.pop(which)
        if end == "abandoned":
            self.breaker.abandoned(ticket)
        elif end == "ok":
            self.breaker.succeeded(ticket, self.now)
        else:
            self.breaker.failed(ticket, self.now, 0.5)
        if era != self.era or (probe and ticket != self.probe):
            return  # of another time
        forced = ticket == self.forced
        if probe:
            self.probe = self.forced = None
        if end == "abandoned":
            return
        if self.state is not BreakerState.CLOSED:
            self.probed(end == "ok", forced)
            return
        self.outcomes.append((self.now, end == "ok"))
        if end == "failed" and self.must_open():
            self.open()

    def probed(self, ok: bool, forced: bool) -> None:
        """What a probe's end does."""
        if not ok:
            if not forced:
                self.open()
            return
        if self.state is BreakerState.OPEN:
            self.state, self.good = BreakerState.HALF_OPEN, 0
        self.good += 1
        if self.good == 2:
            self.closed_at = self.now
            self.turn(BreakerState.CLOSED)

    # --- always -------------------------------------------------------------------------------------------------------
    @invariant()
    def agrees(self) -> None:
        """State, admission and pause are the model's."""
        assert self.breaker.state(self.now) is self.seen
        admits = self.seen is BreakerState.CLOSED or (self.seen is BreakerState.HALF_OPEN and self.probe is None)
        assert self.breaker.admits(self.now) == admits
        left = self.until - self.now if self.state is BreakerState.OPEN else 0.0
        assert self.breaker.open_for(self.now) == pytest.approx(max(0.0, left))
        assert self.breaker.times == self.times


TestBreakerMachine = BreakerMachine.TestCase


def _fail(breaker: Breaker, now: float, times: int = 1, random: float = 0.5) -> None:
    for _ in range(times):
        breaker.failed(breaker.begin(now), now, random)


def test_five_in_a_row() -> None:
    """The fifth failure in a row opens it, for 5 s ± a fifth."""
    for random, pause in ((0.0, 4.0), (0.5, 5.0), (1.0, 6.0)):
        breaker = Breaker()
        _fail(breaker, 0.0, 4, random)
        assert breaker.state(0.0) is BreakerState.CLOSED
        _fail(breaker, 0.0, 1, random)
        assert breaker.open_for(0.0) == pytest.approx(pause)


def test_half_of_many() -> None:
    """Half of twenty attempts within 30 s open it, though no five failed in a row; of nineteen they do not."""
    breaker = Breaker()
    for turn in range(20):
        assert breaker.state(turn) is BreakerState.CLOSED
        if turn % 2:
            _fail(breaker, turn)
        else:
            breaker.succeeded(breaker.begin(turn), turn)
    assert breaker.state(20) is BreakerState.OPEN


def test_a_last_resort_does_not_prolong() -> None:
    """A forced call that fails leaves the pause as it is; one that succeeds opens the way for the next."""
    breaker = Breaker(OPTIONS)
    _fail(breaker, 0.0, 5)
    _fail(breaker, 1.0)
    assert (breaker.open_for(1.0), breaker.times) == (4.0, 1)
    breaker.succeeded(breaker.begin(2.0), 2.0)
    assert breaker.state(2.0) is BreakerState.HALF_OPEN
    breaker.succeeded(breaker.begin(2.0), 2.0)
    assert breaker.state(2.0) is BreakerState.CLOSED


def test_adaptive_pauses_follow_the_outages() -> None:
    """After an outage of two seconds, the next pause is one."""
    breaker = Breaker(BreakerOptions(reconnect=Reconnect(kind="adaptive", jitter=0.0)))
    _fail(breaker, 0.0, 5)
    for now in (1.9, 2.0):
        breaker.succeeded(breaker.begin(now), now)
    assert breaker.state(2.0) is BreakerState.CLOSED
    _fail(breaker, 400.0, 5)
    assert breaker.open_for(400.0) == pytest.approx(1.0)


@pytest.mark.parametrize("values", [{"failures": 0}, {"share": 0.0}, {"share": 1.1}, {"window": 0.0}, {"successes": 0}])
def test_options_refuse_nonsense(values: dict[str, float]) -> None:
    """Options that could not work are refused."""
    with pytest.raises(InvalidInput):
        BreakerOptions(**values)  # type: ignore[arg-type]
