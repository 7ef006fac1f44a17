"""Planner, executor and verifier: roles to subclass, and the loop that joins them.

What comes in: a task, and three agents. What goes out: a plan whose steps were done, checked and, where the check
failed, done again with what was wrong; `plan.updated` and `verdict.given` show how far it is. It does not know models,
prompts or what a step does.

A step begins once everything in its `needs` was accepted. One that was rejected is done again in the next round, as
its next attempt, and its earlier result counts no more; what was accepted stays. When the rounds are used up, the last
results are returned with `accepted=False`: nothing is accepted silently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, Generic, Literal, TypeAlias

import pydantic
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeVar, override

from agentstream.agent.context import Context
from agentstream.agent.contract import Agent, _annotated
from agentstream.agent.schema import jsonable
from agentstream.errors import InvalidInput
from agentstream.events import Json, PlanItem, PlanUpdated, VerdictGiven

__all__ = (
    "MAX_STEPS",
    "Executor",
    "Outcome",
    "Plan",
    "PlanExecuteVerify",
    "PlanTask",
    "Planner",
    "Step",
    "Verdict",
    "Verifier",
)

R = TypeVar("R", default=str)

MAX_STEPS: Final = 50
"""Steps of one plan: what a person can still follow, and what `plan.updated` can carry each time one of them moves."""

_Status: TypeAlias = Literal["pending", "active", "done", "failed", "skipped"]


# --- what the roles hand each other -----------------------------------------------------------------------------------
class PlanTask(pydantic.BaseModel):
    """What a planner is asked.

    Attributes:
        task: in the words of whoever asks.
        round: which plan this is to be, from 1.
        feedback: what was wrong with the results of the plan before; empty at first.
        details: what else the planner needs: a JSON object of the team's own.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    task: str = pydantic.Field(min_length=1)
    round: int = pydantic.Field(default=1, ge=1)
    feedback: str = ""
    details: dict[str, Json] = pydantic.Field(default_factory=dict)


class Step(pydantic.BaseModel):
    """One step of a plan. A planner writes the first five fields; the others are filled in for the executor.

    Attributes:
        id: unique in its plan. title: for people, a few words.
        instructions: for the executor.
        needs: ids of the steps whose accepted results this one works with.
        details: what else the executor needs: a JSON object of the team's own.
        task: the task that the whole plan is for.
        attempt: which try of this step it is, from 1. feedback: what was wrong with the one before.
        results: the results of the steps in `needs`, by id, in their JSON form.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: str = pydantic.Field(min_length=1, max_length=64)
    title: str = pydantic.Field(min_length=1, max_length=200)
    instructions: str = ""
    needs: list[str] = pydantic.Field(default_factory=list)
    details: dict[str, Json] = pydantic.Field(default_factory=dict)
    task: SkipJsonSchema[str] = ""
    attempt: SkipJsonSchema[int] = 1
    feedback: SkipJsonSchema[str] = ""
    results: SkipJsonSchema[dict[str, Json]] = pydantic.Field(default_factory=dict)


class Plan(pydantic.BaseModel):
    """Steps in an order in which they can be done. Without any, `note` says why nothing can be done.

    Raises (on making one):
        pydantic.ValidationError: two steps of one id, or a need that is no step or that waits for itself.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    steps: list[Step] = pydantic.Field(default_factory=list, max_length=MAX_STEPS)
    note: str = ""

    @pydantic.model_validator(mode="after")
    def _can_be_done(self) -> Plan:
        needs = {step.id: set(step.needs) for step in self.steps}
        if len(needs) < len(self.steps):
            raise ValueError("two steps have one id")
        unknown = sorted({need for step in self.steps for need in step.needs} - needs.keys())
        if unknown:
            raise ValueError(f"a step needs {unknown[0]!r}, which is no step of this plan")
        while needs:
            free = {id_ for id_, waits in needs.items() if not waits & needs.keys()}
            if not free:
                raise ValueError(f"the steps {sorted(needs)} wait for each other")
            needs = {id_: waits for id_, waits in needs.items() if id_ not in free}
        return self


