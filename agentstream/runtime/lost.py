"""The end of a run that nobody goes on with: everything open is closed before it, in one chunk.

What comes in: a run whose writer is gone or has lost its store, and the failure to end it in. What goes out: the ends
of what was open, then `run.failed`. It does not know teams or agents, nor whether somebody could have gone on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from agentstream.bus import Emitter, MergeBus
from agentstream.events import Event, InputExpired, RunFailed
from agentstream.order import Extra, Reassembler
from agentstream.ports import Lease
from agentstream.runtime.replay import Ledger
from agentstream.runtime.takeover import quiet_emitter, read_ledger
from agentstream.runtime.writer import Writer
from agentstream.stream import StateKeeper, load_state

if TYPE_CHECKING:
    from agentstream.runtime.host import Host

__all__ = ("end_lost",)

_NO_BOUND: Final = 2**40
"""Bytes. What closes a run is handed in at once; its size follows from what was open."""


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
    open_ = (await read_ledger(store, run, Ledger())).open
    keeper = StateKeeper(store, run, tail.incarnation, await load_state(store, run))
    asked = [ask for ask in keeper.state.asks if ask.status == "open"]
    writer = Writer(store, lease, keeper, host.options, host.clock)
    reassembler = Reassembler()
    bus = MergeBus(
        writer.append,
        capacity=open_.count + len(asked) + 1,
        max_bytes=_NO_BOUND,
        last=tail.last,
        reassembler=reassembler,
        clock=host.clock,
    )
    for inv, agent, events in open_.closing(failed.code, failed.message):
        reassembler.lane(inv).next = open_.numbers[inv] + 1
        emitter = quiet_emitter(bus, agent, inv)
        for event in events:
            _put(emitter, event)
    root = quiet_emitter(bus, "", "")
    for ask in asked:
        _put(root, InputExpired(ask.request, "stopped"))
    _put(root, failed, Extra(bare=True, ends="failed"))
    bus.close()
    await bus.drain()
    await keeper.keep()


def _put(emitter: Emitter, event: Event, extra: Extra | None = None) -> None:
    waiting = emitter.put_reserved(event, extra)
    assert waiting is None  # the bus has room for all of them
