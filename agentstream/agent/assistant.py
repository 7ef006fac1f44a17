"""A model with instructions and tools, as an agent without a line of code.

What comes in: instructions, tools and the type of the answer. What goes out: an `Agent` that puts its task to the model
and returns the answer. It does not know how the model is asked: that is `generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from typing_extensions import TypeVar, override

from agentstream.agent.contract import Agent
from agentstream.ids import check_agent_name
from agentstream.llm.messages import Message

if TYPE_CHECKING:
    from agentstream.agent.context import Context
    from agentstream.agent.tools import Tool

__all__ = ("Assistant",)

Out = TypeVar("Out", default=str)


class Assistant(Agent[str, Out]):
    """An agent that asks its model, which may use the tools, and returns what it answers.

    Args:
        instructions: what the model is told before the task; empty tells it nothing.
        output: the type of the answer: text, a pydantic model, dataclass, TypedDict or built-in type.
        tools: what the model may call.
        model: name of a configured model.
        name: what its events are tagged with; `assistant` where it is not given.

    Raises:
        InvalidInput: a name that is none.
    """

    @overload
    def __init__(
        self: Assistant[str],
        instructions: str = "",
        *,
        tools: Sequence[Tool[..., Any]] = (),  # Any: tools of every signature
        model: str = "default",
        name: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self,
        instructions: str = "",
        *,
        output: type[Out],
        tools: Sequence[Tool[..., Any]] = (),
        model: str = "default",
        name: str = "",
    ) -> None: ...
    def __init__(
        self,
        instructions: str = "",
        *,
        output: type[Any] = str,
        tools: Sequence[Tool[..., Any]] = (),
        model: str = "default",
        name: str = "",
    ) -> None:
        self.instructions = instructions
        self.output: type[Out] = output
        self.tools = tuple(tools)
        self.model = model
        if name:
            self.name = check_agent_name(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, output={self.output.__name__}, tools={len(self.tools)})"

    @override
    async def run(self, ctx: Context, task: str, /) -> Out:
        """Put the task to the model."""
        system = (Message("system", self.instructions),) if self.instructions.strip() else ()
        reply = await ctx.generate((*system, Message("user", task)), output=self.output)
        return reply.output

    @override
    def types(self) -> tuple[object, object]:
        """Text, and the type of the answer."""
        return str, self.output
