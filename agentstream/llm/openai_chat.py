"""The chat format of OpenAI and of every server that speaks it (vLLM, OpenRouter, Groq, DeepSeek, LM Studio, Ollama …).

What comes in: an `LLMRequest` to send, then the answer's bytes cut anywhere. What goes out: a path and a JSON body, and
deltas. It does not know HTTP clients, time, keys or retries, and it never puts what a provider wrote into an error:
that may repeat the prompt or the key.

Format as documented at platform.openai.com/docs/api-reference/chat/streaming. What real servers do beyond it, and is
read here: comments between events; `event: error`; an `error` object with or without `choices`; usage in a chunk of its
own, in the last one or inside `x_groq`; reasoning as `reasoning` or `reasoning_content`; content as a list of parts
(Mistral); parts of a tool call that name only its index, or no index at all, or one index for several calls; a stream
without `[DONE]` after its finish reason; finish reasons of their own.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from agentstream.errors import LLMContentRefused, LLMServerError, StreamBroken
from agentstream.events import Json, Usage
from agentstream.llm.asking import encode, fitting_id, told
from agentstream.llm.failures import failure
from agentstream.llm.messages import (
    Delta,
    LLMRequest,
    Message,
    TextPart,
    ThinkingPart,
    Thought,
    ToolCall,
    ToolCallPart,
)
from agentstream.llm.parsing import UNREADABLE, AnswerParser
from agentstream.wire import sse

__all__ = ("PATH", "Parser", "build")

PATH: Final = "chat/completions"


# --- the request ------------------------------------------------------------------------------------------------------
class _Server(msgspec.Struct, frozen=True):
    """How a server differs from what most of them take.

    Attributes:
        limit: its name for the most tokens of an answer.
        schemas: takes a JSON schema. usage: takes the wish for usage.
        thoughts: fields of thinking that it takes back with the calls that followed. Only the one that some servers
            insist on is sent to servers that are not known: strict ones refuse the other.
        ids: the form of a call's id, and the length of one that is made here for another provider's call.
    """

    limit: str = "max_tokens"
    schemas: bool = True
    usage: bool = True
    thoughts: frozenset[str] = frozenset({"reasoning_content"})
    ids: tuple[re.Pattern[str], int] = (re.compile(r".{1,40}"), 32)


_SERVERS: Final = {
    # Its newer models refuse `max_tokens`; most other servers know nothing else.
    "api.openai.com": _Server(limit="max_completion_tokens", thoughts=frozenset()),
    # Refuses every field that it does not know with 422, and sends usage unasked.
    "api.mistral.ai": _Server(usage=False, thoughts=frozenset(), ids=(re.compile(r"[A-Za-z0-9]{9}"), 9)),
    "api.groq.com": _Server(thoughts=frozenset()),
    "openrouter.ai": _Server(thoughts=frozenset({"reasoning"})),
    # Knows `json_object` only; with thinking it refuses a conversation whose calls lack the thoughts before them.
    "api.deepseek.com": _Server(schemas=False),
}


def build(request: LLMRequest, model: str, *, host: str = "") -> tuple[str, bytes]:
    """The path below the base address and the JSON body that asks for a streamed answer.

    Args:
        model: used where the request names none.
        host: of the server, for what it is known to do differently.
    """
    server = _SERVERS.get(host, _Server())
    messages = request.messages if server.schemas else told(request)
    body: dict[str, Json] = {
        "model": request.model or model,
        "messages": [_message(message, server) for message in messages],
        "stream": True,
    }
    if server.usage:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    if request.max_tokens is not None:
        body[server.limit] = request.max_tokens
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.thinking:
        body["reasoning_effort"] = "none" if request.thinking == "off" else request.thinking
    if request.schema is not None:
        # Not `strict`: that accepts only schemas without optional fields. The answer is checked by whoever asked.
        asked: Json = {"name": request.schema_name or "answer", "schema": request.schema}
        body["response_format"] = (
            {"type": "json_schema", "json_schema": asked} if server.schemas else {"type": "json_object"}
        )
    return PATH, encode(body)


def _message(message: Message, server: _Server) -> dict[str, Json]:
    entry: dict[str, Json] = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        entry["tool_calls"] = [_tool_call(call, server) for call in message.tool_calls]
        entry["content"] = message.content or None
        entry |= {thought.kind: thought.text for thought in message.thoughts if thought.kind in server.thoughts}
    if message.role == "tool":
        entry["tool_call_id"] = _id(message.tool_call_id, server)
    elif message.name:
        entry["name"] = message.name
    return entry


def _content(message: Message) -> Json:
    if not message.images:
        return message.content
    text = [{"type": "text", "text": message.content}] if message.content else []
    return [*text, *({"type": "image_url", "image_url": {"url": url}} for url in message.images)]


def _id(call: str, server: _Server) -> str:
    pattern, length = server.ids
    return fitting_id(call, pattern, length=length)


def _tool_call(call: ToolCall, server: _Server) -> dict[str, Json]:
    return {
        "id": _id(call.id, server),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


# --- the answer -------------------------------------------------------------------------------------------------------
class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Json] | None = None


class _CallPart(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Part(msgspec.Struct, gc=False):
    """Mistral's: a piece of text, or of thinking, whose text lies one deeper."""

    type: str | None = None
    text: str | None = None
    thinking: list[_Part] | str | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CallPart] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Groq(msgspec.Struct, gc=False):
    usage: _Usage | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    x_groq: _Groq | None = None
    error: Json = None


class _Bare(msgspec.Struct, gc=False):
    object: Json = None
    code: Json = None


_decode_bare = msgspec.json.Decoder(_Bare).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode

