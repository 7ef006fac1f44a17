"""Going on with a run whose worker is gone: the words of the new writer before it works.

What comes in: the ledger of the log, and the bus of the new writer. What goes out: `run.attempt`, the ends of what was
open, what of it does not count any more, and the shared document without it. It does not know agents or their results.

A writer that dies in the middle of this leaves a log that says so: the next one closes and marks the rest.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream.bus import Document, Emitter, MergeBus
from agentstream.errors import StoreError
from agentstream.events import AttemptSuperseded, Event, RunAttempt, StateSnapshot
from agentstream.order import Reassembler
from agentstream.ports import Lease, Store
from agentstream.runtime.replay import HANDED_OVER, WORKER_LOST, Ledger

__all__ = ("HANDED_OVER", "Takeover", "quiet_emitter", "read_ledger", "say_takeover")

_GONE: Final = "the process that ran it ended before it did"
_IDS: Final = 1000
"""In one event: however much an attempt said, each event that marks it fits."""


class Takeover(msgspec.Struct, frozen=True):
    """A run to go on with: under which lease, from what, as which attempt and why."""

    lease: Lease
    ledger: Ledger
    attempt: int
    reason: str


async def read_ledger(store: Store, run: str, ledger: Ledger) -> Ledger:
    """Bring `ledger` to the end of the log."""
    while chunks := await store.read(run, ledger.last):
        for chunk in chunks:
            ledger.take(chunk)
    return ledger


async def say_takeover(taken: Takeover, bus: MergeBus, reassembler: Reassembler, root: Emitter) -> None:
    """Emit everything that comes before the new attempt's own events; return when the log has accepted it.

    Raises:
        AgentStreamError: what the append raised.
    """
    ledger = taken.ledger
    superseded = ledger.superseded
    document, changed = ledger.document()
    await _say(root, RunAttempt(taken.attempt, taken.reason))
    for inv, agent, events in list(ledger.open.closing(WORKER_LOST, _GONE)):
        reassembler.lane(inv).next = ledger.open.numbers[inv] + 1
        emitter = quiet_emitter(bus, agent, inv)
        for event in events:
            await _say(emitter, event)
        emitter.end()
    for inv, attempt, ids in superseded:
        for start in range(0, max(1, len(ids)), _IDS):
            await _say(root, AttemptSuperseded(inv, attempt, ids[start : start + _IDS]))
    if changed:
        await _say(root, StateSnapshot(document))
    await bus.flush()


def quiet_emitter(bus: MergeBus, agent: str, inv: str) -> Emitter:
    """An emitter for what closes an invocation: it makes no artifacts and has no document of its own."""
    return Emitter(bus.source(inv), agent=agent, inv=inv, keeper=_no_artifacts, document=Document())


async def _say(emitter: Emitter, event: Event) -> None:
    waiting = emitter.put_reserved(event)
    if waiting is not None:
        await waiting


async def _no_artifacts(data: bytes, mime: str, name: str) -> tuple[str, str]:  # noqa: ARG001  (a `Keeper`)
    raise StoreError("recovery makes no artifacts")
