"""Gemini's format: what is sent, and what every kind of answer means.

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
    LLMRateLimited,
    LLMRequestError,
    LLMServerError,
    StreamBroken,
)
from agentstream.events import Usage
from agentstream.llm import LLMRequest, LLMResult, Message, ToolCall, ToolSpec
from agentstream.llm.failures import refusal
from agentstream.llm.gemini import Parser, build
from llm.reading import read, read_everywhere

SECRET: Final = "AIza-canary and the prompt"


def chunk(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """One event, with the line ends and the spaces that the provider writes."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if finish:
        candidate["finishReason"] = finish
    body = {"candidates": [candidate], "modelVersion": "m-1", "responseId": "r", **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\r\n\r\n"


def counted(**more: int) -> dict[str, Any]:
    """Usage so far."""
    return {"usageMetadata": {"promptTokenCount": 20, **more}}


WHOLE: Final = b"".join(
    (
        chunk({"text": "Hm, ", "thought": True}, **counted()),
        chunk({"text": "ja.", "thought": True}, {"text": "Grüße"}, **counted(thoughtsTokenCount=2)),
        chunk({"text": " 🙂 aus Köln"}, **counted(thoughtsTokenCount=2, candidatesTokenCount=5)),
        chunk(
            {"text": ""},
            finish="STOP",
            **counted(thoughtsTokenCount=2, candidatesTokenCount=7, cachedContentTokenCount=5),
        ),
    )
)


def test_text_at_every_cut() -> None:
    """Text, thinking and cumulative usage come out alike wherever the network cuts, between CR and LF too."""
    whole = read_everywhere(Parser, WHOLE)
    result = LLMResult("Grüße 🙂 aus Köln", "Hm, ja.", (), Usage(20, 9, 5, 2, calls=1), "stop", "m-1")
    assert whole[:2] == (result, None)


def test_whole_calls_with_their_signature() -> None:
    """Calls come whole, with or without an id; a stop that follows calls is one for calls."""
    body = b"".join(
        (
            chunk({"functionCall": {"name": "f", "args": {"x": "ü"}}, "thoughtSignature": "sealed"}),
            chunk({"functionCall": {"name": "g", "id": "b"}}, finish="STOP"),
        )
    )
    whole = read_everywhere(Parser, body)
    assert whole.result.tool_calls == (ToolCall("", "f", '{"x":"ü"}', "sealed"), ToolCall("b", "g", "{}"))
    assert (whole.result.finish_reason, whole.error) == ("tool_calls", None)


@pytest.mark.parametrize(
    ("last", "reason", "error"),
    [
        (chunk(finish="MAX_TOKENS"), "length", None),
        (chunk(finish="OTHER"), "other", None),
        (chunk(finish="SAFETY"), "", LLMContentRefused),
        (chunk(finish="RECITATION"), "", LLMContentRefused),
        (chunk(finish="MALFORMED_FUNCTION_CALL"), "", LLMParseError),
        (chunk(promptFeedback={"blockReason": "SAFETY"}), "", LLMContentRefused),
        (b'data: {"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}}\r\n\r\n', "", LLMServerError),
        (b'data: {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}\r\n\r\n', "", LLMRateLimited),
        (b'data: {"error": {"status": "INVALID_ARGUMENT"}}\r\n\r\n', "", LLMRequestError),
        (b"", "", StreamBroken),
    ],
)
def test_ends(last: bytes, reason: str, error: type[LLMError] | None) -> None:
    """How an answer may end; what came before an error is given out."""
    whole = read_everywhere(Parser, chunk({"text": "Hel"}) + last)
    assert (whole.result.text, whole.result.finish_reason, whole.error) == ("Hel", reason, error)


def test_truncated_at_every_byte_is_never_whole() -> None:
    """Before its finish reason an answer is broken, wherever it was cut."""
    for cut in range(len(WHOLE) - 3):
        found = read(Parser, [WHOLE[:cut]])
        assert (found.error, found.result.finish_reason) == (StreamBroken, "")


@pytest.mark.parametrize("data", [b"{", b"[1]", b'"\xff"', b'{"a":' * 5_000, b'{"candidates": 7}'])
def test_what_is_not_the_format(data: bytes) -> None:
    """Broken JSON, another shape, bad UTF-8 and JSON nested without end are one typed error."""
    assert read(Parser, [b"data: " + data + b"\r\n\r\n"]).error is LLMParseError


def test_refusals() -> None:
    """An unknown key comes as 400; a wait stands in the body; a body may lie in an array. Nothing is repeated."""
    key = {"code": 400, "status": "INVALID_ARGUMENT", "message": SECRET, "details": [{"reason": "API_KEY_INVALID"}]}
    rate = {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "x"}, {"retryDelay": "34.5s"}]}
    bad = json.dumps({"error": key}).encode()
    found = refusal(400, bad)
    assert type(found) is LLMAuthError
    assert "canary" not in f"{found!s} {found!r} {found.details}"
    limited = refusal(429, json.dumps([{"error": rate}]).encode())
    assert (type(limited), limited.retry_after) == (LLMRateLimited, 34.5)
    assert refusal(429, json.dumps({"error": rate}).encode(), retry_after=2.0).retry_after == 2.0


