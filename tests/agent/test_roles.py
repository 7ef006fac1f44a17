"""Planner, executor and verifier in a loop: order, parallel steps, feedback, new plans, and the end of patience."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import anyio
import pydantic
import pytest

from agentstream import events as ev
from agentstream.agent import Context
from agentstream.agent.roles import (
    Executor,
    Outcome,
    Plan,
    PlanExecuteVerify,
    Planner,
    PlanTask,
    Step,
    Verdict,
    Verifier,
)
from agentstream.errors import InvalidInput, RunFailedError
from agentstream.testing import record

pytestmark = pytest.mark.anyio


@dataclasses.dataclass
class Plans(Planner):
    """Gives one plan a call and notes what it was asked."""

    plans: list[Plan]
    asked: list[PlanTask] = dataclasses.field(default_factory=list)

    async def plan(self, ctx: Context, task: PlanTask, /) -> Plan:
        self.asked.append(task)
        return self.plans[len(self.asked) - 1]


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of a step."""

    step: str
    attempt: int
    text: str


@dataclasses.dataclass
class Works(Executor[Done]):
    """Notes the steps it gets, how many run at once, and the order in which they began."""

    seen: list[Step] = dataclasses.field(default_factory=list)
    running: int = 0
    most: int = 0

    async def execute(self, ctx: Context, step: Step, /) -> Done:
        self.seen.append(step)
        self.running += 1
        self.most = max(self.most, self.running)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        self.running -= 1
        return Done(step.id, step.attempt, f"{step.title} {step.feedback}".strip())


@dataclasses.dataclass
class Judges(Verifier[Done]):
    """Accepts what `accept` accepts."""

    accept: Callable[[Done], bool] = lambda done: True
    replan: bool = False

    async def verify(self, ctx: Context, result: Done, /) -> Verdict:
        ok = self.accept(result)
        return Verdict(ok=ok, feedback="" if ok else f"not {result.attempt}", replan=not ok and self.replan)


def steps(*ids: str, **needs: str) -> Plan:
    """A plan of steps; `c="ab"` makes `c` need `a` and `b`."""
    return Plan(steps=[Step(id=id_, title=id_.upper(), needs=list(needs.get(id_, ""))) for id_ in ids])


async def outcome(
    plan: Plan, works: Works, judges: Judges, **options: Any
) -> tuple[Outcome[Done], list[dict[str, str]]]:
    """Run the loop; the outcome, and the status of every step each time the plan was shown."""
    loop = PlanExecuteVerify(Plans([plan]), works, judges, **options)
    recording = await record(loop, "task")
    shown = [{item.id: item.status for item in update.steps} for update in recording.of(ev.PlanUpdated)]
    return recording.result, shown


async def test_steps_are_done_in_the_order_of_their_needs() -> None:
    """A step begins once what it needs was accepted, and gets those results."""
    works = Works()
    result, shown = await outcome(steps("c", "a", "b", c="ab", b="a"), works, Judges())
    assert [step.id for step in works.seen] == ["a", "b", "c"]
    assert works.seen[2].results == {
        "a": {"step": "a", "attempt": 1, "text": "A"},
        "b": {"step": "b", "attempt": 1, "text": "B"},
    }
    assert {step.task for step in works.seen} == {"task"}
    assert (result.accepted, result.rounds) == (True, 1)
    assert result.results["c"] == Done("c", 1, "C")
    assert shown[0] == {"a": "pending", "b": "pending", "c": "pending"}
    assert shown[-1] == {"a": "done", "b": "done", "c": "done"}


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2), (9, 3)])
async def test_independent_steps_run_side_by_side(parallel: int, most: int) -> None:
    """As many steps run at once as were allowed, and no more than are independent."""
    works = Works()
    await outcome(steps("a", "b", "c", "d", d="abc"), works, Judges(), parallel=parallel)
    assert works.most == most


async def test_rejected_step_is_done_again_with_feedback() -> None:
    """Only what was rejected is repeated, as its next attempt; what waits for it waits for the accepted result."""
    works = Works()
    result, shown = await outcome(
        steps("a", "b", "c", c="b"), works, Judges(lambda done: done.step != "b" or done.attempt == 2), parallel=2
    )
    seen = [(step.id, step.attempt, step.feedback) for step in works.seen]
    assert sorted(seen[:2]) == [("a", 1, ""), ("b", 1, "")]  # side by side: either may begin first
    assert seen[2:] == [("b", 2, "not 1"), ("c", 1, "")]
    assert (result.accepted, result.rounds) == (True, 2)
    assert {"a": "done", "b": "failed", "c": "pending"} in shown
    assert result.results["b"] == Done("b", 2, "B not 1")


async def test_repeated_step_says_its_attempt_in_the_plan() -> None:
    """People see which attempt of a step is running."""
    loop = PlanExecuteVerify(Plans([steps("a")]), Works(), Judges(lambda done: done.attempt == 3))
    recording = await record(loop, "task")
    titles = list(dict.fromkeys(update.steps[0].title for update in recording.of(ev.PlanUpdated)))
    assert titles == ["A", "A (attempt 2)", "A (attempt 3)"]


