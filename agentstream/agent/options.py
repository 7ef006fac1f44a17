"""What may be asked of one run.

What comes in: numbers from Python, a team's definition or a request body. What goes out: checked options. It does not
know who enforces them.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from agentstream.events import Json

__all__ = ("Budget", "Lockstep", "Price", "RunOptions", "StopAfter", "lockstep", "stop_after")

_WEEK = 7 * 86_400


class Price(pydantic.BaseModel):
    """What a model costs, per million tokens, in whatever currency the budgets are in."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    input: float = pydantic.Field(ge=0)
    output: float = pydantic.Field(ge=0)


class Budget(pydantic.BaseModel):
    """What may be spent on models. What is not named has no limit; 0 means that nothing is left.

    Attributes:
        tokens: in and out together. cost: by the prices in `RuntimeOptions(prices=…)`. calls: requests to models.
        seconds: from the beginning of the run, or of the call that the budget is for.
        soft: the share of a limit at which `budget.low` says so, once.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    tokens: int | None = pydantic.Field(default=None, ge=0)
    cost: float | None = pydantic.Field(default=None, ge=0)
    calls: int | None = pydantic.Field(default=None, ge=0)
    seconds: float | None = pydantic.Field(default=None, ge=0, le=_WEEK)
    soft: float = pydantic.Field(default=0.8, gt=0, le=1)

    def limits(self) -> dict[str, float]:
        """The limits of what is reserved, by name."""
        named = {"tokens": self.tokens, "cost": self.cost, "calls": self.calls}
        return {name: float(limit) for name, limit in named.items() if limit is not None}


class StopAfter(pydantic.BaseModel):
    """Stop the run, cause `client_gone`, when it had no reader for so many seconds. See `stop_after`."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    stop_after: float = pydantic.Field(ge=0, le=_WEEK)


class Lockstep(pydantic.BaseModel):
    """Agents wait for the slowest counted reader. See `lockstep`.

    Attributes:
        ahead: events that the log may be ahead of the slowest reader.
        stall: seconds without progress after which a reader is closed and not counted any more.
        grace: seconds that agents wait while no reader is counted.
        alone: what happens then: `continue`, or `stop` with cause `client_gone`.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    ahead: int = pydantic.Field(default=16, ge=1, le=100_000)
    stall: float = pydantic.Field(default=30.0, gt=0, le=3600)
    grace: float = pydantic.Field(default=10.0, ge=0, le=3600)
    alone: Literal["continue", "stop"] = "continue"


def stop_after(seconds: float) -> StopAfter:
    """`RunOptions(on_disconnect=stop_after(60))`: readers that went away have so long to come back.

    A run that had no reader yet is given 30 s for the first one, or `seconds` where that is longer.
    """
    return StopAfter(stop_after=seconds)


def lockstep(ahead: int = 16) -> Lockstep:
    """`RunOptions(pacing=lockstep(ahead=16))`: agents wait while the slowest reader is `ahead` events behind.

    Counted are readers in the run's process that once reached the tail. At most one more event an agent is accepted.
    """
    return Lockstep(ahead=ahead)


class RunOptions(pydantic.BaseModel):
    """Limits of one run. A team's options are the defaults of its runs; a run's own options go before them.

    Attributes:
        deadline: seconds for the whole run, then it is stopped with cause `deadline`; None means no limit.
        idle: seconds in which nothing was added to the log, then it is stopped with cause `idle`.
        step: seconds for one recorded unit (`ctx.step`, so `ctx.generate` too), then it fails with `step_timeout`.
        first_token, between_tokens: seconds of a model's silence, then its answer fails with `llm_timeout`.
        attempts: how many processes may lose the run before it fails with `worker_lost`; a shutdown does not count.
        max_agents: invocations at once; further ones wait and say so (`agent.waiting {on: slot}`).
        budget: what may be spent on models by all agents of the run together.
        pacing: `detached`, or `lockstep(ahead=16)`. on_disconnect: `continue`, or `stop_after(60)`.
        busy: what becomes of a run whose session has another one that is not over: `reject` refuses it (`SessionBusy`),
            `enqueue` lets it wait, `interrupt` stops the other, cause `replaced`.
        metadata: what agents read as `ctx.metadata`; it does not stand in the log.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    deadline: float | None = pydantic.Field(default=None, gt=0, le=_WEEK)
    idle: float | None = pydantic.Field(default=None, gt=0, le=_WEEK)
    step: float | None = pydantic.Field(default=None, gt=0, le=_WEEK)
    first_token: float | None = pydantic.Field(default=None, gt=0, le=3600)
    between_tokens: float | None = pydantic.Field(default=None, gt=0, le=3600)
    attempts: int = pydantic.Field(default=3, ge=1, le=1000)
    max_agents: int = pydantic.Field(default=64, ge=1, le=10_000)
    budget: Budget | None = None
    pacing: Literal["detached"] | Lockstep = "detached"
    on_disconnect: Literal["continue"] | StopAfter = "continue"
    busy: Literal["reject", "enqueue", "interrupt"] = "reject"
    metadata: dict[str, Json] = pydantic.Field(default={}, max_length=64)

    def over(self, defaults: RunOptions) -> RunOptions:
        """These options, with `defaults` for what was not set."""
        return defaults.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})
