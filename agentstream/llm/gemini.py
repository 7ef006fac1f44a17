"""Google's Gemini format.

What comes in: an `LLMRequest` to send, then the answer's bytes cut anywhere. What goes out: a path and a JSON body, and
deltas. It does not know HTTP clients, time, keys or retries, and it never puts what a provider wrote into an error.

Format as documented at ai.google.dev/api/generate-content. A stream has no end mark: it is whole when it ended in order
after a `finishReason`. Calls come whole and often without an id; usage is cumulative. What the
model thought is signed on its calls, and the signature must go back with them.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

import msgspec

from agentstream.errors import LLMContentRefused, LLMParseError, StreamBroken
from agentstream.events import Json, Usage
from agentstream.llm.asking import arguments, encode, instruction, picture, system_text
from agentstream.llm.failures import failure
from agentstream.llm.messages import Delta, LLMRequest, Message, TextPart, ThinkingPart, ToolCallPart
from agentstream.llm.parsing import UNREADABLE, AnswerParser
from agentstream.wire import sse

__all__ = ("Parser", "build")

# Before 3 the amount of thinking is a number of tokens, and tools and JSON exclude each other.
_BEFORE_3: Final = re.compile(r"(?:models/)?gemini-(?:[12]\b|(?:flash|pro)(?:-lite)?-latest)")
_BUDGETS: Final = {"off": 0, "low": 1_024, "medium": 8_192, "high": 24_576}


# --- the request ------------------------------------------------------------------------------------------------------
def build(request: LLMRequest, model: str, *, host: str = "") -> tuple[str, bytes]:  # noqa: ARG001 - one shape for all
    """The path below the base address and the JSON body that asks for a streamed answer.

    A schema goes as the model's own response format, except where tools are offered: then it goes in words, since most
    models refuse both at once.
    """
    model = (request.model or model).removeprefix("models/")
    in_words = instruction(request) if request.tools else ""
    system = "\n\n".join(filter(None, (system_text(request), in_words)))
    body: dict[str, Json] = {"contents": _contents(request)}
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    if request.tools:
        body["tools"] = [
            {
                "functionDeclarations": [
                    {"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters}
                    for tool in request.tools
                ]
            }
        ]
    config: dict[str, Json] = {}
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.thinking:
        config["thinkingConfig"] = _thinking(request.thinking, model)
    if request.schema is not None and not in_words:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = request.schema
    if config:
        body["generationConfig"] = config
    return f"models/{quote(model, safe='')}:streamGenerateContent?alt=sse", encode(body)


def _thinking(amount: str, model: str) -> dict[str, Json]:
    if _BEFORE_3.match(model):
        return {"includeThoughts": amount != "off", "thinkingBudget": _BUDGETS[amount]}
    return {"includeThoughts": amount != "off", "thinkingLevel": "minimal" if amount == "off" else amount}


def _contents(request: LLMRequest) -> list[Json]:
    """The conversation; answers of one round of tools are one message, as the format wants it."""
    names = {call.id: call.name for message in request.messages for call in message.tool_calls}
    made: list[Json] = []
    for message in request.messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = _parts(message, names)
        if made and made[-1]["role"] == role == "user":
            made[-1]["parts"] += parts
        elif parts:
            made.append({"role": role, "parts": parts})
    return made


def _parts(message: Message, names: dict[str, str]) -> list[Json]:
    if message.role == "tool":
        name = message.name or names.get(message.tool_call_id, "")
        answer: dict[str, Json] = {"name": name, "response": {"result": message.content}}
        return [{"functionResponse": answer | _id(message.tool_call_id)}]
    parts: list[Json] = [_image(image) for image in message.images]
    if message.content:
        parts.append({"text": message.content})
    for call in message.tool_calls:
        part: dict[str, Json] = {"functionCall": {"name": call.name, "args": arguments(call.arguments)} | _id(call.id)}
        if call.signature:
            part["thoughtSignature"] = call.signature
        parts.append(part)
    return parts


def _id(call: str) -> dict[str, Json]:
    return {"id": call} if call else {}


def _image(image: str) -> dict[str, Json]:
    found = picture(image)
    if found.url:
        return {"fileData": {"fileUri": found.url}}
    return {"inlineData": {"mimeType": found.mime, "data": found.data}}


# --- the answer -------------------------------------------------------------------------------------------------------
class _Call(msgspec.Struct, gc=False):
    name: str | None = None
    args: dict[str, Json] | None = None
    id: str | None = None


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    prompt_feedback: _Feedback | None = None
    error: Json = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode

_REASONS: Final = {"STOP": "stop", "MAX_TOKENS": "length", "FUNCTION_CALL": "tool_calls"}  # the last: proxies
_REFUSED: Final = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"}
)
# The model wrote a call that nobody could read: another answer may do better.
_SLIPS: Final = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"})


class Parser(AnswerParser):
    """One answer in Gemini's format; whole when it ended in order after its finish reason.

    Args:
        provider: the name that errors carry.
    """

    __slots__ = ()

    def _take(self, message: sse.Message, deltas: list[Delta]) -> bool:
        if not message.data.strip():
            return False
        try:
            chunk = _decode_chunk(message.data)
        except UNREADABLE:
            raise self._unreadable() from None
        if chunk.model_version:
            self.model = chunk.model_version
        if chunk.usage_metadata is not None:
            self._usage = _usage(chunk.usage_metadata)
        for candidate in chunk.candidates or ():
            if not candidate.index:  # one answer is asked for; further ones are nobody's
                self._read(candidate, deltas)
        if chunk.error or message.event == "error":
            raise failure(None, chunk.error, self._provider)
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            raise LLMContentRefused("the provider refused the prompt", provider=self._provider)
        return False

    def _read(self, candidate: _Candidate, deltas: list[Delta]) -> None:
        parts = candidate.content.parts if candidate.content is not None else None
        for part in parts or ():
            if part.function_call is not None:
                call, signature = part.function_call, part.thought_signature or ""
                text = msgspec.json.encode(call.args or {}).decode()
                deltas.append(ToolCallPart(self._calls, call.id or "", call.name or "", text, signature))
                self._calls += 1
            elif part.text:
                deltas.append(ThinkingPart(part.text) if part.thought else TextPart(part.text))
        reason = candidate.finish_reason
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            self._reason = _REASONS.get(reason, reason)

    def _close(self, deltas: list[Delta]) -> None:
        if not self._reason:
            raise StreamBroken("the answer ended before its finish reason", provider=self._provider)
        if self._reason in _REFUSED:
            raise LLMContentRefused("the model or its provider refused to answer this", provider=self._provider)
        if self._reason in _SLIPS:
            raise LLMParseError("the model wrote a tool call that its provider could not read", provider=self._provider)
        self._reason = self._reason.lower()
        self._finish(deltas)


def _usage(usage: _Usage) -> Usage:
    thoughts = usage.thoughts_token_count or 0
    return Usage(
        (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        (usage.candidates_token_count or 0) + thoughts,
        usage.cached_content_token_count or 0,
        thoughts,
        calls=1,
    )
