"""The bus alone: emitters in, one ordered, resumable stream out, without agents or teams.

What comes in: events through emitters, or from an at-least-once source. What goes out: subscriptions on a log that ends
in one terminal event. It does not know HTTP; `produce.sse` puts it into a web handler.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from agentstream.agent import safe_failure
from agentstream.bus import DEFAULT_CAPACITY, BusStatistics, Document, Emitter, MergeBus, encode_event
from agentstream.clock import SYSTEM_CLOCK
from agentstream.errors import AgentStreamError, InvalidInput, RuntimeNotRunning, StoreError
from agentstream.events import (
    AgentFailed,
    AgentFinished,
    AgentStarted,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    RunStopped,
)
from agentstream.ids import agent_of, check_agent_name, new_run_id
from agentstream.order import Extra, line_form
from agentstream.ports import RunFacts, Store
from agentstream.runtime.first import first_chunk
from agentstream.runtime.options import RuntimeOptions
from agentstream.runtime.writer import Writer
from agentstream.store import open_store
from agentstream.stream import RunState, StateKeeper, Subscription, fold

__all__ = ("Bus", "BusEmitter")

_log = logging.getLogger("agentstream.runtime")

_INV = re.compile(r"[a-z][a-z0-9_-]{0,31}\.[1-9][0-9]{0,8}", re.ASCII)


class Bus:
    """Merges what concurrent emitters say into one log: `async with Bus() as bus`.

    Leaving the block ends the log: with `run.finished`, with `run.failed` where the block raised, or with `run.stopped`
    where it was cancelled.

    Args:
        store: `memory:`, `sqlite:PATH`, or an opened store, which outlives the bus.
        capacity: events that may wait between emitters and log; a full bus makes emitters wait.

    Attributes:
        run_id: names the log; part of every event's id.
    """

    def __init__(self, *, store: str | Store = "memory:", capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise InvalidInput("capacity is a number of events, at least 1")
        self.run_id = new_run_id()
        self._address = store
        self._capacity = capacity
        self._options = RuntimeOptions()
        self._counts: Counter[str] = Counter()
        self._document = Document()
        self._drained = anyio.Event()
        self._ended = False
        self._stack: AsyncExitStack | None = None
        self._group: anyio.abc.TaskGroup
        self._store: Store
        self._bus: MergeBus
        self._root: Emitter
        self._writer: Writer

    # --- life ---------------------------------------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        self._stack = stack = AsyncExitStack()
        try:
            if isinstance(self._address, str):
                self._store = await stack.enter_async_context(open_store(self._address))
            else:
                self._store = self._address
            await self._open()
            self._group = await stack.enter_async_context(anyio.create_task_group())
            self._group.start_soon(self._drain)
            self._group.start_soon(self._writer.keep_states)
            self._group.start_soon(self._hold_lease)
        except BaseException:
            await stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        with anyio.move_on_after(3 * self._options.stop_grace, shield=True):
            if error is None:
                await self.end(RunFinished())
            elif isinstance(error, Exception):
                await self.fail(error)
            else:
                await self.end(RunStopped("client_gone", detail="the bus was cancelled"))
            await self._writer.let_go()
        self._group.cancel_scope.cancel()
        # Not handed on to the group: it would wrap what the block raised into an exception group.
        await self._stack.__aexit__(None, None, None)

    async def end(self, event: Event) -> None:
        """End the log with a terminal event; the first one counts, and nothing can be emitted after it."""
        if self._ended:
            return
        self._ended = True
        try:
            extra = Extra(bare=True, ends=event.type.removeprefix("run."))
            waiting = self._root.put_reserved(event, extra)
            if waiting is not None:
                await waiting
        except AgentStreamError as error:
            _log.error("the log of %s could not be ended: %s", self.run_id, error)
        self._bus.close()
        await self._drained.wait()

    async def fail(self, error: Exception) -> None:
        """End the log with `run.failed`: readers get a safe message, the process's log gets the cause."""
        code, message = safe_failure(error)
        if not isinstance(error, AgentStreamError) and not self._ended:
            _log.error("the bus of %s failed", self.run_id, exc_info=error)
        await self.end(RunFailed(code, message))

    # --- what it is for -----------------------------------------------------------------------------------------------
    def emitter(self, agent: str, *, role: str = "") -> BusEmitter:
        """An emitter for one producer: `async with bus.emitter("planner") as planner: await planner.say(…)`.

        Raises:
            InvalidInput: not an agent name. RuntimeNotRunning: the bus was not entered. EmitAfterEnd: it has ended.
        """
        self._check_entered()
        name = check_agent_name(agent)
        self._counts[name] += 1
        inv = f"{name}.{self._counts[name]}"
        emitter = Emitter(
            self._bus.source(inv), agent=name, inv=inv, keeper=self._keep, document=self._document, role=role
        )
        return BusEmitter(emitter, role)

    def events(self, *, after: str | None = None, coalesce: bool = True) -> Subscription:
        """Everything that was emitted, in its one order, from the first event or behind a cursor."""
        self._check_entered()
        return Subscription(self._store, self.run_id, after=after, coalesce=coalesce)

    async def ingest(self, event: Event, *, epoch: int = 0, after: Mapping[str, int] | None = None) -> bool:
        """Take an event of an at-least-once source: one that carries `inv` and `agent_seq` (1, 2, 3 … per `inv`).

        Duplicates are dropped and what comes early waits in a bounded window; a gap of 10 s closes the invocation with
        `agent.failed {code: gap}`.

        Args:
            epoch: of the source's worker; a higher one begins again at 1, a lower one is refused.
            after: `{inv: agent_seq}`: what must come before this event.

        Returns:
            True once the log holds it (or had it): acknowledge it. False while it waits for an earlier one.

        Raises:
            InvalidInput: no `inv`, or no `agent_seq`.
        """
        self._check_entered()
        if _INV.fullmatch(event.inv) is None or event.agent_seq < 1:
            raise InvalidInput("an event to ingest carries inv (`name.1`) and agent_seq (from 1)")
        lane = self._bus.remote_lane(event.inv)
        cut = len(event.type) + 10  # behind {"type":"…"
        form = line_form(event.type, agent_of(event.inv), event.inv)
        extra = Extra(epoch=epoch, after=dict(after or {}))
        waiting = self._bus.offer((lane, event.agent_seq, form, encode_event(event)[cut:], extra))
        if waiting is not None:
            await waiting
        await self._bus.flush()
        return lane.closed or lane.passed >= event.agent_seq

    def statistics(self) -> BusStatistics:
        """Counters and sizes of now; free to call."""
        self._check_entered()
        return self._bus.statistics()

    @property
    def store(self) -> Store:
        """Where the log is kept."""
        self._check_entered()
        return self._store

    # --- inside -------------------------------------------------------------------------------------------------------
    def _check_entered(self) -> None:
        if self._stack is None:
            raise RuntimeNotRunning("the bus is not running: use `async with Bus() as bus`")

    async def _open(self) -> None:
        now = SYSTEM_CLOCK.wall_ms()
        first = first_chunk(RunStarted(self.run_id, ""), now)
        created = await self._store.create(self.run_id, "", "", first, facts=RunFacts(created=now))
        lease = await self._store.take(self.run_id, self.run_id, seconds=self._options.lease)
        if lease is None:
            raise StoreError("the store gave the new log to somebody else")
        keeper = StateKeeper(self._store, self.run_id, created.incarnation, fold(RunState(), first.lines))
        self._writer = Writer(self._store, lease, keeper, self._options, SYSTEM_CLOCK)
        self._bus = MergeBus(self._writer.append, capacity=self._capacity, last=first.last)
        self._root = Emitter(self._bus.source(""), agent="", inv="", keeper=self._keep, document=self._document)

    async def _keep(self, data: bytes, mime: str, name: str) -> tuple[str, str]:
        id_ = await self._store.put(self.run_id, data, mime, name=name)
        return id_, f"/runs/{self.run_id}/artifacts/{id_}"

    async def _drain(self) -> None:
        try:
            await self._bus.drain()
        except AgentStreamError as error:
            _log.error("the log of %s takes no more events: %s", self.run_id, error)
        finally:
            self._drained.set()

    async def _hold_lease(self) -> None:
        try:
            await self._writer.keep_lease()
        except StoreError as error:
            _log.error("the log of %s is lost: %s", self.run_id, error)
            self._group.cancel_scope.cancel()


class BusEmitter:
    """Opens an emitter, and closes it: `agent.started` on entering, `agent.finished` or `agent.failed` on leaving."""

    def __init__(self, emitter: Emitter, role: str) -> None:
        self._emitter = emitter
        self._role = role

    async def __aenter__(self) -> Emitter:
        waiting = self._emitter.put_reserved(AgentStarted(role=self._role))
        if waiting is not None:
            await waiting
        return self._emitter

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing: Event = AgentFinished()
        if isinstance(error, Exception):
            closing = AgentFailed(*safe_failure(error))
        elif error is not None:
            closing = AgentFailed("stopped", "it was cancelled")
        waiting = self._emitter.finish(closing)
        if waiting is not None and error is None:
            await waiting
