"""OpenAI's responses format: what is sent, what every kind of answer means, and where a lost answer goes on.

Comes in: requests, and streams written here in the provider's shapes, cut at every byte. Goes out: a failure where
deltas, usage, an error's class or a place to go on is wrong. It deliberately opens no connection but the last tests'.
"""

from __future__ import annotations

import json
from typing import Any, Final

import anyio
import pytest

from agentstream.errors import (
    LLMContentRefused,
    LLMError,
    LLMParseError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMRequestError,
    LLMServerError,
    StreamBroken,
)
from agentstream.events import Usage
from agentstream.llm import LLMRequest, LLMResult, Message, Thought, ToolCall, ToolSpec
from agentstream.llm.http import HttpLLM, Timeouts
from agentstream.llm.openai_responses import Parser, build
from agentstream.testing import FakeAnswer, FakeProvider, Fault
from llm.reading import read, read_everywhere

SECRET: Final = "sk-canary and the prompt"


def stream(*events: dict[str, Any], first: int = 0) -> bytes:
    """Events as the provider writes them, numbered from `first`."""
    return b"".join(
        b"event: %b\ndata: %b\n\n"
        % (event["type"].encode(), json.dumps({**event, "sequence_number": number}, ensure_ascii=False).encode())
        for number, event in enumerate(events, first)
    )


def response(kind: str, **more: Any) -> dict[str, Any]:
    """An event about the whole response."""
    return {"type": f"response.{kind}", "response": {"id": "resp_1", "model": "m-1", "output": [], **more}}


def text(words: str) -> dict[str, Any]:
    """More text of the message that is the first item."""
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": words}


USAGE: Final = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 2},
}
THINKING: Final = [
    {"type": "response.output_item.added", "output_index": 0, "item": {"id": "rs_1", "type": "reasoning"}},
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "Hm, "},
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "ja."},
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "Also."},
    {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm, ja."}, {"type": "summary_text", "text": "Also."}],
            "encrypted_content": "sealed",
        },
    },
]


def call(output: int, id_: str, name: str, *pieces: str) -> list[dict[str, Any]]:
    """The events of a call."""
    item = {"type": "function_call", "id": f"fc_{id_}", "call_id": id_, "name": name}
    return [
        {"type": "response.output_item.added", "output_index": output, "item": {**item, "arguments": ""}},
        *(
            {"type": "response.function_call_arguments.delta", "output_index": output, "delta": piece}
            for piece in pieces
        ),
        {
            "type": "response.output_item.done",
            "output_index": output,
            "item": {**item, "arguments": "".join(pieces)},
        },
    ]


WHOLE: Final = stream(
    response("created"),
    response("in_progress"),
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "msg_1"}},
    text("Grüße 🙂"),
    text(" aus Köln"),
    {"type": "response.output_text.done", "output_index": 0, "text": "Grüße 🙂 aus Köln"},
    {"type": "response.some_event_of_tomorrow", "delta": {"x": 1}},
    response("completed", usage=USAGE),
)


# --- answers ----------------------------------------------------------------------------------------------------------
def test_text_at_every_cut() -> None:
    """Text, usage and model come out alike wherever the network cuts."""
    whole = read_everywhere(Parser, WHOLE)
    assert whole[:2] == (LLMResult("Grüße 🙂 aus Köln", "", (), Usage(20, 9, 5, 2, calls=1), "stop", "m-1"), None)


def test_thoughts_and_parallel_calls_at_every_cut() -> None:
    """Paragraphs of a summary are kept apart, the sealed thought is kept, and two calls are two."""
    body = stream(
        response("created"),
        *THINKING,
        *call(1, "a", "f", '{"x":', " 1}"),
        *call(2, "b", "g"),
        response("completed", usage=USAGE),
    )
    whole = read_everywhere(Parser, body)
    assert whole.error is None
    assert whole.result.thinking == "Hm, ja.\n\nAlso."
    assert whole.result.thoughts == (Thought("openai.reasoning", "Hm, ja.\n\nAlso.", "sealed", "rs_1"),)
    assert whole.result.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))
    assert whole.result.finish_reason == "tool_calls"


