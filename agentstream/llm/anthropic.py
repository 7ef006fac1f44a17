"""Anthropic's messages format.

What comes in: an `LLMRequest` to send, then the answer's bytes cut anywhere. What goes out: a path and a JSON body, and
deltas. It does not know HTTP clients, time, keys or retries, and it never puts what a provider wrote into an error.

Format as documented at docs.anthropic.com/en/docs/build-with-claude/streaming. Usage comes in two parts: input with the
start, output cumulative with each `message_delta`. Tokens written to and read from the cache are not in `input_tokens`
there; in ours they are. Thoughts are signed, and must go back unchanged with the calls that followed them.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from agentstream.errors import LLMContentRefused, StreamBroken
from agentstream.events import Json, Usage
from agentstream.llm.asking import arguments, closed_schema, encode, fitting_id, instruction, picture, system_text
from agentstream.llm.failures import failure
from agentstream.llm.messages import (
    Delta,
    LLMRequest,
    Message,
    TextPart,
    ThinkingPart,
    Thought,
    ToolCallPart,
)
from agentstream.llm.parsing import UNREADABLE, AnswerParser
from agentstream.wire import sse

__all__ = ("MAX_TOKENS", "PATH", "VERSION", "Parser", "build")

PATH: Final = "messages"
VERSION: Final = "2023-06-01"
"""Of the format; the only one that there is."""

MAX_TOKENS: Final = 16_384
"""Of an answer where the request names none: the format wants a number. All models of today take this one."""

_SIGNED: Final = "anthropic.thinking"
_REDACTED: Final = "anthropic.redacted_thinking"

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

# Models before these learned it; there will be no further ones, so the lists do not grow.
_NO_SCHEMA: Final = re.compile(r"claude-(?:[0-3]|instant|(?:sonnet|opus)-4-(?:0\b|2025))")
_BUDGET: Final = re.compile(r"claude-(?:[0-3]|(?:sonnet|opus|haiku)-4-(?:[015]\b|2025))")
_BUDGETS: Final = {"low": 2_048, "medium": 8_192, "high": 24_576}


# --- the request ------------------------------------------------------------------------------------------------------
def build(request: LLMRequest, model: str, *, host: str = "") -> tuple[str, bytes]:  # noqa: ARG001 - one shape for all
    """The path below the base address and the JSON body that asks for a streamed answer.

    A schema goes as the model's own output format where model and schema allow, else in words.
    """
    model = request.model or model
    schema = None
    if request.schema is not None and not _NO_SCHEMA.match(model):
        schema = closed_schema(request.schema)
    system = [system_text(request), "" if schema is not None else instruction(request)]
    body: dict[str, Json] = {
        "model": model,
        "max_tokens": request.max_tokens or MAX_TOKENS,
        "messages": _messages(request),
        "stream": True,
    }
    if any(system):
        body["system"] = "\n\n".join(filter(None, system))
    if request.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters or {"type": "object"}}
            for tool in request.tools
        ]
    output: dict[str, Json] = {}
    if schema is not None:
        output["format"] = {"type": "json_schema", "schema": schema}
    if request.thinking:
        _ask_to_think(request, model, body, output)
    if output:
        body["output_config"] = output
    if request.temperature is not None and not request.thinking:  # while it thinks it takes none
        body["temperature"] = request.temperature
    return PATH, encode(body)


def _ask_to_think(request: LLMRequest, model: str, body: dict[str, Json], output: dict[str, Json]) -> None:
    if request.thinking == "off":
        body["thinking"] = {"type": "disabled"}
    elif _BUDGET.match(model):
        budget = _BUDGETS[request.thinking]
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        body["max_tokens"] = max(body["max_tokens"], budget + (request.max_tokens or MAX_TOKENS))  # it counts both
    else:
        body["thinking"] = {"type": "adaptive"}
        output["effort"] = request.thinking


def _messages(request: LLMRequest) -> list[Json]:
    """The conversation; answers of one round of tools are one message, as the format wants it."""
    made: list[Json] = []
    for message in request.messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if made and made[-1]["role"] == role == "user":
            made[-1]["content"] += blocks
        elif blocks:
            made.append({"role": role, "content": blocks})
    return made


def _blocks(message: Message) -> list[Json]:
    if message.role == "tool":
        return [
            {"type": "tool_result", "tool_use_id": fitting_id(message.tool_call_id, _ID), "content": message.content}
        ]
    blocks: list[Json] = []
    if message.tool_calls:  # elsewhere nobody needs them again
        blocks += [block for thought in message.thoughts if (block := _thought(thought)) is not None]
    blocks += [{"type": "image", "source": _source(image)} for image in message.images]
    if message.content.strip():  # the format refuses blank text
        blocks.append({"type": "text", "text": message.content})
    blocks += [
        {"type": "tool_use", "id": fitting_id(call.id, _ID), "name": call.name, "input": arguments(call.arguments)}
        for call in message.tool_calls
    ]
    return blocks


def _thought(thought: Thought) -> dict[str, Json] | None:
    if thought.kind == _REDACTED:
        return {"type": "redacted_thinking", "data": thought.signature}
    if thought.kind == _SIGNED:
        return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
    return None


def _source(image: str) -> dict[str, Json]:
    found = picture(image)
    if found.url:
        return {"type": "url", "url": found.url}
    return {"type": "base64", "media_type": found.mime, "data": found.data}


# --- the answer -------------------------------------------------------------------------------------------------------
class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Start(msgspec.Struct, gc=False):
    model: str | None = None
    usage: _Usage | None = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Json] | None = None


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    index: int | None = None
    message: _Start | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Json = None


_decode_event = msgspec.json.Decoder(_Event).decode

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


class _Thinking:
    """A thought that is being read."""

    __slots__ = ("kind", "signature", "text")

    def __init__(self, kind: str, signature: str) -> None:
        self.kind = kind
        self.text: list[str] = []
        self.signature = signature


class _Call:
    """A call that is being read; `whole` are the arguments where they came with its start."""

    __slots__ = ("index", "whole", "written")

    def __init__(self, index: int, whole: str) -> None:
        self.index = index
        self.whole = whole
        self.written = False


class Parser(AnswerParser):
    """One answer in the messages format; whole with `message_stop`.

    Args:
        provider: the name that errors carry.
    """

    __slots__ = ("_cached", "_input", "_open", "_output", "_written")

    def __init__(self, provider: str = "") -> None:
        super().__init__(provider)
        self._open: dict[int, _Thinking | _Call] = {}  # blocks that are being read, by their number
        self._input = self._cached = self._written = self._output = 0

    def _take(self, message: sse.Message, deltas: list[Delta]) -> bool:
        if not message.data.strip():
            return False
        try:
            event = _decode_event(message.data)
        except UNREADABLE:
            if message.event == "error":
                raise failure(None, None, self._provider) from None
            raise self._unreadable() from None
        kind = event.type or message.event
        if kind == "error" or event.error:
            raise failure(None, event.error, self._provider)
        if kind == "message_stop":
            self._conclude(deltas)
            return True
        if kind.startswith("content_block_"):
            self._read_block(kind, event, deltas)
        elif event.message is not None:  # message_start
            self.model = event.message.model or ""
            self._count(event.message.usage)
        elif kind == "message_delta":
            self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason:
                self._reason = event.delta.stop_reason
        return False

    def _read_block(self, kind: str, event: _Event, deltas: list[Delta]) -> None:
        number = event.index or 0
        if event.delta is not None:
            self._go_on(number, event.delta, deltas)
        elif event.content_block is not None:
            self._begin(number, event.content_block, deltas)
        elif kind == "content_block_stop":
            self._end_block(number, deltas)

    # --- blocks -------------------------------------------------------------------------------------------------------
    def _begin(self, number: int, block: _Block, deltas: list[Delta]) -> None:
        if block.type == "tool_use":
            whole = msgspec.json.encode(block.input).decode() if block.input else ""
            self._open[number] = _Call(self._calls, whole)
            deltas.append(ToolCallPart(self._calls, block.id or "", block.name or ""))
            self._calls += 1
        elif block.type == "thinking":
            thinking = self._open[number] = _Thinking(_SIGNED, block.signature or "")
            if block.thinking:
                thinking.text.append(block.thinking)
                deltas.append(ThinkingPart(block.thinking))
        elif block.type == "redacted_thinking":
            self._open[number] = _Thinking(_REDACTED, block.data or "")
        elif block.type == "text" and block.text:
            deltas.append(TextPart(block.text))

    def _go_on(self, number: int, delta: _Delta, deltas: list[Delta]) -> None:
        if delta.type == "text_delta":
            if delta.text:
                deltas.append(TextPart(delta.text))
            return
        block = self._open.get(number)
        if delta.type == "thinking_delta" and isinstance(block, _Thinking):
            if delta.thinking:
                block.text.append(delta.thinking)
                deltas.append(ThinkingPart(delta.thinking))
        elif delta.type == "signature_delta" and isinstance(block, _Thinking):
            block.signature += delta.signature or ""
        elif delta.type == "input_json_delta" and isinstance(block, _Call) and delta.partial_json:
            block.written = True
            deltas.append(ToolCallPart(block.index, arguments=delta.partial_json))

    def _end_block(self, number: int, deltas: list[Delta]) -> None:
        block = self._open.pop(number, None)
        if isinstance(block, _Thinking) and block.signature:
            thought = Thought(block.kind, "".join(block.text), block.signature)
            deltas.append(ThinkingPart("", thought))
        elif isinstance(block, _Call) and block.whole and not block.written:
            deltas.append(ToolCallPart(block.index, arguments=block.whole))

    # --- the whole ----------------------------------------------------------------------------------------------------
    def _count(self, usage: _Usage | None) -> None:
        """Each figure is the answer's so far; one that is missing is as it was."""
        if usage is None:
            return
        self._input = _or(usage.input_tokens, self._input)
        self._cached = _or(usage.cache_read_input_tokens, self._cached)
        self._written = _or(usage.cache_creation_input_tokens, self._written)
        self._output = _or(usage.output_tokens, self._output)

    def _conclude(self, deltas: list[Delta]) -> None:
        if self._reason == "refusal":
            raise LLMContentRefused("the model or its provider refused to answer this", provider=self._provider)
        if not self._reason or self._open:
            raise StreamBroken("the answer ended inside a part of it", provider=self._provider)
        self._reason = _REASONS.get(self._reason, self._reason)
        read = self._input + self._cached + self._written
        self._usage = Usage(read, self._output, self._cached, calls=1)
        self._finish(deltas)


def _or(value: int | None, before: int) -> int:
    return before if value is None else value
