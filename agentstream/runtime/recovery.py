"""Runs whose worker died: ended here in one terminal event, with everything open closed before it.

What comes in: running runs that nobody holds. What goes out: `agent.failed {code: worker_lost}` for what was open, then
`run.failed {code: worker_lost}`. It does not know teams or agents: going on with the work is not its business.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import anyio

from agentstream.bus import Document, Emitter, MergeBus
from agentstream.errors import AgentStreamError, StoreError
from agentstream.events import (
    AgentFailed,
    AgentFinished,
    AgentStarted,
    AnyEvent,
    Event,
    RunFailed,
    StepFailed,
    StepFinished,
    StepStarted,
    TextFinished,
    TextStarted,
    ThinkingFinished,
    ThinkingStarted,
    ToolDenied,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from agentstream.order import Extra, Reassembler
from agentstream.ports import Lease, Store
from agentstream.runtime.writer import Writer
from agentstream.stream import StateKeeper, load_state
from agentstream.wire import decode_event

if TYPE_CHECKING:
    from agentstream.runtime.host import Host

__all__ = ("Open", "end_orphan", "look_for_orphans")

_log = logging.getLogger("agentstream.runtime")

_AT_ONCE: Final = 16
_MESSAGE: Final = "the process that ran it ended before it did"


class Open:
    """What is open at a log's end: invocations, with their last number, and what each of them opened and did not close."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.invocations: dict[str, str] = {}  # inv → agent
        self.things: dict[str, dict[str, Event]] = {}  # inv → id → the event that closes it

    def see(self, event: AnyEvent) -> None:
        """Take the next event of the log."""
        if event.inv:
            self.numbers[event.inv] = max(self.numbers.get(event.inv, 0), event.agent_seq)
        things = self.things.setdefault(event.inv, {})
        match event:
            case AgentStarted():
                self.invocations[event.inv] = event.agent
            case AgentFinished() | AgentFailed():
                self.invocations.pop(event.inv, None)
            case TextStarted(block=id_):
                things[id_] = TextFinished(id_)
            case ThinkingStarted(block=id_):
                things[id_] = ThinkingFinished(id_)
            case ToolStarted(call=id_):
                things[id_] = ToolFailed(id_, code="worker_lost", message=_MESSAGE)
            case StepStarted(step=id_):
                things[id_] = StepFailed(id_, code="worker_lost", message=_MESSAGE)
            case TextFinished(block=id_) | ThinkingFinished(block=id_):
                things.pop(id_, None)
            case ToolFinished(call=id_) | ToolFailed(call=id_) | ToolDenied(call=id_):
                things.pop(id_, None)
            case StepFinished(step=id_) | StepFailed(step=id_):
                things.pop(id_, None)
            case _:
                pass


async def look_for_orphans(host: Host) -> None:
    """Every `poll` seconds, end runs that nobody writes to; until cancelled."""
    while True:
        try:
            for run in await host.store.free(_AT_ONCE):
                if host.running(run) is None and await _is_orphan(host, run):
                    await _end(host, run)
        except StoreError as error:
            _log.warning("looking for runs without a worker: %s", error)
        await anyio.sleep(host.options.poll)


async def _is_orphan(host: Host, run: str) -> bool:
    """A run of epoch 0 was created a moment ago and is about to be taken by whoever made it."""
    tail = await host.store.tail(run)
    if tail.ended:
        return False
    row = await host.store.row(run)
    young = row is not None and host.clock.wall_ms() - row.facts.created < host.options.lease * 1000
    return tail.epoch > 0 or not young


async def _end(host: Host, run: str) -> None:
    lease = await host.store.take(run, host.name, seconds=host.options.lease)
    if lease is None:
        return
    _log.warning("run %s: its worker died; ending it", run)
    try:
        await end_orphan(host, lease)
    except AgentStreamError as error:
        _log.error("run %s could not be ended (%s): %s", run, error.code, error)
    finally:
        with anyio.move_on_after(host.options.stop_grace, shield=True):
            await host.store.give_back(lease)


async def end_orphan(host: Host, lease: Lease) -> None:
    """Close what is open in the run's log and end it.

    Raises:
        StoreError: the store did not take it.
    """
    store, run = host.store, lease.run
    tail = await store.tail(run)
    open_ = await _read_open(store, run)
    keeper = StateKeeper(store, run, tail.incarnation, await load_state(store, run))
    writer = Writer(store, lease, keeper, host.options, host.clock)
    reassembler = Reassembler()
    bus = MergeBus(writer.append, last=tail.last, reassembler=reassembler, clock=host.clock)
    async with anyio.create_task_group() as group:
        group.start_soon(bus.drain)
        for inv, agent in reversed(open_.invocations.items()):
            reassembler.lane(inv).next = open_.numbers[inv] + 1
            emitter = _emitter(bus, agent, inv)
            for event in reversed(open_.things.get(inv, {}).values()):
                await emitter.emit(event)
            await _settled(emitter.put_reserved(AgentFailed("worker_lost", _MESSAGE)))
        failed = RunFailed("worker_lost", _MESSAGE, retryable=True)
        await _settled(_emitter(bus, "", "").put_reserved(failed, Extra(bare=True, ends="failed")))
        bus.close()
    await keeper.keep()


async def _read_open(store: Store, run: str) -> Open:
    open_ = Open()
    after = 0
    while chunks := await store.read(run, after):
        for chunk in chunks:
            for line in chunk.lines.split(b"\n"):
                if line:
                    open_.see(decode_event(line))
            after = chunk.last
    return open_


def _emitter(bus: MergeBus, agent: str, inv: str) -> Emitter:
    return Emitter(bus.source(inv), agent=agent, inv=inv, keeper=_no_artifacts, document=Document())


async def _no_artifacts(data: bytes, mime: str, name: str) -> tuple[str, str]:
    raise StoreError("recovery makes no artifacts")


async def _settled(waiting: Any) -> None:  # Any: an awaitable or None
    if waiting is not None:
        await waiting
