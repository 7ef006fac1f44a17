"""A model that says what a test wrote down.

What comes in: a script. What goes out: an `LLM` that plays it, one item a request, and the requests that it got. It
does not know events or runs, waits for nothing, and says the same on every event loop.

    model = ScriptedModel(ToolCall(name="add", arguments='{"a": 1, "b": 2}'), "The sum is 3.")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self, TypeAlias, TypeGuard

import anyio.lowlevel
import pydantic

from agentstream.errors import InvalidInput, LLMRequestError, StreamBroken
from agentstream.events import Usage
from agentstream.llm.contract import LLMStream
from agentstream.llm.messages import (
    Assembly,
    Delta,
    Finish,
    LLMRequest,
    LLMResult,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolCallPart,
)

__all__ = ("Broken", "ScriptItem", "ScriptedModel")


@dataclasses.dataclass(frozen=True)
class Broken:
    """An answer that breaks off: `text` is streamed, then `error` is raised."""

    text: str
    error: Exception = dataclasses.field(default_factory=lambda: StreamBroken("the script breaks off here"))


ScriptItem: TypeAlias = (
    str
    | ToolCall
    | Sequence[ToolCall]
    | LLMResult
    | pydantic.BaseModel
    | Exception
    | Broken
    | Callable[[LLMRequest], "ScriptItem"]
)
"""One request's answer: text; one call or several; a whole `LLMResult` (with thinking, or text and calls together); a
pydantic model, sent as its JSON; an error, raised before the first piece; an answer that breaks off; or a function of
the request that gives one of these."""


class ScriptedModel:
    """Plays `script`, one item a request. Text comes in pieces of a few characters, so that streaming shows.

    Usage is counted in pieces out and words in: the same on every machine.

    Args:
        name: what errors call it.

    Attributes:
        requests: what was asked, in order.

    Raises:
        LLMRequestError: (when asked) the script has no item left.
    """

    def __init__(self, *script: ScriptItem, name: str = "scripted") -> None:
        self.name = name
        self.requests: list[LLMRequest] = []
        self._script = script
        self._calls = 0

    @property
    def left(self) -> int:
        """Items that were not asked for yet."""
        return len(self._script) - len(self.requests)

    def stream(self, request: LLMRequest) -> AbstractAsyncContextManager[LLMStream]:
        """The next item, as a stream."""
        return _Scripted(self, request)

    async def complete(self, request: LLMRequest) -> LLMResult:
        """The next item, whole."""
        async with self.stream(request) as stream:
            async for _ in stream:
                pass
            return stream.result

    async def aclose(self) -> None:
        """Nothing to free."""

    def _next(self, request: LLMRequest) -> tuple[list[Delta], Exception | None]:
        """The deltas of the next item, and the error that they end in."""
        number = len(self.requests)
        if number >= len(self._script):
            self.requests.append(request)
            detail = f"the script of the model is used up: this is request {number + 1}, it has {number} items"
            raise LLMRequestError(detail, provider=self.name)
        self.requests.append(request)
        item = self._script[number]
        while callable(item):
            item = item(request)
        if isinstance(item, Exception):
            return [], item
        if isinstance(item, Broken):
            return [TextPart(piece) for piece in _pieces(item.text)], item.error
        deltas = list(self._deltas(self._result(item)))
        words = sum(len(message.content.split()) for message in request.messages)
        reason = "tool_calls" if any(isinstance(delta, ToolCallPart) for delta in deltas) else "stop"
        if isinstance(item, LLMResult) and (item.usage != Usage() or item.finish_reason):
            return [*deltas, Finish(item.finish_reason or reason, item.usage)], None
        return [*deltas, Finish(reason, Usage(input_tokens=words, output_tokens=len(deltas), calls=1))], None

    def _result(self, item: object) -> LLMResult:
        if isinstance(item, LLMResult):
            return item
        if isinstance(item, str):
            return LLMResult(item)
        if isinstance(item, pydantic.BaseModel):
            return LLMResult(item.model_dump_json())
        calls: Sequence[object] = [item]
        if _is_sequence(item):
            calls = item
        found = tuple(call for call in calls if isinstance(call, ToolCall))
        if not found or len(found) < len(calls):
            raise InvalidInput(f"a {type(item).__name__} is no item of a script; see ScriptItem")
        return LLMResult(tool_calls=found)

    def _deltas(self, result: LLMResult) -> Iterator[Delta]:
        for piece in _pieces(result.thinking):
            yield ThinkingPart(piece)
        for thought in result.thoughts:
            yield ThinkingPart("", thought)
        for piece in _pieces(result.text):
            yield TextPart(piece)
        for index, call in enumerate(result.tool_calls):
            self._calls += 1
            yield ToolCallPart(index, call.id or f"call_{self._calls}", call.name, signature=call.signature)
            for piece in _pieces(call.arguments):
                yield ToolCallPart(index, arguments=piece)


def _is_sequence(item: object) -> TypeGuard[Sequence[object]]:
    return isinstance(item, Sequence)


_PIECE_CHARS: Final = 4


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]


class _Scripted:
    """One item being played."""

    def __init__(self, model: ScriptedModel, request: LLMRequest) -> None:
        self._model = model
        self._request = request
        self._assembly = Assembly()
        self._deltas: list[Delta] = []  # the next one last
        self._error: Exception | None = None

    @property
    def result(self) -> LLMResult:
        """What was read so far, joined."""
        return self._assembly.result(self._model.name)

    async def __aenter__(self) -> Self:
        await anyio.lowlevel.checkpoint()
        deltas, self._error = self._model._next(self._request)
        if not deltas and self._error is not None:
            raise self._error
        self._deltas = deltas[::-1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deltas.clear()

    def __aiter__(self) -> _Scripted:
        return self

    async def __anext__(self) -> Delta:
        await anyio.lowlevel.checkpoint()
        if not self._deltas:
            error, self._error = self._error, None
            raise error or StopAsyncIteration
        delta = self._deltas.pop()
        self._assembly.add(delta)
        return delta
