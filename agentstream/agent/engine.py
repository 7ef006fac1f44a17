"""What a context asks of whoever runs it.

What comes in: agents, tasks and the context that calls. What goes out: results and calls. These are Protocols only: the
runtime implements them, and an agent never sees more of it than this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from typing_extensions import TypeVar

from agentstream.events import Json

if TYPE_CHECKING:
    from agentstream.agent.asking import Answered, Question
    from agentstream.agent.context import Context
    from agentstream.agent.contract import Agent
    from agentstream.agent.options import Budget
    from agentstream.events import Usage
    from agentstream.llm import LLM
    from agentstream.llm.messages import Message

__all__ = ("Call", "Engine", "File", "Recalled")

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)


class File(msgspec.Struct, frozen=True):
    """A file handed in with the run; `path` is readable on this machine while the run lives, `upload` its id if it was
    uploaded."""

    name: str
    path: Path
    mime: str = "application/octet-stream"
    size: int = 0
    upload: str = ""


class Recalled(msgspec.Struct, frozen=True):
    """What an earlier attempt of the run recorded of a unit (a call, step, tool call or question).

    Attributes:
        attempt: which attempt at this unit it is. id: as what it was last begun; empty where it is the first.
        done: it has a result, `value`, and is not done again. failure: code and message of a call that failed.
    """

    attempt: int = 1
    id: str = ""
    done: bool = False
    value: Json = None
    failure: tuple[str, str] = ("", "")


class Call(Protocol[O_co]):
    """An invocation that was started and runs beside its caller. Still open when its caller returns: it is awaited."""

    @property
    def inv(self) -> str:
        """The invocation's id: `executor.2`."""
        ...

    async def result(self) -> O_co:
        """Wait for the result; abandoning the wait does not stop the invocation.

        Raises:
            AgentFailedError: the invocation failed or was stopped.
        """
        ...

    async def stop(self, reason: str = "") -> None:
        """Cancel the invocation and everything it called; returns when it has ended."""
        ...


class Engine(Protocol):
    """One run, as its contexts see it."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    @property
    def team(self) -> str:
        """The name of the run's team."""
        ...

    @property
    def owner(self) -> str:
        """Who started the run, or empty."""
        ...

    @property
    def session(self) -> str:
        """The session that the run belongs to, or empty."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is, from 1."""
        ...

    @property
    def files(self) -> Sequence[File]:
        """The files handed in with the run."""
        ...

    @property
    def metadata(self) -> Mapping[str, Json]:
        """What the starter of the run attached to it."""
        ...

    def step_clock(self, name: str) -> AbstractContextManager[None]:
        """`with` around a recorded unit; raises `StepTimeout` where it takes longer than the run allows."""
        ...

    def model(self, name: str, inv: str) -> LLM:
        """The configured model of that name, as invocation `inv` may use it: within its budget.

        Raises:
            NoModelConfigured: there is none; the message names the variable to set.
        """
        ...

    async def begin(self, parent: Context, agent: Agent[I, O], task: I, key: str) -> Call[O]:
        """Start `agent` as a child of `parent`; returns when its `agent.started` has its place.

        Raises:
            InvalidInput: not an agent, or a name that is none.
        """
        ...

    async def call(self, parent: Context, agent: Agent[I, O], task: I, key: str, budget: Budget | None = None) -> O:
        """Start and wait; when the caller is cancelled the child is cancelled and awaited first."""
        ...

    async def recall(
        self, kind: Literal["agent", "step", "tool", "ask"], within: str, key: str, version: str
    ) -> Recalled:
        """What an earlier attempt recorded of this unit of the invocation with key `within`.

        Raises:
            StepChanged: it was recorded by another version of the code; the run ends.
        """
        ...

    async def ask(self, asker: Context, question: Question) -> Answered:
        """Ask a person and wait; the answer was accepted by the log, and fits.

        Raises:
            InputExpiredError: nobody answered in time.
        """
        ...

    async def history(self, limit: int) -> list[Message]:
        """The newest `limit` messages of the session's earlier runs, oldest first."""
        ...

    def spent(self, usage: Usage) -> None:
        """Add the tokens of model calls to the run's."""
        ...

    def step_began(self) -> None:
        """A recorded unit begins: a run that is to stop after the current step does not let it."""
        ...

    def step_ended(self) -> None:
        """A recorded unit has ended."""
        ...
