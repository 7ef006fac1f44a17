"""Ollama's own format: JSON lines.

What comes in: an `LLMRequest` to send, then the answer's bytes cut anywhere. What goes out: a path and a JSON body, and
deltas. It does not know HTTP clients, time, keys or retries, and it never puts what a server wrote into an error.

Format as documented at docs.ollama.com/api/chat. The last line says `done`; calls come whole, and without an id from
older servers; an error is a line of its own.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream.events import Json, Usage
from agentstream.llm.asking import arguments, encode, picture, told
from agentstream.llm.failures import failure
from agentstream.llm.messages import Delta, LLMRequest, Message, TextPart, ThinkingPart, Thought, ToolCallPart
from agentstream.llm.parsing import UNREADABLE, AnswerParser, Lines
from agentstream.wire import sse

__all__ = ("PATH", "Parser", "build")

PATH: Final = "api/chat"


# --- the request ------------------------------------------------------------------------------------------------------
def build(request: LLMRequest, model: str, *, host: str = "") -> tuple[str, bytes]:  # noqa: ARG001 - one shape for all
    """The path below the base address and the JSON body that asks for a streamed answer.

    A schema goes as `format`, except where tools are offered: held to a schema the model could not call them, so then
    it goes in words.
    """
    messages = told(request) if request.tools else request.messages
    body: dict[str, Json] = {
        "model": request.model or model,
        "messages": [_message(message) for message in messages],
        "stream": True,
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    elif request.schema is not None:
        body["format"] = request.schema
    if request.thinking:
        body["think"] = _think(request.thinking, body["model"])
    options: dict[str, Json] = {}
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if options:
        body["options"] = options
    return PATH, encode(body)


def _think(amount: str, model: str) -> Json:
    """Most models know only whether to think; gpt-oss knows how much, and not whether."""
    if model.startswith("gpt-oss"):
        return "low" if amount == "off" else amount
    return amount != "off"


def _message(message: Message) -> dict[str, Json]:
    entry: dict[str, Json] = {"role": message.role, "content": message.content}
    if message.images:
        entry["images"] = [found.data or found.url for found in map(picture, message.images)]
    if message.tool_calls:
        entry["tool_calls"] = [
            {"function": {"name": call.name, "arguments": arguments(call.arguments)}} for call in message.tool_calls
        ]
        thinking = "".join(thought.text for thought in message.thoughts if thought.kind == _KIND)
        if thinking:
            entry["thinking"] = thinking
    if message.role == "tool" and message.name:
        entry["tool_name"] = message.name
    return entry


# --- the answer -------------------------------------------------------------------------------------------------------
class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: dict[str, Json] | str | None = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct, gc=False):
    model: str | None = None
    message: _Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Json = None


_decode_line = msgspec.json.Decoder(_Line).decode

_KIND: Final = "ollama.thinking"


class Parser(AnswerParser):
    """One answer in Ollama's format; whole with the line that says `done`.

    Args:
        provider: the name that errors carry.
    """

    __slots__ = ("_thinking",)

    def __init__(self, provider: str = "") -> None:
        super().__init__(provider, Lines())
        self._thinking: list[str] = []

    def _take(self, message: sse.Message, deltas: list[Delta]) -> bool:
        try:
            line = _decode_line(message.data)
        except UNREADABLE:
            raise self._unreadable() from None
        if line.model:
            self.model = line.model
        if line.message is not None:
            self._read(line.message, deltas)
        if line.error:
            raise failure(None, line.error, self._provider)
        if not line.done:
            return False
        # A prompt that was read before costs nothing, and is not counted by the server.
        self._usage = Usage(line.prompt_eval_count or 0, line.eval_count or 0, calls=1)
        self._reason = line.done_reason or "stop"
        if self._calls and self._thinking:
            deltas.append(ThinkingPart("", Thought(_KIND, "".join(self._thinking))))
        self._finish(deltas)
        return True

    def _close(self, deltas: list[Delta]) -> None:
        """A last line may lack its line end."""
        deltas += self.feed(b"\n")
        if not self.finished and self.error is None:
            super()._close(deltas)

    def _read(self, message: _Message, deltas: list[Delta]) -> None:
        if message.thinking:
            self._thinking.append(message.thinking)
            deltas.append(ThinkingPart(message.thinking))
        if message.content:
            deltas.append(TextPart(message.content))
        for call in message.tool_calls or ():
            function = call.function or _Function()
            given = function.arguments
            text = given if isinstance(given, str) else msgspec.json.encode(given or {}).decode()
            deltas.append(ToolCallPart(self._calls, call.id or "", function.name or "", text))
            self._calls += 1