class Verdict(pydantic.BaseModel):
    """A verifier's judgement of one result.

    Attributes:
        ok: whether the result is accepted.
        feedback: what is wrong, so that the next attempt can do better; where `ok`, what was checked.
        score: from 0 to 1, where the verifier gives one.
        replan: whether the plan is at fault: then it is made anew instead of the step done again.
        step: id of the step that the result is of; where it is empty, the result's own attribute `step` is shown.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    ok: bool
    feedback: str = ""
    score: float | None = pydantic.Field(default=None, ge=0, le=1)
    replan: bool = False
    step: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[R]):
    """How a plan ended.

    Attributes:
        accepted: whether every step's result was accepted. False as well for a plan without steps.
        rounds: how many rounds it took; 0 for a plan without steps.
        plan: the last plan.
        results: the last result of each step that was done, by the step's id.
        verdicts: the last verdict on each of them.
    """

    accepted: bool
    rounds: int
    plan: Plan
    results: dict[str, R]
    verdicts: dict[str, Verdict]


# --- roles ------------------------------------------------------------------------------------------------------------
class Planner(Agent[PlanTask, Plan]):
    """Makes a plan. Write `plan`."""

    role = "planner"

    async def plan(self, ctx: Context, task: PlanTask, /) -> Plan:
        """The plan for `task`; where `task.round` is above 1, another one than before."""
        raise NotImplementedError(f"{type(self).__name__} has no `plan`: write `async def plan(self, ctx, task)`")

    @override
    async def run(self, ctx: Context, task: PlanTask, /) -> Plan:
        return await self.plan(ctx, task)

    @override
    def code(self) -> Callable[..., object]:
        return type(self).plan


class Executor(Agent[Step, R]):
    """Does a step. Write `execute`, with the type of its result annotated."""

    role = "executor"

    async def execute(self, ctx: Context, step: Step, /) -> R:
        """Do `step`. What fails in a way that another attempt may mend is a result too, which the verifier rejects."""
        raise NotImplementedError(f"{type(self).__name__} has no `execute`: write `async def execute(self, ctx, step)`")

    @override
    async def run(self, ctx: Context, task: Step, /) -> R:
        return await self.execute(ctx, task)

    @override
    def types(self) -> tuple[object, object]:
        return Step, _annotated(type(self).execute, skip=2)[1]

    @override
    def code(self) -> Callable[..., object]:
        return type(self).execute


class Verifier(Agent[R, Verdict]):
    """Judges a result. Write `verify`, with the type of the result annotated; `verdict.given` is emitted for it."""

    role = "verifier"

    async def verify(self, ctx: Context, result: R, /) -> Verdict:
        """Judge `result`, best by another way than the one it was made by."""
        raise NotImplementedError(f"{type(self).__name__} has no `verify`: write `async def verify(self, ctx, result)`")

    @override
    async def run(self, ctx: Context, task: R, /) -> Verdict:
        verdict = await self.verify(ctx, task)
        step = verdict.step or getattr(task, "step", "")
        given = VerdictGiven(
            verdict.ok, feedback=verdict.feedback, score=verdict.score, step=step if isinstance(step, str) else ""
        )
        await ctx.emit(given)
        return verdict

    @override
    def types(self) -> tuple[object, object]:
        return _annotated(type(self).verify, skip=2)[0], Verdict

    @override
    def code(self) -> Callable[..., object]:
        return type(self).verify


# --- the loop ---------------------------------------------------------------------------------------------------------
class PlanExecuteVerify(Agent[str | PlanTask, Outcome[R]]):
    """Plans, has each step done and checked, and does again what was rejected.

    Args:
        rounds: how often at most the steps are gone through; from 1.
        parallel: how many steps that do not need each other are done at once; from 1. The next ones begin when all of
            them were judged.

    Raises:
        InvalidInput: a number below 1.
    """

    role = "system"

    def __init__(
        self,
        planner: Agent[PlanTask, Plan],
        executor: Agent[Step, R],
        verifier: Agent[R, Verdict],
        *,
        rounds: int = 3,
        parallel: int = 1,
    ) -> None:
        if rounds < 1 or parallel < 1:
            raise InvalidInput("PlanExecuteVerify needs rounds and parallel of at least 1")
        self.planner = planner
        self.executor = executor
        self.verifier = verifier
        self.rounds = rounds
        self.parallel = parallel

    @override
    async def run(self, ctx: Context, task: str | PlanTask, /) -> Outcome[R]:
        """Go through the rounds.

        Raises:
            AgentFailedError: a planner, executor or verifier raised; that is no rejection, and nothing is tried again.
        """
        asked = PlanTask(task=task) if isinstance(task, str) else task
        plan = await ctx.call(self.planner, asked)
        board = _Board[R](plan, asked.task)
        for number in range(1, self.rounds + 1):
            if not plan.steps:
                return Outcome(False, number - 1, plan, {}, {})
            await self._round(ctx, board)
            if board.all_accepted:
                return Outcome(True, number, plan, board.results, board.verdicts)
            if number < self.rounds and any(verdict.replan for verdict in board.verdicts.values()):
                asked = asked.model_copy(update={"round": number + 1, "feedback": board.feedback()})
                plan = await ctx.call(self.planner, asked)
                board = _Board[R](plan, asked.task)
        return Outcome(False, self.rounds, plan, board.results, board.verdicts)

    async def _round(self, ctx: Context, board: _Board[R]) -> None:
        """Every step once, as far as what it needs was accepted."""
        board.begin_round()
        await board.show(ctx)
        while wave := board.ready()[: self.parallel]:
            steps = board.begin(wave)
            await board.show(ctx)
            try:
                results = await ctx.map(self.executor, steps)
                verdicts = await ctx.map(self.verifier, results)
            except Exception:
                board.fail(steps)
                await board.show(ctx)
                raise
            board.judge(steps, results, verdicts)
            await board.show(ctx)

    @override
    def types(self) -> tuple[object, object]:
        """Text or a `PlanTask`, and an outcome with the executor's results."""
        result = self.executor.types()[1]
        return str | PlanTask, Outcome[result]  # type: ignore[valid-type]  # a type that is known at run time only


