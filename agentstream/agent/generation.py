"""Asking a model until there is an answer: streamed, with tools, of a certain type, tried again with marks.

What comes in: a prompt or a conversation, tools, the type of the answer. What goes out: events as the answer arrives,
and a `Reply`. It does not know providers, what a run is, or whether a recorded answer is used.

A try that breaks stays in the log: its blocks are closed and marked by `llm.try_failed`, and the next try opens blocks
of its own. Two tries are never joined. An answer that does not fit its type is marked the same way.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeAlias, cast, overload

import anyio
import msgspec
from typing_extensions import TypeVar

from agentstream.agent.schema import DoesNotFit, Shape
from agentstream.agent.tool_calls import ToolHost, call_named
from agentstream.agent.tools import Tool
from agentstream.errors import EmitAfterEnd, InvalidInput, LLMError, LLMRequestError, LLMValidationError, StoreError
from agentstream.events import AgentWaiting, Json, LLMTryFailed, ToolDelta, ToolFailed, ToolStarted, Usage
from agentstream.llm.contract import LLM
from agentstream.llm.messages import (
    Delta,
    Finish,
    LLMRequest,
    LLMResult,
    Message,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolCallPart,
    ToolSpec,
)
from agentstream.policy import wait_after
from agentstream.wire.text import pieces

__all__ = (
    "MAX_PARALLEL_TOOLS",
    "MAX_REPAIRS",
    "MAX_TOOL_ROUNDS",
    "MAX_TRIES",
    "STRUCTURED",
    "GenerationHost",
    "Prompt",
    "Reply",
    "generate",
)

T = TypeVar("T")
S = TypeVar("S")

Prompt: TypeAlias = str | Sequence[Message]
"""A question, or a conversation that ends with one."""

MAX_TRIES: Final = 3
"""Of one request, the first included."""

MAX_REPAIRS: Final = 2
"""How often an answer that does not fit its type is asked for again."""

MAX_TOOL_ROUNDS: Final = 24
"""How often a model may ask for tools before it must have answered."""

MAX_PARALLEL_TOOLS: Final = 16
"""How many calls of one round run at once."""

STRUCTURED: Final = "structured"
"""The `role` of text blocks that hold the JSON of a typed answer: for programs, not for a reader's eyes."""

_VERSION: Final = "1"  # of what is recorded of an answer
_CLOSING_S: Final = 1.0
_DELTA_BYTES: Final = 64 << 10


@dataclasses.dataclass(frozen=True)
class Reply(Generic[T]):
    """An answer.

    Attributes:
        output: the answer in the type that was asked for; the text where none was.
        text: the text of the last message. finish_reason: stop, length (it was cut), or a provider's own word.
        usage: tokens of all requests that it took, repairs and tool rounds included, broken tries not.
        messages: the whole conversation with the answer; add a message and hand it in to go on.
        tool_calls: all calls that the model asked for, in order.
    """

    output: T
    text: str
    usage: Usage
    messages: tuple[Message, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"


class _Block(Protocol):
    @property
    def id(self) -> str: ...

    async def write(self, text: str) -> None: ...


class GenerationHost(ToolHost, Protocol):
    """What an answer needs of the invocation that asks; `Context` is one."""

    @property
    def agent_tools(self) -> Sequence[Tool[..., Any]]:  # Any: tools of every signature
        """The tools that are offered where none are named."""
        ...

    def model(self, name: str = "") -> LLM:
        """A configured model; the agent's own without a name."""
        ...

    # Blocks are entered to open and left to close; `Any` because two Protocols' classes of them need not be the same.
    def text(self, *, role: str = "assistant") -> AbstractAsyncContextManager[Any]:
        """A block of text."""
        ...

    def thinking(self) -> AbstractAsyncContextManager[Any]:
        """A block of reasoning."""
        ...

    async def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[S]],
        *args: object,
        key: str | None = None,
        version: str | None = None,
    ) -> S:
        """Run a recorded unit."""
        ...


class _Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that an answer depends on: the arguments of the step, hence of its key."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    model: str = ""
    schema: dict[str, Json] | None = None
    schema_name: str = ""


