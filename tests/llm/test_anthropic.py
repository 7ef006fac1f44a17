"""Anthropic's messages format: what is sent, and what every kind of answer means.

Comes in: requests, and streams written here in the provider's shapes, cut at every byte. Goes out: a failure where
deltas, usage or the class of an error are wrong. It deliberately opens no connection.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from agentstream.errors import (
    LLMAuthError,
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
from agentstream.llm.anthropic import MAX_TOKENS, Parser, build
from agentstream.llm.failures import failure, refusal
from llm.reading import read, read_everywhere

SECRET: Final = "sk-ant-canary-1 and the prompt"
PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'


def event(type_: str, **fields: Any) -> bytes:
    """One event, padded as the provider pads it."""
    body = json.dumps({"type": type_, **fields}, ensure_ascii=False).encode()
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), body[:-1] + b" " * (len(body) % 11) + b"}")


def delta(index: int, type_: str, **fields: Any) -> bytes:
    """More of a block."""
    return event("content_block_delta", index=index, delta={"type": type_, **fields})


def block(index: int, start: dict[str, Any], *deltas: bytes) -> bytes:
    """A whole block."""
    return b"".join(
        (
            event("content_block_start", index=index, content_block=start),
            *deltas,
            event("content_block_stop", index=index),
        )
    )


START: Final = (
    event(
        "message_start",
        message={
            "id": "msg_1",
            "model": "m-1",
            "content": [],
            "usage": {
                "input_tokens": 10,
                "cache_creation_input_tokens": 3,
                "cache_read_input_tokens": 20,
                "output_tokens": 1,
            },
        },
    )
    + PING
)
THINKING: Final = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    delta(0, "thinking_delta", thinking="Hm, "),
    PING,
    delta(0, "thinking_delta", thinking="ja."),
    delta(0, "signature_delta", signature="sea"),
    delta(0, "signature_delta", signature="led"),
)
TEXT: Final = block(
    1, {"type": "text", "text": ""}, delta(1, "text_delta", text="Grüße 🙂"), delta(1, "text_delta", text=" aus Köln")
)


def end(reason: str | None = "end_turn", **usage: int) -> bytes:
    """How an answer ends; usage counts from the beginning of the answer."""
    stop = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=stop, usage={"output_tokens": 9, **usage}) + event("message_stop")


def test_thinking_and_text_at_every_cut() -> None:
    """Text, thinking, its seal and cumulative usage come out alike wherever the network cuts."""
    middle = event("message_delta", delta={}, usage={"output_tokens": 4})
    whole = read_everywhere(Parser, START + THINKING + TEXT + middle + end())
    thought = Thought("anthropic.thinking", "Hm, ja.", "sealed")
    usage = Usage(33, 9, 20, calls=1)  # what was read from and written to the cache was read
    assert whole[:2] == (LLMResult("Grüße 🙂 aus Köln", "Hm, ja.", (), usage, "stop", "m-1", (thought,)), None)


def test_parallel_calls_at_every_cut() -> None:
    """Arguments come in pieces, whole with the start, or not at all; a call without any has an empty object."""
    calls = b"".join(
        (
            block(
                0,
                {"type": "tool_use", "id": "a", "name": "f", "input": {}},
                delta(0, "input_json_delta", partial_json=""),
                delta(0, "input_json_delta", partial_json='{"x": "ü'),
                delta(0, "input_json_delta", partial_json='"}'),
            ),
            block(1, {"type": "tool_use", "id": "b", "name": "g", "input": {"y": [1]}}),
            block(2, {"type": "tool_use", "id": "c", "name": "h", "input": {}}),
        )
    )
    whole = read_everywhere(Parser, START + calls + end("tool_use"))
    assert whole.error is None
    assert whole.result.tool_calls == (
        ToolCall("a", "f", '{"x": "ü"}'),
        ToolCall("b", "g", '{"y":[1]}'),
        ToolCall("c", "h", "{}"),
    )
    assert whole.result.finish_reason == "tool_calls"


def test_thoughts_that_nobody_may_read() -> None:
    """A sealed thought without text goes back, and is no text."""
    body = START + block(0, {"type": "redacted_thinking", "data": "zzz"}) + block(1, {"type": "text", "text": "Hi"})
    whole = read_everywhere(Parser, body + end())
    assert (whole.result.thinking, whole.result.text) == ("", "Hi")
    assert whole.result.thoughts == (Thought("anthropic.redacted_thinking", "", "zzz"),)


@pytest.mark.parametrize(
    ("reason", "word", "error"),
    [
        ("end_turn", "stop", None),
        ("stop_sequence", "stop", None),
        ("max_tokens", "length", None),
        ("model_context_window_exceeded", "length", None),
        ("pause_turn", "pause_turn", None),
        ("refusal", "", LLMContentRefused),
        (None, "", StreamBroken),
    ],
)
def test_reasons(reason: str | None, word: str, error: type[LLMError] | None) -> None:
    """Why an answer ended, in the words of all providers."""
    whole = read_everywhere(Parser, START + TEXT + end(reason))
    assert (whole.result.finish_reason, whole.error) == (word, error)


@pytest.mark.parametrize(
    ("kind", "class_"),
    [
        ("overloaded_error", LLMServerError),
        ("api_error", LLMServerError),
        ("timeout_error", LLMServerError),
        ("rate_limit_error", LLMRateLimited),
        ("invalid_request_error", LLMRequestError),
        ("request_too_large", LLMRequestError),
        ("not_found_error", LLMRequestError),
        ("authentication_error", LLMAuthError),
        ("permission_error", LLMAuthError),
        ("billing_error", LLMQuotaExceeded),
    ],
)
def test_errors_inside_the_stream(kind: str, class_: type[LLMError]) -> None:
    """An error inside the stream is of its class, behind what came before it, and repeats nothing."""
    error = event("error", error={"type": kind, "message": SECRET})
    whole = read_everywhere(Parser, START + TEXT[: TEXT.index(b"event: content_block_stop")] + error)
    assert (whole.result.text, whole.error) == ("Grüße 🙂 aus Köln", class_)
    made = failure(None, {"type": kind, "message": SECRET})
    assert made.details == {"provider_code": kind}
    assert "canary" not in f"{made!s} {made!r}"


def test_a_refusal() -> None:
    """A body of Anthropic's says its type one level down."""
    body = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": SECRET}}).encode()
    found = refusal(529, body, "p", retry_after=3.0)
    assert (type(found), found.http_status, found.retry_after) == (LLMServerError, 529, 3.0)


