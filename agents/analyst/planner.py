"""The planner: reads the shape of the data file and the question, and writes the plan.

What comes in: a question, and the run's CSV file. What goes out: a `Plan` whose steps are queries wherever they can be.
It does not compute anything, and of the file's content it shows a model names, ranges and a few values only.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread
import pydantic

from agentstream.agent import Context
from agentstream.agent.roles import Plan, Planner, PlanTask, Step
from agentstream.events import Json
from agentstream.llm import LLM, Message

from .asking import ask, data_file, messages, model_of
from .fitting import misfit
from .models import AnalysisPlan, PlannedStep
from .offline import OfflineModel
from .query import Shape
from .reading import read_table, shape_of

__all__ = ("DataPlanner",)

_SHOWN_VALUES: Final = 20  # of a text column, to a language model
_CORRECTIONS: Final = 2
_OFFLINE: Final = "Fixed rules answer this, not a language model."


class DataPlanner(Planner):
    """Plans the analysis of one CSV file.

    Args:
        rules: whether to use the rules even where a language model is configured.
    """

    name = "planner"

    def __init__(self, *, rules: bool = False) -> None:
        self.rules = rules

    async def plan(self, ctx: Context, task: PlanTask, /) -> Plan:
        """Read the file, ask the model, check what it wrote.

        Raises:
            InvalidInput: there is no file, or it is not CSV. LLMError: the model gave no plan.
        """
        file = data_file(ctx)
        llm = model_of(ctx, rules=self.rules)
        offline = isinstance(llm, OfflineModel)
        async with ctx.text() as said:
            if offline:
                why = "" if self.rules else " (None is configured.)"
                await said.write(f"{_OFFLINE}{why}\n\n")
            await said.write(f"Reading {file.name}")
            shape = await ctx.step("read-shape", partial(_shape_in_thread, file.path), file.name)
            await said.write(f": {shape.rows:,} rows in {len(shape.columns)} columns.")
        asked: dict[str, Json] = {
            "ask": "plan",
            "question": task.task,
            # The rules look for every listed value in the question; a language model needs examples.
            "file": shape.brief(200 if offline else _SHOWN_VALUES).model_dump(mode="json", exclude_defaults=True),
        }
        if task.feedback:
            asked["feedback"] = task.feedback
        planned = await _planned(ctx, llm, messages("planner", asked), shape)
        plan = _as_plan(planned, shape)
        await ctx.say(_told(plan))
        return plan


async def _shape_in_thread(path: Path, name: str) -> Shape:
    return await anyio.to_thread.run_sync(lambda: shape_of(read_table(path, name)), abandon_on_cancel=True)


async def _planned(ctx: Context, llm: LLM, conversation: tuple[Message, ...], shape: Shape) -> AnalysisPlan:
    """The model's plan; what does not fit the file goes back to it, and in the end is left to free code."""
    for _ in range(_CORRECTIONS):
        planned = await ask(ctx, llm, conversation, AnalysisPlan)
        wrong = _wrong(planned, shape)
        if not wrong:
            return planned
        answer = Message("assistant", planned.model_dump_json(exclude_defaults=True))
        conversation = (*conversation, answer, Message("user", f"That plan cannot be carried out: {wrong}. Mend it."))
    planned = await ask(ctx, llm, conversation, AnalysisPlan)
    return planned.model_copy(update={"steps": [_without_misfit(step, shape) for step in planned.steps]})


def _wrong(planned: AnalysisPlan, shape: Shape) -> str:
    for step in planned.steps:
        if step.query is not None and (wrong := misfit(step.query, shape)):
            return f"in step {step.id!r}: {wrong}"
    try:
        _as_plan(planned, shape)
    except pydantic.ValidationError as error:
        return str(error.errors(include_url=False)[0]["msg"])
    return ""


def _without_misfit(step: PlannedStep, shape: Shape) -> PlannedStep:
    return step.model_copy(update={"query": None}) if step.query and misfit(step.query, shape) else step


def _as_plan(planned: AnalysisPlan, shape: Shape) -> Plan:
    if not planned.steps:
        return Plan(note=planned.refusal or "The planner found nothing in the file that answers the question.")
    brief = shape.brief(8)
    return Plan(steps=[_as_step(step, brief) for step in planned.steps])


def _as_step(step: PlannedStep, shape: Shape) -> Step:
    details: dict[str, Json] = {"file": shape.model_dump(mode="json", exclude_defaults=True)}
    if step.query is not None:
        details["query"] = step.query.model_dump(mode="json", exclude_defaults=True)
    return Step(id=step.id, title=step.title, instructions=step.instructions, needs=step.needs, details=details)


def _told(plan: Plan) -> str:
    if not plan.steps:
        return "There is no plan: the question cannot be answered from this file."
    return "\n".join(f"{number}. {step.title}" for number, step in enumerate(plan.steps, 1))
