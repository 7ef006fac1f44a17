"""Answers in the formats of Anthropic, Gemini and Ollama, framed as their servers frame them; the table of all five.

What comes in: a `FakeAnswer`. What goes out: frames, each as the bytes of one event or line, and error objects. It does
not know HTTP, sockets or faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from agentstream.events import Json
from agentstream.llm.messages import ToolCall
from agentstream.testing._fake_openai import chat_error, chat_frames, error_body, response_error, response_frames
from agentstream.testing._fake_script import FakeAnswer, pieces

__all__ = ("FORMATS", "Format")


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        prefix: of its paths. content_type: of a stream.
        frames: (answer, model, characters a piece, name, whether in the background) to frames, and how many at the end
            say that the answer is whole.
        refusal: (status, code, message) to the JSON of a refusal's body.
        error: (code, message, frames so far) to the frame of an error inside the stream.
    """

    prefix: str
    content_type: str
    frames: Callable[[FakeAnswer, str, int, str, bool], tuple[list[bytes], int]]
    refusal: Callable[[int, str, str], Json]
    error: Callable[[str, str, int], bytes]


# --- Anthropic --------------------------------------------------------------------------------------------------------
_STOPS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _anthropic_event(type: str, **fields: Json) -> bytes:
    body = msgspec.json.encode({"type": type, **fields})
    padded = body[:-1] + b" " * (len(body) % 14) + b"}"  # as its servers do, so that lengths tell nothing
    return b"event: %b\ndata: %b\n\n" % (type.encode(), padded)