def test_truncated_at_every_byte_is_never_whole() -> None:
    """Without `message_stop` an answer is broken, wherever it was cut, and keeps what came before."""
    body = START + TEXT + end()
    for cut in range(len(body) - 2):
        found = read(Parser, [body[:cut]])
        assert (found.error, found.result.finish_reason) == (StreamBroken, "")
        assert "Grüße 🙂 aus Köln".startswith(found.result.text)


@pytest.mark.parametrize("data", [b"{", b"[1]", b'"\xff"', b'{"a":' * 5_000, b'{"type": 7}'])
def test_what_is_not_the_format(data: bytes) -> None:
    """Broken JSON, another shape, bad UTF-8 and JSON nested without end are one typed error."""
    assert read(Parser, [START, b"data: " + data + b"\n\n"]).error is LLMParseError


# --- requests ---------------------------------------------------------------------------------------------------------
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Plan",
    "properties": {"n": {"type": "integer", "minimum": 1, "title": "N"}, "of": {"$ref": "#/$defs/Part"}},
    "required": ["n", "of"],
    "$defs": {"Part": {"type": "object", "properties": {"title": {"type": "string", "maxLength": 9}}}},
}


def test_what_is_sent() -> None:
    """A conversation with thoughts, tools and pictures becomes the body that Anthropic documents."""
    request = LLMRequest(
        messages=(
            Message("system", "Be brief."),
            Message("user", "Look", images=("data:image/png;base64,AA==", "https://host/p.png")),
            Message(
                "assistant",
                "I see.",
                (ToolCall("a", "f", '{"x": 1}'), ToolCall("executor.1.2", "g", "broken")),
                thoughts=(
                    Thought("anthropic.thinking", "Hm", "sealed"),
                    Thought("anthropic.redacted_thinking", "", "zzz"),
                    Thought("openai.reasoning", "no", "other", "rs_1"),
                ),
            ),
            Message("tool", "one", tool_call_id="a", name="f"),
            Message("tool", "two", tool_call_id="executor.1.2", name="g"),
            Message("user", "Go on."),
        ),
        tools=(ToolSpec("f", "Does f.", {"type": "object", "properties": {}}),),
        temperature=0.0,
    )
    path, body = build(request, "claude-x")
    sent = json.loads(body)
    other = sent["messages"][1]["content"][4]["id"]
    assert path == "messages"
    assert other.isalnum()  # the format refuses dots
    assert sent == {
        "model": "claude-x",
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "system": "Be brief.",
        "temperature": 0.0,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    {"type": "image", "source": {"type": "url", "url": "https://host/p.png"}},
                    {"type": "text", "text": "Look"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm", "signature": "sealed"},
                    {"type": "redacted_thinking", "data": "zzz"},
                    {"type": "text", "text": "I see."},
                    {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": other, "name": "g", "input": {"arguments": "broken"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                    {"type": "tool_result", "tool_use_id": other, "content": "two"},
                    {"type": "text", "text": "Go on."},
                ],
            },
        ],
        "tools": [
            {"name": "f", "description": "Does f.", "input_schema": {"type": "object", "properties": {}}},
        ],
    }


