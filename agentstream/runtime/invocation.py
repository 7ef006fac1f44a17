"""One call of one agent: a task of the runtime's group, its scopes, and how it ends.

What comes in: an agent, a task and a context. What goes out: the agent's events between `agent.started` and its one
closing event, and a result or a failure. It does not know the run's terminal event, other runs or the store.

An invocation has two nested scopes. Cancelling goes through the outer one. An agent that swallows its cancellation
would get it again at every turn of the loop and spin; when it is given up, the inner scope is shielded, which ends
that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, cast

import anyio
import msgspec
from typing_extensions import TypeVar

from agentstream.agent import Agent, Context, Recalled, safe_failure
from agentstream.errors import AgentFailedError, AgentStreamError
from agentstream.events import AgentFailed, AgentFinished, AgentStarted, Event
from agentstream.order import Extra

if TYPE_CHECKING:
    from agentstream.runtime.execution import Execution

# Any stands for the task and result types of agents that only their users know.
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
        children: what it called and has not ended.
        failure: why it did not finish, once it has ended; None if it finished.
        shown: the result as its event shows it.
        abandoned: it did not end within the grace after its cancellation.
    """

    def __init__(
        self, run: Execution, agent: Agent[I, O], task: I, ctx: Context, parent: Invocation[Any, Any] | None
    ) -> None:
        self.inv = ctx.inv
        self.parent = parent
        self.children: dict[Invocation[Any, Any], None] = {}
        self.failure: Failure | None = None
        self.shown = msgspec.Raw(b"null")
        self.abandoned = False
        self.waiting = 0  # calls of this invocation that wait for a child
        self.place: Literal["none", "asked", "taken"] = "none"
        self._run = run
        self._agent = agent
        self._task = task
        self._ctx = ctx
        self._value: O | None = None
        self._ended = anyio.Event()
        self._outer = anyio.CancelScope()
        self._inner = anyio.CancelScope()
        self._stopping: Failure | None = None
        self._left = False  # the agent's `run` is over
        self._closed = False  # the closing event has its number

    # --- what others see ----------------------------------------------------------------------------------------------
    @property
    def has_ended(self) -> bool:
        """Whether its closing event was emitted (or could not be)."""
        return self._ended.is_set()

    @property
    def is_closed(self) -> bool:
        """Whether its closing event has its number: nothing may come from it any more."""
        return self._closed

    @property
    def is_stopping(self) -> bool:
        """Whether it was cancelled."""
        return self._stopping is not None

    async def ended(self) -> None:
        """Wait for the end."""
        await self._ended.wait()

    async def result(self) -> O:
        """Wait for the result.

        Raises:
            AgentFailedError: it failed or was stopped.
        """
        if not self._ended.is_set():
            async with self._run.lent(self.parent):
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
        if self._stopping is None and not self._closed:
            self._stopping = why
            self._outer.cancel()
            self._run.watch_end(self)
        for child in list(self.children):
            child.cancel(why)

    def abandon(self) -> None:
        """Give it up: close what it has open and let nothing more through. Its task cannot be killed."""
        for child in list(self.children):
            child.abandon()
        if self._left or self._closed:  # it ends by itself, now that its children have
            return
        self.abandoned = True
        self._inner.shield = True
        message = "the agent did not end after it was cancelled"
        _log.error("run %s: %s was given up: %s", self._run.run_id, self.inv, message)
        self._close(AgentFailed("uncancellable", message))
        self._end(Failure("uncancellable", message))

    # --- the task -----------------------------------------------------------------------------------------------------
    async def main(self) -> None:
        """Run to the end. Never raises."""
        failure = await self._body()
        self._left = True
        if not self._closed:
            await self._finish(failure)

    async def _body(self) -> Failure | None:
        try:
            with self._outer, self._inner:
                self._value = await self._agent.run(self._ctx, self._task)
                self._run.rest(self)
                await self._children_ended()
                self.shown = await self._run.shown(self._value)
                return None
        except anyio.get_cancelled_exc_class():
            # No scope's: on asyncio an agent may await something that somebody cancelled. That is its failure alone.
            _log.warning("run %s: %s awaited something that was cancelled", self._run.run_id, self.inv)
        except Exception as error:  # noqa: BLE001  (the one door where an agent's own errors end)
            return self._explain(error)
        return self._stopping or Failure("cancelled", "the agent awaited something that was cancelled")

    def _explain(self, error: Exception) -> Failure:
        first = _first_cause(error)
        code, message = safe_failure(first)
        if not isinstance(first, AgentStreamError):
            _log.error("run %s: %s failed", self._run.run_id, self.inv, exc_info=error)
        retryable = isinstance(first, AgentStreamError) and first.retryable
        return self._stopping or Failure(code, message, retryable)

    async def _finish(self, failure: Failure | None) -> None:
        if failure is not None:
            for child in list(self.children):
                child.cancel(Failure("stopped", "its caller failed"))
        await self._children_ended()  # bounded: a cancelled child ends or is given up after the grace
        if failure is None:
            failure = await self._record_result()
        else:
            self._close(AgentFailed(failure.code, failure.message))
        self._end(failure)

    async def _children_ended(self) -> None:
        while self.children:
            await next(iter(self.children)).ended()

    async def _record_result(self) -> Failure | None:
        """Emit `agent.finished` and wait until it was accepted: a caller acts on nothing that could be lost."""
        self._close(AgentFinished(self.shown), Extra(private=bytes(self.shown)))
        try:
            await self._run.flush()
        except AgentStreamError as error:
            return Failure(error.code, error.detail, error.retryable)
        return None

    # --- inside -------------------------------------------------------------------------------------------------------
    def announce(self, task: msgspec.Raw, key: str, version: str, past: Recalled) -> Awaitable[None] | None:
        """Emit `agent.started`; returns what to await until it was taken, if anything.

        Raises:
            EmitAfterEnd: the run has ended.
        """
        parent = self.parent
        caller, role = parent.inv if parent else "", self._ctx.role
        started = AgentStarted(caller, role, task, past.attempt, past.id, key=key, version=version)
        waiting = self._ctx.put_reserved(started)
        if parent is not None:
            parent.children[self] = None
        return waiting

    def _close(self, event: Event, extra: Extra | None = None) -> None:
        self._closed = True
        self._ctx.finish(event, extra)

    def _end(self, failure: Failure | None) -> None:
        self.failure = failure
        if self.parent is not None:
            self.parent.children.pop(self, None)
        self._run.invocation_ended(self)
        self._ended.set()


def _first_cause(error: BaseException) -> BaseException:
    """An agent's own task group wraps what failed in it."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
