"""One call of one agent: a task of the runtime's group, its scopes, and how it ends.

What comes in: an agent, a task and a context. What goes out: the agent's events between `agent.started` and its one
closing event, and a result or a failure. It does not know the run's terminal event, other runs or the store.

An invocation has two nested scopes. Cancelling goes through the outer one. An agent that swallows its cancellation would
get it again at every turn of the loop and spin; when it is given up, the inner scope is shielded, which ends that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import anyio
from typing_extensions import TypeVar

from agentstream.agent import Agent, Context, safe_failure
from agentstream.errors import AgentFailedError, AgentStreamError
from agentstream.events import AgentFailed, AgentFinished, AgentStarted, Event
from agentstream.order import Extra

if TYPE_CHECKING:
    from agentstream.runtime.execution import Execution

__all__ = ("Failure", "Invocation")

_log = logging.getLogger("agentstream.runtime")

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class Failure(NamedTuple):
    """Why an invocation did not finish; safe to show."""

    code: str
    message: str
    retryable: bool = False


class Invocation(Generic[I, O]):
    """Runs `agent` on `task`.

    Attributes:
        inv: its id. parent: who called it; None for the entry agent.
        failure: why it did not finish, once it has ended; None if it finished.
        abandoned: it did not end within the grace after its cancellation.
    """

    def __init__(
        self, run: Execution, agent: Agent[I, O], task: I, ctx: Context, parent: Invocation[Any, Any] | None
    ) -> None:
        self.inv = ctx.inv
        self.parent = parent
        self.children: list[Invocation[Any, Any]] = []
        self.failure: Failure | None = None
        self.abandoned = False
        self.waiting = 0  # calls of this invocation that wait for a child
        self._run = run
        self._agent = agent
        self._task = task
        self._ctx = ctx
        self._value: O | None = None
        self._ended = anyio.Event()
        self._outer = anyio.CancelScope()
        self._inner = anyio.CancelScope()
        self._stopping: Failure | None = None

    # --- what others see ----------------------------------------------------------------------------------------------
    @property
    def has_ended(self) -> bool:
        """Whether its closing event was emitted (or could not be)."""
        return self._ended.is_set()

    async def ended(self) -> None:
        """Wait for the end."""
        await self._ended.wait()

    async def result(self) -> O:
        """Wait for the result.

        Raises:
            AgentFailedError: it failed or was stopped.
        """
        await self._ended.wait()
        if self.failure is not None:
            raise AgentFailedError(self.inv, self.failure.code, self.failure.message)
        return self._value  # type: ignore[return-value]  # set where there is no failure

    async def stop(self, reason: str = "") -> None:
        """Cancel it and everything it called; returns when it has ended or was given up."""
        self.cancel(Failure("stopped", reason or "stopped by its caller"))
        await self._ended.wait()

    def cancel(self, why: Failure) -> None:
        """Cancel the subtree. Returns at once; each invocation ends, or is given up after the grace."""
        if not self._ended.is_set() and self._stopping is None:
            self._stopping = why
            self._outer.cancel()
            self._run.watch_end(self)
        for child in self.children:
            child.cancel(why)

    def abandon(self) -> None:
        """Give it up: close what it has open and let nothing more through. Its task cannot be killed."""
        if self._ended.is_set():
            return
        self.abandoned = True
        self._inner.shield = True
        message = "the agent did not end after it was cancelled"
        _log.error("run %s: %s was given up: %s", self._run.run_id, self.inv, message)
        self._close(AgentFailed("uncancellable", message))
        self._end(Failure("uncancellable", message))

    # --- the task -----------------------------------------------------------------------------------------------------
    async def main(self) -> None:
        """Run to the end. Never raises but for the cancellation of the whole runtime."""
        try:
            failure = await self._body()
        except anyio.get_cancelled_exc_class():  # the host cancels the runtime itself
            with anyio.CancelScope(shield=True):
                await self._finish(Failure("stopped", "the runtime was cancelled"))
            raise
        await self._finish(failure)

    async def _body(self) -> Failure | None:
        finished = False
        try:
            with self._outer, self._inner:
                self._value = await self._agent.run(self._ctx, self._task)
                for child in self.children:
                    await child.ended()
                finished = True
        except Exception as error:  # noqa: BLE001  (the one door where an agent's own errors end)
            return self._explain(error)
        return None if finished else self._stopping or Failure("cancelled", "the agent cancelled itself")

    def _explain(self, error: Exception) -> Failure:
        code, message = safe_failure(error)
        if not isinstance(error, AgentStreamError):
            _log.error("run %s: %s failed", self._run.run_id, self.inv, exc_info=error)
        retryable = isinstance(error, AgentStreamError) and error.retryable
        return self._stopping or Failure(code, message, retryable)

    async def _finish(self, failure: Failure | None) -> None:
        if self.abandoned:
            return
        if failure is not None:
            for child in self.children:
                child.cancel(failure)
        with anyio.CancelScope(shield=True):  # bounded: a child ends or is given up after the grace
            for child in self.children:
                await child.ended()
        if self._ended.is_set():
            return
        with anyio.move_on_after(self._run.grace, shield=True):
            failure = failure or await self._record_result()
            if failure is not None:
                await _settled(self._close(AgentFailed(failure.code, failure.message)))
        self._end(failure)

    async def _record_result(self) -> Failure | None:
        """Emit `agent.finished` and wait until it was accepted: a caller acts on nothing that could be lost."""
        try:
            shown = await self._run.shown(self._value)
            await _settled(self._close(AgentFinished(shown), Extra(private=await self._run.recorded(self._value))))
            await self._run.flush()
        except AgentStreamError as error:
            return Failure(error.code, error.detail, error.retryable)
        return None

    # --- inside -------------------------------------------------------------------------------------------------------
    async def announce(self, key: str, version: str) -> None:
        """Emit `agent.started`."""
        started = AgentStarted(
            self.parent.inv if self.parent else "",
            role=self._ctx.role,
            task=await self._run.shown(self._task),
            key=key,
            version=version,
        )
        await _settled(self._ctx.put_reserved(started))

    def _close(self, event: Event, extra: Extra | None = None) -> Awaitable[None] | None:
        try:
            self._ctx.close_open()
            return self._ctx.put_reserved(event, extra)
        except AgentStreamError as error:
            # The bus has failed: the run ends for that reason, and this event with it.
            _log.debug("run %s: %s: %s", self._run.run_id, event.type, error)
            return None

    def _end(self, failure: Failure | None) -> None:
        self.failure = failure
        self._run.invocation_ended(self, self._ctx)
        self._ended.set()


async def _settled(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting
