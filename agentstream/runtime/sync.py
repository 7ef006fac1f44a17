"""One run from code that is not asynchronous.

What comes in: a team and its input. What goes out: its result. It does not know a running event loop: inside one, use
`Runtime.start`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
from typing_extensions import TypeVar

from agentstream.agent import Agent, File, Team
from agentstream.events import AnyEvent, Reset
from agentstream.llm import LLM
from agentstream.runtime.runtime import Runtime

__all__ = ("run_sync",)

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


def run_sync(
    team: Team[I, O] | Agent[I, O],
    input: I,
    /,
    *,
    models: Mapping[str, LLM] | LLM | None = None,
    files: Sequence[str | Path | File] = (),
    on_event: Callable[[AnyEvent], None] | None = None,
) -> O:
    """Run a team to its end and return the result.

    Args:
        on_event: called with every event, in order.

    Raises:
        RunFailedError, RunStoppedError: how it ended instead. InvalidInput: the input does not fit.
    """

    async def main() -> O:
        async with Runtime(models=models) as runtime:
            run = await runtime.start(team, input, files=files)
            if on_event is not None:
                async with run.events(coalesce=False) as events:
                    async for event in events:
                        if not isinstance(event, Reset):
                            on_event(event)
            return await run.result()

    return anyio.run(main)