class _Exchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is recorded of an answer: the messages that were added; the last one holds the answer."""

    messages: tuple[Message, ...]
    usage: Usage = Usage()
    finish_reason: str = "stop"


# --- the way in -------------------------------------------------------------------------------------------------------
@overload
async def generate(
    ctx: GenerationHost,
    prompt: Prompt,
    *,
    output: None = None,
    tools: Sequence[Tool[..., Any]] | None = None,
    model: str | None = None,
) -> Reply[str]: ...
@overload
async def generate(
    ctx: GenerationHost,
    prompt: Prompt,
    *,
    output: type[T],
    tools: Sequence[Tool[..., Any]] | None = None,
    model: str | None = None,
) -> Reply[T]: ...
@overload
async def generate(
    ctx: GenerationHost,
    prompt: Prompt,
    *,
    output: type[Any] | None,
    tools: Sequence[Tool[..., Any]] | None = None,
    model: str | None = None,
) -> Reply[Any]: ...
async def generate(
    ctx: GenerationHost,
    prompt: Prompt,
    *,
    output: type[Any] | None = None,
    tools: Sequence[Tool[..., Any]] | None = None,
    model: str | None = None,
) -> Reply[Any]:
    """Ask a model; one recorded step named `generate`.

    Args:
        output: a pydantic model, dataclass, TypedDict or built-in type; None and `str` mean text.
        tools: what the model may call; None means the agent's own, `()` none.
        model: a configured model's name; None means the agent's own.

    Raises:
        InvalidInput: an empty prompt, two tools of one name, or a type without a schema.
        NoModelConfigured: no model of that name.
        LLMError: no whole answer after `MAX_TRIES` tries, or at once where another try cannot help.
        LLMValidationError: no answer of that type after `MAX_REPAIRS` repairs, or none after `MAX_TOOL_ROUNDS` rounds.
    """
    messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if not any(message.content.strip() or message.images or message.tool_calls for message in messages):
        raise InvalidInput("the prompt is empty: say what the model should do")
    offered = tuple(ctx.agent_tools if tools is None else tools)
    if len({tool.name for tool in offered}) < len(offered):
        raise InvalidInput("two tools have one name; give one of them another by tool(name=…)")
    shape: Shape[Any] | None = None if output is None or output is str else Shape(output)
    llm = ctx.model(model or "")
    ask = _Ask(
        messages,
        tuple(tool.spec for tool in offered),
        llm.name if model is None else model,
        shape.schema if shape else None,
        shape.name if shape else "",
    )
    asking = _Asking(ctx, llm, offered, shape)
    exchange = await ctx.step("generate", asking.run, ask, version=_VERSION)
    text = exchange.messages[-1].content
    return Reply(
        output=text if shape is None else shape.parse(text),
        text=text,
        usage=exchange.usage,
        messages=messages + exchange.messages,
        tool_calls=tuple(call for message in exchange.messages for call in message.tool_calls),
        finish_reason=exchange.finish_reason,
    )


# --- rounds -----------------------------------------------------------------------------------------------------------
class _Asking:
    """The conversation until there is an answer: requests, tool rounds and repairs."""

    def __init__(
        self,
        ctx: GenerationHost,
        llm: LLM,
        tools: Sequence[Tool[..., Any]],
        shape: Shape[Any] | None,
    ) -> None:
        self._ctx = ctx
        self._llm = llm
        self._tools = tools
        self._shape = shape
        self._added: list[Message] = []
        self._usage = Usage()

    async def run(self, ask: _Ask) -> _Exchange:
        rounds = repairs = 0
        while True:
            request = LLMRequest(
                messages=(*ask.messages, *self._added),
                tools=ask.tools,
                schema=ask.schema,
                schema_name=ask.schema_name,
            )
            result, written = await self._request(request)
            self._usage += result.usage
            # Some servers leave the ids out; the answers need them.
            pairs = zip(result.tool_calls, written.calls, strict=True)
            calls = tuple(call if call.id else msgspec.structs.replace(call, id=id_) for call, id_ in pairs)
            self._added.append(Message("assistant", result.text, calls, thoughts=result.thoughts))
            if calls:
                rounds += 1
                if rounds > MAX_TOOL_ROUNDS:
                    await written.fail_calls("llm_validation", "the model asked for tools too often")
                    raise LLMValidationError(
                        f"no answer after {MAX_TOOL_ROUNDS} rounds of tools", provider=self._llm.name
                    )
                self._added.extend(await self._run_tools(calls, written.calls))
                continue
            try:
                if self._shape is not None:
                    self._shape.parse(result.text)
            except DoesNotFit as error:
                repairs += 1
                await written.mark(repairs, LLMValidationError.code)
                if repairs > MAX_REPAIRS:
                    raise LLMValidationError(
                        f"the answer does not fit {ask.schema_name} after {MAX_REPAIRS} repairs",
                        provider=self._llm.name,
                    ) from None
                self._added.append(Message("user", _complaint(error, ask.schema)))
                continue
            return _Exchange(tuple(self._added), self._usage, result.finish_reason)

    async def _request(self, request: LLMRequest) -> tuple[LLMResult, _Writer]:
        """One request, in at most `MAX_TRIES` tries."""
        ctx = self._ctx
        for number in range(1, MAX_TRIES + 1):
            await ctx.emit(AgentWaiting("llm"))
            writer = _Writer(ctx, "assistant" if self._shape is None else STRUCTURED)
            try:
                async with writer, self._llm.stream(request) as stream:
                    async for delta in stream:
                        await writer.take(delta)
                    result = stream.result
                await writer.open_calls(result.tool_calls)
                return result, writer
            except LLMError as error:
                await writer.fail_calls(error.code, "the answer broke off before the call was complete")
                await writer.mark(number, error.code)
                wait = wait_after(number, random.random(), error.retry_after)
                if number == MAX_TRIES or wait is None or not _worth_another(error):
                    raise
            await anyio.sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _run_tools(self, calls: Sequence[ToolCall], ids: Sequence[str]) -> list[Message]:
        """All calls of a round at once; the answers in the order of the calls."""
        answers: list[Message | None] = [None] * len(calls)
        failures: list[Exception] = []
        places = anyio.CapacityLimiter(MAX_PARALLEL_TOOLS)

        async def one(index: int) -> None:
            async with places:
                try:
                    answers[index] = await call_named(self._ctx, self._tools, calls[index], call=ids[index])
                except Exception as error:  # noqa: BLE001  (raised below, without the group's wrapping)
                    failures.append(error)
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index in range(len(calls)):
                group.start_soon(one, index)
        if failures:
            raise failures[0]
        return cast("list[Message]", answers)


def _worth_another(error: LLMError) -> bool:
    """What the provider itself says goes before the class; but a wrong request stays wrong."""
    advice = error.details.get("should_retry")
    if isinstance(advice, bool) and not isinstance(error, LLMRequestError):
        return advice
    return error.retryable


def _complaint(error: DoesNotFit, schema: dict[str, Json] | None) -> str:
    return (
        f"That answer cannot be used:\n{error}\n"
        f"Answer again, with JSON of this schema and nothing else:\n{msgspec.json.encode(schema).decode()}"
    )


# --- one try ----------------------------------------------------------------------------------------------------------
class _Writer:
    """Writes the deltas of one try as events: blocks of text and reasoning, and the arguments of calls."""

    def __init__(self, ctx: GenerationHost, role: str) -> None:
        self._ctx = ctx
        self._role = role
        self._stack = AsyncExitStack()
        self._block: _Block | None = None
        self._kind = ""
        self._blocks: list[str] = []
        self._calls: dict[int, str] = {}  # id of the call by the model's index
        self._held: dict[int, str] = {}  # arguments that came before their call had a name

    @property
    def calls(self) -> list[str]:
        """The ids of the calls, in the order of the result's."""
        return [self._calls[index] for index in sorted(self._calls)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)
        if error is not None and not isinstance(error, LLMError):  # stopped, or the model's own bug
            with anyio.move_on_after(_CLOSING_S, shield=True):
                try:
                    await self.fail_calls("stopped", "the answer was stopped before the call was complete")
                except (StoreError, EmitAfterEnd):
                    pass  # closed already, or nobody can be told

    async def take(self, delta: Delta) -> None:
        """Write one delta."""
        if isinstance(delta, TextPart):
            await self._write("text", delta.text)
        elif isinstance(delta, ThinkingPart):
            if delta.text:
                await self._write("thinking", delta.text)
        elif isinstance(delta, ToolCallPart):
            await self._write_call(delta)
        else:
            assert isinstance(delta, Finish)

    async def _write(self, kind: str, text: str) -> None:
        if kind != self._kind:
            await self._leave()
            block = self._ctx.text(role=self._role) if kind == "text" else self._ctx.thinking()
            opened: _Block = await self._stack.enter_async_context(block)
            self._block, self._kind = opened, kind
            self._blocks.append(opened.id)
        if self._block is not None:
            await self._block.write(text)

    async def _leave(self) -> None:
        self._block, self._kind = None, ""
        await self._stack.aclose()

    async def _write_call(self, part: ToolCallPart) -> None:
        await self._leave()
        call = self._calls.get(part.index)
        text = part.arguments
        if call is None:
            text = self._held.pop(part.index, "") + text
            if not part.name:
                self._held[part.index] = text
                return
            call = self._calls[part.index] = self._ctx.new_id()
            await self._ctx.emit(ToolStarted(call, name=part.name))
        for piece in pieces(text, _DELTA_BYTES):
            await self._ctx.emit(ToolDelta(call, piece))

    async def open_calls(self, calls: Sequence[ToolCall]) -> None:
        """Open those calls of the whole answer that the deltas did not name, so that each can be answered."""
        for index in sorted(self._held):
            self._calls[index] = self._ctx.new_id()
            await self._ctx.emit(ToolStarted(self._calls[index], name=""))
        for call in calls[len(self._calls) :]:
            index = max(self._calls, default=-1) + 1
            self._calls[index] = self._ctx.new_id()
            await self._ctx.emit(ToolStarted(self._calls[index], name=call.name))

    async def fail_calls(self, code: str, message: str) -> None:
        """Close the calls that were opened and will not be made."""
        for call in self.calls:
            await self._ctx.emit(ToolFailed(call, code=code, message=message))
        self._calls.clear()

    async def mark(self, number: int, reason: str) -> None:
        """Say that what this try wrote does not count: one event a block, and one if it wrote none."""
        for block in self._blocks or [""]:
            await self._ctx.emit(LLMTryFailed(block=block, reason=reason, try_=number))
