"""Functions that agents and models may call.

What comes in: functions with annotations and a docstring. What goes out: typed tools that describe themselves to a
model, and the context in which a running tool reports. It does not know how a call is recorded, limited or retried.

    @tool
    def add(a: int, b: int) -> int:
        \"\"\"Add two numbers.\"\"\"
        return a + b

    assert add(1, 2) == 3          # a plain call is the unit test
    await ctx.tool(add, 1, 2)      # in an agent: traced and recorded
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, partial, update_wrapper
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import anyio.from_thread

from agentstream.agent.keys import code_version
from agentstream.agent.schema import Parameters, check_signature, summary
from agentstream.errors import EmitAfterEnd, InvalidInput
from agentstream.events import Event, ToolOutput, ToolProgress
from agentstream.llm.messages import ToolSpec
from agentstream.wire.text import pieces

__all__ = (
    "AsyncTool",
    "BlockingToolContext",
    "SyncTool",
    "Tool",
    "ToolContext",
    "ToolEmitter",
    "current_tool",
    "running",
    "tool",
)

P = ParamSpec("P")
R = TypeVar("R")

_MAX_NAME: Final = 64  # OpenAI's bound; the others allow as much or more
_OUTPUT_BYTES: Final = 64 << 10


# --- tools ------------------------------------------------------------------------------------------------------------
class Tool(Generic[P, R]):
    """A function with a name, a description and a schema. Made by `tool`; always a `SyncTool` or an `AsyncTool`.

    Attributes:
        fn: the function itself. name, description: as a model sees them.
        timeout: seconds for one try, None without a limit. retries: further tries after a failure.
        approve: whether a person must allow each call; a function decides by the call's arguments.
        version: part of the record of each call: a changed one is not taken for the same.
    """

    def __init__(
        self,
        fn: Callable[P, object],
        *,
        name: str = "",
        timeout: float | None = None,
        retries: int = 0,
        version: str = "",
        approve: bool | Callable[..., bool] = False,
    ) -> None:
        self.fn = fn
        self.name = name or getattr(fn, "__name__", "")
        if not self.name or len(self.name) > _MAX_NAME or not self.name.replace("-", "_").isidentifier():
            raise InvalidInput(
                f"{self.name!r} is no name for a tool: letters, digits, `_` and `-`, at most 64; use name="
            )
        if timeout is not None and timeout <= 0:
            raise InvalidInput(f"the timeout of tool {self.name} is a number of seconds above 0, or None")
        if retries < 0:
            raise InvalidInput(f"the retries of tool {self.name} are 0 or more")
        check_signature(fn)
        self.timeout = timeout
        self.retries = retries
        self.approve = approve
        self.version = version or code_version(fn)
        self.description = summary(fn)
        update_wrapper(cast("Callable[..., object]", self), fn, updated=())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    # Worked out at the first use: annotations may name what is defined further down in the module.
    @cached_property
    def parameters(self) -> Parameters:
        """The arguments: their JSON schema, and how a model's JSON becomes a call.

        Raises:
            InvalidInput: an annotation has no schema; the message says which.
        """
        return Parameters(self.fn)

    def needs_leave(self, bound: inspect.BoundArguments) -> bool:
        """Whether a person must allow this call."""
        if isinstance(self.approve, bool):
            return self.approve
        return bool(self.approve(*bound.args, **bound.kwargs))

    @property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it."""
        return ToolSpec(self.name, self.description, self.parameters.schema)


class SyncTool(Tool[P, R]):
    """A tool of a plain function. In a run it is called in a worker thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, with no run around it."""
        return cast("R", self.fn(*args, **kwargs))


