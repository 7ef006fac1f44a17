"""The chat format of OpenAI and of every server that speaks it (vLLM, OpenRouter, Groq, DeepSeek, LM Studio, Ollama …).

What comes in: an `LLMRequest` to send, then the answer's bytes cut anywhere, or the status and body of a refusal. What
goes out: a path and a JSON body, deltas, or the error class that a failure means. It does not know HTTP clients, time,
keys or retries, and it never puts what a provider wrote into an error: that may repeat the prompt or the key.

Format as documented at platform.openai.com/docs/api-reference/chat/streaming. What real servers do beyond it, and is
read here: comments between events; `event: error`; an `error` object with or without `choices`; usage in a chunk of its
own, in the last one or inside `x_groq`; reasoning as `reasoning` or `reasoning_content`; parts of a tool call that name
only its index, or no index at all, or one index for several calls; a stream without `[DONE]` after its finish reason.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from agentstream.errors import (
    FrameTooLarge,
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
from agentstream.events import Json, Usage
from agentstream.llm.messages import Delta, Finish, LLMRequest, Message, TextPart, ThinkingPart, ToolCall, ToolCallPart
from agentstream.wire import sse
from agentstream.wire.text import clean_json

__all__ = ("PATH", "Parser", "build", "refusal")

PATH: Final = "chat/completions"


# --- the request ------------------------------------------------------------------------------------------------------
def build(request: LLMRequest, model: str, *, limit_field: str = "max_tokens") -> tuple[str, bytes]:
    """The path below the base address and the JSON body that asks for a streamed answer.

    Args:
        model: used where the request names none.
        limit_field: what the server calls the most tokens of an answer. OpenAI's own models want
            `max_completion_tokens`; most other servers know only `max_tokens`.
    """
    body: dict[str, Json] = {
        "model": request.model or model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    if request.max_tokens is not None:
        body[limit_field] = request.max_tokens
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.schema is not None:
        # Not `strict`: that accepts only schemas without optional fields. The answer is checked by whoever asked.
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": request.schema_name or "answer", "schema": request.schema},
        }
    try:
        return PATH, msgspec.json.encode(body)
    except UnicodeEncodeError:  # lone surrogates, which UTF-8 cannot hold
        return PATH, msgspec.json.encode(clean_json(body))


def _message(message: Message) -> dict[str, Json]:
    entry: dict[str, Json] = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        entry["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
        entry["content"] = message.content or None
    if message.role == "tool":
        entry["tool_call_id"] = message.tool_call_id
    elif message.name:
        entry["name"] = message.name
    return entry


def _content(message: Message) -> Json:
    if not message.images:
        return message.content
    text = [{"type": "text", "text": message.content}] if message.content else []
    return [*text, *({"type": "image_url", "image_url": {"url": url}} for url in message.images)]


def _tool_call(call: ToolCall) -> dict[str, Json]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


# --- the answer -------------------------------------------------------------------------------------------------------
class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Json] | None = None


class _CallPart(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
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
    object: str | None = None
    code: Json = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class Parser:
    """One answer: `feed` its bytes, then `end`; both give deltas, the last of which is `Finish`.

    A stream is whole when `[DONE]` came, or when it ended in order after a finish reason (some servers send no
    `[DONE]`). `Finish` is given then and not before, since usage may follow the finish reason.

    Args:
        provider: the name that errors carry.

    Attributes:
        finished: whether `Finish` was given out.
        model: the name of the model that the provider gave.
        error: the failure that the bytes hold, found behind the deltas that `feed` returned; raise it after them.

    Bounds: see `agentstream.wire.sse.Decoder`; time linear in the bytes fed.
    """

    __slots__ = ("_calls", "_decoder", "_provider", "_reason", "_refused", "_usage", "error", "finished", "model")

    def __init__(self, provider: str = "") -> None:
        self._provider = provider
        self._decoder = sse.Decoder()
        self._calls = _Indexes()
        self._reason = ""
        self._refused = False
        self._usage = Usage(calls=1)
        self.finished = False
        self.model = ""
        self.error: LLMError | None = None

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas that `data` completes. After `Finish`, and after an error, further bytes are ignored."""
        deltas: list[Delta] = []
        if self.finished or self.error is not None:
            return deltas
        try:
            messages = self._decoder.feed(data)
            for message in messages:
                if self._take(message, deltas):
                    break
        except FrameTooLarge:
            self.error = LLMParseError("a line of the answer is too long", provider=self._provider)
        except LLMError as error:
            self.error = error
        return deltas

    def end(self) -> list[Delta]:
        """The stream has ended in order: what that completes.

        Raises:
            StreamBroken: the answer is not whole.
        """
        self.feed(b"")  # a line that was too long is told by the next call
        if self.finished or self.error is not None:
            return []
        if not self._reason:
            raise StreamBroken("the answer ended before its finish reason", provider=self._provider)
        deltas: list[Delta] = []
        self._finish(deltas)
        return deltas

    def _take(self, message: sse.Message, deltas: list[Delta]) -> bool:
        """Read one event; whether it was the last."""
        data = message.data
        if data.startswith(b"[DONE]"):
            self._finish(deltas)
            return True
        if not data.strip():
            return False
        try:
            chunk = _decode_chunk(data)
        except msgspec.MsgspecError:
            if message.event == "error":  # text instead of an object; what it says stays unsaid
                raise _in_band(None, self._provider) from None
            raise LLMParseError("an event of the answer is not in the chat format", provider=self._provider) from None
        self._read(chunk, deltas)
        if chunk.object == "error":  # vLLM up to 0.9: the error is the event itself
            raise _in_band({"code": chunk.code}, self._provider)
        if chunk.error or message.event == "error":
            raise _in_band(chunk.error, self._provider)
        return False

    def _read(self, chunk: _Chunk, deltas: list[Delta]) -> None:
        if chunk.model:
            self.model = chunk.model
        usage = chunk.usage or (chunk.x_groq.usage if chunk.x_groq is not None else None)
        if usage is not None:
            self._usage = _usage(usage)
        for choice in chunk.choices or ():
            if choice.index:  # one answer is asked for; further ones are nobody's
                continue
            if choice.delta is not None:
                self._read_delta(choice.delta, deltas)
            if choice.finish_reason:
                self._reason = choice.finish_reason

    def _read_delta(self, delta: _Delta, deltas: list[Delta]) -> None:
        thinking = delta.reasoning or delta.reasoning_content
        if thinking:
            deltas.append(ThinkingPart(thinking))
        if delta.content:
            deltas.append(TextPart(delta.content))
        if delta.refusal:
            self._refused = True
        deltas.extend(self._calls.place(part) for part in delta.tool_calls or ())

    def _finish(self, deltas: list[Delta]) -> None:
        if self._refused or self._reason == "content_filter":
            raise LLMContentRefused("the model or its provider refused to answer this", provider=self._provider)
        reason = "tool_calls" if self._reason == "function_call" else self._reason
        self.finished = True
        deltas.append(Finish(reason or "stop", self._usage))