def _anthropic_block(index: int, start: Json, deltas: list[Json]) -> list[bytes]:
    return [
        _anthropic_event("content_block_start", index=index, content_block=start),
        *(_anthropic_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        _anthropic_event("content_block_stop", index=index),
    ]


def _anthropic_frames(
    answer: FakeAnswer, model: str, size: int, name: str, _background: bool
) -> tuple[list[bytes], int]:
    counted = {
        "input_tokens": answer.usage.input_tokens - answer.usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.usage.cached_tokens,
    }
    message: dict[str, Json] = {"id": f"msg_{name}", "type": "message", "role": "assistant", "content": []}
    message |= {"model": model, "stop_reason": None, "stop_sequence": None, "usage": {**counted, "output_tokens": 1}}
    made = [_anthropic_event("message_start", message=message), b'event: ping\ndata: {"type": "ping"}\n\n']
    index = 0
    if answer.thinking:
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": one} for one in pieces(answer.thinking, size)]
        deltas.append({"type": "signature_delta", "signature": f"sealed-{name}"})
        made += _anthropic_block(index, {"type": "thinking", "thinking": "", "signature": ""}, deltas)
        index += 1
    if answer.text:
        deltas = [{"type": "text_delta", "text": one} for one in pieces(answer.text, size)]
        made += _anthropic_block(index, {"type": "text", "text": ""}, deltas)
        index += 1
    for number, call in enumerate(answer.tool_calls):
        start: Json = {"type": "tool_use", "id": call.id or f"toolu_{name}_{number}", "name": call.name, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": one} for one in ["", *pieces(call.arguments, size)]]
        made += _anthropic_block(index, start, deltas)
        index += 1
    made.append(
        _anthropic_event(
            "message_delta",
            delta={"stop_reason": _STOPS[answer.reason], "stop_sequence": None},
            usage={**counted, "output_tokens": answer.usage.output_tokens},
        )
    )
    return [*made, _anthropic_event("message_stop")], 1


_ANTHROPIC_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _anthropic_refusal(status: int, code: str, message: str) -> Json:
    kind = code or _ANTHROPIC_KINDS.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}


def _anthropic_error(code: str, message: str, _number: int) -> bytes:
    return _anthropic_event("error", error={"type": code or "overloaded_error", "message": message})


# --- Gemini -----------------------------------------------------------------------------------------------------------
def _gemini_frames(answer: FakeAnswer, model: str, size: int, name: str, _background: bool) -> tuple[list[bytes], int]:
    parts: list[Json] = [{"text": piece, "thought": True} for piece in pieces(answer.thinking, size)]
    parts += [{"text": piece} for piece in pieces(answer.text, size)]
    for index, call in enumerate(answer.tool_calls):
        part: dict[str, Json] = {"functionCall": _gemini_call(call)}
        if index == 0 and answer.thinking:
            part["thoughtSignature"] = f"sealed-{name}"
        parts.append(part)
    if not parts:
        parts.append({"text": ""})
    usage: dict[str, Json] = {"promptTokenCount": answer.usage.input_tokens}
    made: list[bytes] = []
    for number, part in enumerate(parts, 1):
        candidate: dict[str, Json] = {"content": {"parts": [part], "role": "model"}, "index": 0}
        if number == len(parts):
            candidate["finishReason"] = "MAX_TOKENS" if answer.reason == "length" else "STOP"
            usage = usage | {
                "candidatesTokenCount": answer.usage.output_tokens - answer.usage.reasoning_tokens,
                "thoughtsTokenCount": answer.usage.reasoning_tokens,
                "cachedContentTokenCount": answer.usage.cached_tokens,
                "totalTokenCount": answer.usage.input_tokens + answer.usage.output_tokens,
            }
        body = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": name}
        made.append(b"data: %b\r\n\r\n" % msgspec.json.encode(body))
    return made, 1


def _gemini_call(call: ToolCall) -> Json:
    arguments: dict[str, Json] = {}
    try:
        arguments = msgspec.json.decode(call.arguments, type=dict[str, Json])
    except msgspec.MsgspecError:
        pass  # the format can only hold an object
    return {"name": call.name, "args": arguments} | ({"id": call.id} if call.id else {})


_GEMINI_KINDS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def _gemini_refusal(status: int, code: str, message: str) -> Json:
    kind = code or _GEMINI_KINDS.get(status, "INTERNAL")
    return {"error": {"code": status, "message": message, "status": kind}}


def _gemini_error(code: str, message: str, _number: int) -> bytes:
    body = {"error": {"code": 503, "message": message, "status": code or "UNAVAILABLE"}}
    return b"data: %b\r\n\r\n" % msgspec.json.encode(body)


# --- Ollama -----------------------------------------------------------------------------------------------------------
def _ollama_line(model: str, **fields: Json) -> bytes:
    return msgspec.json.encode({"model": model, "created_at": "2026-01-01T00:00:00.000000Z", **fields}) + b"\n"


def _ollama_frames(answer: FakeAnswer, model: str, size: int, _name: str, _background: bool) -> tuple[list[bytes], int]:
    says: list[Json] = [{"content": "", "thinking": piece} for piece in pieces(answer.thinking, size)]
    says += [{"content": piece} for piece in pieces(answer.text, size)]
    for call in answer.tool_calls:
        found = _gemini_call(call)
        function = {"name": found["name"], "arguments": found["args"]}
        says.append({"content": "", "tool_calls": [{"function": function} | ({"id": call.id} if call.id else {})]})
    made = [_ollama_line(model, message={"role": "assistant", **one}, done=False) for one in says]
    last = _ollama_line(
        model,
        message={"role": "assistant", "content": ""},
        done=True,
        done_reason="length" if answer.reason == "length" else "stop",
        total_duration=1_000_000,
        load_duration=1_000,
        prompt_eval_count=answer.usage.input_tokens,
        prompt_eval_duration=1_000,
        eval_count=answer.usage.output_tokens,
        eval_duration=1_000,
    )
    return [*made, last], 1


# --- all --------------------------------------------------------------------------------------------------------------
def _chat(answer: FakeAnswer, model: str, size: int, name: str, _background: bool) -> tuple[list[bytes], int]:
    return chat_frames(answer, model, size, name)


_SSE: Final = "text/event-stream; charset=utf-8"

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "openai": Format("/v1", _SSE, _chat, error_body, lambda code, said, _: chat_error(code, said)),
        "openai-responses": Format("/v1", _SSE, response_frames, error_body, response_error),
        "anthropic": Format("/v1", _SSE, _anthropic_frames, _anthropic_refusal, _anthropic_error),
        "gemini": Format("/v1beta", "text/event-stream", _gemini_frames, _gemini_refusal, _gemini_error),
        "ollama": Format(
            "",
            "application/x-ndjson",
            _ollama_frames,
            lambda _status, _code, said: {"error": said},
            lambda _code, said, _: msgspec.json.encode({"error": said}) + b"\n",
        ),
    }
)
"""All formats by the name of their provider."""