class _Board(Generic[R]):
    """Where a plan stands."""

    def __init__(self, plan: Plan, task: str) -> None:
        self._steps = plan.steps
        self._task = task
        self._status: dict[str, _Status] = {step.id: "pending" for step in plan.steps}
        self._attempts = dict.fromkeys(self._status, 0)
        self._tried: set[str] = set()
        self._shown: tuple[PlanItem, ...] = ()
        self.results: dict[str, R] = {}
        self.verdicts: dict[str, Verdict] = {}

    @property
    def all_accepted(self) -> bool:
        return all(self._accepted(step.id) for step in self._steps)

    def _accepted(self, id_: str) -> bool:
        return id_ in self.verdicts and self.verdicts[id_].ok

    def begin_round(self) -> None:
        self._tried.clear()
        for step in self._steps:
            if not self._accepted(step.id):
                self._status[step.id] = "pending"

    def ready(self) -> list[Step]:
        """Steps that can begin now, in the plan's order."""
        return [
            step
            for step in self._steps
            if step.id not in self._tried and not self._accepted(step.id) and all(map(self._accepted, step.needs))
        ]

    def begin(self, wave: Sequence[Step]) -> list[Step]:
        """The steps as their executors get them."""
        begun: list[Step] = []
        for step in wave:
            self._tried.add(step.id)
            self._attempts[step.id] += 1
            self._status[step.id] = "active"
            before = self.verdicts.get(step.id)
            filled = {
                "task": self._task,
                "attempt": self._attempts[step.id],
                "feedback": before.feedback if before else "",
                "results": {id_: jsonable(self.results[id_]) for id_ in step.needs},
            }
            begun.append(step.model_copy(update=filled))
        return begun

    def judge(self, steps: Sequence[Step], results: Sequence[R], verdicts: Sequence[Verdict]) -> None:
        for step, result, verdict in zip(steps, results, verdicts, strict=True):
            self.results[step.id] = result
            self.verdicts[step.id] = verdict
            self._status[step.id] = "done" if verdict.ok else "failed"

    def fail(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._status[step.id] = "failed"

    def feedback(self) -> str:
        """What was wrong, for whoever plans again."""
        titles = {step.id: step.title for step in self._steps}
        wrong = [(titles[id_], verdict.feedback) for id_, verdict in self.verdicts.items() if not verdict.ok]
        return "\n".join(f"{title}: {feedback}" for title, feedback in wrong)

    async def show(self, ctx: Context) -> None:
        """Emit the plan where it moved; a repeated step says which attempt it is."""
        items = tuple(PlanItem(step.id, self._title(step), self._status[step.id]) for step in self._steps)
        if items != self._shown:
            self._shown = items
            await ctx.emit(PlanUpdated(items))

    def _title(self, step: Step) -> str:
        attempt = self._attempts[step.id]
        return f"{step.title} (attempt {attempt})" if attempt > 1 else step.title