class _Indexes:
    """Gives each tool call of an answer one index from 0, whatever the server numbers them by."""

    __slots__ = ("_current", "_ids", "_ours")

    def __init__(self) -> None:
        self._ours: dict[int, int] = {}
        self._ids: list[str] = []
        self._current = 0

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


# --- failures ---------------------------------------------------------------------------------------------------------
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"})
_CONTENT = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_RATE = frozenset({"rate_limit_exceeded", "rate_limit_error", "tokens", "requests"})
_AUTH = frozenset({"invalid_api_key", "authentication_error", "permission_error", "permission_denied"})
# The model wrote a call that its own provider could not read: another answer may do better.
_MODEL_SLIP = frozenset({"tool_use_failed", "json_validate_failed"})

_SAID: Final = {
    "context_length_exceeded": "the conversation is longer than the model takes",
    "model_not_found": "the provider does not know this model",
}


class _Error(msgspec.Struct, gc=False):
    code: Json = None
    type: Json = None
    status_code: Json = None


class _Body(msgspec.Struct, gc=False):
    error: Json = None


def _in_band(error: Json, provider: str) -> LLMError:
    """What an error object inside a stream means; HTTP's status was 200 by then."""
    return _classify(None, error, provider)


def refusal(status: int, body: bytes, provider: str = "", *, retry_after: float | None = None) -> LLMError:
    """What an answer means that is no stream: a status other than 200, or JSON.

    Args:
        body: at most its first 64 KiB; only the error's `code` and `type` are looked at, where they are single words.
        retry_after: seconds, as read from the headers.
    """
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except msgspec.MsgspecError:
        error = None
    if status == 200 and not error:
        return LLMParseError("the server answered, but did not stream its answer", provider=provider)
    found = _classify(status, error, provider)
    found.retry_after = retry_after
    return found


def _classify(status: int | None, error: Json, provider: str) -> LLMError:
    try:
        fields = msgspec.convert(error, _Error)
    except msgspec.ValidationError:
        fields = _Error()
    words = [word for word in (fields.code, fields.type) if isinstance(word, str) and _WORD.fullmatch(word)]
    kind = next((number for number in (status, fields.code, fields.status_code) if _is_status(number)), None)
    class_, detail = _class_of(kind, set(words))
    detail = next((_SAID[word] for word in words if word in _SAID), detail)
    details: dict[str, object] = {"provider_code": words[0]} if words else {}
    return class_(detail, provider=provider, http_status=status, details=details)


def _is_status(number: Json) -> bool:
    return isinstance(number, int) and 300 <= number <= 599


def _class_of(status: int | None, words: set[str]) -> tuple[type[LLMError], str]:
    """The class that says who can mend it: nobody but time, the caller, or the owner of the account.

    As the clients of OpenAI and Anthropic sort them: 408, 409, 429 and 5xx pass, other 4xx do not. A used-up quota
    comes as 429 and does not pass.
    """
    by_word: tuple[tuple[frozenset[str], type[LLMError], str], ...] = (
        (_QUOTA, LLMQuotaExceeded, "the account has no quota left"),
        (_CONTENT, LLMContentRefused, "the model or its provider refused to answer this"),
        (_MODEL_SLIP, LLMParseError, "the model wrote a tool call that its provider could not read"),
    )
    for known, class_, detail in by_word:
        if words & known:
            return class_, detail
    if status == 429 or (status is None and words & _RATE):
        return LLMRateLimited, "too many requests"
    if status == 402:
        return LLMQuotaExceeded, "the account has no quota left"
    if status in (401, 403) or (status is None and words & _AUTH):
        return LLMAuthError, "the provider refused the key"
    if status in (408, 409) or (status is not None and status >= 500):
        return LLMServerError, "the provider failed"
    if status is not None and status < 400:
        return (
            LLMRequestError,
            "the address answers with a redirect, which is not followed: configure the final address",
        )
    if status is not None or "invalid_request_error" in words or words & _SAID.keys():
        return LLMRequestError, "the provider refused the request"
    return LLMServerError, "the provider failed while it answered"
