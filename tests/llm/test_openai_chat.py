"""The chat format of OpenAI: what is sent, and what every kind of answer means.

Comes in: requests, and streams written here in the shapes of real servers, cut at every byte. Goes out: a failure where
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
from agentstream.llm import (
    Assembly,
    Delta,
    Finish,
    LLMRequest,
    LLMResult,
    Message,
    TextPart,
    ThinkingPart,
    Thought,
    ToolCall,
    ToolCallPart,
    ToolSpec,
)
from agentstream.llm.failures import refusal
from agentstream.llm.openai_chat import Parser, build

SECRET: Final = "sk-canary and the prompt"


def chunk(delta: dict[str, Any] | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    """One event as OpenAI writes it."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1", "choices": choices, **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"


def parse(body: bytes, size: int | None = None) -> tuple[list[Delta], LLMResult, LLMError | None]:
    """The deltas, the joined result and the failure of a body that comes in pieces of `size` bytes."""
    parser, assembly, deltas = Parser("p"), Assembly(), list[Delta]()
    size = size or len(body)
    for start in range(0, len(body), size):
        deltas += parser.feed(body[start : start + size])
    try:
        deltas += parser.end()
        error = parser.error
    except LLMError as broken:
        error = broken
    for delta in deltas:
        assembly.add(delta)
    return deltas, assembly.result(parser.model), error


TEXT: Final = b"".join(
    (
        b": OPENROUTER PROCESSING\n\n",
        chunk({"role": "assistant", "content": "", "refusal": None}, obfuscation="x7", usage=None),
        chunk({"content": None, "reasoning": "Hm, "}),
        chunk({"reasoning_content": "ja."}),
        chunk({"content": "Grüße 🙂"}),
        b": ping\n",
        chunk({"content": " aus Köln"}),
        chunk({}, finish="stop"),
        chunk(
            None,
            usage={
                "prompt_tokens": 11,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
        ),
        DONE,
    )
)
TEXT_RESULT: Final = LLMResult("Grüße 🙂 aus Köln", "Hm, ja.", (), Usage(11, 7, 3, 2, calls=1), "stop", "m-1")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_text_is_the_same_at_every_split(ending: bytes) -> None:
    """Text, thinking and usage come out alike for every size of piece and every line ending."""
    body = TEXT.replace(b"\n", ending)
    for size in (*range(1, 40), len(body)):
        _, result, error = parse(body, size)
        assert error is None
        assert result == TEXT_RESULT


def test_text_is_the_same_for_every_single_cut() -> None:
    """One cut at any byte changes nothing."""
    for cut in range(1, len(TEXT)):
        parser = Parser()
        deltas = parser.feed(TEXT[:cut]) + parser.feed(TEXT[cut:])
        assert deltas[-1] == Finish("stop", TEXT_RESULT.usage)
        assert "".join(delta.text for delta in deltas if isinstance(delta, TextPart)) == TEXT_RESULT.text


def test_truncated_at_every_byte_is_never_whole() -> None:
    """A stream cut before its finish reason is broken, wherever it was cut, and keeps what came before."""
    finished = TEXT.index(b'"finish_reason": "stop"')
    for cut in range(finished):
        _, result, error = parse(TEXT[:cut], max(1, cut))
        assert isinstance(error, StreamBroken)
        assert TEXT_RESULT.text.startswith(result.text)
        assert result.finish_reason == ""


def test_a_stream_may_end_without_done() -> None:
    """Servers that send no `[DONE]` are whole after their finish reason, with the usage that came."""
    _, result, error = parse(TEXT.removesuffix(DONE))
    assert (result, error) == (TEXT_RESULT, None)


def test_nothing_counts_after_done() -> None:
    """What a server sends behind the end is nobody's, be it an error."""
    deltas, result, error = parse(TEXT + chunk({"content": "more"}) + b'data: {"error":{"code":500}}\n\n')
    assert (result, error) == (TEXT_RESULT, None)
    assert [delta for delta in deltas if isinstance(delta, Finish)] == [deltas[-1]]


CALLS: Final = b"".join(
    (
        chunk({"role": "assistant", "content": None}),
        chunk(
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}),
        chunk(
            {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
        chunk({}, finish="tool_calls"),
        DONE,
    )
)


def test_parts_of_calls_join_by_index() -> None:
    """Id and name come once; later parts name only the index."""
    for size in (1, 7, 64, len(CALLS)):
        deltas, result, error = parse(CALLS, size)
        assert error is None
        assert result.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))
        assert result.finish_reason == "tool_calls"
        assert deltas[0] == ToolCallPart(0, "a", "f", "")


