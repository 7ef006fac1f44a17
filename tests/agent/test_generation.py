"""Asking a model until there is an answer.

Comes in: scripted models that answer, call tools, break off and write nonsense. Goes out: a failure where events,
marks, bounds, usage or the reply are not as said.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Self

import anyio
import pydantic
import pytest

from agentstream.agent import generation
from agentstream.agent.generation import (
    MAX_REPAIRS,
    MAX_TOOL_ROUNDS,
    MAX_TRIES,
    STRUCTURED,
    GenerationHost,
    Reply,
    generate,
)
from agentstream.agent.tools import tool
from agentstream.errors import (
    EmitAfterEnd,
    InvalidInput,
    LLMAuthError,
    LLMError,
    LLMRateLimited,
    LLMServerError,
    LLMValidationError,
    StreamBroken,
)
from agentstream.events import (
    LLMTryFailed,
    StepFailed,
    StepStarted,
    TextStarted,
    ToolCalled,
    ToolDelta,
    ToolFailed,
    ToolFinished,
    ToolStarted,
    Usage,
)
from agentstream.llm import LLMResult, Message, Thought, ToolCall, ToolCallPart
from agentstream.testing.scripted import Broken, ScriptedModel
from recording_host import RecordingHost

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Tries follow each other at once; what was asked for is written down."""
    asked: list[float | None] = []
    real = generation.wait_after

    def wait_after(failures: int, random: float, retry_after: float | None) -> float | None:
        asked.append(retry_after)
        wait = real(failures, random, retry_after)
        return None if wait is None else 0.0

    monkeypatch.setattr(generation, "wait_after", wait_after)
    return asked


class Plan(pydantic.BaseModel):
    """A plan."""

    goal: str
    steps: list[str] = []


@dataclasses.dataclass
class Score:
    """A score."""

    value: int


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def calls(*pairs: tuple[int, int]) -> tuple[ToolCall, ...]:
    """Calls of `add`."""
    return tuple(ToolCall(f"c{n}", "add", json.dumps({"a": a, "b": b})) for n, (a, b) in enumerate(pairs))


# --- answers ----------------------------------------------------------------------------------------------------------
async def test_text() -> None:
    """A question becomes one recorded step: waiting, a block of thinking, a block of text, the reply."""
    model = ScriptedModel(LLMResult("The answer.", "Let me see.", usage=Usage(5, 3, calls=1)))
    host = RecordingHost(model)
    reply: Reply[str] = await generate(host, "What?")
    assert host.outline() == [
        "step.started",
        "agent.waiting",
        "thinking.started",
        "thinking.delta",
        "thinking.finished",
        "text.started",
        "text.delta",
        "text.finished",
        "step.finished",
    ]
    block = host.of(TextStarted)[0]
    assert (block.role, host.text_of(block.block)) == ("assistant", "The answer.")
    assert reply == Reply(
        "The answer.",
        "The answer.",
        Usage(5, 3, calls=1),
        (Message("user", "What?"), Message("assistant", "The answer.")),
    )
    assert host.of(StepStarted)[0].name == "generate"
    (recorded,) = host.recorded.values()
    assert recorded["messages"] == [{"role": "assistant", "content": "The answer."}]
    host.assert_closed()


async def test_a_conversation_goes_on() -> None:
    """The messages of a reply, and one more, are the next prompt."""
    model = ScriptedModel("One.", "Two.")
    host = RecordingHost(model)
    first = await generate(host, [Message("system", "Count."), Message("user", "Go")])
    second = await generate(host, [*first.messages, Message("user", "More")])
    assert [message.content for message in second.messages] == ["Count.", "Go", "One.", "More", "Two."]
    assert model.requests[1].messages == second.messages[:-1]
    one, other = (step.key for step in host.of(StepStarted))
    assert one != other


async def test_models_by_name() -> None:
    """The agent's own model by default, another by its name."""
    host = RecordingHost(ScriptedModel("a", name="one"), ScriptedModel("b", name="two"))
    assert (await generate(host, "?")).text == "a"
    assert (await generate(host, "?", model="two")).text == "b"


@pytest.mark.parametrize("prompt", ["", "  \n", [], [Message("user", " ")]])
async def test_empty_prompts(prompt: Any) -> None:
    """Nothing to ask is a mistake of the caller, told before anything is emitted."""
    host = RecordingHost(ScriptedModel("x"))
    with pytest.raises(InvalidInput, match="prompt is empty"):
        await generate(host, prompt)
    assert host.events == []


