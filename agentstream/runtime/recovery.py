"""Runs without a writer: gone on with by a process that has their team, ended by one that knows nobody can.

What comes in: running runs that nobody holds. What goes out: executions that take them up where their log ends, or
`run.failed` with the reason. It does not know what a run did: the ledger of its log says so.

| who finds the run | what happens |
|---|---|
| has its team in its version | goes on with it, as the next attempt |
| has its team in another version | ends it after a lease: `team_changed`; the old version may be alive elsewhere |
| does not have its team | leaves it for `orphan_after` seconds to those that do, then ends it: `worker_lost` |
| anybody, where nobody could: a store in memory, a team without a name, attempts used up | ends it: `worker_lost` |
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio
import pydantic

from agentstream.errors import AgentStreamError, StoreError
from agentstream.events import RunFailed
from agentstream.ports import Lease, RunRow
from agentstream.runtime.lost import end_lost
from agentstream.runtime.origin import Origin, read_origin, restore
from agentstream.runtime.replay import WORKER_LOST, Ledger
from agentstream.runtime.takeover import Takeover, read_ledger
from agentstream.stream import load_state

if TYPE_CHECKING:
    from agentstream.runtime.execution import Ticket
    from agentstream.runtime.host import Host

__all__ = ("Recovery",)

_log = logging.getLogger("agentstream.runtime")

_AT_ONCE: Final = 1000
"""Runs looked at in one round; those of teams that are not here must not hide the others."""

_GONE: Final = "the process that ran it ended before it did"
_MOST_SEEN: Final = 10_000


class Recovery:
    """Looks for runs without a writer, for one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen: dict[str, float] = {}  # when a run that others may go on with was first found without a writer
        self._due: dict[str, float] = {}  # when such a run is ended here

    async def look(self) -> None:
        """Every `poll` seconds, until cancelled."""
        host = self._host
        while True:
            try:
                found = await host.store.free(_AT_ONCE)
            except StoreError as error:
                _log.warning("looking for runs without a worker: %s", error)
                found = []
            self._forget(found)
            for run in found:
                if host.running(run) is None and not host.draining and host.clock.monotonic() >= self._due.get(run, 0):
                    await self._take_care(run)
            await anyio.sleep(host.options.poll)

    def _forget(self, found: list[str]) -> None:
        """A run that somebody held meanwhile begins to wait anew."""
        if len(found) < _AT_ONCE or len(self._seen) > _MOST_SEEN:
            kept = frozenset(found)
            self._seen = {run: since for run, since in self._seen.items() if run in kept}
            self._due = {run: due for run, due in self._due.items() if run in kept}

    async def _take_care(self, run: str) -> None:
        try:
            row = await self._host.store.row(run)
            if row is not None and await self._is_orphan(row):
                with anyio.move_on_after(self._host.options.lease):  # it is not renewed here
                    await self._decide(row)
                    return
                _log.error("run %s has no worker and could not be ended: the store does not answer", run)
        except AgentStreamError as error:
            _log.error("run %s has no worker and could not be ended (%s): %s", run, error.code, error)
        except Exception:  # noqa: BLE001  (one run that cannot be read must not harm the others)
            _log.exception("run %s has no worker and could not be ended", run)

    async def _is_orphan(self, row: RunRow) -> bool:
        """A run of epoch 0 was created a moment ago and is about to be taken by whoever made it."""
        host = self._host
        tail = await host.store.tail(row.run)
        young = host.clock.wall_ms() - row.facts.created < host.options.lease * 1000
        return not tail.ended and (tail.epoch > 0 or not young)

    async def _decide(self, row: RunRow) -> None:
        host, run = self._host, row.run
        ledger = Ledger()
        for chunk in await host.store.read(run, 0, max_bytes=1):
            ledger.take(chunk)
        origin = read_origin(ledger.origin)
        if origin is None or not origin.registered or not host.can_resume:
            await self._end(run, WORKER_LOST, _GONE)
            return
        team = host.teams.get(row.facts.team)
        if team is None:
            if self._is_due(run, host.options.orphan_after):
                await self._end(run, WORKER_LOST, f"{_GONE}, and no process that has its team came for it")
        elif team.version != origin.version:
            if self._is_due(run, host.options.lease):
                changed = f"it was started by version {origin.version!r} of its team, and here is {team.version!r}"
                await self._end(run, "team_changed", f"{changed}: a run is never continued by another version")
        else:
            await self._go_on(row, ledger, origin)

    def _is_due(self, run: str, seconds: float) -> bool:
        """Whether the run was left to others for so long."""
        now = self._host.clock.monotonic()
        self._due[run] = self._seen.setdefault(run, now) + seconds
        return now >= self._due[run]

    async def _go_on(self, row: RunRow, ledger: Ledger, origin: Origin) -> None:
        host, run = self._host, row.run
        if not host.has_place:
            return  # another process may have one; else the next look
        await read_ledger(host.store, run, ledger)
        team = host.teams[row.facts.team]
        try:
            ticket, task = await restore(host.store, host.work, row, origin, team)
        except (AgentStreamError, pydantic.ValidationError) as error:
            if isinstance(error, StoreError):
                raise
            told = error.detail if isinstance(error, AgentStreamError) else "its options are of another version"
            await self._end(run, "not_resumable", f"{_GONE}, and it cannot be started again: {told}")
            return
        if ledger.losses + 1 >= ticket.options.attempts and not ledger.handed_over:
            await self._end(run, WORKER_LOST, f"{_GONE}; that was attempt {ledger.attempt}, and no further one is made")
            return
        # Under another name than the host's own: what it began to execute a moment ago is held by it.
        lease = await host.store.take(run, f"{host.name}/{ledger.attempt + 1}", seconds=host.options.lease)
        if lease is None:
            return
        await self._begin(lease, row, ledger, (ticket, task))

    async def _begin(self, lease: Lease, row: RunRow, ledger: Ledger, what: tuple[Ticket, object]) -> None:
        host = self._host
        ticket, task = what
        begun = False
        try:
            await read_ledger(host.store, row.run, ledger)  # nobody else writes from here on
            first = await load_state(host.store, row.run)
            if (await host.store.tail(row.run)).ended:
                return
            reason = "shutdown" if ledger.handed_over else WORKER_LOST
            taken = Takeover(lease, ledger, ledger.attempt + 1, reason)
            _log.warning("run %s: going on with it, attempt %d (%s)", row.run, taken.attempt, reason)
            host.resume(ticket, host.teams[row.facts.team], task, first, taken)
            self._seen.pop(row.run, None)
            begun = True
        finally:
            if not begun:
                with anyio.move_on_after(host.options.stop_grace, shield=True):
                    await host.store.give_back(lease)

    async def _end(self, run: str, code: str, message: str) -> None:
        _log.warning("run %s: its worker died; ending it (%s)", run, code)
        failed = RunFailed(code, message, retryable=code == WORKER_LOST)
        await end_lost(self._host, run, failed, f"{self._host.name}/recovery")
