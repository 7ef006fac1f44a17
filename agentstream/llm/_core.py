"""What a pool decides: which endpoint takes a call, what a failure means, how long a call waits, when it gives up.

What comes in: calls, the outcomes of their attempts, the time. What goes out: an endpoint, seconds to wait, or the
error that the call ends in. It does not send anything and does not wait: `_call` does.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from agentstream.errors import (
    LLMAuthError,
    LLMError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMRequestError,
    LLMServerError,
    LLMTimeout,
)
from agentstream.llm._member import Attempt, Member, Obstacle
from agentstream.llm._waiting import Line
from agentstream.llm.endpoint import Alarm, PoolOptions
from agentstream.llm.statistics import PoolStatistics
from agentstream.policy import (
    Balancer,
    BreakerState,
    Fault,
    Retry,
    RetryBudget,
    Strategy,
    Window,
    fault_of,
    worth_another,
)

if TYPE_CHECKING:
    from agentstream.llm._call import PoolStream

_Kind: TypeAlias = Literal["failure_rate", "load", "allowance", "account", "auth", "down"]

__all__ = ("Call", "Core")

_log = logging.getLogger("agentstream.llm.pool")

_LEAST_ATTEMPTS: Final = 20
_QUIET_S: Final = 60.0  # what comes and goes is told once in this time
_REMEMBERED: Final = 256
_REMEMBERED_S: Final = 60.0
_CLEARED: Final = 0.8  # an alarm is over when the figure is below this share of its bound


class Call:
    """One call, however many attempts it takes."""

    __slots__ = ("again", "attempts", "began", "deadline", "failure", "id", "key", "refused", "resume_at", "tried")

    def __init__(self, id: str, key: str, now: float, max_wait: float) -> None:
        self.id = id
        self.key = key
        self.began = now
        self.deadline = now + max_wait
        self.attempts = 0
        self.tried: set[Member] = set()
        self.refused: set[str] = set()  # credentials
        self.resume_at = now  # when those that were tried may be asked again
        self.failure: LLMError | None = None
        self.again = False  # whether it may be made again after that


class Core:
    """The state of a pool. Times are seconds of the event loop's clock; everything happens on that loop."""

    def __init__(self, name: str, strategy: Strategy, retry: Retry, options: PoolOptions) -> None:
        self.name = name
        self.retry = retry
        self.options = options
        self.random = options.random.random
        self.members: dict[str, Member] = {}
        self.balancer = Balancer(strategy)
        self.budget = RetryBudget(retry.budget, retry.refund)
        self.line = Line(options.max_waiting)
        self.streams: dict[int, PoolStream] = {}
        self.closed = False
        self._broken: OrderedDict[int, tuple[float, frozenset[Member]]] = OrderedDict()
        self._window = Window()
        self._alarms: dict[tuple[str, str], float] = {}  # those that last → when they were told
        self._told: dict[tuple[str, str], float] = {}  # those that are over
        self._ids = 0
        self._mean = 0.0  # seconds that a call holds its place, smoothed
        self.calls = self.succeeded = self.failed = self.attempts = self.failovers = 0

    def new_call(self, key: str, now: float) -> Call:
        """A call begins."""
        self._ids += 1
        self.calls += 1
        return Call(f"{self.name}-{self._ids}", key, now, self.retry.max_wait)

    def remember_broken(self, request: int, call: Call, now: float) -> None:
        """An answer broke before its reader's eyes: the same request again should rather go elsewhere."""
        self._broken[request] = (now + _REMEMBERED_S, frozenset(call.tried))
        self._broken.move_to_end(request)
        while len(self._broken) > _REMEMBERED:
            self._broken.popitem(last=False)

    def recall_broken(self, request: int, call: Call, now: float) -> None:
        """See whether this is such a request. It is known by its identity, so another may be taken for it: no harm."""
        until, tried = self._broken.pop(request, (0.0, frozenset[Member]()))
        if until > now:
            call.tried |= tried

    # --- choosing -----------------------------------------------------------------------------------------------------
    def pick(self, call: Call, now: float) -> Member | None:
        """The endpoint that takes the call now, None where it has to wait or to give up."""
        free: list[Member] = []
        blocked: list[tuple[Obstacle, Member]] = []
        for member in self.members.values():
            if member.credential in call.refused:
                continue
            obstacle = member.obstacle(now)
            if obstacle:
                blocked.append((obstacle, member))
            else:
                free.append(member)
        fresh = [member for member in free if member not in call.tried]
        if fresh:
            return self._choose(fresh, call, now)
        if free:
            return self._choose(free, call, now) if now >= call.resume_at else None
        if any(obstacle in ("busy", "probing") for obstacle, _ in blocked):
            return None
        # Nobody may be asked: the one that would be next, one call at a time each, rather than no answer at all.
        resort = [
            member
            for obstacle, member in blocked
            if obstacle == "open" and not member.breaker.probing and member not in call.tried
        ]
        return min(resort, key=lambda member: member.breaker.open_for(now), default=None)

    def _choose(self, free: list[Member], call: Call, now: float) -> Member:
        tier = min(member.tier for member in free)
        free = [member for member in free if member.tier == tier]
        due = [member for member in free if member.breaker.state(now) is not BreakerState.CLOSED]
        if due and len(due) < len(free) and call.attempts:
            free = [member for member in free if member not in due]  # a call that has failed is not risked again
        elif due:
            # One call finds out whether it is back: left to its bad figures it would never be asked again.
            return due[0]
        return self.balancer.choose(free, now, self.random, key=call.key)

    def has_another(self, call: Call, now: float, *, well: bool = False) -> bool:
        """Whether an endpoint that this call has not tried could take it now.

        `well`: one without trouble. The retry budget keeps repeats from pressing on endpoints that are in trouble; that
        others are is no reason to leave a call unanswered.
        """
        return any(
            member not in call.tried
            and member.credential not in call.refused
            and not member.obstacle(now)
            and (not well or member.is_well(now))
            for member in self.members.values()
        )

    def plan(self, call: Call, now: float) -> float:
        """Seconds after which waiting may have helped, for a call that nobody takes now.

        Raises:
            LLMError: waiting does not help; the error says why, and when it might.
        """
        left = call.deadline - now
        if left <= 0:
            raise self.too_late(call)
        waits: list[float] = []
        for member in self.members.values():
            if member.credential in call.refused:
                continue
            obstacle = member.obstacle(now)
            if obstacle in ("busy", "probing"):
                waits.append(left)
            elif not obstacle:
                waits.append(call.resume_at - now)
            elif obstacle == "rate":
                until = member.ready_at(now) - now
                if until <= min(self.retry.longest_pause, left):
                    waits.append(until * (1 + self.random() / 10))
        if not waits:
            raise self._unavailable(call, now)
        return min(left, *waits)

    def check_line(self, call: Call, now: float) -> None:
        """Refuse a call that would wait in vain.

        Raises:
            LLMRateLimited: too many wait, or more than can be served until the call's deadline.
        """
        places = sum(member.endpoint.max_concurrency for member in self.members.values())
        expected = len(self.line) * self._mean / max(1, places)
        if self.line.full or expected > call.deadline - now:
            raise LLMRateLimited(
                "too many calls wait for a free endpoint",
                provider=self.name,
                retry_after=round(max(1.0, expected), 1),
                details=self._facts(call, "queue_full"),
            )
        taken = (len(self.line) + 1) / max(1, self.line.most)
        self._alarm("load", None, now, taken, self.options.warn_load, "of the places for waiting calls are taken")

    # --- outcomes -----------------------------------------------------------------------------------------------------
    def begin(self, call: Call, member: Member, now: float) -> Attempt:
        """The call is made at this endpoint."""
        if member.breaker.state(now) is not BreakerState.CLOSED:
            member.say("%s: %s is tried again", call.id, member.name)
        attempt = member.begin(now)
        if call.attempts and member not in call.tried:
            self.failovers += 1
        call.attempts += 1
        self.attempts += 1
        share = member.health.active / member.endpoint.max_concurrency
        self._alarm("load", member, now, share, self.options.warn_load, "of its calls at once are in use")
        return attempt

    def succeed(self, call: Call, member: Member, attempt: Attempt, now: float) -> None:
        """The answer is whole."""
        self.succeeded += 1
        self.budget.succeeded()
        self._window.add(now, failed=False)
        self._watch_failures(now)
        self._over(("down", ""))
        if member.succeed(attempt, now):
            _log.info("pool %s: %s is back", self.name, member.name)
            self.line.wake_all()
        used = 1.0 - member.allowance.left(now)
        self._alarm("allowance", member, now, used, self.options.warn_load, "of a limit of its provider is used")
        member.say("%s: answered by %s after %d ms", call.id, member.name, round((now - call.began) * 1_000))

    def fail(self, call: Call, member: Member, attempt: Attempt, error: LLMError, now: float) -> bool:
        """The attempt failed. Whether the call may be made again; the error says why not."""
        fault = fault_of(error)
        if member.fail(attempt, error, fault, now, self.random):
            seconds = round(member.breaker.open_for(now), 1)
            _log.warning("pool %s: %s is left alone for %s s: %s", self.name, member.name, seconds, error.code)
        if fault.counts:
            self.budget.failed()
        self._window.add(now, failed=fault.counts)
        self._watch_failures(now)
        self._watch_refusals(member, fault, now)
        self.line.wake_all()  # who waits for this one's probe looks elsewhere
        member.say("%s: %s failed: %s", call.id, member.name, error.code)
        call.tried.add(member)
        call.failure = error
        if fault is Fault.AUTH:
            call.refused.add(member.credential)
        call.resume_at = now + self.retry.pause(call.attempts, self.random())
        advice = self.options.retryable(error) if self.options.retryable is not None else None
        stopped = ""
        if not (worth_another(error, fault) if advice is None else advice):
            stopped = "not_retryable"
        elif call.attempts >= self.retry.attempts:
            stopped = "attempts"
        elif not (self.budget.allows or self.has_another(call, now, well=True)):
            stopped = "retry_budget_exhausted"
        error.details = {**error.details, **self._facts(call, stopped), "endpoint": member.name}
        call.again = not stopped
        return call.again

    def end(self, member: Member, attempt: Attempt, now: float) -> None:
        """The attempt's connection is free."""
        member.end(attempt)
        self._mean += 0.1 * (now - attempt.began - self._mean)
        self.line.wake()

    def checked(self, member: Member, was: BreakerState, now: float) -> None:
        """An active check has ended; `was` is what the breaker was before it."""
        state = member.breaker.state(now)
        result = member.last_check
        if result is not None:
            member.say("check of %s: %s", member.name, result.code or "well")
        if state is BreakerState.CLOSED and was is not BreakerState.CLOSED:
            _log.info("pool %s: %s is back", self.name, member.name)
        elif state is BreakerState.OPEN and was is BreakerState.CLOSED:
            seconds = round(member.breaker.open_for(now), 1)
            _log.warning("pool %s: %s is left alone for %s s: its check failed", self.name, member.name, seconds)
        self.line.wake_all()

    def can_ask(self, member: Member) -> bool:
        """Whether there is a way to check this endpoint without a call."""
        return self.options.check is not None or member.fetch is not None

    # --- giving up ----------------------------------------------------------------------------------------------------
    def refuse_closed(self) -> None:
        """Raise if the pool was closed."""
        if self.closed:
            raise LLMRequestError("the pool is closed", provider=self.name)

    def _facts(self, call: Call, reason: str) -> dict[str, object]:
        facts: dict[str, object] = {"call": call.id, "attempts": call.attempts}
        return {**facts, "stopped": reason} if reason else facts

    def too_late(self, call: Call) -> LLMError:
        """What a call ends in whose time is over: its last failure, or a limit of time where it had none."""
        if call.failure is not None:
            call.failure.details = {**call.failure.details, "stopped": "max_wait"}
            return call.failure
        limit = f"{self.retry.max_wait:g} s"
        return LLMTimeout(f"no first token within {limit}", provider=self.name, details=self._facts(call, "max_wait"))

    def _unavailable(self, call: Call, now: float) -> LLMError:
        """What a call ends in that nobody will take in time."""
        ready = min((member.ready_at(now) for member in self.members.values()), default=math.inf)
        wait = None if math.isinf(ready) else round(ready - now, 3)
        reasons = Counter(member.obstacle(now) for member in self.members.values())
        if not any(member.obstacle(now) in ("", "busy") for member in self.members.values()):
            self._alarm("down", None, now, 1.0, 1.0, "no endpoint takes calls")
        failure = call.failure
        if failure is not None:  # the first-hand reason goes before ours
            failure.details = {**failure.details, "stopped": "no_endpoint"}
            failure.retry_after = wait if failure.retry_after is None else failure.retry_after
            return failure
        main = reasons.most_common(1)[0][0] if reasons else "removed"
        class_: type[LLMError] = {
            "rate": LLMRateLimited,
            "account": LLMQuotaExceeded,
            "auth": LLMAuthError,
            "removed": LLMRequestError,
        }.get(main, LLMServerError)
        told = {"endpoints": {(reason or "tried"): count for reason, count in reasons.items()}}
        detail = "no endpoint takes calls now" if self.members else "the pool has no endpoint"
        details = {**self._facts(call, "no_endpoint"), **told}
        return class_(detail, provider=self.name, retry_after=wait, details=details)

    # --- alarms -------------------------------------------------------------------------------------------------------
    def _watch_failures(self, now: float) -> None:
        attempts, failures = self._window.totals(now)
        if attempts >= _LEAST_ATTEMPTS:
            share = failures / attempts
            self._alarm("failure_rate", None, now, share, self.options.warn_failures, "of attempts failed")

    def _watch_refusals(self, member: Member, fault: Fault, now: float) -> None:
        if fault is Fault.ACCOUNT:
            self._alarm("account", member, now, 1.0, 1.0, "its account has no quota left")
        elif fault is Fault.AUTH:
            self._alarm("auth", member, now, 1.0, 1.0, "its key was refused; it is out until it is updated")

    def acted(self, member: Member) -> None:
        """Somebody has acted: what was told about this endpoint may be told again."""
        for alarms in (self._alarms, self._told):
            for key in [key for key in alarms if key[1] == member.name]:
                del alarms[key]
        self.line.wake_all()

    def _alarm(self, kind: _Kind, member: Member | None, now: float, value: float, limit: float, what: str) -> None:
        """Tell once that `value` has reached `limit`, and be ready to tell it again when it has fallen."""
        key = (kind, member.name if member is not None else "")
        if value < limit:
            if value < limit * _CLEARED:
                self._over(key)
            return
        if key in self._alarms:
            return
        before = self._told.get(key, -math.inf)
        self._alarms[key] = now if now - before >= _QUIET_S else before
        if now - before < _QUIET_S:
            return  # it comes and goes
        where = f"endpoint {key[1]}" if key[1] else "pool"
        message = f"{where}: {what}" if limit == value == 1.0 else f"{where}: {value:.0%} {what}"
        _log.warning("pool %s: %s", self.name, message)
        if self.options.on_alarm is not None:
            self.options.on_alarm(Alarm(kind, self.name, key[1], value, limit, message))

    def _over(self, key: tuple[str, str]) -> None:
        if key in self._alarms:
            self._told[key] = self._alarms.pop(key)

    # --- figures ------------------------------------------------------------------------------------------------------
    def statistics(self, now: float) -> PoolStatistics:
        """Figures of everything."""
        members = list(self.members.values())
        recent = sum(member.health.recent.value(now) for member in members)
        connections = sum(member.connections for member in members)
        done = self.succeeded + self.failed
        return PoolStatistics(
            name=self.name,
            strategy=self.balancer.strategy,
            active=sum(member.health.active for member in members),
            waiting=len(self.line),
            calls=self.calls,
            succeeded=self.succeeded,
            failed=self.failed,
            success_rate=round(self.succeeded / done, 4) if done else 1.0,
            attempts=self.attempts,
            amplification=round(self.attempts / self.calls, 4) if self.calls else 0.0,
            failovers=self.failovers,
            retry_tokens=round(self.budget.tokens, 2),
            connections=connections,
            connect_time=round(sum(member.connect_seconds for member in members) / connections, 6)
            if connections
            else 0.0,
            endpoints=tuple(member.statistics(now, recent) for member in members),
        )
