"""The writer: the only way into a run's log.

What comes in: chunks of one run, one after the other. What goes out: accepted chunks, or the error that ends the
writing. It does not know what a chunk says; it repeats the same bytes while the outcome is unknown, and keeps the
lease.
"""

from __future__ import annotations

import logging
import random
from typing import Final

import anyio

from agentstream.clock import Clock
from agentstream.errors import Fenced, RunGone, RunUnknown, StoreDown
from agentstream.ports import Chunk, Lease, Store
from agentstream.runtime.options import RuntimeOptions
from agentstream.stream import StateKeeper

__all__ = ("Writer",)

_log = logging.getLogger("agentstream.runtime")

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5


class Writer:
    """Appends to one run under its lease.

    Attributes:
        last: seq of the newest accepted event.
        epoch: what fences earlier writers.
        grown: when the newest accepted chunk was handed in, by the clock's monotonic seconds.
    """

    def __init__(self, store: Store, lease: Lease, keeper: StateKeeper, options: RuntimeOptions, clock: Clock) -> None:
        self.last = keeper.state.seq
        self.epoch = lease.epoch
        self._store = store
        self._lease = lease
        self._options = options
        self._clock = clock
        self._keeper = keeper
        self._due = anyio.Event()
        self._pending: float | None = None
        self.grown = clock.monotonic()

    async def append(self, chunk: Chunk) -> None:
        """Return when the store has accepted `chunk`.

        Raises:
            Fenced, RolledBack, LogFull: at once. StoreDown: after `emit_timeout` seconds of trying the same bytes.
        """
        self._pending = self._clock.monotonic()
        pause = _FIRST_PAUSE
        while True:
            try:
                self.last = await self._store.append(self._lease.run, self._lease.epoch, chunk.first - 1, chunk)
                break
            except StoreDown:
                if self._clock.monotonic() - self._pending + pause > self._options.emit_timeout:
                    raise
                await anyio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
        self.grown, self._pending = self._pending, None
        if self._keeper.advance(chunk):
            self._due.set()

    async def keep_lease(self) -> None:
        """Renew until cancelled.

        Raises:
            StoreDown: the lease could not be renewed in time, or an append hangs: nothing more may be written.
            Fenced: another writer has it, after this process was stopped or blocked for longer than a lease.
        """
        options = self._options
        renewed = self._clock.monotonic()
        while True:
            await anyio.sleep(min(options.renew, options.emit_timeout / 2))
            if self._pending is not None and self._clock.monotonic() - self._pending > options.emit_timeout:
                raise StoreDown("the store did not answer an append within its limit")
            if self._clock.monotonic() - renewed < options.renew:
                continue
            renewing = self._clock.monotonic()
            if await self._renew():
                renewed = renewing
            elif self._clock.monotonic() - renewed > options.lease - options.stop_grace:
                raise StoreDown("the lease could not be renewed in time")

    async def keep_states(self) -> None:
        """Keep the folded state each thousand events, beside the appends, until cancelled."""
        while True:
            await self._due.wait()
            self._due = anyio.Event()
            await self._keeper.keep()

    async def let_go(self) -> None:
        """Keep the last state and give the lease back; the store's trouble is not ours any more."""
        try:
            await self._keeper.keep()
            await self._store.give_back(self._lease)
        except (RunGone, RunUnknown):
            _log.debug("run %s was forgotten as soon as it had ended", self._lease.run)
        except StoreDown as error:
            _log.warning("run %s: the lease lapses by itself: %s", self._lease.run, error)

    async def _renew(self) -> bool:
        # A renewal that hangs must not hide that the lease ends, nor that an append hangs as well.
        with anyio.move_on_after(self._options.emit_timeout / 2):
            try:
                if await self._store.renew(self._lease, seconds=self._options.lease):
                    return True
                raise Fenced("the lease lapsed, and another writer took it")
            except StoreDown as error:
                _log.warning("run %s: lease not renewed: %s", self._lease.run, error)
        return False