def test_a_call_that_comes_only_whole() -> None:
    """Arguments that no delta brought are taken from the finished item, and not twice."""
    body = stream(response("created"), call(0, "a", "f", '{"x": 1}')[-1], response("completed"))
    assert read_everywhere(Parser, body).result.tool_calls == (ToolCall("a", "f", '{"x": 1}'),)


@pytest.mark.parametrize(
    ("events", "reason", "error"),
    [
        ([response("incomplete", incomplete_details={"reason": "max_output_tokens"})], "length", None),
        ([response("incomplete", incomplete_details={"reason": "content_filter"})], "", LLMContentRefused),
        ([{"type": "response.refusal.delta", "delta": "No"}, response("completed")], "", LLMContentRefused),
        ([response("failed", error={"code": "server_error", "message": SECRET})], "", LLMServerError),
        ([response("failed", error={"code": "rate_limit_exceeded", "message": SECRET})], "", LLMRateLimited),
        ([{"type": "error", "code": "insufficient_quota", "message": SECRET}], "", LLMQuotaExceeded),
        ([{"type": "error", "error": {"code": "invalid_prompt", "message": SECRET}}], "", LLMRequestError),
        ([response("cancelled")], "", StreamBroken),
        ([response("in_progress")], "", StreamBroken),
        ([{"type": "response.function_call_arguments.delta", "output_index": 7, "delta": "{"}], "", LLMParseError),
    ],
)
def test_ends(events: list[dict[str, Any]], reason: str, error: type[LLMError] | None) -> None:
    """How an answer may end; what came before an error is given out."""
    whole = read_everywhere(Parser, stream(response("created"), text("Hel"), *events))
    assert (whole.result.text, whole.result.finish_reason, whole.error) == ("Hel", reason, error)


def test_truncated_at_every_byte_is_never_whole() -> None:
    """Without its last event an answer is broken, wherever it was cut."""
    for cut in range(len(WHOLE) - 2):
        found = read(Parser, [WHOLE[:cut]])
        assert found.error is StreamBroken
        assert found.result.finish_reason == ""


@pytest.mark.parametrize("data", [b"{", b"[1]", b'"\xff"', b'{"a":' * 5_000, b'{"type": 7}'])
def test_what_is_not_the_format(data: bytes) -> None:
    """Broken JSON, another shape, bad UTF-8 and JSON nested without end are one typed error."""
    assert read_everywhere(Parser, b"data: " + data[:200] + b"\n\n").error is LLMParseError
    assert read(Parser, [b"data: " + data + b"\n\n"]).error is LLMParseError


