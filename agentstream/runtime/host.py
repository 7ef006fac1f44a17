"""What the runs of one runtime share: the store, the models, the group of tasks, the places.

What comes in: runs that were created. What goes out: their executions, each in tasks of one group. It does not know HTTP,
nor what a run does; it is the only place where tasks of runs are started.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from agentstream.agent import Team
from agentstream.clock import SYSTEM_CLOCK, Clock
from agentstream.errors import NoModelConfigured, Overloaded, StoreError
from agentstream.llm import LLM
from agentstream.ports import Lease, Store
from agentstream.runtime.execution import Execution, Ticket
from agentstream.runtime.options import RuntimeOptions
from agentstream.stream import RunState

__all__ = ("Host",)

_log = logging.getLogger("agentstream.runtime")


class Host:
    """Executes runs. One a runtime that is entered.

    Attributes:
        abandoned: agents that were given up and whose tasks may still be there.
        work: a folder of this process for files of its runs.
    """

    def __init__(
        self,
        store: Store,
        models: Mapping[str, LLM],
        options: RuntimeOptions,
        group: anyio.abc.TaskGroup,
        work: Path,
        *,
        name: str,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.store = store
        self.options = options
        self.clock = clock
        self.work = work
        self.name = name
        self.abandoned = 0
        self.draining = False
        self._models = models
        self._group = group
        self._places = anyio.CapacityLimiter(options.max_runs)
        self._runs: dict[str, Execution] = {}
        self._waiting = 0

    # --- for executions -----------------------------------------------------------------------------------------------
    def model(self, name: str) -> LLM:
        """The configured model of that name.

        Raises:
            NoModelConfigured: there is none.
        """
        try:
            return self._models[name]
        except KeyError:
            known = ", ".join(sorted(self._models)) or "none"
            raise NoModelConfigured(
                f"no model {name!r} is configured (configured: {known}). Set OPENAI_API_KEY, or AGENTSTREAM_MODEL with "
                "AGENTSTREAM_BASE_URL for a compatible server, or pass models={…} to Runtime",
                details={"model": name},
            ) from None

    def spawn(self, fn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `fn` as a task of the runtime's group."""
        self._group.start_soon(fn)

    # --- for the runtime ----------------------------------------------------------------------------------------------
    def admit(self) -> int | None:
        """Whether a new run may come in: None if it starts at once, else its position among those that wait.

        Raises:
            Overloaded: draining, or too many wait already.
        """
        if self.draining:
            raise Overloaded("this server is shutting down and takes no new runs")
        if self._places.available_tokens > self._waiting:
            return None
        if self._waiting >= self.options.max_waiting:
            raise Overloaded(
                f"{self.options.max_runs} runs are working and {self._waiting} wait: try again later",
                details={"running": self.options.max_runs, "waiting": self._waiting},
            )
        return self._waiting + 1

    def execute(self, ticket: Ticket, team: Team[Any, Any], task: object, first: RunState) -> None:
        """Run it to its end in tasks of the group, as soon as there is a place."""
        execution = Execution(self, ticket, team, task, first)
        self._runs[ticket.run] = execution
        self._waiting += 1

        async def main() -> None:
            waiting = True
            try:
                async with self._places:
                    self._waiting -= 1
                    waiting = False
                    lease = await self._take(ticket.run)
                    if lease is not None:
                        await execution.main(lease)
            finally:
                self._waiting -= waiting
                del self._runs[ticket.run]
                execution.release()

        self._group.start_soon(main)

    def running(self, run: str) -> Execution | None:
        """The execution of `run`, if it is in this process."""
        return self._runs.get(run)

    @property
    def count(self) -> int:
        """Runs in this process, waiting ones included."""
        return len(self._runs)

    async def drain(self, grace: float) -> None:
        """Take no new runs, wait `grace` seconds for those there are, then stop the rest with cause `shutdown`."""
        self.draining = True
        with anyio.move_on_after(grace):
            while self._runs:
                await next(iter(self._runs.values())).over()
        for execution in list(self._runs.values()):
            execution.stop("shutdown", "the server shut down")
        with anyio.move_on_after(3 * self.options.stop_grace):
            while self._runs:
                await next(iter(self._runs.values())).over()

    async def _take(self, run: str) -> Lease | None:
        try:
            lease = await self.store.take(run, self.name, seconds=self.options.lease)
        except StoreError as error:
            _log.error("run %s could not be started (%s): %s", run, error.code, error)
            return None
        if lease is None:
            _log.warning("run %s is executed by another process", run)
        return lease
