"""Tools: plain functions with a description, and the context in which they report.

Comes in: functions as users write them. Goes out: a failure where a plain call, the description or the context is not
what it says. How calls are recorded is looked at in `test_tool_calls`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from agentstream.agent.tools import AsyncTool, SyncTool, Tool, ToolContext, current_tool, running, tool
from agentstream.errors import EmitAfterEnd, InvalidInput
from agentstream.events import ToolOutput, ToolProgress
from agentstream.llm import ToolSpec
from recording_host import RecordingHost


@tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: The first.
    """
    return a + b


@tool(name="slow-add", timeout=2.5, retries=1, version="7")
async def add_slowly(a: int, b: int) -> int:
    """Add two numbers, slowly."""
    await current_tool().progress("thinking", done=1, total=2)
    await current_tool().output("stdout", "…")
    assert await current_tool().artifact("a.txt", "text") == ""
    return a + b


@pytest.mark.anyio
async def test_a_plain_call_is_the_unit_test() -> None:
    """Outside of a run a tool is its function, and what it reports goes nowhere."""
    assert add(1, b=2) == 3
    assert await add_slowly(1, 2) == 3
    assert isinstance(add, SyncTool)
    assert isinstance(add_slowly, AsyncTool)
    with pytest.raises(TypeError):
        add()  # type: ignore[call-arg]


def test_what_a_model_sees() -> None:
    """Name, description and schema come from the function."""
    assert add.spec == ToolSpec(
        "add",
        "Add two numbers.",
        {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "The first."},
                "b": {"type": "integer", "default": 1},
            },
            "required": ["a"],
            "additionalProperties": False,
        },
    )
    assert (add_slowly.name, add_slowly.timeout, add_slowly.retries, add_slowly.version) == ("slow-add", 2.5, 1, "7")


def test_tools_look_like_their_functions() -> None:
    """Documentation tools see the function's own name, text and signature."""
    assert add.__doc__ is not None
    assert add.__doc__.startswith("Add two")
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert repr(add) == "SyncTool('add')"
    assert add.version == tool(add.fn).version


class Shop:
    """Something with a method."""

    def __init__(self, price: int) -> None:
        self.price = price

    def cost(self, number: int) -> int:
        """What so many cost."""
        return self.price * number


def test_methods_and_partial_functions() -> None:
    """A bound method is a tool; a partial function needs a name."""
    cost = tool(Shop(3).cost)
    assert cost(2) == 6
    assert list(cost.spec.parameters["properties"]) == ["number"]
    half = tool(name="half")(functools.partial(add.fn, 5))
    assert half(b=1) == 6
    with pytest.raises(InvalidInput, match="method without its object"):
        tool(Shop.cost)


@pytest.mark.parametrize("name", ["", "two words", "ä b", "x" * 65, "a.b", "9lives"])
def test_names_that_models_do_not_take(name: str) -> None:
    """A name that a provider would refuse is refused when the tool is made."""
    fn: Callable[[], int] = lambda: 1  # noqa: E731
    with pytest.raises(InvalidInput, match="is no name"):
        tool(name=name)(fn)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1.0}, {"retries": -1}])
def test_numbers_that_make_no_sense(options: dict[str, Any]) -> None:
    """Zero seconds and fewer than no retries are mistakes."""
    with pytest.raises(InvalidInput):
        tool(**options)(add.fn)


def test_annotations_may_name_what_comes_later() -> None:
    """A tool may be made before its types; what is wrong with them is said at the first use."""

    def later(x: Later) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    made: Tool[..., Any] = tool(later)
    with pytest.raises(InvalidInput, match="'Later'"):
        _ = made.spec


# --- the context ------------------------------------------------------------------------------------------------------
@pytest.mark.anyio
async def test_reports_become_events_of_the_call() -> None:
    """Progress and output carry the call; long output is cut into events that fit."""
    host = RecordingHost()
    with running(ToolContext(host, "c.1", attempt=2)):
        here = current_tool()
        assert (here.call, here.attempt) == ("c.1", 2)
        await here.progress("half", done=1, total=2)
        await here.output("stderr", "x" * 100_000 + "ü")
        assert await here.artifact("t.csv", "a,b") == "art-1"
    assert host.events[0] == ToolProgress("c.1", done=1, total=2, message="half")
    outputs = host.of(ToolOutput)
    assert [output.channel for output in outputs] == ["stderr", "stderr"]
    assert "".join(output.text for output in outputs) == "x" * 100_000 + "ü"
    assert current_tool().call == ""


@pytest.mark.anyio
async def test_nothing_is_reported_after_the_call() -> None:
    """A context that outlives its call refuses: a tool that runs on learns that nobody listens."""
    host = RecordingHost()
    with running(ToolContext(host, "c.1")):
        kept = current_tool()
    with pytest.raises(EmitAfterEnd):
        await kept.progress()
    with pytest.raises(EmitAfterEnd):
        kept.blocking().output("stdout", "late")
    assert host.events == []
