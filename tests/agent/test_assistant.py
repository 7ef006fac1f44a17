"""A model with instructions and tools, as an agent.

Comes in: assistants of several types. Goes out: a failure where what the model is told, or what the agent returns, is
not what its arguments say.
"""

from __future__ import annotations

from typing import Any, cast

import pydantic
import pytest

from agentstream.agent.assistant import Assistant
from agentstream.agent.context import Context
from agentstream.agent.generation import generate
from agentstream.agent.tools import tool
from agentstream.errors import InvalidInput
from agentstream.llm import Message
from agentstream.testing.scripted import ScriptedModel
from recording_host import RecordingHost


class Plan(pydantic.BaseModel):
    """A plan."""

    goal: str


@tool
def look(place: str) -> str:
    """Look."""
    return place


class Host(RecordingHost):
    """A host with the verb that agents use."""

    async def generate(self, prompt: Any, **options: Any) -> Any:
        """As the context does."""
        return await generate(self, prompt, **options)


@pytest.mark.anyio
async def test_an_assistant_asks_its_model() -> None:
    """Instructions, task, tools and type reach the model; its answer is the result."""
    model = ScriptedModel(Plan(goal="win"))
    planner = Assistant("Plan well.", output=Plan, tools=[look], name="planner")
    host = cast("Context", Host(model, tools=planner.tools))
    plan: Plan = await planner.run(host, "Do it")
    assert plan == Plan(goal="win")
    assert model.requests[0].messages == (Message("system", "Plan well."), Message("user", "Do it"))
    assert model.requests[0].tools == (look.spec,)
    assert planner.types() == (str, Plan)
    assert (planner.name, planner.model) == ("planner", "default")


@pytest.mark.anyio
async def test_the_least_assistant() -> None:
    """Without anything it passes text to and fro."""
    assistant = Assistant()
    answer: str = await assistant.run(cast("Context", Host(ScriptedModel("Hi."))), "Hello")
    assert answer == "Hi."
    assert assistant.name == "assistant"
    assert assistant.types() == (str, str)
    assert repr(assistant) == "Assistant(name='assistant', output=str, tools=0)"


def test_names_are_checked() -> None:
    """A name that events cannot carry is refused."""
    with pytest.raises(InvalidInput):
        Assistant(name="Two Words")
