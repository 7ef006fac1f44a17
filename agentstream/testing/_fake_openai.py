"""Answers in OpenAI's two formats, framed as its servers frame them.

What comes in: a `FakeAnswer`. What goes out: frames, each as the bytes of one event, and error objects. It does not
know HTTP, sockets or faults.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream.events import Json, Usage
from agentstream.llm.messages import ToolCall
from agentstream.testing._fake_script import FakeAnswer, pieces

__all__ = ("chat_error", "chat_frames", "error_body", "response_error", "response_frames")

_CREATED: Final = 1_760_000_000


def error_body(status: int, code: str, message: str) -> Json:
    """What stands in the body of a refusal, in both formats."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}


# --- chat -------------------------------------------------------------------------------------------------------------
def chat_frames(answer: FakeAnswer, model: str, size: int, name: str) -> tuple[list[bytes], int]:
    """The frames of an answer, and how many of them at the end say that it is whole."""
    made = [_chunk(model, name, {"role": "assistant", "content": "", "refusal": None})]
    made += [_chunk(model, name, {"reasoning_content": piece}) for piece in pieces(answer.thinking, size)]
    made += [_chunk(model, name, {"content": piece}) for piece in pieces(answer.text, size)]
    for index, call in enumerate(answer.tool_calls):
        head = {"index": index, "id": _call_id(call, name, index), "type": "function"}
        made.append(_chunk(model, name, {"tool_calls": [{**head, "function": {"name": call.name, "arguments": ""}}]}))
        made += [
            _chunk(model, name, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            for piece in pieces(call.arguments, size)
        ]
    made.append(_chunk(model, name, {}, answer.reason))
    made.append(_event({**_chunk_body(model, name), "choices": [], "usage": _chat_usage(answer.usage)}))
    return [*made, b"data: [DONE]\n\n"], 3


def chat_error(code: str, message: str) -> bytes:
    """An error inside the stream."""
    return _event(
        {"error": {"message": message, "type": "server_error", "param": None, "code": code or "server_error"}}
    )


def _chunk(model: str, name: str, delta: Json, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event({**_chunk_body(model, name), "choices": [choice], "usage": None, "obfuscation": "x9Qp"})


def _chunk_body(model: str, name: str) -> dict[str, Json]:
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }


def _chat_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }


def _call_id(call: ToolCall, name: str, index: int) -> str:
    return call.id or f"call_{name}_{index}"


def _event(body: Json) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(body)


# --- responses --------------------------------------------------------------------------------------------------------
class _Numbered:
    """Events with their numbers."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def add(self, type: str, **fields: Json) -> None:
        body = {"type": type, "sequence_number": len(self.frames), **fields}
        self.frames.append(b"event: %b\ndata: %b\n\n" % (type.encode(), msgspec.json.encode(body)))


def response_frames(answer: FakeAnswer, model: str, size: int, name: str, background: bool) -> tuple[list[bytes], int]:
    """The frames of an answer, each with its number from 0, and how many of them at the end say that it is whole."""
    events = _Numbered()
    items: list[Json] = []
    response = _response(model, name, background, "in_progress")
    events.add("response.created", response=response)
    events.add("response.in_progress", response=response)
    if answer.thinking:
        items.append(_add_thinking(events, answer.thinking, size, name))
    if answer.text:
        items.append(_add_message(events, answer.text, size, name, len(items)))
    for index, call in enumerate(answer.tool_calls):
        items.append(_add_call(events, call, size, name, index, len(items)))
    cut = answer.reason == "length"
    status = "incomplete" if cut else "completed"
    done = {**_response(model, name, background, status), "output": items, "usage": _response_usage(answer.usage)}
    if cut:
        done["incomplete_details"] = {"reason": "max_output_tokens"}
    events.add(f"response.{status}", response=done)
    return events.frames, 1


def response_error(code: str, message: str, number: int) -> bytes:
    """An error inside the stream."""
    body = {"type": "error", "sequence_number": number, "code": code or "server_error", "message": message}
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode({**body, "param": None})


def _response(model: str, name: str, background: bool, status: str) -> dict[str, Json]:
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "background": background,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _add_thinking(events: _Numbered, text: str, size: int, name: str) -> Json:
    item: dict[str, Json] = {"id": f"rs_{name}", "type": "reasoning", "summary": []}
    place: dict[str, Json] = {"item_id": item["id"], "output_index": 0, "summary_index": 0}
    part: Json = {"type": "summary_text", "text": ""}
    events.add("response.output_item.added", output_index=0, item=item)
    events.add("response.reasoning_summary_part.added", **place, part=part)
    for piece in pieces(text, size):
        events.add("response.reasoning_summary_text.delta", **place, delta=piece)
    events.add("response.reasoning_summary_text.done", **place, text=text)
    whole = {"type": "summary_text", "text": text}
    events.add("response.reasoning_summary_part.done", **place, part=whole)
    item = {**item, "summary": [whole], "encrypted_content": f"sealed-{name}"}
    events.add("response.output_item.done", output_index=0, item=item)
    return item


def _add_message(events: _Numbered, text: str, size: int, name: str, output: int) -> Json:
    item: dict[str, Json] = {"id": f"msg_{name}", "type": "message", "role": "assistant"}
    place: dict[str, Json] = {"item_id": item["id"], "output_index": output, "content_index": 0}
    part: dict[str, Json] = {"type": "output_text", "text": "", "annotations": []}
    events.add("response.output_item.added", output_index=output, item={**item, "status": "in_progress", "content": []})
    events.add("response.content_part.added", **place, part=part)
    for piece in pieces(text, size):
        events.add("response.output_text.delta", **place, delta=piece, logprobs=[])
    part = {**part, "text": text}
    events.add("response.output_text.done", **place, text=text, logprobs=[])
    events.add("response.content_part.done", **place, part=part)
    item = {**item, "status": "completed", "content": [part]}
    events.add("response.output_item.done", output_index=output, item=item)
    return item


def _add_call(events: _Numbered, call: ToolCall, size: int, name: str, index: int, output: int) -> Json:
    item: dict[str, Json] = {
        "id": f"fc_{name}_{index}",
        "type": "function_call",
        "call_id": _call_id(call, name, index),
        "name": call.name,
    }
    place: dict[str, Json] = {"item_id": item["id"], "output_index": output}
    events.add(
        "response.output_item.added", output_index=output, item={**item, "status": "in_progress", "arguments": ""}
    )
    for piece in pieces(call.arguments, size):
        events.add("response.function_call_arguments.delta", **place, delta=piece)
    events.add("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments)
    item = {**item, "status": "completed", "arguments": call.arguments}
    events.add("response.output_item.done", output_index=output, item=item)
    return item


def _response_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