# --- tools ------------------------------------------------------------------------------------------------------------
async def test_tools_run_and_the_model_goes_on() -> None:
    """Arguments stream under the call's id, the tool runs, its result goes to the model, usage adds up."""
    script = (
        LLMResult("Adding.", tool_calls=calls((1, 2)), usage=Usage(10, 4, calls=1)),
        LLMResult("3", usage=Usage(20, 1, calls=1)),
    )
    model = ScriptedModel(*script)
    host = RecordingHost(model)
    reply = await generate(host, "1+2?", tools=[add])
    assert host.outline() == [
        "step.started",
        "agent.waiting",
        "text.started",
        "text.delta",
        "text.finished",
        "tool.started",
        "tool.delta",
        "tool.called",
        "tool.finished",
        "agent.waiting",
        "text.started",
        "text.delta",
        "text.finished",
        "step.finished",
    ]
    call = host.of(ToolStarted)[0].call
    assert {event.call for event in (*host.of(ToolDelta), *host.of(ToolCalled), *host.of(ToolFinished))} == {call}
    assert "".join(event.text for event in host.of(ToolDelta)) == '{"a": 1, "b": 2}'
    assert host.of(ToolFinished)[0].result == 3
    assert model.requests[0].tools == (add.spec,)
    assert model.requests[1].messages == reply.messages[:-1]
    assert reply.messages[1:3] == (
        Message("assistant", "Adding.", calls((1, 2))),
        Message("tool", "3", tool_call_id="c0", name="add"),
    )
    assert (reply.text, reply.usage, reply.tool_calls) == ("3", Usage(30, 5, calls=2), calls((1, 2)))
    host.assert_closed()


async def test_thoughts_and_signatures_go_back_with_the_calls() -> None:
    """What a provider sealed stands unchanged on the assistant's message, and is no event."""
    thought = Thought("anthropic.thinking", "Hm.", "sealed")
    call = ToolCall("a", "add", '{"a": 1, "b": 2}', "signed")
    model = ScriptedModel(LLMResult("", "Hm.", (call,), thoughts=(thought,)), "3")
    host = RecordingHost(model)
    reply = await generate(host, "1+2?", tools=[add])
    (_, asked, _) = model.requests[1].messages
    assert (asked.thoughts, asked.tool_calls) == ((thought,), (call,))
    assert reply.messages[1] == asked
    assert not any("sealed" in repr(event) or "signed" in repr(event) for event in host.events)


async def test_the_agent_s_own_tools() -> None:
    """Without `tools` the agent's own are offered, with `()` none."""
    model = ScriptedModel("a", "b")
    host = RecordingHost(model, tools=[add])
    await generate(host, "?")
    await generate(host, "?", tools=())
    assert [len(request.tools) for request in model.requests] == [1, 0]


async def test_calls_of_one_round_run_at_once_and_answer_in_order() -> None:
    """Each call waits for the other, so only together they can end; the model gets the answers in its order."""
    met: dict[int, anyio.Event] = {1: anyio.Event(), 2: anyio.Event()}
    ended: list[int] = []

    @tool
    async def meet(me: int, other: int) -> int:
        """Wait for the other."""
        met[me].set()
        await met[other].wait()
        if me == 1:
            await anyio.wait_all_tasks_blocked()
        ended.append(me)
        return me

    asked = tuple(ToolCall(f"c{me}", "meet", json.dumps({"me": me, "other": 3 - me})) for me in (1, 2))
    host = RecordingHost(ScriptedModel(asked, "done"))
    with anyio.fail_after(5):
        reply = await generate(host, "?", tools=[meet])
    assert ended == [2, 1]
    assert [message.content for message in reply.messages if message.role == "tool"] == ["1", "2"]
    host.assert_closed()


async def test_mistakes_with_tools_are_the_model_s_to_mend() -> None:
    """An unknown tool and wrong arguments are answered, and the conversation goes on."""
    wrong = (ToolCall("x", "subtract", "{}"), ToolCall("y", "add", '{"a": 1}'))
    host = RecordingHost(ScriptedModel(wrong, "sorry"))
    reply = await generate(host, "?", tools=[add])
    answers = [message.content for message in reply.messages if message.role == "tool"]
    assert [answer.partition(":")[0] for answer in answers] == ["error", "error"]
    assert {event.code for event in host.of(ToolFailed)} == {"unknown_tool", "invalid_arguments"}
    host.assert_closed()


async def test_calls_without_ids_and_names() -> None:
    """A model that leaves out ids or names still gets each call answered under one id."""
    model = ScriptedModel(
        LLMResult(tool_calls=(ToolCall("", "add", '{"a": 1, "b": 1}'), ToolCall("z", "", "{}"))), "ok"
    )
    host = RecordingHost(_WithoutIds(model))
    reply = await generate(host, "?", tools=[add])
    answers = [message for message in reply.messages if message.role == "tool"]
    assert [answer.tool_call_id for answer in answers] == [call.id for call in reply.tool_calls]
    assert all(answer.tool_call_id for answer in answers)
    assert answers[0].content == "2"
    assert answers[1].content.startswith("error: there is no tool of that name")
    host.assert_closed()


