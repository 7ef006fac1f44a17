"""OpenAI's responses format, with the stream's own numbers: an answer goes on where a connection was lost.

What comes in: an `LLMRequest` to send, then the answer's bytes cut anywhere. What goes out: a path and a JSON body,
deltas, and where the rest of an answer is kept. It does not know HTTP clients, time, keys or retries, and it never puts
what a provider wrote into an error.

Format as documented at platform.openai.com/docs/api-reference/responses-streaming. Only events that carry an answer
are read; the dozens of others pass. Nothing is kept at the provider unless `background` asks for it, so the model's
thoughts come encrypted and go back with the calls that followed them.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

import msgspec

from agentstream.errors import LLMContentRefused, StreamBroken
from agentstream.events import Json, Usage
from agentstream.llm.asking import encode, fitting_id
from agentstream.llm.failures import failure
from agentstream.llm.messages import Delta, LLMRequest, Message, TextPart, ThinkingPart, Thought, ToolCallPart
from agentstream.llm.parsing import UNREADABLE, AnswerParser, Resumption
from agentstream.wire import sse

__all__ = ("PATH", "Parser", "build")

PATH: Final = "responses"

_KIND: Final = "openai.reasoning"

_ID: Final = re.compile(r".{1,64}")

# Models that think unasked. Others refuse to be asked for encrypted thoughts, hence the list.
_THINKS: Final = re.compile(r"o[1-9]|gpt-(?:[5-9]|[1-9][0-9])(?!.*-chat)")


# --- the request ------------------------------------------------------------------------------------------------------
def build(request: LLMRequest, model: str, *, host: str = "") -> tuple[str, bytes]:  # noqa: ARG001 - one shape for all
    """The path below the base address and the JSON body that asks for a streamed answer."""
    body: dict[str, Json] = {
        "model": request.model or model,
        "input": [item for message in request.messages for item in _items(message)],
        "stream": True,
        "store": request.background,
    }
    if request.thinking not in ("", "off") or _THINKS.match(request.model or model):
        body["include"] = ["reasoning.encrypted_content"]
    if request.background:
        body["background"] = True
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": False,  # strict accepts only schemas without optional fields
            }
            for tool in request.tools
        ]
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.thinking == "off":
        body["reasoning"] = {"effort": "none"}
    elif request.thinking:
        body["reasoning"] = {"effort": request.thinking, "summary": "auto"}
    if request.schema is not None:
        name = request.schema_name or "answer"
        body["text"] = {"format": {"type": "json_schema", "name": name, "schema": request.schema, "strict": False}}
    return PATH, encode(body)


def _items(message: Message) -> list[Json]:
    if message.role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": fitting_id(message.tool_call_id, _ID),
                "output": message.content,
            }
        ]
    items: list[Json] = []
    if message.tool_calls:
        items += [_reasoning(thought) for thought in message.thoughts if thought.kind == _KIND]
    if message.content or message.images or not message.tool_calls:
        items.append({"role": message.role, "content": _content(message)})
    items += [
        {"type": "function_call", "call_id": fitting_id(call.id, _ID), "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    return items


def _reasoning(thought: Thought) -> dict[str, Json]:
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    return {"type": "reasoning", "id": thought.id, "summary": summary, "encrypted_content": thought.signature}


def _content(message: Message) -> Json:
    if not message.images:
        return message.content
    text = [{"type": "input_text", "text": message.content}] if message.content else []
    return [*text, *({"type": "input_image", "image_url": url} for url in message.images)]


# --- the answer -------------------------------------------------------------------------------------------------------
class _Part(msgspec.Struct, gc=False):
    text: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    encrypted_content: str | None = None
    summary: list[_Part] | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    background: bool | None = None
    error: Json = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    sequence_number: int | None = None
    output_index: int | None = None
    summary_index: int | None = None
    delta: Json = None
    item: _Item | None = None
    response: _Response | None = None
    error: Json = None
    code: Json = None


_decode_event = msgspec.json.Decoder(_Event).decode


class Parser(AnswerParser):
    """One answer in the responses format; whole with `response.completed` or `response.incomplete`.

    Args:
        provider: the name that errors carry.
    """

    __slots__ = ("_background", "_id", "_indexes", "_refused", "_seen", "_summary")

    def __init__(self, provider: str = "") -> None:
        super().__init__(provider)
        self._id = ""
        self._background = False
        self._seen = -1  # the highest number of an event
        self._indexes: dict[int, tuple[int, bool]] = {}  # by output: the call's index, whether it has arguments
        self._summary: tuple[int | None, int | None] | None = None
        self._refused = False

    @property
    def resumption(self) -> Resumption | None:
        """Where the provider keeps the answer, once it has said its name."""
        lost = self.error is None or isinstance(self.error, StreamBroken)
        if not (self._background and self._id and lost) or self.finished:
            return None
        place = f"{PATH}/{quote(self._id, safe='')}"
        after = f"&starting_after={self._seen}" if self._seen >= 0 else ""
        return Resumption(f"{place}?stream=true{after}", f"{place}/cancel")

    def _take(self, message: sse.Message, deltas: list[Delta]) -> bool:
        if not message.data.strip():
            return False
        if message.data.startswith(b"[DONE]"):  # not OpenAI's, but some servers of this format
            raise StreamBroken("the answer ended before its end was said", provider=self._provider)
        try:
            event = _decode_event(message.data)
        except UNREADABLE:
            raise self._unreadable() from None
        number = event.sequence_number
        if number is not None:
            if number <= self._seen:
                return False  # sent again after a lost connection
            self._seen = number
        return self._read(event, event.type or message.event, deltas)

    def _read(self, event: _Event, kind: str, deltas: list[Delta]) -> bool:
        if kind == "response.output_text.delta" and isinstance(event.delta, str):
            if event.delta:
                deltas.append(TextPart(event.delta))
        elif kind == "response.function_call_arguments.delta" and isinstance(event.delta, str):
            self._arguments(event.output_index or 0, event.delta, deltas)
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._think(event, deltas)
        elif kind == "response.output_item.added" and event.item is not None:
            self._begin(event.output_index or 0, event.item, deltas)
        elif kind == "response.output_item.done" and event.item is not None:
            self._end_item(event.output_index or 0, event.item, deltas)
        elif kind == "response.refusal.delta":
            self._refused = True
        else:
            return self._read_rest(event, kind, deltas)
        return False

    def _read_rest(self, event: _Event, kind: str, deltas: list[Delta]) -> bool:
        """Events about the whole answer."""
        if kind in ("error", "response.failed"):
            raise failure(None, self._error_of(event), self._provider)
        if kind == "response.cancelled":
            self._background = False  # there is no more to come
            raise StreamBroken("the answer was cancelled at the provider", provider=self._provider)
        return event.response is not None and self._read_response(kind, event.response, deltas)

    def _error_of(self, event: _Event) -> Json:
        if event.response is not None and event.response.error:
            return event.response.error
        return event.error or {"code": event.code}

    def _read_response(self, kind: str, response: _Response, deltas: list[Delta]) -> bool:
        self._id = response.id or self._id
        self.model = response.model or self.model
        self._background = response.background or self._background
        if kind not in ("response.completed", "response.incomplete"):
            return False
        if response.usage is not None:
            self._usage = _usage(response.usage)
        why = (response.incomplete_details.reason if response.incomplete_details else None) or ""
        if self._refused or why == "content_filter":
            raise LLMContentRefused("the model or its provider refused to answer this", provider=self._provider)
        if kind == "response.incomplete" or response.status == "incomplete":
            self._reason = "length" if why in ("max_output_tokens", "max_tokens", "") else why
        self._finish(deltas)
        return True

    # --- items: a message, a call or a thought each -------------------------------------------------------------------
    def _begin(self, output: int, item: _Item, deltas: list[Delta]) -> None:
        if item.type == "function_call" and output not in self._indexes:
            text = item.arguments or ""
            deltas.append(ToolCallPart(self._calls, item.call_id or item.id or "", item.name or "", text))
            self._indexes[output] = (self._calls, bool(text))
            self._calls += 1

    def _arguments(self, output: int, text: str, deltas: list[Delta]) -> None:
        if output not in self._indexes:
            raise self._unreadable()
        index, _ = self._indexes[output]
        self._indexes[output] = (index, True)
        deltas.append(ToolCallPart(index, arguments=text))

    def _end_item(self, output: int, item: _Item, deltas: list[Delta]) -> None:
        if item.type == "function_call":
            self._begin(output, item, deltas)  # where it was not announced
            index, has_arguments = self._indexes[output]
            if item.arguments and not has_arguments:
                deltas.append(ToolCallPart(index, arguments=item.arguments))
                self._indexes[output] = (index, True)
        elif item.type == "reasoning" and item.encrypted_content:
            text = "\n\n".join(part.text or "" for part in item.summary or ())
            deltas.append(ThinkingPart("", Thought(_KIND, text, item.encrypted_content, item.id or "")))

    def _think(self, event: _Event, deltas: list[Delta]) -> None:
        if not isinstance(event.delta, str) or not event.delta:
            return
        place = (event.output_index, event.summary_index)
        between = "\n\n" if self._summary not in (None, place) else ""  # parts of a summary are paragraphs
        self._summary = place
        deltas.append(ThinkingPart(between + event.delta))


def _usage(usage: _Usage) -> Usage:
    cached = usage.input_tokens_details.cached_tokens if usage.input_tokens_details else 0
    reasoning = usage.output_tokens_details.reasoning_tokens if usage.output_tokens_details else 0
    return Usage(usage.input_tokens or 0, usage.output_tokens or 0, cached or 0, reasoning or 0, calls=1)
