"""Three roles and two rounds: the executor's first answer is wrong, the verifier catches it, the second one is right.

    python examples/plan_execute_verify.py

No model is needed: the roles are plain code here. With one, `plan`, `execute` and `verify` would call `ctx.generate`.
"""

from __future__ import annotations

from agentstream import Context, run_sync
from agentstream.agent.roles import Executor, Plan, PlanExecuteVerify, Planner, PlanTask, Step, Verdict, Verifier
from agentstream.events import AnyEvent, PlanUpdated, TextDelta, VerdictGiven

NUMBERS = [3, 1, 4, 1, 5, 9, 2, 6]


class Statistician(Planner):
    """Plans one step for each figure that the question asks for."""

    async def plan(self, ctx: Context, task: PlanTask) -> Plan:
        asked = [word for word in ("mean", "median") if word in task.task]
        await ctx.say(f"{' and '.join(asked)} of {len(NUMBERS)} numbers; the steps do not need each other")
        return Plan(steps=[Step(id=name, title=f"Compute the {name}", instructions=name) for name in asked])


class Calculator(Executor[float]):
    """Computes; forgets to sort before it is told."""

    async def execute(self, ctx: Context, step: Step) -> float:
        if step.instructions == "mean":
            return sum(NUMBERS) / len(NUMBERS)
        ordered = sorted(NUMBERS) if step.feedback else NUMBERS
        middle = len(ordered) // 2
        await ctx.say(f"the two numbers in the middle are {ordered[middle - 1]} and {ordered[middle]}")
        return (ordered[middle - 1] + ordered[middle]) / 2


class Auditor(Verifier[float]):
    """Checks independently: half of the numbers must lie on each side of a median, and a mean must balance."""

    async def verify(self, ctx: Context, result: float) -> Verdict:
        below = sum(number < result for number in NUMBERS)
        above = sum(number > result for number in NUMBERS)
        balanced = abs(sum(number - result for number in NUMBERS)) < 1e-9
        if balanced or below == above:
            return Verdict(ok=True)
        return Verdict(ok=False, feedback=f"{below} numbers are below {result:g} and {above} above: sort them first")


def show(event: AnyEvent) -> None:
    """One line for what people want to see."""
    match event:
        case TextDelta(text=text):
            print(f"{event.inv:14} {text}")
        case VerdictGiven(ok=ok, feedback=feedback):
            print(f"{event.inv:14} {'accepted' if ok else 'not accepted: ' + feedback}")
        case PlanUpdated(steps=steps):
            print(f"{'':14} {'  '.join(f'[{step.status}] {step.title}' for step in steps)}")
        case _:
            pass


if __name__ == "__main__":
    team = PlanExecuteVerify(Statistician(), Calculator(), Auditor(), rounds=3, parallel=2)
    outcome = run_sync(team, PlanTask(task="What are the mean and the median?"), on_event=show)
    print(f"after {outcome.rounds} rounds: {outcome.results}")
