"""The scripted model keeps to its script.

Comes in: scripts of every kind of item. Goes out: a failure where what is played, counted or raised differs.
"""

from __future__ import annotations

from typing import Any

import anyio
import pydantic
import pytest

from agentstream.errors import InvalidInput, LLMRequestError, LLMServerError, StreamBroken
from agentstream.events import Usage
from agentstream.llm import LLM, Finish, LLMRequest, LLMResult, Message, TextPart, ToolCall
from agentstream.testing.scripted import Broken, ScriptedModel

pytestmark = pytest.mark.anyio

ASK = LLMRequest((Message("user", "one two three"),))


class Plan(pydantic.BaseModel):
    """A plan."""

    goal: str


async def test_text_comes_in_pieces() -> None:
    """Streaming shows: several pieces, then the end with usage that is the same everywhere."""
    model = ScriptedModel("Hello, world")
    assert isinstance(model, LLM)
    async with model.stream(ASK) as stream:
        deltas = [delta async for delta in stream]
        assert stream.result.text == "Hello, world"
    assert deltas == [TextPart("Hell"), TextPart("o, w"), TextPart("orld"), Finish("stop", Usage(3, 3, calls=1))]
    assert model.requests == [ASK]


@pytest.mark.parametrize(
    ("item", "result"),
    [
        (ToolCall("a", "f", '{"x": 12345}'), LLMResult(tool_calls=(ToolCall("a", "f", '{"x": 12345}'),))),
        (
            [ToolCall(name="f"), ToolCall(name="g")],
            LLMResult(tool_calls=(ToolCall("call_1", "f"), ToolCall("call_2", "g"))),
        ),
        (LLMResult("text", "thought", usage=Usage(9, 9)), LLMResult("text", "thought")),
        (Plan(goal="x"), LLMResult('{"goal":"x"}')),
        (lambda request: request.messages[0].content, LLMResult("one two three")),
        ("", LLMResult("")),
    ],
)
async def test_items(item: Any, result: LLMResult) -> None:
    """Each kind of item becomes the answer that it stands for."""
    answer = await ScriptedModel(item).complete(ASK)
    assert (answer.text, answer.thinking, answer.tool_calls) == (result.text, result.thinking, result.tool_calls)
    assert answer.finish_reason == ("tool_calls" if result.tool_calls else "stop")


async def test_errors_come_where_the_script_says() -> None:
    """Before the first piece, or behind a part of the text."""
    model = ScriptedModel(LLMServerError("busy"), Broken("Half"), Broken("", LLMServerError("late")))
    with pytest.raises(LLMServerError, match="busy"):
        await model.complete(ASK)
    async with model.stream(ASK) as stream:
        assert await anext(stream) == TextPart("Half")
        with pytest.raises(StreamBroken):
            await anext(stream)
        assert stream.result == LLMResult("Half", model="scripted")
    with pytest.raises(LLMServerError, match="late"):
        await model.complete(ASK)
    assert model.left == 0


async def test_the_script_ends() -> None:
    """A request too many says which one it was and how long the script is."""
    model = ScriptedModel("one", name="small")
    await model.complete(ASK)
    with pytest.raises(LLMRequestError, match=r"small: .*this is request 2, it has 1 items"):
        await model.complete(ASK)


@pytest.mark.parametrize("item", [7, None, [], ["text"], object()])
async def test_items_that_are_none(item: Any) -> None:
    """A slip in a script is told as such."""
    with pytest.raises(InvalidInput, match="is no item of a script"):
        await ScriptedModel(item).complete(ASK)


async def test_it_can_be_stopped() -> None:
    """Each piece is a place where a cancelled task ends."""
    seen: list[object] = []
    with anyio.CancelScope() as scope:
        async with ScriptedModel("x" * 100).stream(ASK) as stream:
            async for delta in stream:
                seen.append(delta)
                scope.cancel()
    assert len(seen) == 1