# --- requests ---------------------------------------------------------------------------------------------------------
def test_what_is_sent() -> None:
    """A conversation with signed calls, tools and pictures becomes the body that Google documents."""
    request = LLMRequest(
        messages=(
            Message("system", "Be brief."),
            Message("user", "Look", images=("data:image/png;base64,AA==",)),
            Message("assistant", "", (ToolCall("a", "f", '{"x": 1}', "sealed"), ToolCall("", "g", ""))),
            Message("tool", "one", tool_call_id="a"),
            Message("tool", "two", name="g"),
        ),
        tools=(ToolSpec("f", "Does f.", {"type": "object", "properties": {}}),),
        max_tokens=9,
        temperature=0.0,
    )
    path, body = build(request, "models/gemini-2.5-flash")
    assert path == "models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert json.loads(body) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}, {"text": "Look"}]},
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "f", "args": {"x": 1}, "id": "a"}, "thoughtSignature": "sealed"},
                    {"functionCall": {"name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"result": "one"}, "id": "a"}},
                    {"functionResponse": {"name": "g", "response": {"result": "two"}}},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "f",
                        "description": "Does f.",
                        "parametersJsonSchema": {"type": "object", "properties": {}},
                    }
                ]
            }
        ],
        "generationConfig": {"maxOutputTokens": 9, "temperature": 0.0},
    }


def test_a_schema_is_the_response_format_except_beside_tools() -> None:
    """Most models refuse both at once; then the schema is told."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    alone = json.loads(build(LLMRequest((Message("user", "Hi"),), schema=schema), "m")[1])
    assert alone["generationConfig"] == {"responseMimeType": "application/json", "responseJsonSchema": schema}
    assert "systemInstruction" not in alone
    beside = json.loads(build(LLMRequest((Message("user", "Hi"),), (ToolSpec("f"),), schema=schema), "m")[1])
    assert "generationConfig" not in beside
    assert '{"type":"object"' in beside["systemInstruction"]["parts"][0]["text"]


@pytest.mark.parametrize(
    ("model", "thinking", "config"),
    [
        ("gemini-2.5-pro", "low", {"includeThoughts": True, "thinkingBudget": 1024}),
        ("gemini-2.5-flash", "off", {"includeThoughts": False, "thinkingBudget": 0}),
        ("gemini-3-pro", "high", {"includeThoughts": True, "thinkingLevel": "high"}),
    ],
)
def test_thinking(model: str, thinking: Any, config: dict[str, Any]) -> None:
    """How much to think is said in the way that the model knows."""
    body = json.loads(build(LLMRequest((Message("user", "Hi"),), thinking=thinking), model)[1])
    assert body["generationConfig"] == {"thinkingConfig": config}


def test_a_models_name_cannot_leave_its_place() -> None:
    """A name with a slash or a question mark stays a name."""
    path, _ = build(LLMRequest((), model="a/../b?key=x"), "m")
    assert path == "models/a%2F..%2Fb%3Fkey%3Dx:streamGenerateContent?alt=sse"
