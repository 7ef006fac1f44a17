"""What an agent is, and what a team is.

What comes in: classes and functions of users. What goes out: agents with a name, a role and known input and output
types, and teams that name an entry agent. It does not know how an agent is run: that is the runtime's business.

Agents are configuration and may be shared by concurrent runs; what changes while one runs lives in its context.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, cast, overload

import pydantic
from typing_extensions import TypeVar

from agentstream.agent.options import RunOptions
from agentstream.errors import InvalidInput
from agentstream.ids import check_agent_name, snake_case

if TYPE_CHECKING:
    from agentstream.agent.context import Context
    from agentstream.agent.tools import Tool

__all__ = ("Agent", "Team", "as_agent")

In = TypeVar("In", default=str)
Out = TypeVar("Out", default=str)
I = TypeVar("I")  # noqa: E741  (the contract's own letter)
O = TypeVar("O")  # noqa: E741


class Agent(Generic[In, Out]):
    """Something that takes a task and returns a result, emitting events on its way. Subclass it and write `run`.

    There is no `__init__`: a subclass may be a dataclass. Bare `Agent` is `Agent[str, str]`.

    Attributes:
        name: what its events are tagged with; the class name in snake_case where it is not given.
        role: planner, executor, verifier, … : how user interfaces group its events.
        model: the name of the configured model that `generate` uses.
        tools: what `generate` may call.
    """

    name: str = ""
    role: str = ""
    model: str = "default"
    tools: Sequence[Tool[..., Any]] = ()  # Any: tools of every signature

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = snake_case(cls.__name__)

    async def run(self, ctx: Context, task: In, /) -> Out:
        """Do the task. What it raises fails the invocation; its caller may handle that."""
        raise NotImplementedError(f"{type(self).__name__} has no `run`: write `async def run(self, ctx, task)`")

    def types(self) -> tuple[object, object]:
        """The annotated types of the task and the result; `Any` where there is no annotation."""
        return _annotated(type(self).run, skip=2)

    def code(self) -> Callable[..., object]:
        """The function whose bytecode is the agent's version."""
        return type(self).run


class _FunctionAgent(Agent[I, O]):
    """An agent made of a coroutine function."""

    def __init__(
        self, fn: Callable[[Context, I], Coroutine[Any, Any, O]], name: str, model: str, tools: object
    ) -> None:
        self._fn = fn
        self.name = name or snake_case(getattr(fn, "__name__", "agent"))
        self.model = model or "default"
        self.tools = cast("Sequence[Tool[..., Any]]", tools)
        self.__doc__ = fn.__doc__

    async def run(self, ctx: Context, task: I, /) -> O:
        """Call the function."""
        return await self._fn(ctx, task)

    def types(self) -> tuple[object, object]:
        return _annotated(self._fn, skip=1)

    def code(self) -> Callable[..., object]:
        return self._fn


@overload
def as_agent(fn: Callable[[Context, I], Coroutine[Any, Any, O]], /) -> Agent[I, O]: ...
@overload
def as_agent(
    *, name: str = "", model: str = "", tools: Sequence[Tool[..., Any]] = ()
) -> Callable[[Callable[[Context, I], Coroutine[Any, Any, O]]], Agent[I, O]]: ...
def as_agent(
    fn: Callable[[Context, I], Coroutine[Any, Any, O]] | None = None,
    /,
    *,
    name: str = "",
    model: str = "",
    tools: Sequence[Tool[..., Any]] = (),
) -> Agent[I, O] | Callable[[Callable[[Context, I], Coroutine[Any, Any, O]]], Agent[I, O]]:
    """An agent of a coroutine function `async def fn(ctx, task)`; also a decorator, with and without arguments.

    Raises:
        InvalidInput: not a coroutine function, or a name that is none.
    """

    def wrap(fn: Callable[[Context, I], Coroutine[Any, Any, O]]) -> Agent[I, O]:
        if not inspect.iscoroutinefunction(fn):
            raise InvalidInput("as_agent takes an `async def fn(ctx, task)`")
        agent = _FunctionAgent(fn, name, model, tools)
        check_agent_name(agent.name)
        return agent

    return wrap if fn is None else wrap(fn)


class Team(Generic[In, Out]):
    """Names an entry agent, so that it can be started by name. It holds no logic.

    Args:
        name: unique in a runtime. version: part of every run's record: a run is never continued by another version.
    """

    def __init__(
        self,
        name: str,
        agent: Agent[In, Out],
        *,
        version: str = "1",
        description: str = "",
        options: RunOptions | None = None,
    ) -> None:
        self.name = check_agent_name(name)
        check_agent_name(agent.name)
        self.agent = agent
        self.version = version
        self.description = description or _first_line(agent)
        self.options = options or RunOptions()

    def __repr__(self) -> str:
        return f"Team({self.name!r}, {type(self.agent).__name__}, version={self.version!r})"

    @cached_property
    def input_adapter(self) -> pydantic.TypeAdapter[In]:
        """Validates inputs."""
        return _adapter(cast("type[In]", self.agent.types()[0]), f"the input of team {self.name}")

    @cached_property
    def output_adapter(self) -> pydantic.TypeAdapter[Out]:
        """Decodes results from the log."""
        return _adapter(cast("type[Out]", self.agent.types()[1]), f"the result of team {self.name}")

    def check_input(self, value: object) -> In:
        """`value` as the entry agent's task.

        Raises:
            InvalidInput: it does not fit; `details["errors"]` says where.
        """
        try:
            checked = self.input_adapter.validate_python(value)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            where = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'input'}: {p['msg']}" for p in problems[:3])
            raise InvalidInput(
                f"the input does not fit team {self.name}: {where}", details={"errors": problems[:20]}
            ) from None
        if isinstance(checked, str) and not checked.strip():
            raise InvalidInput(f"the input of team {self.name} is empty: say what it should do")
        return checked


def _adapter(type_: type[I], what: str) -> pydantic.TypeAdapter[I]:
    """Raises `InvalidInput` for a type that cannot be validated."""
    try:
        return pydantic.TypeAdapter(type_)
    except pydantic.errors.PydanticUserError as error:
        raise InvalidInput(f"{what} is annotated with a type that cannot be checked: {error.message}") from None


def _first_line(agent: Agent[Any, Any]) -> str:
    doc = inspect.getdoc(agent)
    return doc.splitlines()[0] if doc and doc != inspect.getdoc(Agent) else ""


def _annotated(fn: Callable[..., object], *, skip: int) -> tuple[object, object]:
    """The annotations of the parameter after `skip` others, and of the result."""
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except NameError:  # names that exist for type checkers only: the agent takes and gives plain JSON values
        return Any, Any
    parameters = list(inspect.signature(fn).parameters)
    task = hints.get(parameters[skip], Any) if len(parameters) > skip else Any
    result = hints.get("return", Any)
    return (Any if isinstance(task, TypeVar) else task, Any if isinstance(result, TypeVar) else result)