def test_a_schema_is_the_output_format_where_it_can_be() -> None:
    """Objects are closed, references written out, and what the provider cannot hold to is left to the check."""
    sent = json.loads(build(LLMRequest((Message("user", "Hi"),), schema=SCHEMA), "claude-sonnet-4-5")[1])
    assert sent["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {
                "n": {"type": "integer"},
                "of": {"type": "object", "properties": {"title": {"type": "string"}}, "additionalProperties": False},
            },
            "required": ["n", "of"],
            "additionalProperties": False,
        },
    }
    assert "system" not in sent


FREE: Final = {"type": "object", "properties": {"m": {"type": "object", "additionalProperties": {"type": "string"}}}}
TREE: Final = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}}}}}


@pytest.mark.parametrize(
    ("schema", "model"),
    [
        pytest.param(SCHEMA, "claude-3-7-sonnet-latest", id="model without formats"),
        pytest.param(SCHEMA, "claude-sonnet-4-20250514", id="older model"),
        pytest.param(FREE, "claude-sonnet-4-5", id="free keys"),
        pytest.param(TREE, "claude-sonnet-4-5", id="contains itself"),
    ],
)
def test_a_schema_is_told_where_it_cannot(schema: dict[str, Any], model: str) -> None:
    """What no format can say is said in words, whole."""
    sent = json.loads(build(LLMRequest((Message("user", "Hi"),), schema=schema), model)[1])
    assert "output_config" not in sent
    assert json.dumps(schema, separators=(",", ":")) in sent["system"]


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("claude-haiku-4-5", "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 2148}),
        ("claude-opus-4-7", "high", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        ("claude-opus-4-7", "off", {"thinking": {"type": "disabled"}, "max_tokens": 100}),
        ("claude-opus-4-7", "", {"temperature": 1.0}),
    ],
)
def test_thinking(model: str, thinking: Any, sent: dict[str, Any]) -> None:
    """How much to think is said in the way that the model knows; a budget is not taken from the answer."""
    request = LLMRequest((Message("user", "Hi"),), thinking=thinking, max_tokens=100, temperature=1.0)
    body = json.loads(build(request, model)[1])
    assert body | sent == body
    assert ("temperature" in body) is (thinking == "")
