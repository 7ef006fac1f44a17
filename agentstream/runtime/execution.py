"""One run in this process: from its lease to its terminal event.

What comes in: a run that was created, its team and its task. What goes out: its log, ended by exactly one terminal
event. It joins bus, store and agents; it does not know HTTP, dialects or readers.

The order of an end (P7): the cause is fixed by whoever comes first; all invocations end or are given up; then the one
terminal event; then the bus is closed, so that nothing can follow; then the lease is let go.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel
import msgspec
from typing_extensions import TypeVar

from agentstream.agent import (
    Agent,
    Answered,
    Budget,
    Call,
    Context,
    File,
    Keys,
    Question,
    Recalled,
    RunOptions,
    Team,
    code_version,
    safe_failure,
)
from agentstream.bus import BusStatistics, Document, Emitter, MergeBus, encode_value
from agentstream.errors import (
    AgentStreamError,
    EmitAfterEnd,
    Fenced,
    InvalidInput,
    LogFull,
    RolledBack,
    StepChanged,
    StoreDown,
    StoreError,
)
from agentstream.events import AgentWaiting, Event, Json, RunFailed, RunFinished, RunStopped, RunWaiting, Usage
from agentstream.ids import check_agent_name
from agentstream.llm import LLM, Message
from agentstream.order import Extra, Reassembler
from agentstream.ports import Lease
from agentstream.runtime.invocation import Failure, Invocation
from agentstream.runtime.limits import Limits
from agentstream.runtime.lost import end_lost
from agentstream.runtime.mail import Answer, Mail, Stop
from agentstream.runtime.people import Questions
from agentstream.runtime.recall import FIRST_TIME, Memory, recalled_call
from agentstream.runtime.replay import HANDED_OVER
from agentstream.runtime.sessions import find_history, take_turn
from agentstream.runtime.slots import Slots
from agentstream.runtime.takeover import Takeover, say_takeover
from agentstream.runtime.writer import Writer
from agentstream.stream import RunState, StateKeeper

if TYPE_CHECKING:
    from agentstream.runtime.host import Host

# Any stands for the task and result types of agents that only their users know.
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
    """Runs a team on a task. Implements what contexts ask of their run (`agentstream.agent.Engine`).

    Attributes:
        placed: set when it may work. has_left: nothing works for it any more. Both are the host's.
    """

    def __init__(
        self,
        host: Host,
        ticket: Ticket,
        team: Team[Any, Any],
        task: object,
        first: RunState,
        taken: Takeover | None = None,
    ) -> None:
        self.ticket = ticket
        self.grace = host.options.stop_grace
        self._host = host
        self._team = team
        self._task = task
        self._first = first
        self.attempt = taken.attempt if taken is not None else 1
        self._taken = taken
        self._memory = Memory(host.store, ticket.run, taken.ledger) if taken is not None else None
        self._document = Document(taken.ledger.document()[0] if taken is not None else None)
        self._counts: Counter[str] = Counter(taken.ledger.counts if taken is not None else ())
        self._resumable = host.can_resume and host.teams.get(team.name) is team
        self._leaving = False  # another process goes on with it: nothing of an end is said here
        self._writing = False
        self._slots = Slots(ticket.options.max_agents)
        self._entry: Invocation[Any, Any] | None = None
        self._live: dict[str, Invocation[Any, Any]] = {}
        self._end: Event | None = None
        self._stop_after_step: str | None = None
        self._steps = 0
        self._usage = Usage()
        self.has_left = False
        self.placed = anyio.Event()
        self._queue = anyio.CancelScope()  # around the wait for a place
        self._lost: AgentStreamError | None = None
        self._over = anyio.Event()
        self.limits = Limits(ticket.options, host.options, host.clock, first.seq, self.stop)
        self._drained = anyio.Event()
        self._drain_scope = anyio.CancelScope()
        self._bus: MergeBus
        self._root: Emitter
        self._writer: Writer
        self.questions: Questions

    # --- facts for contexts -------------------------------------------------------------------------------------------
    @property
    def run_id(self) -> str:
        """See `Engine.run_id`."""
        return self.ticket.run

    @property
    def team(self) -> str:
        """See `Engine.team`."""
        return self._team.name

    @property
    def owner(self) -> str:
        """See `Engine.owner`."""
        return self.ticket.owner

    @property
    def session(self) -> str:
        """See `Engine.session`."""
        return self.ticket.session

    @property
    def files(self) -> Sequence[File]:
        """See `Engine.files`."""
        return self.ticket.files

    @property
    def metadata(self) -> Mapping[str, Json]:
        """See `Engine.metadata`."""
        return self.ticket.metadata

    def step_clock(self, name: str) -> AbstractContextManager[None]:
        """See `Engine.step_clock`."""
        return self.limits.clocks.step(name)

    def model(self, name: str, inv: str) -> LLM:
        """See `Engine.model`."""
        return self.limits.spending.metered(self._host.model(name), name, inv)

    def spent(self, usage: Usage) -> None:
        """Add the tokens of a model call to the run's."""
        self._usage += usage

    # --- invocations --------------------------------------------------------------------------------------------------
    async def begin(self, parent: Context, agent: Agent[I, O], task: I, key: str) -> Call[O]:
        """See `Engine.begin`."""
        caller = self._caller(parent)
        past = await self._recall_call(parent, agent, key)
        if (ended := recalled_call(agent, past)) is not None:
            return ended
        if not self._slots.full:
            return await self._begin(caller, agent, task, key, parent, past)
        async with self.lent(caller):
            return await self._begin(caller, agent, task, key, parent, past)

    async def call(self, parent: Context, agent: Agent[I, O], task: I, key: str, budget: Budget | None = None) -> O:
        """See `Engine.call`."""
        caller = self._caller(parent)
        past = await self._recall_call(parent, agent, key)
        if (ended := recalled_call(agent, past)) is not None:
            return await ended.result()
        # Who waits for another does not take a place: nested calls could fill every place and wait for ever.
        self.limits.spending.expect(parent.inv, key, budget)
        async with self.lent(caller):
            call = await self._begin(caller, agent, task, key, parent, past)
            try:
                await self.limits.spending.wait_for(call, budget)
            except anyio.get_cancelled_exc_class():
                await self._end_with_caller(call)
                raise
        return await call.result()

    async def ask(self, asker: Context, question: Question) -> Answered:
        """See `Engine.ask`."""
        return await self.questions.ask(asker, self._caller(asker), question)

    async def history(self, limit: int) -> list[Message]:
        """See `Engine.history`."""
        ticket = self.ticket
        return await find_history(self._host.store, ticket.run, ticket.owner, ticket.session, limit)

    async def recall(
        self, kind: Literal["agent", "step", "tool", "ask"], within: str, key: str, version: str
    ) -> Recalled:
        """See `Engine.recall`. A first attempt remembers nothing."""
        if self._memory is None:
            return FIRST_TIME
        try:
            return await self._memory.recall(kind, within, key, version)
        except StepChanged as error:
            self.end(RunFailed(error.code, error.detail))
            raise

    async def _recall_call(self, parent: Context | None, agent: Agent[Any, Any], key: str) -> Recalled:
        if self._memory is None or not isinstance(agent, Agent):
            return FIRST_TIME
        await anyio.lowlevel.checkpoint()  # a cancelled caller begins nothing, nor goes on with it
        version = code_version(agent.code())
        if parent is None:
            return await self.recall("agent", "", key, version)
        return await parent.recall("agent", key, version)

    def lent(self, caller: Invocation[Any, Any] | None) -> AbstractAsyncContextManager[None]:
        """`async with` around a wait of `caller` for another invocation: its place is free meanwhile."""
        return self._slots.lent(caller)

    def step_began(self) -> None:
        """See `Engine.step_began`."""
        self._steps += 1

    def step_ended(self) -> None:
        """See `Engine.step_ended`."""
        self._steps -= 1
        # Steps inside a step, and steps of others at the same time, end first.
        if self._stop_after_step is not None and not self._steps:
            self.stop("user_stop", self._stop_after_step)

    def _caller(self, parent: Context) -> Invocation[Any, Any]:
        caller = self._live.get(parent.inv)
        if caller is None or caller.is_closed:
            raise EmitAfterEnd(f"{parent.inv} has ended: it can call nobody")
        return caller

    async def _begin(
        self,
        caller: Invocation[Any, Any] | None,
        agent: Agent[I, O],
        task: I,
        key: str,
        parent: Context | None,
        past: Recalled,
    ) -> Invocation[I, O]:
        await anyio.lowlevel.checkpoint()  # a cancelled caller begins nothing
        if not isinstance(agent, Agent):
            raise _no_agent(agent)
        name = check_agent_name(agent.name)
        shown = await self.shown(task)
        if self._slots.full and parent is not None:
            await parent.emit(AgentWaiting("slot"))
        self._counts[name] += 1
        inv = f"{name}.{self._counts[name]}"
        ctx = Context(self, self._bus.source(inv), agent, inv=inv, key=key, keeper=self._keep, document=self._document)
        self.limits.spending.join(inv, parent.inv if parent is not None else "", key, ctx)
        invocation: Invocation[I, O] = Invocation(self, agent, task, ctx, caller)
        try:
            await self._slots.take(invocation)
            if parent is not None:
                self._caller(parent)  # it may have ended while it waited
            waiting = invocation.announce(shown, key, code_version(agent.code()), past)
        except BaseException:
            ctx.end()
            self.limits.spending.leave(inv)
            self._slots.give(invocation)
            raise
        # From here on it is in the log: it lives, and ends like every other, whatever becomes of this call.
        self._live[inv] = invocation
        self._host.spawn(invocation.main)
        if self._end is not None or (caller is not None and caller.is_stopping):
            invocation.cancel(Failure("stopped", "it began while its caller or the run was stopped"))
        if waiting is not None:
            try:
                await waiting
            except BaseException:
                await self._end_with_caller(invocation)
                raise
        return invocation

    async def _end_with_caller(self, invocation: Invocation[Any, Any]) -> None:
        invocation.cancel(Failure("stopped", "its caller was cancelled"))
        with anyio.CancelScope(shield=True):  # bounded: it ends or is given up after the grace
            await invocation.ended()

    def rest(self, invocation: Invocation[Any, Any]) -> None:
        """Its own work is done; it only waits for what it started."""
        self._slots.give(invocation)

    def invocation_ended(self, invocation: Invocation[Any, Any]) -> None:
        """Called by an invocation at its end: nothing more comes from it."""
        self._live.pop(invocation.inv, None)
        self.limits.spending.leave(invocation.inv)
        self._slots.give(invocation)
        if invocation.abandoned:
            self._host.abandoned += 1
            if not isinstance(self._end, RunFailed):  # goes before a stop: who stopped it must learn that it lives on
                self._end = RunFailed("uncancellable", f"{invocation.inv} did not end after it was cancelled")
            self.end(self._end)

    def watch_end(self, invocation: Invocation[Any, Any]) -> None:
        """Give `invocation` up if it has not ended one grace from now, or shortly after what it called has."""

        async def watch() -> None:
            with anyio.move_on_after(self.grace):
                await invocation.ended()
                return
            for child in list(invocation.children):  # each is watched itself
                await child.ended()
            with anyio.move_on_after(self.grace / 10):
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
        self._queue.cancel()
        self.limits.lift()
        why = Failure("stopped", f"the run ends: {getattr(self._end, 'cause', '') or getattr(self._end, 'code', '')}")
        for invocation in list(self._live.values()):
            invocation.cancel(why)

    def stop(self, cause: str, detail: str = "") -> None:
        """Stop the run for `cause`; idempotent, the first cause counts."""
        self.end(RunStopped(cause, detail=detail))

    def shut_down(self, detail: str) -> None:
        """End here: the next process goes on with the run; where none can it is stopped, cause `shutdown`."""
        if self._resumable and self._end is None:
            self._leaving = True
            if self._writing:
                self._leave()
        self.stop("shutdown", detail)

    def _leave(self) -> None:
        """Say that the run waits for another worker, and nothing more: whoever takes it closes what is open."""
        self._root.finish(RunWaiting(HANDED_OVER), Extra(bare=True))
        self._bus.close()

    def take_letter(self, letter: Stop | Answer) -> None:
        """A letter from the mailbox."""
        if isinstance(letter, Answer):
            self.questions.take(letter)
        else:
            self.take_stop(letter)

    def take_stop(self, stop: Stop) -> None:
        """A stop from the mailbox: of the run, of one invocation, or after the step under way."""
        if stop.inv and (self._entry is None or stop.inv != self._entry.inv):
            invocation = self._live.get(stop.inv)
            if invocation is not None:
                invocation.cancel(Failure("stopped", stop.reason or "stopped by a user"))
        elif stop.mode == "after_step" and self._steps:
            self._stop_after_step = stop.reason
        else:
            self.stop(stop.cause, stop.reason)

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
        lanes = Reassembler()
        clock = self._host.clock
        self._bus = MergeBus(
            self._writer.append, last=self._first.seq, reassembler=lanes, clock=clock, gate=self.limits.pace
        )
        self._root = Emitter(self._bus.source(""), agent="", inv="", keeper=self._keep, document=self._document)
        used = self._taken.ledger.budget if self._taken is not None else None
        self.limits.begin(self._writer, self._root, used)
        mail = Mail(self._host.store, self.run_id, lease.epoch, self.take_letter)
        self.questions = Questions(self, self._first, self._host.clock, mail.done)
        try:
            async with anyio.create_task_group() as group:
                for task in (self._drain, self._hold_lease, self._writer.keep_states, mail.read, self._watch):
                    group.start_soon(self._beside, task)
                self._writing = True
                await self._take_over(lanes)
                await self._run_entry()
                await self._ends()
                self._host.leave(self)
                await self._say_end()
                if not self._leaving:  # a letter that came too late is for the next process
                    await mail.acknowledge()
                group.cancel_scope.cancel()
        finally:
            self.end(RunFailed("internal", "the runtime gave the run up"))  # for what still runs, if it was cut
            with anyio.move_on_after(self.grace, shield=True):
                await self._writer.let_go()

    async def _beside(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception:  # noqa: BLE001  (a defect here, or in a store, must not end other runs)
            _log.exception("run %s: a task beside it failed", self.run_id)
            self.end(RunFailed("internal", "the runtime failed; the log of the process has the cause"))

    async def _take_over(self, lanes: Reassembler) -> None:
        """Say that this process goes on with the run; its own events come after that."""
        if self._leaving:
            self._leave()
        elif self._taken is not None:
            with contextlib.suppress(AgentStreamError):  # the drain has it, too, and ends the run
                await say_takeover(self._taken, self._bus, lanes, self._root)

    async def _run_entry(self) -> None:
        with self._queue:
            if self.ticket.session:
                await self._take_turn()
            await self.placed.wait()
        if self._end is not None:
            return
        agent = self._team.agent
        try:
            key = Keys(self.run_id).current.next(agent.name, self._task)
            past = await self._recall_call(None, agent, key)
            if past.done or past.failure[0]:  # its worker died between its end and the run's
                shown = await self.shown(past.value)
                self.end(RunFinished(shown, self._used) if past.done else RunFailed(*past.failure))
                return
            self._entry = await self._begin(None, agent, self._task, key, None, past)
        except AgentStreamError as error:
            self.end(RunFailed(*safe_failure(error), retryable=error.retryable))
            return
        except Exception:  # noqa: BLE001  (whatever a foreign class does when it is looked at)
            _log.exception("run %s: its agent could not be started", self.run_id)
            self.end(RunFailed("internal", "the agent could not be started; the log of the process has the cause"))
            return
        await self._entry.ended()

    async def _take_turn(self) -> None:
        """A run of a session begins when those before it have ended; only then it asks for a place among the runs."""
        ticket = self.ticket
        interrupt = ticket.options.busy == "interrupt"
        await take_turn(self._host.store, ticket.run, ticket.owner, ticket.session, interrupt=interrupt)
        self._host.line_up(self)

    async def _ends(self) -> None:
        """Wait for the ends of all invocations, not for their tasks: one that cannot be ended must not hold the run."""
        for invocation in list(self._live.values()):
            invocation.cancel(Failure("stopped", "the run ends"))
        while self._live:
            await next(iter(self._live.values())).ended()

    async def _say_end(self) -> None:
        """Append the terminal event and close the bus: nothing follows it."""
        if self._leaving:  # the bus is closed already
            await self._drained.wait()
            if isinstance(self._end, RunFailed):  # an agent that cannot be ended: nobody is to begin it again
                await self._end_lost(self._end)
            return
        self.questions.close_left(self._root)
        event = self._end or self._outcome()
        self._root.finish(event, Extra(bare=True, ends=event.type.removeprefix("run.")))
        self._bus.close()
        await self._drained.wait()
        others = self._resumable and isinstance(self._lost, StoreDown)  # whoever takes the lease goes on
        if self._lost is not None and not others and not isinstance(self._lost, Fenced | RolledBack):
            await self._end_lost(event)

    async def _end_lost(self, event: Event) -> None:
        """The log took nothing more; now that the agents have ended it may take the end, under a new epoch."""
        failed = event if isinstance(event, RunFailed) else _store_failed(self._lost)
        try:
            with anyio.move_on_after(self._host.options.emit_timeout):
                await end_lost(self._host, self.run_id, failed, self._host.name)
                return
            _log.error("run %s could not be ended in its log: the store does not answer", self.run_id)
        except AgentStreamError as error:
            _log.error("run %s could not be ended in its log: %s", self.run_id, error)

    def _outcome(self) -> Event:
        assert self._entry is not None  # without an entry the end is fixed
        failure = self._entry.failure
        if failure is not None:
            return RunFailed(failure.code, failure.message, retryable=failure.retryable)
        return RunFinished(self._entry.shown, usage=self._used)

    @property
    def _used(self) -> Usage:
        return self._usage if self._memory is None else self._usage + self._memory.usage

    async def _drain(self) -> None:
        try:
            with self._drain_scope:
                await self._bus.drain()
        except AgentStreamError as error:
            self._lose_store(error)
        except Exception:
            self._lose_store(StoreError("the store, or what keeps its state, failed"))
            raise
        finally:
            self._drained.set()

    async def _watch(self) -> None:
        await self.limits.watch(self.placed)

    async def _hold_lease(self) -> None:
        try:
            await self._writer.keep_lease()
        except StoreError as error:
            self._lose_store(error)
            self._drain_scope.cancel()  # an append may hang in there; nothing of it may be waited for

    def _lose_store(self, error: AgentStreamError) -> None:
        _log.error("run %s lost its store (%s): %s", self.run_id, error.code, error)
        if isinstance(error, StoreDown):
            self._host.halt(self.run_id, self.attempt)
        self._lost = error
        self._end = _store_failed(error)  # goes before another end, which the log cannot take any more
        self.end(self._end)


def _no_agent(found: object) -> InvalidInput:
    return InvalidInput(f"an agent is expected, not {type(found).__name__}; make one of a function with as_agent")


def _store_failed(error: AgentStreamError | None) -> RunFailed:
    if isinstance(error, LogFull):
        return RunFailed("log_full", error.detail)
    return RunFailed("store", "the store did not accept the run's events", retryable=isinstance(error, StoreDown))