def call(id_: str | None, name: str, arguments: Any, **index: int) -> dict[str, Any]:
    """One entry of `tool_calls`."""
    return {**index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([call("a", "f", "{}", index=0), call("b", "g", "{}", index=0)], id="two calls under one index"),
        pytest.param([call("a", "f", "{}"), call("b", "g", "{}")], id="no index"),
        pytest.param([call("a", "f", "{}", index=3), call("b", "g", "{}", index=5)], id="numbers of their own"),
        pytest.param(
            [call("a", "f", "{", index=0), call("a", "", "}", index=0), call("b", "g", {}, index=1)], id="id again"
        ),
        pytest.param([call("a", "f", "{"), call(None, "", "}"), call("b", "g", "{}")], id="no index, then no id"),
    ],
)
def test_calls_of_servers_that_number_differently(parts: list[dict[str, Any]]) -> None:
    """However a server numbers its calls, two calls come out as two, with indexes 0 and 1."""
    body = b"".join(chunk({"tool_calls": [part]}) for part in parts) + chunk({}, finish="tool_calls") + DONE
    deltas, result, error = parse(body)
    assert error is None
    assert [(one.id, one.name, one.arguments) for one in result.tool_calls] == [("a", "f", "{}"), ("b", "g", "{}")]
    assert {delta.index for delta in deltas if isinstance(delta, ToolCallPart)} == {0, 1}


def test_usage_inside_groq_s_extra() -> None:
    """Usage that stands in `x_groq` only is read from there."""
    body = chunk({"content": "x"}) + chunk(
        {}, finish="stop", x_groq={"usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    )
    assert parse(body + DONE)[1].usage == Usage(4, 2, calls=1)


def test_answers_other_than_the_first_are_left_out() -> None:
    """A second choice is not mixed into the first."""
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]}).encode()
    assert parse(b"data: " + other + b"\n\n" + TEXT)[1] == TEXT_RESULT


# --- failures ---------------------------------------------------------------------------------------------------------
def error_event(**fields: Any) -> bytes:
    """A chunk that holds an error, whose text must never be seen."""
    return b"data: " + json.dumps({"error": {"message": SECRET, **fields}}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("event", "class_"),
    [
        (error_event(code=502), LLMServerError),
        (error_event(type="server_error"), LLMServerError),
        (error_event(), LLMServerError),
        (error_event(code=429), LLMRateLimited),
        (error_event(code="rate_limit_exceeded", type="requests"), LLMRateLimited),
        (error_event(code="insufficient_quota", type="insufficient_quota"), LLMQuotaExceeded),
        (error_event(type="authentication_error"), LLMAuthError),
        (error_event(code="context_length_exceeded", type="invalid_request_error"), LLMRequestError),
        (error_event(code=400), LLMRequestError),
        (error_event(code="content_filter"), LLMContentRefused),
        (error_event(code="tool_use_failed", type="invalid_request_error", status_code=400), LLMParseError),
        (b"event: error\n" + error_event(code=400), LLMRequestError),
        (b"event: error\ndata: " + SECRET.encode() + b"\n\n", LLMServerError),
        (b'data: {"object":"error","message":"' + SECRET.encode() + b'","code":400}\n\n', LLMRequestError),
        (b'data: {"error":"' + SECRET.encode() + b'"}\n\n', LLMServerError),
        (b"data: " + SECRET.encode() + b"\n\n", LLMParseError),
        (b'data: {"choices": 7}\n\n', LLMParseError),
        (b"data: " + b"x" * (2 << 20), LLMParseError),
    ],
)
def test_errors_inside_the_stream(event: bytes, class_: type[LLMError]) -> None:
    """What came before an error is given out, then the error of the right class, without the provider's words."""
    body = chunk({"content": "par"}) + event + chunk({"content": "never"}) + DONE
    for size in (11, len(body)):
        deltas, _, error = parse(body, size)
        assert deltas == [TextPart("par")]
        assert type(error) is class_
        assert error.provider == "p"
        assert SECRET not in f"{error!s} {error!r} {error.details}"


def test_an_error_beside_choices() -> None:
    """A chunk with both an error and choices is an error; its deltas are given out before."""
    body = chunk({"reasoning": "We"}) + chunk({"content": "x"}, error={"code": 400, "message": SECRET})
    deltas, _, error = parse(body + DONE)
    assert deltas == [ThinkingPart("We"), TextPart("x")]
    assert type(error) is LLMRequestError