class _WithoutIds:
    """Passes a scripted model on, with the made-up ids taken off."""

    def __init__(self, model: ScriptedModel) -> None:
        self._model = model
        self.name = model.name

    def stream(self, request: Any) -> Any:
        """The stream without ids."""
        return _Stripped(self._model.stream(request))

    async def complete(self, request: Any) -> LLMResult:
        """Not used."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing."""


class _Stripped:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aenter__(self) -> Self:
        self._stream = await self._inner.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._inner.__aexit__(*failure)

    def __aiter__(self) -> _Stripped:
        return self

    async def __anext__(self) -> Any:
        delta = await anext(self._stream)
        if getattr(delta, "id", "").startswith("call_"):
            return ToolCallPart(delta.index, "", delta.name, delta.arguments)
        return delta

    @property
    def result(self) -> LLMResult:
        result: LLMResult = self._stream.result
        stripped = tuple(
            ToolCall("" if call.id.startswith("call_") else call.id, call.name, call.arguments)
            for call in result.tool_calls
        )
        return LLMResult(result.text, result.thinking, stripped, result.usage, result.finish_reason)


async def test_two_tools_of_one_name() -> None:
    """A model could not tell them apart."""
    with pytest.raises(InvalidInput, match="two tools have one name"):
        await generate(RecordingHost(ScriptedModel("x")), "?", tools=[add, tool(name="add")(add.fn)])


async def test_tool_rounds_have_a_bound() -> None:
    """A model that never answers is stopped, and its last calls are closed without being made."""
    host = RecordingHost(ScriptedModel(*[calls((n, n)) for n in range(MAX_TOOL_ROUNDS + 1)]))
    with pytest.raises(LLMValidationError, match="rounds of tools"):
        await generate(host, "?", tools=[add])
    assert len(host.of(ToolCalled)) == MAX_TOOL_ROUNDS
    host.assert_closed()


async def test_the_end_of_the_run_passes_through() -> None:
    """A tool that learns of the run's end ends the whole answer with that error, not with a group of errors."""

    @tool
    async def late() -> None:
        """Report too late."""
        raise EmitAfterEnd("the run has ended")

    host = RecordingHost(ScriptedModel((ToolCall("a", "late"), ToolCall("b", "add", '{"a": 1, "b": 1}'))))
    with pytest.raises(EmitAfterEnd):
        await generate(host, "?", tools=[late, add])


# --- types ------------------------------------------------------------------------------------------------------------
async def test_an_answer_of_a_type() -> None:
    """The schema is asked for, the JSON streams in a block of its own role, and the reply holds the object."""
    model = ScriptedModel(Plan(goal="win", steps=["a"]))
    host = RecordingHost(model)
    reply: Reply[Plan] = await generate(host, "Plan!", output=Plan)
    assert reply.output == Plan(goal="win", steps=["a"])
    assert model.requests[0].schema is not None
    assert model.requests[0].schema["required"] == ["goal"]
    assert model.requests[0].schema_name == "Plan"
    assert host.of(TextStarted)[0].role == STRUCTURED


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [(Score, '{"value": 3}', Score(3)), (list[int], '{"result": [1, 2]}', [1, 2]), (str, "plain", "plain")],
)
async def test_other_types(type_: Any, text: str, value: object) -> None:
    """Dataclasses and built-in types work as models do."""
    assert (await generate(RecordingHost(ScriptedModel(text)), "?", output=type_)).output == value


