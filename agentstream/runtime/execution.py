"""One run in this process: from its lease to its terminal event.

What comes in: a run that was created, its team and its task. What goes out: its log, ended by exactly one terminal event.
It joins bus, store and agents; it does not know HTTP, dialects or readers.

The order of an end (P7): the cause is fixed by whoever comes first; all invocations end or are given up; then the one
terminal event; then the bus is closed, so that nothing can follow; then the lease is let go.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from typing_extensions import TypeVar

from agentstream.agent import Agent, Call, Context, File, Keys, RunOptions, Team, code_version
from agentstream.bus import BusStatistics, Document, Emitter, MergeBus, encode_value
from agentstream.errors import AgentStreamError, InvalidInput, StoreError
from agentstream.events import AgentWaiting, Event, Json, RunFailed, RunFinished, RunStopped, Usage
from agentstream.ids import check_agent_name
from agentstream.llm import LLM
from agentstream.order import Extra
from agentstream.ports import Lease
from agentstream.runtime.invocation import Failure, Invocation
from agentstream.runtime.mail import Mail, Stop
from agentstream.runtime.slots import Slots
from agentstream.runtime.writer import Writer
from agentstream.stream import RunState, StateKeeper

if TYPE_CHECKING:
    from agentstream.runtime.host import Host

__all__ = ("Execution", "Ticket")

_log = logging.getLogger("agentstream.runtime")

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741

_LARGE_VALUE = 128 * 1024
"""A task or result above this travels as an artifact; its event names it (DESIGN §6)."""


class Ticket(msgspec.Struct, frozen=True):
    """What a run is, apart from its team: fixed when it was created."""

    run: str
    incarnation: str
    owner: str = ""
    session: str = ""
    files: tuple[File, ...] = ()
    metadata: dict[str, Json] = {}
    options: RunOptions = RunOptions()


class Execution:
    """Runs a team on a task. Implements what contexts ask of their run (`agentstream.agent.Engine`)."""

    attempt = 1

    def __init__(self, host: Host, ticket: Ticket, team: Team[Any, Any], task: object, first: RunState) -> None:
        self.ticket = ticket
        self.grace = host.options.stop_grace
        self._host = host
        self._team = team
        self._task = task
        self._first = first
        self._document = Document()
        self._counts: Counter[str] = Counter()
        self._slots = Slots(ticket.options.max_agents)
        self._entry: Invocation[Any, Any] | None = None
        self._live: dict[str, Invocation[Any, Any]] = {}
        self._end: Event | None = None
        self._stop_after_step: str | None = None
        self._steps = 0
        self._usage = Usage()
        self._over = anyio.Event()
        self._drained = anyio.Event()
        self._drain_scope = anyio.CancelScope()
        self._bus: MergeBus
        self._root: Emitter
        self._writer: Writer

    # --- facts for contexts -------------------------------------------------------------------------------------------
    @property
    def run_id(self) -> str:
        return self.ticket.run

    @property
    def team(self) -> str:
        return self._team.name

    @property
    def owner(self) -> str:
        return self.ticket.owner

    @property
    def session(self) -> str:
        return self.ticket.session

    @property
    def files(self) -> Sequence[File]:
        return self.ticket.files

    @property
    def metadata(self) -> Mapping[str, Json]:
        return self.ticket.metadata

    def model(self, name: str) -> LLM:
        return self._host.model(name)

    def spent(self, usage: Usage) -> None:
        """Add the tokens of a model call to the run's."""
        self._usage += usage

    # --- invocations --------------------------------------------------------------------------------------------------
    async def begin(self, parent: Context, agent: Agent[I, O], task: I, key: str) -> Call[O]:
        return await self._begin(self._live.get(parent.inv), agent, task, key, parent)

    async def call(self, parent: Context, agent: Agent[I, O], task: I, key: str) -> O:
        caller = self._live.get(parent.inv)
        call = await self._begin(caller, agent, task, key, parent)
        try:
            # Who waits for another does not take a place: nested calls could fill every place and wait for ever.
            async with self._slots.lent(caller):
                return await call.result()
        except anyio.get_cancelled_exc_class():
            call.cancel(Failure("stopped", "its caller was cancelled"))
            with anyio.CancelScope(shield=True):  # bounded: it ends or is given up after the grace
                await call.ended()
            raise

    def step_began(self) -> None:
        if self._stop_after_step is not None:
            self.stop("user_stop", self._stop_after_step)
        self._steps += 1

    def step_ended(self) -> None:
        self._steps -= 1
        if self._stop_after_step is not None:
            self.stop("user_stop", self._stop_after_step)

    async def _begin(
        self,
        caller: Invocation[Any, Any] | None,
        agent: Agent[I, O],
        task: I,
        key: str,
        parent: Context | None,
    ) -> Invocation[I, O]:
        if not isinstance(agent, Agent):
            raise InvalidInput(f"an agent is expected, not {type(agent).__name__}; make one of a function with as_agent")
        name = check_agent_name(agent.name)
        if self._slots.full and parent is not None:
            await parent.emit(AgentWaiting("slot"))
        self._counts[name] += 1
        inv = f"{name}.{self._counts[name]}"
        ctx = Context(
            self, self._bus.source(inv), agent, inv=inv, key=key, keeper=self._keep, document=self._document
        )
        invocation: Invocation[I, O] = Invocation(self, agent, task, ctx, caller)
        await self._slots.take(invocation)
        try:
            await invocation.announce(key, code_version(agent.code()))
        except BaseException:
            ctx.end()
            self._slots.give(invocation)
            raise
        if caller is not None:
            caller.children.append(invocation)
        self._live[inv] = invocation
        self._host.spawn(invocation.main)
        return invocation

    def invocation_ended(self, invocation: Invocation[Any, Any], ctx: Context) -> None:
        """Called by an invocation at its end: nothing more comes from it."""
        ctx.end()
        self._live.pop(invocation.inv, None)
        self._slots.give(invocation)
        if invocation.abandoned:
            self._host.abandoned += 1
            self.end(RunFailed("uncancellable", f"{invocation.inv} did not end after it was cancelled"))

    def watch_end(self, invocation: Invocation[Any, Any]) -> None:
        """Give `invocation` up if it has not ended one grace from now."""

        async def watch() -> None:
            with anyio.move_on_after(self.grace):
                await invocation.ended()
            invocation.abandon()

        self._host.spawn(watch)

    # --- values -------------------------------------------------------------------------------------------------------
    async def shown(self, value: object) -> msgspec.Raw:
        """A value as its event shows it: itself, or the artifact that holds it.

        Raises:
            NotSerializable: JSON cannot hold it.
        """
        encoded = encode_value(value)
        if len(encoded) <= _LARGE_VALUE:
            return msgspec.Raw(encoded)
        id_, uri = await self._keep(encoded, "application/json", "value.json")
        return msgspec.Raw(encode_value({"artifact": id_, "uri": uri, "size": len(encoded)}))

    async def recorded(self, value: object) -> bytes:
        """A result as recovery reads it."""
        return bytes(await self.shown(value))

    async def flush(self) -> None:
        """Return once everything emitted so far was accepted."""
        await self._bus.flush()

    async def _keep(self, data: bytes, mime: str, name: str) -> tuple[str, str]:
        id_ = await self._host.store.put(self.run_id, data, mime, name=name)
        return id_, f"/runs/{self.run_id}/artifacts/{id_}"

    # --- ends ---------------------------------------------------------------------------------------------------------
    def end(self, event: Event) -> None:
        """Fix how the run ends, if nothing has; cancels what still runs."""
        if self._end is None:
            self._end = event
        if self._entry is not None:
            why = Failure("stopped", f"the run ends: {getattr(self._end, 'cause', '') or getattr(self._end, 'code', '')}")
            for invocation in list(self._live.values()):
                invocation.cancel(why)

    def stop(self, cause: str, detail: str = "") -> None:
        """Stop the run for `cause`; idempotent, the first cause counts."""
        self.end(RunStopped(cause, detail=detail))

    def take_stop(self, stop: Stop) -> None:
        """A stop from the mailbox: of the run, of one invocation, or after the step under way."""
        if stop.inv:
            invocation = self._live.get(stop.inv)
            if invocation is not None:
                invocation.cancel(Failure("stopped", stop.reason or "stopped by a user"))
        elif stop.mode == "after_step" and self._steps:
            self._stop_after_step = stop.reason
        else:
            self.stop("user_stop", stop.reason)

    async def over(self) -> None:
        """Wait until the run has ended in this process."""
        await self._over.wait()

    def release(self) -> None:
        """Let go of everybody who waits for the end here, also where the run was never executed."""
        self._over.set()

    def statistics(self) -> BusStatistics:
        """The run's bus."""
        return self._bus.statistics()

    # --- the task -----------------------------------------------------------------------------------------------------
    async def main(self, lease: Lease) -> None:
        """Run to the terminal event, under `lease`. Never raises but for the cancellation of the whole runtime."""
        keeper = StateKeeper(self._host.store, self.run_id, self.ticket.incarnation, self._first)
        self._writer = Writer(self._host.store, lease, keeper, self._host.options, self._host.clock)
        self._bus = MergeBus(self._writer.append, last=self._first.seq, clock=self._host.clock)
        self._root = Emitter(self._bus.source(""), agent="", inv="", keeper=self._keep, document=self._document)
        mail = Mail(self._host.store, self.run_id, lease.epoch, self.take_stop)
        try:
            async with anyio.create_task_group() as group:
                for task in (self._drain, self._hold_lease, self._writer.keep_states, mail.read, self._deadline):
                    group.start_soon(task)
                await self._live_and_die()
                await mail.acknowledge()
                group.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(self.grace, shield=True):
                await self._writer.let_go()
            self._over.set()

    async def _live_and_die(self) -> None:
        try:
            await self._run_entry()
        except anyio.get_cancelled_exc_class():
            self.stop("shutdown", "the runtime was cancelled")
            with anyio.move_on_after(3 * self.grace, shield=True):
                await self._ends()
                await self._say_end()
            raise
        await self._ends()
        await self._say_end()

    def _has_end(self) -> bool:
        return self._end is not None

    async def _run_entry(self) -> None:
        agent = self._team.agent
        if self._has_end():
            return
        try:
            key = Keys(self.run_id).current.next(agent.name, self._task)
            self._entry = await self._begin(None, agent, self._task, key, None)
        except AgentStreamError as error:
            self.end(RunFailed(error.code, error.detail, retryable=error.retryable))
            return
        entry = self._entry
        if self._has_end():  # the run was stopped while its first agent was announced
            entry.cancel(Failure("stopped", "the run ends"))
        await entry.ended()

    async def _ends(self) -> None:
        """Wait for the ends of all invocations, not for their tasks: one that cannot be ended must not hold the run."""
        for invocation in list(self._live.values()):
            invocation.cancel(Failure("stopped", "the run ends"))
        while self._live:
            await next(iter(self._live.values())).ended()

    async def _say_end(self) -> None:
        """Append the terminal event and close the bus: nothing follows it."""
        event = self._end
        if event is None:
            event = await self._outcome()
        ends = event.type.removeprefix("run.")
        try:
            waiting = self._root.put_reserved(event, Extra(bare=True, ends=ends))
            self._bus.close()
            if waiting is not None:
                await waiting
        except AgentStreamError as error:
            _log.error("run %s could not be ended in its log (%s): %s", self.run_id, event.type, error)
        self._bus.close()
        await self._drained.wait()

    async def _outcome(self) -> Event:
        assert self._entry is not None  # without an entry the end is fixed
        failure = self._entry.failure
        if failure is not None:
            return RunFailed(failure.code, failure.message, retryable=failure.retryable)
        try:
            return RunFinished(await self.shown(await self._entry.result()), usage=self._usage)
        except (AgentStreamError, StoreError) as error:
            return RunFailed(error.code, error.detail)

    async def _drain(self) -> None:
        try:
            with self._drain_scope:
                await self._bus.drain()
        except AgentStreamError as error:
            self._lost_store(error)
        finally:
            self._drained.set()

    async def _hold_lease(self) -> None:
        try:
            await self._writer.keep_lease()
        except StoreError as error:
            self._lost_store(error)
            self._drain_scope.cancel()  # an append may hang in there; nothing of it may be waited for

    def _lost_store(self, error: AgentStreamError) -> None:
        _log.error("run %s lost its store (%s): %s", self.run_id, error.code, error)
        self.end(RunFailed("store", "the store did not accept the run's events", retryable=True))

    async def _deadline(self) -> None:
        seconds = self.ticket.options.deadline
        if seconds is not None:
            await anyio.sleep(seconds)
            self.stop("deadline", f"the run reached its limit of {seconds:g} s")
