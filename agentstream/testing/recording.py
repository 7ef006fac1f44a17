"""A run of a team as a value, for tests.

What comes in: a team, its input and its models. What goes out: a `Recording` of everything that happened. It does not
know pytest; it runs on whatever loop the test runs on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic

import anyio
from typing_extensions import TypeVar

from agentstream.agent import Agent, File, RunOptions, Team
from agentstream.errors import RunError
from agentstream.events import AnyEvent, Event, Reset, TextDelta
from agentstream.llm import LLM
from agentstream.runtime import Runtime

__all__ = ("Recording", "record")

I = TypeVar("I")  # noqa: E741
O = TypeVar("O", default=object)  # noqa: E741
E = TypeVar("E", bound=Event)


class Recording(Generic[O]):
    """What a run did.

    Attributes:
        events: all of them, in order, not coalesced.
        error: how it ended instead of with a result; None if it finished.
    """

    def __init__(self, events: Sequence[AnyEvent], result: O | None, error: RunError | None) -> None:
        self.events = tuple(events)
        self.error = error
        self._result = result

    @property
    def result(self) -> O:
        """The team's result.

        Raises:
            RunFailedError, RunStoppedError: the run ended so.
        """
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # set where there is no error

    def of(self, type_: type[E]) -> list[E]:
        """The events of one type."""
        return [event for event in self.events if isinstance(event, type_)]

    def text(self, agent: str = "") -> str:
        """The text that an agent (or one invocation) wrote; everybody's without one."""
        deltas = [event for event in self.of(TextDelta) if not agent or agent in (event.agent, event.inv)]
        return "".join(delta.text for delta in deltas)

    def outline(self) -> list[str]:
        """One short line an event, deltas left out: `planner.1 text.started`; good to compare with a list."""
        shown = [event for event in self.events if not event.type.endswith(".delta")]
        return [f"{event.inv} {event.type}".strip() for event in shown]


async def record(
    team: Team[I, O] | Agent[I, O],
    input: I,
    /,
    *,
    models: Mapping[str, LLM] | LLM | None = None,
    files: Sequence[str | Path | File] = (),
    options: RunOptions | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109  (a test bounds its wait in the call that it is about)
) -> Recording[O]:
    """Run a team to its end in memory and return what happened.

    Args:
        models: for instance a `ScriptedModel`; none at all is looked up: a test must not reach a real one by accident.
        timeout: seconds.

    Raises:
        TimeoutError: it took longer. InvalidInput: the input does not fit.
    """
    with anyio.fail_after(timeout):
        async with Runtime(models={} if models is None else models) as runtime:
            run = await runtime.start(team, input, files=files, options=options)
            async with run.events(coalesce=False) as subscription:
                events = [event async for event in subscription if not isinstance(event, Reset)]
            try:
                return Recording(events, await run.result(), None)
            except RunError as error:
                return Recording(events, None, error)