async def test_repairs() -> None:
    """An answer that does not fit is marked and complained about; the next one counts."""
    model = ScriptedModel("no idea", '{"gaol": "x"}', '{"goal": "x"}')
    host = RecordingHost(model)
    reply = await generate(host, "Plan!", output=Plan)
    assert reply.output == Plan(goal="x")
    blocks = [event.block for event in host.of(TextStarted)]
    assert host.of(LLMTryFailed) == [
        LLMTryFailed(block=blocks[0], reason="llm_validation", try_=1),
        LLMTryFailed(block=blocks[1], reason="llm_validation", try_=2),
    ]
    complaint = model.requests[2].messages[-1]
    assert complaint.role == "user"
    assert "goal: Field required" in complaint.content
    assert '"required":["goal"]' in complaint.content
    assert [message.role for message in reply.messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert reply.usage.calls == 3


async def test_repairs_have_a_bound() -> None:
    """After the last repair the answer fails, as a step that failed."""
    host = RecordingHost(ScriptedModel(*["nonsense"] * (MAX_REPAIRS + 1)))
    with pytest.raises(LLMValidationError, match="Plan after 2 repairs"):
        await generate(host, "Plan!", output=Plan)
    assert len(host.of(LLMTryFailed)) == MAX_REPAIRS + 1
    assert len(host.of(StepFailed)) == 1
    host.assert_closed()


async def test_types_without_schema_fail_at_once() -> None:
    """A type that no schema describes is told before the model is asked."""
    host = RecordingHost(ScriptedModel("x"))
    with pytest.raises(InvalidInput):
        await generate(host, "?", output=memoryview)
    assert host.events == []


# --- tries ------------------------------------------------------------------------------------------------------------
async def test_a_broken_answer_is_marked_and_never_joined() -> None:
    """What a broken try wrote stays in its own block, marked; the answer is one whole try's."""
    model = ScriptedModel(Broken("Half of"), LLMServerError("busy"), "The whole.")
    host = RecordingHost(model)
    reply = await generate(host, "?")
    assert reply.text == "The whole."
    first, second = (event.block for event in host.of(TextStarted))
    assert (host.text_of(first), host.text_of(second)) == ("Half of", "The whole.")
    assert host.of(LLMTryFailed) == [
        LLMTryFailed(block=first, reason="llm_stream_broken", try_=1),
        LLMTryFailed(reason="llm_server", try_=2),
    ]
    types = [event.type for event in host.events]
    assert types.index("text.finished") < types.index("llm.try_failed")
    assert model.requests[0] == model.requests[2]
    assert len(reply.messages) == 2
    host.assert_closed()


async def test_calls_of_a_broken_try_are_closed_and_never_made() -> None:
    """Half a call is no call."""

    class Breaking(ScriptedModel):
        def _next(self, request: Any) -> Any:
            deltas, error = super()._next(request)
            return (deltas[:3], StreamBroken("cut")) if len(self.requests) == 1 else (deltas, error)

    host = RecordingHost(Breaking(calls((1, 2)), "no"))
    await generate(host, "?", tools=[add])
    assert host.of(ToolCalled) == []
    assert host.of(ToolFailed)[0].code == "llm_stream_broken"
    host.assert_closed()


async def test_tries_have_a_bound() -> None:
    """The last try's error is the answer's, and each try is marked."""
    host = RecordingHost(ScriptedModel(*[LLMServerError(f"busy {n}") for n in range(MAX_TRIES)], "never"))
    with pytest.raises(LLMServerError, match="busy 2"):
        await generate(host, "?")
    assert [event.try_ for event in host.of(LLMTryFailed)] == [1, 2, 3]
    host.assert_closed()


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (LLMAuthError("no"), 1),
        (LLMRateLimited("slow", retry_after=3.0), 2),
        (LLMRateLimited("slow", retry_after=3600.0), 1),
        (LLMServerError("busy", details={"should_retry": False}), 1),
        (LLMAuthError("odd", details={"should_retry": True}), 2),
        (StreamBroken("cut"), 2),
    ],
)
async def test_which_errors_are_worth_another_try(error: LLMError, tries: int, waits: list[float | None]) -> None:
    """Only what may pass is tried again, after as long as the provider asked, unless that is too long."""
    model = ScriptedModel(error, "ok")
    host = RecordingHost(model)
    if tries == 1:
        with pytest.raises(type(error)):
            await generate(host, "?")
    else:
        assert (await generate(host, "?")).text == "ok"
    assert len(model.requests) == tries
    assert waits == [error.retry_after]


async def test_stopping_closes_what_was_streaming() -> None:
    """A stopped answer leaves neither an open block nor an open call."""
    begun = anyio.Event()

    class Hanging(ScriptedModel):
        def stream(self, request: Any) -> Any:
            return _HangingStream(super().stream(request), begun)

    host = RecordingHost(Hanging(LLMResult("text", tool_calls=calls((1, 2)))))
    async with anyio.create_task_group() as group:
        group.start_soon(generate, host, "?")
        await begun.wait()
        group.cancel_scope.cancel()
    assert host.of(ToolFailed)[0].code == "stopped"
    host.assert_closed(but=(StepStarted,))


class _HangingStream(_Stripped):
    """Hangs after the first argument of a call."""

    def __init__(self, inner: Any, begun: anyio.Event) -> None:
        super().__init__(inner)
        self._begun = begun

    async def __anext__(self) -> Any:
        if self._stream.result.tool_calls:
            self._begun.set()
            await anyio.sleep_forever()
        return await anext(self._stream)


def _is_a_host(host: RecordingHost) -> GenerationHost:
    """Checked by the type checkers: what is recorded here has the shape that is asked for."""
    return host
