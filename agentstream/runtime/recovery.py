"""Runs whose worker died: ended here in one terminal event, with everything open closed before it.

What comes in: running runs that nobody holds, or whose writer here lost its store. What goes out: the ends of what was
open, then `run.failed`, with code `worker_lost`, `store` or `log_full`. It does not know teams or agents: going on with
the work is not its business.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias

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

__all__ = ("Open", "end_lost", "look_for_orphans")

_log = logging.getLogger("agentstream.runtime")

_AT_ONCE: Final = 16
_MESSAGE: Final = "the process that ran it ended before it did"
_NO_BOUND: Final = 2**40
"""Bytes. What closes a run is handed in at once; its size follows from what was open."""

_Closing: TypeAlias = type[TextFinished | ThinkingFinished | ToolFailed | StepFailed]


class Open:
    """What is open at a log's end: invocations, with their last number, and what each of them opened and did not
    close."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.invocations: dict[str, str] = {}  # inv → agent
        self.things: dict[str, dict[str, _Closing]] = {}  # inv → id → what closes it

    @property
    def count(self) -> int:
        """How many events close all of it."""
        return len(self.invocations) + sum(map(len, self.things.values()))

    def see(self, event: AnyEvent) -> None:  # noqa: C901  (a table: one short case a kind of event)
        """Take the next event of the log."""
        if event.inv:
            self.numbers[event.inv] = max(self.numbers.get(event.inv, 0), event.agent_seq)
        things = self.things.setdefault(event.inv, {})
        match event:
            case AgentStarted():
                self.invocations[event.inv] = event.agent
            case AgentFinished() | AgentFailed():
                self.invocations.pop(event.inv, None)
                self.things.pop(event.inv, None)
            case TextStarted(block=id_):
                things[id_] = TextFinished
            case ThinkingStarted(block=id_):
                things[id_] = ThinkingFinished
            case ToolStarted(call=id_):
                things[id_] = ToolFailed
            case StepStarted(step=id_):
                things[id_] = StepFailed
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
            found = await host.store.free(_AT_ONCE)
        except StoreError as error:
            _log.warning("looking for runs without a worker: %s", error)
            found = []
        for run in found:
            if host.running(run) is None:
                await _end_orphan(host, run)
        await anyio.sleep(host.options.poll)


async def _end_orphan(host: Host, run: str) -> None:
    try:
        if await _is_orphan(host, run):
            _log.warning("run %s: its worker died; ending it", run)
            with anyio.move_on_after(host.options.lease):  # it is not renewed here
                # Under another name than the host's own: what it began to execute a moment ago is held by it.
                await end_lost(host, run, RunFailed("worker_lost", _MESSAGE, retryable=True), f"{host.name}/recovery")
                return
            _log.error("run %s has no worker and could not be ended: the store does not answer", run)
    except AgentStreamError as error:
        _log.error("run %s has no worker and could not be ended (%s): %s", run, error.code, error)
    except Exception:  # noqa: BLE001  (one run that cannot be read must not harm the others)
        _log.exception("run %s has no worker and could not be ended", run)


async def _is_orphan(host: Host, run: str) -> bool:
    """A run of epoch 0 was created a moment ago and is about to be taken by whoever made it."""
    tail = await host.store.tail(run)
    if tail.ended:
        return False
    row = await host.store.row(run)
    young = row is not None and host.clock.wall_ms() - row.facts.created < host.options.lease * 1000
    return tail.epoch > 0 or not young


async def end_lost(host: Host, run: str, failed: RunFailed, holder: str) -> None:
    """End a run whose writer is gone, or has lost its store, if nobody but `holder` has its lease.

    Raises:
        AgentStreamError: the store did not take it.
    """
    lease = await host.store.take(run, holder, seconds=host.options.lease)
    if lease is None:
        return
    try:
        await _end(host, lease, failed)
    finally:
        with anyio.move_on_after(host.options.stop_grace, shield=True):
            await host.store.give_back(lease)


async def _end(host: Host, lease: Lease, failed: RunFailed) -> None:
    """Close what is open in the run's log and end it, in one chunk: a log that is full takes only its last."""
    store, run = host.store, lease.run
    tail = await store.tail(run)
    open_ = await _read_open(store, run)
    keeper = StateKeeper(store, run, tail.incarnation, await load_state(store, run))
    writer = Writer(store, lease, keeper, host.options, host.clock)
    reassembler = Reassembler()
    bus = MergeBus(
        writer.append,
        capacity=open_.count + 1,
        max_bytes=_NO_BOUND,
        last=tail.last,
        reassembler=reassembler,
        clock=host.clock,
    )
    for inv, agent in reversed(open_.invocations.items()):
        reassembler.lane(inv).next = open_.numbers[inv] + 1
        emitter = _emitter(bus, agent, inv)
        for id_, closing in reversed(open_.things.get(inv, {}).items()):
            if closing is ToolFailed or closing is StepFailed:
                _put(emitter, closing(id_, code=failed.code, message=failed.message))
            else:
                _put(emitter, closing(id_))
        _put(emitter, AgentFailed(failed.code, failed.message))
    _put(_emitter(bus, "", ""), failed, Extra(bare=True, ends="failed"))
    bus.close()
    await bus.drain()
    await keeper.keep()


def _put(emitter: Emitter, event: Event, extra: Extra | None = None) -> None:
    waiting = emitter.put_reserved(event, extra)
    assert waiting is None  # the bus has room for all of them


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


async def _no_artifacts(data: bytes, mime: str, name: str) -> tuple[str, str]:  # noqa: ARG001  (a Keeper)
    raise StoreError("recovery makes no artifacts")