class AsyncTool(Tool[P, R]):
    """A tool of a coroutine function."""

    def __call__(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:  # Any: what coroutines yield inside
        """Call the function, with no run around it."""
        return cast("Coroutine[Any, Any, R]", self.fn(*args, **kwargs))


# The first overload is the narrower one and wins; checkers warn because a coroutine function is a function, too.
class _Decorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTool[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTool[P, R]: ...


@overload
def tool(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    fn: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncTool[P, R]: ...
@overload
def tool(fn: Callable[P, R], /) -> SyncTool[P, R]: ...
@overload
def tool(
    *,
    name: str = "",
    timeout: float | None = None,
    retries: int = 0,
    version: str = "",
    approve: bool | Callable[..., bool] = False,
) -> _Decorator: ...
def tool(
    fn: Callable[..., Any] | None = None,  # Any: the overloads say it
    /,
    *,
    name: str = "",
    timeout: float | None = None,
    retries: int = 0,
    version: str = "",
    approve: bool | Callable[..., bool] = False,
) -> object:
    """Make a tool of a function: `@tool`, or `@tool(name=…, timeout=…, retries=…, approve=…)`.

    The description is the docstring up to its first section; arguments are described by `Annotated[…, Field(…)]` or the
    docstring's `Args:`. A plain function runs in a worker thread, which cannot be ended from outside: on a timeout it
    is left behind, counted against the limit of threads until it returns.

    Args:
        name: as a model sees it; the function's name where it is not given.
        timeout: seconds for one try.
        retries: further tries after a timeout or an exception; a `ToolError` is final.
        version: changes when calls made before should not count as the same; a digest of the code otherwise.
        approve: True asks a person before each call; a function with the tool's own arguments says which calls need it.

    Raises:
        InvalidInput: a name that models do not take, or a signature that cannot be called by name.
    """
    make = partial(_make, name=name, timeout=timeout, retries=retries, version=version, approve=approve)
    return make if fn is None else make(fn)


def _make(
    fn: Callable[..., Any],
    *,
    name: str,
    timeout: float | None,
    retries: int,
    version: str,
    approve: bool | Callable[..., bool],
) -> Tool[..., Any]:
    is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    class_: type[AsyncTool[..., Any] | SyncTool[..., Any]] = AsyncTool if is_async else SyncTool
    return class_(fn, name=name, timeout=timeout, retries=retries, version=version, approve=approve)


# --- from inside ------------------------------------------------------------------------------------------------------
class _BlockingEmits(Protocol):
    def emit(self, event: Event) -> None: ...


class ToolEmitter(Protocol):
    """What a running tool needs of the invocation that called it; `agentstream.bus.Emitter` is one."""

    async def emit(self, event: Event) -> None:
        """Emit an event of the invocation."""
        ...

    async def artifact(self, name: str, data: object, *, mime: str | None = None) -> str:
        """Keep bytes, text or a JSON value and tell readers; returns its id."""
        ...

    def blocking(self) -> _BlockingEmits:
        """The same for worker threads."""
        ...


class ToolContext:
    """How a running tool reports; `current_tool()` gives it. Outside of a run every verb does nothing.

    In a tool of a plain function, which runs in a worker thread, use `current_tool().blocking()`.

    Attributes:
        call: id of the call, empty outside of a run. attempt: number of the try, from 1.
    """

    def __init__(self, emitter: ToolEmitter | None = None, call: str = "", attempt: int = 1) -> None:
        self.call = call
        self.attempt = attempt
        self._emitter = emitter
        self._blocking = BlockingToolContext(self, None if emitter is None else emitter.blocking())
        self._over = False

    async def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        """Say how far the call is.

        Raises:
            EmitAfterEnd: the call has ended (it was stopped, or took too long).
        """
        if self._emitter is not None:
            await self._emitter.emit(self._event(ToolProgress(self.call, done=done, total=total, message=message)))

    async def output(self, channel: str, text: str) -> None:
        """Emit live output: `channel` is stdout, stderr or a name of your own. Long text becomes several events."""
        if self._emitter is not None:
            for piece in pieces(text, _OUTPUT_BYTES):
                await self._emitter.emit(self._event(ToolOutput(self.call, channel=channel, text=piece)))

    async def artifact(self, name: str, data: object, *, mime: str | None = None) -> str:
        """Keep a picture, table or file; returns its id, which is empty outside of a run."""
        if self._emitter is None:
            return ""
        self._check()
        return await self._emitter.artifact(name, data, mime=mime)

    def blocking(self) -> BlockingToolContext:
        """The same verbs for the worker thread that a plain function runs in."""
        return self._blocking

    def _event(self, event: Event) -> Event:
        self._check()
        return event

    def _check(self) -> None:
        if self._over:
            raise EmitAfterEnd(f"the tool call {self.call} has ended: it was stopped or took too long")


class BlockingToolContext:
    """`ToolContext` for worker threads: each verb returns when the event was taken."""

    def __init__(self, context: ToolContext, emitter: _BlockingEmits | None) -> None:
        self._context = context
        self._emitter = emitter

    @property
    def call(self) -> str:
        """Id of the call, empty outside of a run."""
        return self._context.call

    def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        """Say how far the call is; raises as `ToolContext.progress`."""
        if self._emitter is not None:
            event = ToolProgress(self._context.call, done=done, total=total, message=message)
            self._emitter.emit(self._context._event(event))

    def output(self, channel: str, text: str) -> None:
        """Emit live output; long text becomes several events."""
        if self._emitter is not None:
            for piece in pieces(text, _OUTPUT_BYTES):
                self._emitter.emit(self._context._event(ToolOutput(self._context.call, channel=channel, text=piece)))

    def artifact(self, name: str, data: object, *, mime: str | None = None) -> str:
        """Keep a picture, table or file; returns its id. Only from the tool's own thread, not from one it started."""
        if self._emitter is None:
            return ""
        return anyio.from_thread.run(partial(self._context.artifact, name, data, mime=mime))


_SILENT: Final = ToolContext()
_current: ContextVar[ToolContext] = ContextVar("agentstream_current_tool", default=_SILENT)


def current_tool() -> ToolContext:
    """The context of the tool that this code runs in; a silent one outside of a run, so that plain calls just work."""
    return _current.get()


@contextmanager
def running(context: ToolContext) -> Generator[None]:
    """Make `context` the current one, until the call has ended; then it refuses further events."""
    token = _current.set(context)
    try:
        yield
    finally:
        context._over = True
        _current.reset(token)
