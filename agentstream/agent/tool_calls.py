"""One call of a tool, from its first event to its recorded result.

What comes in: a tool with arguments from Python, or a call that a model asked for. What goes out: `tool.*` events, the
result, and for a model the text of it. It does not know models, what a run is, or whether a recorded result is used.

`tool.called` was accepted by the log before the function runs, the result before the call returns. What a function
raises is shown as its class only; `ToolError` is how a tool speaks to the model and to people.
"""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from agentstream.agent.engine import Recalled
from agentstream.agent.keys import Keys
from agentstream.agent.schema import DoesNotFit, decode, jsonable, result_type
from agentstream.agent.tools import AsyncTool, Tool, ToolContext, ToolEmitter, running
from agentstream.bus import encode_value
from agentstream.errors import (
    AgentStreamError,
    EmitAfterEnd,
    InvalidInput,
    StoreError,
    ToolDeniedError,
    ToolError,
    ToolTimeout,
)
from agentstream.events import (
    Event,
    Json,
    ToolCalled,
    ToolDenied,
    ToolFailed,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from agentstream.llm.messages import Message, ToolCall
from agentstream.loops import current_loop
from agentstream.policy import backoff

__all__ = ("MAX_MODEL_CHARS", "MAX_SHOWN_BYTES", "ToolHost", "call_named", "call_tool")

P = ParamSpec("P")
R = TypeVar("R")

MAX_SHOWN_BYTES: Final = 64 << 10
"""Larger arguments and results are shown by their beginning; a larger result is kept whole as an artifact."""

MAX_MODEL_CHARS: Final = 64_000
"""A longer result is cut for the model: some 16,000 tokens, which is what small models take in all."""

_SHOWN_CHARS: Final = 2_000
_THREADS: Final = 40  # as many as anyio's own pool; blocking work beyond it only makes everybody slower
_CLOSING_S: Final = 1.0

_log = logging.getLogger(__name__)
_threads: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("agentstream_tool_threads")


class ToolHost(ToolEmitter, Protocol):
    """What a call needs of the invocation that makes it; `Context` is one."""

    @property
    def keys(self) -> Keys:
        """The keys of recorded units."""
        ...

    def new_id(self) -> str:
        """An id that is unique in the run."""
        ...

    async def flush(self) -> None:
        """Return once everything emitted so far was accepted."""
        ...

    async def recall(self, kind: Literal["tool"], key: str, version: str) -> Recalled:
        """What an earlier attempt of the run recorded of the call."""
        ...

    async def record(self, event: Event, private: object) -> None:
        """Emit with a recorded value beside the line."""
        ...

    async def allow(self, tool: str, call: str, arguments: Json, key: str) -> None:
        """Ask a person for leave; raises `ToolDeniedError` where it is not given."""
        ...


# --- the two ways in --------------------------------------------------------------------------------------------------
async def call_tool(ctx: ToolHost, tool: Tool[P, R], args: tuple[object, ...], kwargs: Mapping[str, object]) -> R:
    """Call `tool` with Python's own arguments; they are bound, not converted.

    Raises:
        InvalidInput: they are not this function's arguments. NotSerializable: one has no JSON form.
        ToolError: the tool failed; `details["code"]` says more where an error of this library was the cause.
        ToolTimeout: no try ended in time. ToolDeniedError: a person did not allow it.
    """
    try:
        bound = tool.parameters.bind(args, kwargs)
    except TypeError as error:
        raise InvalidInput(f"tool {tool.name}: {error}") from None
    arguments = jsonable(bound.arguments)
    key = ctx.keys.current.next(f"tool:{tool.name}", arguments)
    past = await ctx.recall("tool", key, tool.version)
    if past.done:
        return cast("R", decode(result_type(tool.fn), past.value))
    call = ctx.new_id()
    await ctx.emit(ToolStarted(call, name=tool.name))
    value, _ = await _perform(ctx, cast("Tool[..., Any]", tool), call, bound, (key, arguments))
    return cast("R", value)


async def call_named(
    ctx: ToolHost,
    tools: Sequence[Tool[..., Any]],  # Any: tools of every signature
    request: ToolCall,
    *,
    call: str = "",
) -> Message:
    """Make the call that a model asked for; what goes wrong with it is told to the model.

    Args:
        call: the id under which `tool.started` was emitted already; empty: it was not.

    Returns:
        The message that answers the request.

    Raises:
        StoreError, EmitAfterEnd: the run itself cannot go on.
    """
    if not call:
        call = ctx.new_id()
        await ctx.emit(ToolStarted(call, name=request.name))
    tool = next((tool for tool in tools if tool.name == request.name), None)
    try:
        if tool is None:
            known = ", ".join(tool.name for tool in tools) or "none at all"
            raise _Unusable("unknown_tool", f"there is no tool of that name; there are: {known}")
        try:
            bound = tool.parameters.check(request.arguments)
        except DoesNotFit as error:
            raise _Unusable("invalid_arguments", f"the arguments do not fit:\n{error}") from None
    except _Unusable as error:
        await ctx.emit(ToolFailed(call, code=error.code, message=error.text))
        return _answer(request, f"error: {error.text}")
    arguments = jsonable(bound.arguments)
    key = ctx.keys.current.next(f"tool:{tool.name}", arguments)
    past = await ctx.recall("tool", key, tool.version)
    try:
        if past.done:  # the call stands in the stream already: it is answered by what was recorded
            await ctx.emit(ToolFinished(call, result=_shown(past.value)))
            value = past.value
        else:
            _, value = await _perform(ctx, tool, call, bound, (key, arguments))
    except ToolError as error:
        return _answer(request, f"error: {error.detail}")
    return _answer(request, value if isinstance(value, str) else encode_value(value).decode())


class _Unusable(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def _answer(request: ToolCall, text: str) -> Message:
    if len(text) > MAX_MODEL_CHARS:
        text = f"{text[:MAX_MODEL_CHARS]}\n[cut: these are {MAX_MODEL_CHARS} of {len(text)} characters]"
    return Message("tool", text, tool_call_id=request.id, name=request.name)


# --- the call ---------------------------------------------------------------------------------------------------------
async def _perform(
    ctx: ToolHost, tool: Tool[..., Any], call: str, bound: inspect.BoundArguments, named: tuple[str, Json]
) -> tuple[object, Json]:
    """Call, record and close; returns the value and its JSON form. `named`: the key and the arguments."""
    key, arguments = named
    try:
        await ctx.emit(ToolCalled(call, arguments=_shown(arguments), key=key, version=tool.version))
        await ctx.flush()
        with ctx.keys.within(key):
            if tool.needs_leave(bound):
                await ctx.allow(tool.name, call, arguments, ctx.keys.current.next("allow"))
            value = await _tries(ctx, tool, call, bound)
        plain = jsonable(value)
        shown, private = await _recorded(ctx, tool, plain)
        await ctx.record(ToolFinished(call, result=shown), private)
        await ctx.flush()
    except (StoreError, EmitAfterEnd):  # the log takes nothing more; whoever ended the invocation closes the call
        raise
    except ToolDeniedError as denied:
        by, reason = (str(denied.details.get(name, "")) for name in ("by", "reason"))
        await ctx.emit(ToolDenied(call, by=by, reason=reason))
        raise
    except Exception as error:
        failure, code = _failure(tool, error)
        await ctx.emit(ToolFailed(call, code=code, message=failure.detail))
        raise failure from error
    except BaseException:
        await _close_stopped(ctx, call)
        raise
    return value, plain


def _failure(tool: Tool[..., Any], error: Exception) -> tuple[ToolError, str]:
    """What everybody may see of `error`, and its code."""
    if isinstance(error, ToolError):
        return error, error.code
    if isinstance(error, AgentStreamError):
        return ToolError(f"the tool {tool.name} failed: {error.detail}", details={"code": error.code}), error.code
    _log.error("tool %s failed", tool.name, exc_info=error)
    return ToolError(f"the tool {tool.name} failed ({type(error).__name__})"), ToolError.code


async def _close_stopped(ctx: ToolHost, call: str) -> None:
    """The caller was cancelled: close the call, unless whoever ended the invocation has done so."""
    with anyio.move_on_after(_CLOSING_S, shield=True):
        try:
            await ctx.emit(ToolFailed(call, code="stopped", message="the call was stopped"))
        except (StoreError, EmitAfterEnd):
            pass  # closed already, or nobody can be told


async def _tries(ctx: ToolHost, tool: Tool[..., Any], call: str, bound: inspect.BoundArguments) -> object:
    last = tool.retries + 1
    for attempt in range(1, last):
        try:
            return await _try(ctx, tool, call, bound, attempt)
        except Exception as error:
            if not _worth_another(error):
                raise
            _log.warning("tool %s: try %d of %d failed", tool.name, attempt, last, exc_info=error)
        await anyio.sleep(backoff(attempt, random.random()))
        # Each try is visible before it acts.
        await ctx.emit(ToolProgress(call, message=f"try {attempt + 1} of {last}"))
        await ctx.flush()
    return await _try(ctx, tool, call, bound, last)


def _worth_another(error: Exception) -> bool:
    if isinstance(error, ToolTimeout):
        return True
    return error.retryable if isinstance(error, AgentStreamError) else True


async def _try(ctx: ToolHost, tool: Tool[..., Any], call: str, bound: inspect.BoundArguments, attempt: int) -> object:
    with running(ToolContext(ctx, call, attempt)), anyio.move_on_after(tool.timeout):
        if isinstance(tool, AsyncTool):
            return await cast("AsyncTool[..., object]", tool)(*bound.args, **bound.kwargs)
        return await _in_thread(partial(tool.fn, *bound.args, **bound.kwargs))
    raise ToolTimeout(f"the tool {tool.name} did not end within {tool.timeout:g} s")


async def _in_thread(fn: Callable[[], object]) -> object:
    """Run `fn` in a worker thread; a cancelled wait leaves the thread behind and its place taken until it returns."""
    try:
        limiter = _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _threads.set(limiter)
    place, loop = object(), current_loop()
    await limiter.acquire_on_behalf_of(place)
    begun, held = False, True

    def release() -> None:  # on the loop's thread only
        nonlocal held
        if held:
            held = False
            limiter.release_on_behalf_of(place)

    def run() -> object:
        nonlocal begun
        begun = True
        try:
            return fn()
        finally:
            loop.call_soon(release)

    try:
        # A limiter of its own: anyio would give the place back when the wait ends, though the thread goes on.
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
    finally:
        if not begun:
            release()


# --- what is shown and kept -------------------------------------------------------------------------------------------
def _shown(value: Json) -> Json:
    """`value`, or where it is large how it begins."""
    encoded = encode_value(value)
    if len(encoded) <= MAX_SHOWN_BYTES:
        return value
    beginning = encoded[:_SHOWN_CHARS].decode("utf-8", "ignore")
    return {"note": f"too large to show: {len(encoded)} bytes of JSON", "bytes": len(encoded), "beginning": beginning}


async def _recorded(ctx: ToolHost, tool: Tool[..., Any], value: Json) -> tuple[Json, dict[str, Json]]:
    """What the event shows of a result, and what recovery reads: the value, or the artifact that holds it."""
    shown = _shown(value)
    if shown is value:
        return value, {"result": value}
    artifact = await ctx.artifact(f"{tool.name}.json", encode_value(value), mime="application/json")
    return {**shown, "artifact": artifact}, {"artifact": artifact}
