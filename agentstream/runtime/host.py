"""What the runs of one runtime share: the store, the models, the group of tasks, the places.

What comes in: runs that were created. What goes out: their executions, each in tasks of one group. It does not know
HTTP, nor what a run does; it is the only place where tasks of runs are started.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from agentstream.agent import Team
from agentstream.clock import SYSTEM_CLOCK, Clock
from agentstream.errors import NoModelConfigured, Overloaded, StoreError
from agentstream.llm import LLM
from agentstream.ports import Lease, Store
from agentstream.runtime.execution import Execution, Ticket
from agentstream.runtime.options import RuntimeOptions
from agentstream.runtime.takeover import Takeover
from agentstream.stream import Audience, RunState

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Host",)

_log = logging.getLogger("agentstream.runtime")

_MOST_HALTED: Final = 1000
_SHUT_DOWN: Final = "the server shut down"


class Host:
    """Executes runs. One a runtime that is entered.

    Attributes:
        abandoned: agents that were given up and whose tasks may still be there.
        halted: the attempts of runs that lost their store here, newest last; at most a thousand.
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
        self.teams: Mapping[str, Team[Any, Any]] = {}  # by name: runs of these are gone on with after a crash
        self.models = models
        self._group = group
        # Not a limiter: runs get their places in the order of their starts, and trio runs new tasks in any order.
        self._line: deque[Execution] = deque()
        self._working: set[Execution] = set()
        self._runs: dict[str, tuple[Execution, anyio.CancelScope]] = {}
        self._admitted = 0
        self.halted: dict[str, int] = {}

    # --- for executions -----------------------------------------------------------------------------------------------
    def model(self, name: str) -> LLM:
        """The configured model of that name.

        Raises:
            NoModelConfigured: there is none.
        """
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models)) or "none"
            raise NoModelConfigured(
                f"no model {name!r} is configured (configured: {known}). Set OPENAI_API_KEY, or AGENTSTREAM_MODEL with "
                "AGENTSTREAM_BASE_URL for a compatible server, or pass models={…} to Runtime",
                details={"model": name},
            ) from None

    def spawn(self, fn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `fn` as a task of the runtime's group, out of reach of its cancellation: runs are stopped, not cut."""

        async def main() -> None:
            try:
                with anyio.CancelScope(shield=True):
                    await fn()
            except Exception:  # noqa: BLE001  (one run's failure must not end the others)
                _log.exception("a task of a run failed: this is a defect of the runtime")

        self._group.start_soon(main)

    def leave(self, execution: Execution) -> None:
        """Let the next run work: nothing works for this one any more. Only the first time counts."""
        if not execution.has_left:
            execution.has_left = True
            self._admitted -= 1
            if execution in self._working:
                self._working.remove(execution)
            elif execution in self._line:  # else it still waits for its session's turn
                self._line.remove(execution)
            self._give_places()

    def line_up(self, execution: Execution) -> None:
        """Let it work as soon as there is a place."""
        if not execution.has_left:
            self._line.append(execution)
            self._give_places()

    def _give_places(self) -> None:
        while self._line and len(self._working) < self.options.max_runs:
            execution = self._line.popleft()
            self._working.add(execution)
            execution.placed.set()

    # --- for the runtime ----------------------------------------------------------------------------------------------
    def admit(self) -> int | None:
        """Let a new run come in: None if it starts at once, else its position among those that wait.

        `execute` or `dismiss` follows; until then it counts.

        Raises:
            Overloaded: draining, or too many wait already.
        """
        if self.draining:
            raise Overloaded("this server is shutting down and takes no new runs")
        most = self.options.max_detached
        if most is not None and (detached := self.detached) >= most:
            raise Overloaded(f"{detached} runs have no reader, the most that are taken: try again later")
        waiting = max(0, self._admitted - self.options.max_runs)
        if self._admitted >= self.options.max_runs and waiting >= self.options.max_waiting:
            raise Overloaded(
                f"{self.options.max_runs} runs are working and {waiting} wait: try again later",
                details={"running": self.options.max_runs, "waiting": waiting},
            )
        self._admitted += 1
        return waiting + 1 if self._admitted > self.options.max_runs else None

    def dismiss(self) -> None:
        """The run that was let in does not come: it could not be created, or was there before."""
        self._admitted -= 1

    @property
    def can_resume(self) -> bool:
        """Whether runs of the store outlive their process."""
        return self.store.level != "memory"

    @property
    def has_place(self) -> bool:
        """Whether a run would work at once."""
        return self._admitted < self.options.max_runs and not self.draining

    def resume(self, ticket: Ticket, team: Team[Any, Any], task: object, first: RunState, taken: Takeover) -> None:
        """Go on with a run whose worker is gone, under the lease that was taken for it."""
        self._admitted += 1
        self.execute(ticket, team, task, first, taken)

    def execute(
        self, ticket: Ticket, team: Team[Any, Any], task: object, first: RunState, taken: Takeover | None = None
    ) -> None:
        """Run it to its end in tasks of the group; its agents work as soon as there is a place."""
        execution = Execution(self, ticket, team, task, first, taken)
        scope = anyio.CancelScope()
        self._runs[ticket.run] = execution, scope
        if not ticket.session:  # a run of a session lines up when those before it have ended, so that it blocks nobody
            self.line_up(execution)

        async def main() -> None:
            try:
                with scope:
                    lease = taken.lease if taken is not None else await self._take(ticket.run)
                    if lease is not None:
                        await execution.main(lease)
            finally:
                self.leave(execution)
                del self._runs[ticket.run]
                execution.release()

        self.spawn(main)
        if self.draining:  # it was let in before
            execution.shut_down(_SHUT_DOWN)

    def running(self, run: str) -> Execution | None:
        """The execution of `run`, if it is in this process."""
        found = self._runs.get(run)
        return found[0] if found is not None else None

    def halt(self, run: str, attempt: int) -> None:
        """This attempt of the run lost its store: it does nothing more here, and says so until somebody goes on."""
        self.halted[run] = attempt
        if len(self.halted) > _MOST_HALTED:
            del self.halted[next(iter(self.halted))]

    def audience(self, run: str) -> Audience | None:
        """The readers of `run`, if it is executed in this process."""
        found = self.running(run)
        return found.limits.audience if found is not None else None

    @property
    def detached(self) -> int:
        """Runs in this process that nobody reads."""
        return sum(not execution.limits.audience.present for execution, _ in self._runs.values())

    @property
    def count(self) -> int:
        """Runs in this process, waiting ones included."""
        return len(self._runs)

    async def guard(self) -> None:
        """Turn a cancellation of whoever entered the runtime into stops of its runs. Ends when cancelled."""
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):  # bounded by `drain`
                await self.drain(0)

    async def drain(self, grace: float) -> None:
        """Take no new runs, wait `grace` seconds for those there are, then leave the rest to the next process; where
        that is not possible they are stopped with cause `shutdown`.

        Bounds: `grace` and four stop graces; what has not ended then is cut, and ended by whoever finds it.
        """
        self.draining = True
        with anyio.move_on_after(grace):
            await self._empty()
        for execution, _ in list(self._runs.values()):
            execution.shut_down(_SHUT_DOWN)
        with anyio.move_on_after(3 * self.options.stop_grace):
            await self._empty()
        for execution, scope in list(self._runs.values()):
            _log.error("run %s did not end and is cut", execution.run_id)
            scope.cancel()
        with anyio.move_on_after(self.options.stop_grace):
            await self._empty()

    async def _empty(self) -> None:
        while self._runs:
            execution, _ = next(iter(self._runs.values()))
            await execution.over()

    async def _take(self, run: str) -> Lease | None:
        try:
            lease = await self.store.take(run, self.name, seconds=self.options.lease)
        except StoreError as error:
            _log.error("run %s could not be started (%s): %s", run, error.code, error)
            return None
        if lease is None:
            _log.warning("run %s is executed by another process", run)
        return lease
