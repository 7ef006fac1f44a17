"""Any history of calls, outcomes and wishes: a pool asks only whom it may, in the right order, or says why not."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentstream.errors import (
    LLMAuthError,
    LLMConnectionError,
    LLMError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMRequestError,
    LLMServerError,
    StreamBroken,
)
from agentstream.llm._core import Call, Core
from agentstream.llm._member import Attempt, Member
from agentstream.llm.endpoint import Endpoint, PoolOptions
from agentstream.policy import STRATEGIES, Fault, Retry, Strategy, fault_of

ERRORS = [
    LLMServerError("no"),
    LLMServerError("no"),
    LLMConnectionError("no"),
    StreamBroken("no"),
    LLMRateLimited("no"),
    LLMRateLimited("no", retry_after=3.0),
    LLMQuotaExceeded("no"),
    LLMAuthError("no"),
    LLMRequestError("no"),
]


@dataclass
class Going:
    """A call on its way."""

    call: Call
    member: Member
    attempt: Attempt
    forced: bool


@dataclass
class Model:
    """What a reader of the rules would count."""

    repeats: int = 0
    successes: int = 0
    calls: int = 0
    attempts: Counter[str] = field(default_factory=Counter)


class PoolMachine(RuleBasedStateMachine):
    """Drives the part of a pool that decides; the network is whatever the rules say."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core("p", "health", Retry(), PoolOptions(random=random.Random(1)))
        self.now = 500.0
        self.going: list[Going] = []
        self.waiting: list[Call] = []
        self.model = Model()
        self.added = 0
        for tier in (0, 0, 1):
            self.add(tier, 2, "k")

    @initialize(seed=st.integers(0, 1_000))
    def chance(self, seed: int) -> None:
        """Jitter and choice are drawn, and the same for the same seed."""
        self.core.random = random.Random(seed).random

    # --- rules --------------------------------------------------------------------------------------------------------
    @rule(tier=st.integers(0, 1), places=st.integers(1, 3), key=st.sampled_from(["", "k", "l"]))
    @precondition(lambda self: len(self.core.members) < 5)
    def add(self, tier: int, places: int, key: str) -> None:
        """An endpoint comes."""
        self.added += 1
        name = f"e{self.added}"
        endpoint = Endpoint(url="http://h/v1", name=name, tier=tier, max_concurrency=places)
        member = Member("p", endpoint, name, None)
        member.credential = key
        self.core.members[name] = member

    @rule(which=st.integers(0, 9))
    @precondition(lambda self: self.core.members)
    def remove(self, which: int) -> None:
        """An endpoint goes."""
        name = list(self.core.members)[which % len(self.core.members)]
        self.core.members.pop(name).removed = True

    @rule(which=st.integers(0, 9), seconds=st.sampled_from([0.0, 10.0, 100.0]))
    @precondition(lambda self: self.core.members)
    def take_out(self, which: int, seconds: float) -> None:
        """Somebody wants it left alone, or used again."""
        member = list(self.core.members.values())[which % len(self.core.members)]
        if seconds:
            member.take_out("failover", self.now + seconds)
        else:
            member.take_back()

    @rule(which=st.integers(0, 9))
    @precondition(lambda self: self.core.members)
    def break_down(self, which: int) -> None:
        """One fails until it is given up."""
        member = list(self.core.members.values())[which % len(self.core.members)]
        for _ in range(5):
            if not member.obstacle(self.now):
                call = self.core.new_call("", self.now)
                self.model.calls += 1
                attempt = self.core.begin(call, member, self.now)
                self.model.attempts[member.name] += 1
                self.core.fail(call, member, attempt, LLMServerError("no"), self.now)
                self.core.end(member, attempt, self.now)

    @rule(strategy=st.sampled_from(STRATEGIES))
    def change(self, strategy: Strategy) -> None:
        """The strategy changes."""
        self.core.balancer.strategy = strategy

    @rule(seconds=st.sampled_from([0.1, 1.0, 1.0, 4.0, 7.0, 31.0, 400.0, 1_000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(key=st.sampled_from(["", "", "s"]))
    def call(self, key: str) -> None:
        """Somebody asks."""
        self.model.calls += 1
        self.place(self.core.new_call(key, self.now))

    @rule(which=st.integers(0, 9))
    @precondition(lambda self: self.waiting)
    def look_again(self, which: int) -> None:
        """One that waits looks again."""
        self.place(self.waiting.pop(which % len(self.waiting)))

    @rule(which=st.integers(0, 9), end=st.sampled_from(["ok", "ok", "ok", "left", *ERRORS]))
    @precondition(lambda self: self.going)
    def end(self, which: int, end: str | LLMError) -> None:
        """One ends: well, because who asked has left, or with an error; then perhaps it is made again."""
        one = self.going.pop(which % len(self.going))
        member, attempt = one.member, one.attempt
        if end == "ok":
            self.core.succeed(one.call, member, attempt, self.now)
            self.model.successes += 1
        elif end == "left":
            member.abandon(attempt)
        else:
            assert isinstance(end, LLMError)
            error = type(end)(end.detail, retry_after=end.retry_after)
            again = self.core.fail(one.call, member, attempt, error, self.now)
            others = [other for other in self.core.members.values() if other not in one.call.tried]
            well = any(other.is_well(self.now) and not other.obstacle(self.now) for other in others)
            assert again == ("stopped" not in error.details)
            assert not (again and one.call.attempts >= 4)
            assert not (again and fault_of(error) is Fault.REQUEST)
            self.core.end(member, attempt, self.now)
            if again:
                self.model.repeats += fault_of(error).counts and not well
                self.place(one.call)
            return
        self.core.end(member, attempt, self.now)

    # --- what must hold when a call is placed -------------------------------------------------------------------------
    def place(self, call: Call) -> None:
        """Find an endpoint for the call, and hold the choice against the rules."""
        mine = [member for member in self.core.members.values() if member.credential not in call.refused]
        obstacles = {member: member.obstacle(self.now) for member in mine}
        free = [member for member in mine if not obstacles[member]]
        fresh = [member for member in free if member not in call.tried]
        member = self.core.pick(call, self.now)
        if member is None:
            assert not fresh
            assert not (free and self.now >= call.resume_at)
            self.give_up_or_wait(call)
            return
        forced = obstacles[member] == "open"
        if forced:
            assert not free
            assert not {"busy", "probing"} & set(obstacles.values())
            assert member not in call.tried
            assert not member.breaker.probing
        else:
            assert member in (fresh or free)
            assert member.tier == min(other.tier for other in fresh or free)
            assert member.health.active < member.endpoint.max_concurrency
        self.going.append(Going(call, member, self.core.begin(call, member, self.now), forced))
        self.model.attempts[member.name] += 1

    def give_up_or_wait(self, call: Call) -> None:
        """A call that nobody takes waits for something that can happen, or ends in an error with a reason."""
        ended: LLMError | None = None
        seconds = -1.0
        try:
            seconds = self.core.plan(call, self.now)
        except LLMError as error:
            ended = error
        if ended is None:
            assert 0 <= seconds <= call.deadline - self.now
            self.waiting.append(call)
        else:
            assert ended.details["stopped"] in ("no_endpoint", "max_wait")
            assert ended.retry_after is None or ended.retry_after >= 0

    # --- always -------------------------------------------------------------------------------------------------------
    @invariant()
    def places_add_up(self) -> None:
        """Each call on its way holds one place, and one call at a time finds out whether an endpoint is back."""
        active = Counter(one.member.name for one in self.going)
        for member in self.core.members.values():
            assert member.health.active == active[member.name]
            assert member.total == self.model.attempts[member.name]
            assert 0 <= member.health.score(self.now) <= 1
            assert member.cost(self.now) > 0

    @invariant()
    def outages_are_not_multiplied(self) -> None:
        """Repeats while no other endpoint is well are bounded by the budget, whatever happens."""
        assert self.model.repeats <= 5 + 0.1 * self.model.successes + 1e-6

    @invariant()
    def figures_add_up(self) -> None:
        """The pool's figures are the sum of what was seen."""
        figures = self.core.statistics(self.now)
        assert figures.calls == self.model.calls
        assert figures.succeeded == self.model.successes
        assert sum(one.share for one in figures.endpoints) <= 1.001


TestPoolMachine = PoolMachine.TestCase