async def test_used_up_rounds_end_without_acceptance() -> None:
    """The last result is returned, and it is plain that it was not accepted."""
    result, shown = await outcome(steps("a", "b", b="a"), Works(), Judges(lambda done: False), rounds=2)
    assert not result.accepted
    assert (result.rounds, result.results) == (2, {"a": Done("a", 2, "A not 1")})
    assert result.verdicts["a"].feedback == "not 2"
    assert shown[-1] == {"a": "failed", "b": "pending"}


async def test_verdicts_are_events_of_the_verifier() -> None:
    """Each judgement is shown with the step it is about."""
    loop = PlanExecuteVerify(Plans([steps("a")]), Works(), Judges(lambda done: done.attempt == 2))
    recording = await record(loop, "task")
    given = [(verdict.agent, verdict.step, verdict.ok, verdict.feedback) for verdict in recording.of(ev.VerdictGiven)]
    assert given == [("judges", "a", False, "not 1"), ("judges", "a", True, "")]


async def test_plan_at_fault_is_made_anew() -> None:
    """A verdict that blames the plan sends its feedback to the planner; the new plan starts from its own steps."""
    planner, works = Plans([steps("a", "b"), steps("x")]), Works()
    loop = PlanExecuteVerify(planner, works, Judges(lambda done: done.step != "b", replan=True))
    result = (await record(loop, PlanTask(task="task", details={"k": 1}))).result
    assert [(task.round, task.feedback, task.details) for task in planner.asked] == [
        (1, "", {"k": 1}),
        (2, "B: not 1", {"k": 1}),
    ]
    assert [step.id for step in works.seen] == ["a", "b", "x"]
    assert (result.accepted, list(result.results)) == (True, ["x"])


async def test_plan_without_steps_is_not_accepted() -> None:
    """Where there is nothing to do, nothing was accepted."""
    result, shown = await outcome(Plan(note="cannot be done"), Works(), Judges())
    assert (result.accepted, result.rounds, result.plan.note, shown) == (False, 0, "cannot be done", [])


async def test_executor_that_raises_fails_the_loop() -> None:
    """An exception is no rejection: the step is shown as failed, and the run fails."""

    class Breaks(Works):
        async def execute(self, ctx: Context, step: Step, /) -> Done:
            raise InvalidInput("broken")

    recording = await record(PlanExecuteVerify(Plans([steps("a")]), Breaks(), Judges()), "task")
    assert isinstance(recording.error, RunFailedError)
    assert recording.error.failure == "invalid_input"
    assert recording.of(ev.PlanUpdated)[-1].steps[0].status == "failed"


@pytest.mark.parametrize("options", [{"rounds": 0}, {"parallel": 0}])
async def test_numbers_below_one_are_refused(options: dict[str, int]) -> None:
    """No round and no place would mean that nothing is ever done."""
    with pytest.raises(InvalidInput):
        PlanExecuteVerify(Plans([]), Works(), Judges(), **options)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ([{"id": "a", "title": "A"}, {"id": "a", "title": "B"}], "two steps have one id"),
        ([{"id": "a", "title": "A", "needs": ["z"]}], "'z', which is no step"),
        ([{"id": "a", "title": "A", "needs": ["a"]}], "wait for each other"),
        (
            [{"id": "a", "title": "A", "needs": ["b"]}, {"id": "b", "title": "B", "needs": ["a"]}],
            "wait for each other",
        ),
    ],
)
async def test_plan_that_cannot_be_done_is_refused(broken: list[dict[str, Any]], words: str) -> None:
    """A planner, or its model, is told what is wrong with its plan."""
    with pytest.raises(pydantic.ValidationError, match=words):
        Plan.model_validate({"steps": broken})


async def test_models_see_only_what_they_write() -> None:
    """The schema that a model is given has none of the fields that the loop fills in."""
    properties = Plan.model_json_schema()["$defs"]["Step"]["properties"]
    assert set(properties) == {"id", "title", "instructions", "needs", "details"}


async def test_types_are_those_of_the_roles() -> None:
    """The loop's result type is made of its executor's, so that a recorded result is decoded as what it was."""
    loop = PlanExecuteVerify(Plans([]), Works(), Judges())
    assert loop.types() == (str | PlanTask, Outcome[Done])
    assert Works().types() == (Step, Done)
    assert Judges().types() == (Done, Verdict)
    assert (loop.name, loop.role, Works.role, Judges.role, Plans.role) == (
        "plan_execute_verify",
        "system",
        "executor",
        "verifier",
        "planner",
    )


@pytest.mark.parametrize(
    ("role", "method"),
    [(Planner, "plan"), (Executor, "execute"), (Verifier, "verify")],
    ids=["planner", "executor", "verifier"],
)
async def test_role_without_its_method_says_what_to_write(role: type[Any], method: str) -> None:
    """A subclass that forgot its method gets its name."""
    task = {"plan": PlanTask(task="t"), "execute": Step(id="a", title="A"), "verify": "x"}[method]
    with pytest.raises(NotImplementedError, match=f"async def {method}"):
        await getattr(role(), method)(None, task)