# What servers say instead of the words that OpenAI documents.
_REASONS: Final = {
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "eos": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
    "model_length": "length",
}
_FAILED: Final = frozenset({"error", "abort", "insufficient_system_resource"})


class Parser(AnswerParser):
    """One answer in the chat format.

    A stream is whole when `[DONE]` came after a finish reason, or when it ended in order after one (some servers send
    no `[DONE]`). `Finish` is given then and not before, since usage may follow the finish reason.

    Args:
        provider: the name that errors carry.
    """

    __slots__ = ("_indexes", "_refused", "_thinking")

    def __init__(self, provider: str = "") -> None:
        super().__init__(provider)
        self._indexes = _Indexes()
        self._refused = False
        self._thinking: dict[str, list[str]] = {}  # pieces by the name of their field, for calls that may follow

    def _take(self, message: sse.Message, deltas: list[Delta]) -> bool:
        """Read one event; whether it was the last. Text, which most events hold, takes the shortest way through."""
        try:
            chunk = _decode_chunk(message.data)
        except UNREADABLE:
            return self._take_other(message, deltas)
        for choice in chunk.choices or ():
            if choice.finish_reason and not choice.index:
                self._reason = choice.finish_reason
            delta = choice.delta
            if choice.index or delta is None:  # one answer is asked for; further ones are nobody's
                continue
            text = delta.content
            if delta.tool_calls or delta.reasoning or delta.reasoning_content or not isinstance(text, str):
                self._read_delta(delta, deltas)
            elif text:
                deltas.append(TextPart(text))
        if chunk.usage is not None or chunk.x_groq is not None or not (chunk.choices and self.model):
            self._read_rest(chunk, message)
        if chunk.error:
            raise failure(None, chunk.error, self._provider)
        return False

    def _read_rest(self, chunk: _Chunk, message: sse.Message) -> None:
        """What few chunks hold: usage, the model's name, or an error without an envelope (vLLM up to 0.9)."""
        self.model = self.model or chunk.model or ""
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        elif chunk.x_groq is not None and chunk.x_groq.usage is not None:
            self._usage = _usage(chunk.x_groq.usage)
        if chunk.choices is None and not chunk.error:
            bare = _decode_bare(message.data)
            if bare.object == "error" or message.event == "error":
                raise failure(None, {"code": bare.code}, self._provider)

    def _take_other(self, message: sse.Message, deltas: list[Delta]) -> bool:
        """Read an event that is no chunk: the end, nothing, or nonsense."""
        data = message.data
        if data.startswith(b"[DONE]"):
            self._conclude(deltas)
            return True
        if not data.strip():
            return False
        if message.event == "error":  # text instead of an object; what it says stays unsaid
            raise failure(None, None, self._provider) from None
        raise self._unreadable() from None

    def _read_delta(self, delta: _Delta, deltas: list[Delta]) -> None:
        if delta.reasoning:
            self._think("reasoning", delta.reasoning, deltas)
        elif delta.reasoning_content:
            self._think("reasoning_content", delta.reasoning_content, deltas)
        if isinstance(delta.content, str):
            if delta.content:
                deltas.append(TextPart(delta.content))
        else:
            for part in delta.content or ():
                self._read_part(part, deltas)
        if delta.refusal:
            self._refused = True
        if delta.tool_calls:
            deltas.extend(self._indexes.place(part) for part in delta.tool_calls)
            self._calls = self._indexes.count

    def _read_part(self, part: _Part, deltas: list[Delta]) -> None:
        if part.text:
            deltas.append(TextPart(part.text))
        thinking = part.thinking or ""
        text = thinking if isinstance(thinking, str) else "".join(one.text or "" for one in thinking)
        if text:
            deltas.append(ThinkingPart(text))

    def _think(self, field: str, text: str, deltas: list[Delta]) -> None:
        self._thinking.setdefault(field, []).append(text)
        deltas.append(ThinkingPart(text))

    def _close(self, deltas: list[Delta]) -> None:
        if not self._reason:
            raise StreamBroken("the answer ended before its finish reason", provider=self._provider)
        self._conclude(deltas)

    def _conclude(self, deltas: list[Delta]) -> None:
        if self._refused or self._reason == "content_filter":
            raise LLMContentRefused("the model or its provider refused to answer this", provider=self._provider)
        if self._reason in _FAILED:
            raise LLMServerError("the provider gave the answer up", provider=self._provider)
        self._reason = _REASONS.get(self._reason, self._reason)
        if self._calls:  # without calls nobody wants the thoughts back
            for field, pieces in self._thinking.items():
                deltas.append(ThinkingPart("", Thought(field, "".join(pieces))))
        self._finish(deltas)


class _Indexes:
    """Gives each tool call of an answer one index from 0, whatever the server numbers them by."""

    __slots__ = ("_current", "_ids", "_ours")

    def __init__(self) -> None:
        self._ours: dict[int, int] = {}
        self._ids: list[str] = []
        self._current = 0

    @property
    def count(self) -> int:
        """Calls so far."""
        return len(self._ids)

    def place(self, part: _CallPart) -> ToolCallPart:
        """The part with its index; the id only in the first part of its call."""
        function = part.function or _Function()
        call = part.id or ""
        theirs = part.index if part.index is not None else (len(self._ids) if call else self._current)
        index = self._ours.get(theirs)
        # Servers are seen that send several whole calls under index 0: another id begins another call.
        if index is None or (call and self._ids[index] and call != self._ids[index]):
            index = len(self._ids)
            self._ids.append(call)
            self._ours[theirs] = index
        elif call == self._ids[index]:
            call = ""
        self._current = theirs
        arguments = function.arguments
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode() if arguments else ""
        return ToolCallPart(index, call, function.name or "", text)


def _usage(usage: _Usage) -> Usage:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else 0
    return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached or 0, reasoning or 0, calls=1)
