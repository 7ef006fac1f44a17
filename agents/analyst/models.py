"""What the analyst's roles hand each other, and what the team ends with.

What comes in: plans and results. What goes out: checked pydantic models that travel in events. It does not know how
they come about.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from agentstream.events import Json

from .query import Query

__all__ = ("Analysis", "AnalysisPlan", "PlannedStep", "StepResult")


class PlannedStep(BaseModel):
    """One step as a planner writes it.

    Attributes:
        query: the step as a query, wherever it can be one: then its result is checked by counting again.
        needs: ids of steps whose results this one works with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=40)
    title: str = Field(min_length=1, max_length=200)
    instructions: str = ""
    needs: list[str] = Field(default_factory=list)
    query: Query | None = None


class AnalysisPlan(BaseModel):
    """A planner's answer.

    Attributes:
        steps: at most six; none where the question cannot be answered from the file.
        refusal: then the reason, in words for the person who asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: list[PlannedStep] = Field(default_factory=list, max_length=6)
    refusal: str = ""


class StepResult(BaseModel):
    """What came of one step.

    Attributes:
        ok: whether the code ran to its end; else `error` says why not.
        result: what the code called `result`.
        table, image, plotly: ids of the artifacts; empty where there is none.
        plotly_json: the figure itself, where it is not larger than 32 KiB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    attempt: int = 1
    title: str = ""
    task: str = ""
    query: Query | None = None
    code: str = ""
    ok: bool = False
    error: str = ""
    result: Json = None
    stdout: str = ""
    table: str = ""
    image: str = ""
    plotly: str = ""
    plotly_json: Json = None


class Analysis(BaseModel):
    """How the team ends.

    Attributes:
        reply: the answer in words; or why there is none.
        accepted: whether the verifier agreed with every result. Where it is false, `reply` is no answer to rely on.
        generated_code: the program behind the answer. execution_result: what it called `result`.
        image, table: ids of the picture and table artifacts. plotly_json: the picture as a plotly figure.
        checks: what the verifier said, by step. rounds: how many it took.
        model: what answered: `rules`, or the name of the language model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reply: str
    accepted: bool
    generated_code: str = ""
    execution_result: Json = None
    image: str = ""
    table: str = ""
    plotly_json: Json = None
    checks: dict[str, str] = Field(default_factory=dict)
    rounds: int = 0
    model: str = ""
