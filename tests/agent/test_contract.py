"""What an agent and a team are: names, types, inputs; all before anything runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pydantic
import pytest

from agentstream.agent import Agent, Context, RunOptions, Team, as_agent, code_version
from agentstream.errors import InvalidInput

if TYPE_CHECKING:
    from fractions import Fraction

T = TypeVar("T")


class Question(pydantic.BaseModel):
    """A task."""

    text: str
    n: int = 1


class FactChecker(Agent[Question, list[int]]):
    """Checks facts.

    And more.
    """

    async def run(self, ctx: Context, task: Question) -> list[int]:
        """Check."""
        return [task.n]


# --- agents -----------------------------------------------------------------------------------------------------------
def test_an_agents_name_is_its_classes() -> None:
    """In snake_case where none is given; a subclass does not inherit it; a given one stays."""

    class Deeper(FactChecker):
        pass

    class Named(FactChecker):
        name = "other-name"
        role = "verifier"

    assert (FactChecker.name, Deeper.name, Named.name) == ("fact_checker", "deeper", "other-name")
    assert (FactChecker().role, Named().role, Named().model) == ("", "verifier", "default")
    assert FactChecker().types() == (Question, list[int])


def test_an_agent_may_be_a_dataclass() -> None:
    """There is no `__init__` to call."""

    @dataclasses.dataclass
    class Configured(Agent[str, str]):
        limit: int = 3

        async def run(self, ctx: Context, task: str) -> str:
            return task * self.limit

    assert Configured(limit=5).limit == 5
    assert Configured.name == "configured"


def test_functions_become_agents() -> None:
    """With and without arguments; the docstring, the types and the code are the function's."""

    @as_agent
    async def summarise(ctx: Context, task: str) -> int:
        """Count words."""
        return len(task.split())

    @as_agent(name="short", model="fast")
    async def other(ctx: Context, task: Question) -> Question:
        return task

    async def plain(ctx: Context, task: str) -> str:
        return task

    assert (summarise.name, summarise.__doc__, summarise.types()) == ("summarise", "Count words.", (str, int))
    assert (other.name, other.model, other.types()) == ("short", "fast", (Question, Question))
    assert as_agent(plain).name == "plain"
    assert code_version(as_agent(plain).code()) == code_version(plain)


@pytest.mark.parametrize("wrong", [lambda ctx, task: task, print, FactChecker], ids=["lambda", "builtin", "class"])
def test_only_coroutine_functions_become_agents(wrong: Any) -> None:
    """The message shows the signature."""
    with pytest.raises(InvalidInput, match="async def"):
        as_agent(wrong)


def test_a_name_that_is_none_is_refused_at_once() -> None:
    """By the decorator and by the team, not when the run is under way."""

    async def fn(ctx: Context, task: str) -> str:
        return task

    with pytest.raises(InvalidInput, match="agent name"):
        as_agent(name="Not A Name")(fn)

    class Odd(Agent[str, str]):
        name = "Odd One"

    for make in (lambda: Team("team", Odd()), lambda: Team("A team", FactChecker())):
        with pytest.raises(InvalidInput, match="agent name"):
            make()


def test_types_that_exist_for_checkers_only_mean_any() -> None:
    """A name imported under TYPE_CHECKING, no annotation, or a type variable: the agent takes and gives plain JSON."""

    @as_agent
    async def hidden(ctx: Context, task: Fraction) -> Fraction:
        return task

    @as_agent
    async def bare(ctx, task):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return task

    class Open(Agent[T, T], Generic[T]):
        async def run(self, ctx: Context, task: T) -> T:
            return task

    for agent in (hidden, bare, Open()):
        assert agent.types() == (Any, Any)


# --- teams ------------------------------------------------------------------------------------------------------------
def test_a_team_describes_itself() -> None:
    """By its agent's first line unless it is told; the options are defaults."""
    team = Team("facts", FactChecker())
    assert (team.description, team.version) == ("Checks facts.", "1")
    assert Team("facts", FactChecker(), description="mine").description == "mine"
    assert repr(team) == "Team('facts', FactChecker, version='1')"

    class Silent(Agent[str, str]):
        pass

    assert Team("silent", Silent()).description == ""


def test_inputs_are_validated() -> None:
    """Converted where they fit; else the error names each place and never repeats what was handed in."""
    team = Team("facts", FactChecker())
    assert team.check_input({"text": "a"}) == Question(text="a")
    question = Question(text="b")
    assert team.check_input(question) is question
    with pytest.raises(InvalidInput) as refused:
        team.check_input({"n": "hunter2"})
    assert "text" in refused.value.detail
    assert "n:" in refused.value.detail
    assert "hunter2" not in refused.value.detail
    assert "hunter2" not in str(refused.value.details)
    assert [problem["loc"] for problem in refused.value.details["errors"]] == [("text",), ("n",)]  # type: ignore[attr-defined]


def test_many_problems_are_cut() -> None:
    """A long list of wrong items gives a message of three and details of twenty."""

    @as_agent
    async def takes(ctx: Context, task: list[int]) -> int:
        return len(task)

    with pytest.raises(InvalidInput) as refused:
        Team("takes", takes).check_input(["x"] * 1000)
    assert len(refused.value.detail) < 500
    assert len(refused.value.details["errors"]) == 20  # type: ignore[arg-type]


def test_options_of_a_run_go_before_those_of_its_team() -> None:
    """Field by field, only where they were set; None can be set."""
    team = RunOptions(deadline=60, max_agents=5)
    assert RunOptions().over(team) == team
    assert RunOptions(max_agents=64).over(team) == RunOptions(deadline=60, max_agents=64)
    assert RunOptions(deadline=None).over(team) == RunOptions(deadline=None, max_agents=5)


@pytest.mark.parametrize("wrong", [{"deadline": 0}, {"deadline": -1}, {"max_agents": 0}, {"dead_line": 5}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """Out of range, or not an option at all."""
    with pytest.raises(pydantic.ValidationError):
        RunOptions.model_validate(wrong)