@pytest.mark.parametrize(
    "last", [chunk({}, finish="content_filter"), chunk({"refusal": "No."}) + chunk({}, finish="stop")]
)
def test_refused_content(last: bytes) -> None:
    """A filter's stop and a model's refusal are the same typed error."""
    _, result, error = parse(chunk({"content": "I"}) + last + DONE)
    assert type(error) is LLMContentRefused
    assert result.finish_reason == ""


@pytest.mark.parametrize(
    ("status", "code", "class_", "retryable"),
    [
        (400, None, LLMRequestError, False),
        (401, "invalid_api_key", LLMAuthError, False),
        (402, None, LLMQuotaExceeded, False),
        (403, None, LLMAuthError, False),
        (403, "billing_not_active", LLMQuotaExceeded, False),
        (404, "model_not_found", LLMRequestError, False),
        (408, None, LLMServerError, True),
        (409, None, LLMServerError, True),
        (413, None, LLMRequestError, False),
        (422, None, LLMRequestError, False),
        (429, "rate_limit_exceeded", LLMRateLimited, True),
        (429, "insufficient_quota", LLMQuotaExceeded, False),
        (400, "content_filter", LLMContentRefused, False),
        (307, None, LLMRequestError, False),
        (500, None, LLMServerError, True),
        (503, None, LLMServerError, True),
        (529, "overloaded_error", LLMServerError, True),
    ],
)
def test_statuses(status: int, code: str | None, class_: type[LLMError], retryable: bool) -> None:
    """Each status becomes the class that says who can mend it, with the provider's own code and never its words."""
    body = json.dumps({"error": {"message": SECRET, "code": code, "type": SECRET}}).encode()
    error = refusal(status, body, "p", retry_after=2.5)
    assert type(error) is class_
    assert (error.http_status, error.retry_after, error.retryable) == (status, 2.5, retryable)
    assert error.details == ({"provider_code": code} if code else {})
    assert SECRET not in f"{error!s} {error!r} {error.details}"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":7}', b'{"error":{"code":{"a":1}}}', b"\xff"])
def test_statuses_with_any_body(body: bytes) -> None:
    """A body that is no error object changes nothing about the status's meaning."""
    assert type(refusal(500, body)) is LLMServerError
    assert type(refusal(404, body)) is LLMRequestError


# --- servers that differ ----------------------------------------------------------------------------------------------
def test_content_in_parts() -> None:
    """Mistral sends lists of parts, with thinking one level deeper."""
    body = b"".join(
        (
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}),
            chunk({"content": [{"type": "text", "text": "Grüße"}, {"type": "reference", "reference_ids": [1]}]}),
            chunk({"content": " aus Köln"}, finish="stop"),
            DONE,
        )
    )
    for size in (1, 7, len(body)):
        _, result, error = parse(body, size)
        assert (result.text, result.thinking, error) == ("Grüße aus Köln", "Hm", None)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("eos", "stop"),
        ("model_length", "length"),
        ("function_call", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("word_of_tomorrow", "word_of_tomorrow"),
    ],
)
def test_reasons_of_their_own(theirs: str, ours: str) -> None:
    """A finish reason is one of our words where it means the same."""
    _, result, error = parse(chunk({"content": "x"}, finish=theirs) + DONE)
    assert (result.finish_reason, error) == (ours, None)


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_reasons_that_are_failures(reason: str) -> None:
    """A server that gave up has not answered."""
    _, result, error = parse(chunk({"content": "x"}, finish=reason) + DONE)
    assert (result.text, result.finish_reason, type(error)) == ("x", "", LLMServerError)


def test_a_stop_after_calls_is_one_for_calls() -> None:
    """Some servers say only that they stopped."""
    body = chunk({"tool_calls": [call("a", "f", "{}", index=0)]}) + chunk({}, finish="stop") + DONE
    assert parse(body)[1].finish_reason == "tool_calls"


def test_thoughts_are_kept_for_the_way_back_with_calls_only() -> None:
    """DeepSeek wants its thoughts back with calls; without calls nobody does."""
    thinking = chunk({"reasoning_content": "Hm, "}) + chunk({"reasoning_content": "ja."})
    with_call = thinking + chunk({"tool_calls": [call("a", "f", "{}", index=0)]}, finish="tool_calls") + DONE
    assert parse(with_call)[1].thoughts == (Thought("reasoning_content", "Hm, ja."),)
    assert parse(thinking + chunk({"content": "x"}, finish="stop") + DONE)[1].thoughts == ()