# --- requests ---------------------------------------------------------------------------------------------------------
def test_what_is_sent() -> None:
    """A conversation with thoughts, tools, pictures and a schema becomes the body that OpenAI documents."""
    request = LLMRequest(
        messages=(
            Message("system", "Be brief."),
            Message("user", "Look", images=("data:image/png;base64,AA==",)),
            Message(
                "assistant",
                "",
                (ToolCall("a", "f", '{"x": 1}'),),
                thoughts=(
                    Thought("openai.reasoning", "Hm", "sealed", "rs_1"),
                    Thought("anthropic.thinking", "no", "sig"),
                ),
            ),
            Message("tool", "one", tool_call_id="a", name="f"),
        ),
        tools=(ToolSpec("f", "Does f.", {"type": "object", "properties": {}}),),
        max_tokens=9,
        temperature=0.0,
        schema={"type": "object"},
        schema_name="Plan",
        thinking="low",
    )
    path, body = build(request, "m-1")
    assert path == "responses"
    assert json.loads(body) == {
        "model": "m-1",
        "input": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                ],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm"}],
                "encrypted_content": "sealed",
            },
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x": 1}'},
            {"type": "function_call_output", "call_id": "a", "output": "one"},
        ],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "tools": [
            {
                "type": "function",
                "name": "f",
                "description": "Does f.",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
        "max_output_tokens": 9,
        "temperature": 0.0,
        "text": {"format": {"type": "json_schema", "name": "Plan", "schema": {"type": "object"}, "strict": False}},
    }


@pytest.mark.parametrize(
    ("model", "thinks"), [("gpt-4o", False), ("gpt-5.2", True), ("o4-mini", True), ("gpt-5-chat-latest", False)]
)
def test_sealed_thoughts_are_asked_for_where_there_are_some(model: str, thinks: bool) -> None:
    """Models that do not think refuse the wish."""
    body = json.loads(build(LLMRequest((Message("user", "Hi"),)), model)[1])
    assert ("include" in body) is thinks
    assert body.keys() - {"include"} == {"model", "input", "stream", "store"}


# --- going on after a lost connection ---------------------------------------------------------------------------------
def test_where_a_lost_answer_goes_on() -> None:
    """Only an answer in the background is kept; it goes on behind the last number that was seen, and nothing twice."""
    body = stream(response("created", background=True), text("Hel"), text("lo"), response("completed", usage=USAGE))
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    parser = Parser("p")
    assert parser.resumption is None  # not yet known
    parser.feed(events[0] + events[1] + events[2][:20])
    assert parser.resumption is not None
    assert parser.resumption.path == "responses/resp_1?stream=true&starting_after=1"
    assert parser.resumption.cancel == "responses/resp_1/cancel"
    parser.resume()
    assert [type(delta).__name__ for delta in parser.feed(b"".join(events[1:]))] == ["TextPart", "Finish"]
    assert parser.resumption is None

    kept = Parser("p")
    kept.feed(stream(response("created"), text("Hel")))
    assert kept.resumption is None


ASK: Final = LLMRequest((Message("user", "Hi"),), background=True)


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [Fault.cut(after=6), Fault.cut(after=6, reset=True), Fault.no_end()], ids=repr)
async def test_a_lost_connection_is_replaced(fault: Fault) -> None:
    """A background answer is whole after its connection was lost, with each piece once."""
    with anyio.fail_after(10):
        async with FakeProvider(FakeAnswer("One two three four five.", fault=fault)) as provider:
            llm = HttpLLM("p", provider.url("openai-responses"), "m", "k", provider="openai-responses")
            assert (await llm.complete(ASK)).text == "One two three four five."
            await llm.aclose()
            assert [request.method for request in provider.requests] == ["POST", "GET"]
            assert provider.requests[1].headers["authorization"] == "Bearer k"
            assert provider.cancelled == frozenset()


@pytest.mark.anyio
async def test_without_the_wish_nothing_goes_on() -> None:
    """An answer that nobody asked to keep breaks with its connection."""
    with anyio.fail_after(10):
        async with FakeProvider(FakeAnswer("One two three four five.", fault=Fault.cut(after=6))) as provider:
            llm = HttpLLM("p", provider.url("openai-responses"), "m", provider="openai-responses")
            with pytest.raises(StreamBroken):
                await llm.complete(LLMRequest((Message("user", "Hi"),)))
            await llm.aclose()
            assert len(provider.requests) == 1


@pytest.mark.anyio
async def test_leaving_ends_the_answer_at_the_provider() -> None:
    """Whoever leaves early, or waits too long, does not pay for the rest."""
    limits = Timeouts(between_tokens=0.2)
    with anyio.fail_after(10):
        async with FakeProvider(*[FakeAnswer("One two.", fault=Fault.hang(after=6))] * 2) as provider:
            llm = HttpLLM("p", provider.url("openai-responses"), "m", provider="openai-responses", timeouts=limits)
            async with llm.stream(ASK) as answer:
                await anext(answer)
            assert provider.cancelled == {"resp_0001"}
            with pytest.raises(TimeoutError):
                await llm.complete(ASK)
            assert provider.cancelled == {"resp_0001", "resp_0002"}
            await llm.aclose()