def test_nested_without_end() -> None:
    """JSON that is nested until the decoder gives up is one typed error."""
    _, _, error = parse(b'data: {"error": ' + b"[" * 100_000 + b"\n\n")
    assert type(error) is LLMParseError


CONVERSATION: Final = (
    Message("user", "Hi"),
    Message("assistant", "", (ToolCall("toolu_01", "f", "{}"),), thoughts=(Thought("reasoning_content", "Hm"),)),
    Message("tool", "one", tool_call_id="toolu_01"),
)


@pytest.mark.parametrize(
    ("host", "limit", "usage", "thought", "same_id", "native"),
    [
        ("api.openai.com", "max_completion_tokens", True, False, True, True),
        ("api.mistral.ai", "max_tokens", False, False, False, True),
        ("api.deepseek.com", "max_tokens", True, True, True, False),
        ("api.groq.com", "max_tokens", True, False, True, True),
        ("openrouter.ai", "max_tokens", True, False, True, True),
        ("localhost", "max_tokens", True, True, True, True),
    ],
)
def test_what_servers_take(host: str, limit: str, usage: bool, thought: bool, same_id: bool, native: bool) -> None:
    """Strict servers get no field that they refuse, and ids in the form that they insist on."""
    request = LLMRequest(CONVERSATION, max_tokens=9, schema={"type": "object"}, schema_name="Plan")
    body = json.loads(build(request, "m", host=host)[1])
    assert (body[limit], "stream_options" in body) == (9, usage)
    assert ("reasoning_content" in body["messages"][1]) is thought
    ids = {body["messages"][1]["tool_calls"][0]["id"], body["messages"][2]["tool_call_id"]}
    assert len(ids) == 1
    assert (ids == {"toolu_01"}) is same_id
    assert same_id or len(ids.pop()) == 9
    assert (body["response_format"]["type"] == "json_schema") is native
    assert native or '{"type":"object"}' in body["messages"][-1]["content"]


def test_ids_that_are_too_long() -> None:
    """OpenAI refuses ids of more than 40 characters, which other providers make."""
    long = "executor.12." + "x" * 40
    messages = (Message("assistant", "", (ToolCall(long, "f"),)), Message("tool", "one", tool_call_id=long))
    body = json.loads(build(LLMRequest(messages), "m")[1])
    assert body["messages"][0]["tool_calls"][0]["id"] == body["messages"][1]["tool_call_id"]
    assert len(body["messages"][1]["tool_call_id"]) <= 40


# --- the request ------------------------------------------------------------------------------------------------------
def test_what_is_sent() -> None:
    """A conversation with tools, pictures and a schema becomes the body that OpenAI documents."""
    request = LLMRequest(
        messages=(
            Message("system", "Be brief."),
            Message("user", "Look", images=("data:image/png;base64,AA==",)),
            Message("assistant", "", (ToolCall("a", "f", '{"x": 1}'),)),
            Message("tool", "one", tool_call_id="a", name="f"),
        ),
        tools=(ToolSpec("f", "Does f.", {"type": "object", "properties": {}}),),
        max_tokens=9,
        temperature=0.0,
        schema={"type": "object"},
        schema_name="Plan",
    )
    path, body = build(request, "m-1")
    assert path == "chat/completions"
    assert json.loads(body) == {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
            },
            {"role": "tool", "content": "one", "tool_call_id": "a"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}},
            }
        ],
        "max_tokens": 9,
        "temperature": 0.0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "Plan", "schema": {"type": "object"}}},
    }


def test_the_least_that_is_sent() -> None:
    """What a request does not say is not sent; its own model goes before the client's."""
    body = json.loads(build(LLMRequest((Message("user", "Hi"),), model="m-2"), "m-1")[1])
    assert body.keys() == {"model", "messages", "stream", "stream_options"}
    assert body["model"] == "m-2"
    assert "max_completion_tokens" in json.loads(build(LLMRequest((), max_tokens=1), "m", host="api.openai.com")[1])


def test_half_characters_are_sent_as_replacement() -> None:
    """Text that UTF-8 cannot hold is no reason to fail."""
    body = json.loads(build(LLMRequest((Message("user", "a\ud800b"),)), "m")[1])
    assert body["messages"][0]["content"] == "a\ufffdb"
