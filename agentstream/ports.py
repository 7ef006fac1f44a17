"""What the rooms expect of a store, and what readers get: Protocols and the plain records that cross them.

What comes in: run ids, epochs, chunks of encoded lines. What goes out: positions, chunks, leases, rows, bytes. It does
not know how anything is kept; every promise that a backend must keep is written here and checked by
`agentstream.testing.store_checks`.

A run has one log. Only the holder of its lease appends, under the lease's `epoch`; the store refuses everyone else.
All calls raise `StoreDown` when the store cannot be reached, and `RunUnknown` or `RunGone` for a run it does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, Self, runtime_checkable

import msgspec

__all__ = (
    "UPLOADS",
    "Artifacts",
    "Blob",
    "Chunk",
    "Created",
    "EventLog",
    "Kept",
    "Lease",
    "Leases",
    "Letter",
    "Mailbox",
    "RunFacts",
    "RunIndex",
    "RunRow",
    "Store",
    "Tail",
)

UPLOADS: Final = "uploads:"
"""Artifacts of no run yet are kept under this scope plus the owner's name."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Neighbouring events of one run, the unit of append and of storage.

    Attributes:
        first, last: seq of the first and last event; `last - first + 1` lines.
        lines: one JSON object a line, each ended by LF, exactly as every reader gets them.
        private: what only recovery reads (epoch, after, recorded results): a JSON object by seq, or empty.
        ends: `finished`, `failed` or `stopped` when the last line is the run's terminal event, else empty.
        quiet: every line is a delta of a block, which changes no folded state. A hint of the writer for itself: stores
            need not keep it, and two chunks that differ in it only are the same.
    """

    first: int
    last: int
    lines: bytes
    private: bytes = b""
    ends: str = ""
    quiet: bool = False


class Tail(msgspec.Struct, frozen=True):
    """Where a log stands. `first` is the first retained seq; `last` is 0 for an empty log."""

    incarnation: str
    epoch: int
    first: int
    last: int
    ended: bool


class RunFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a run when it is created. `key`: a digest of its idempotency key, empty without one."""

    team: str = ""
    owner: str = ""
    session: str = ""
    title: str = ""
    created: int = 0
    key: str = ""


class RunRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run in the index. `status` is running, finished, failed or stopped; `created` and `ended` are wall ms."""

    run: str
    incarnation: str
    status: str
    last: int
    facts: RunFacts
    ended: int = 0
    size: int = 0


class Created(msgspec.Struct, frozen=True):
    """Answer of `create`: `fresh` is False when the key was known and `run` is the run that it made before."""

    run: str
    incarnation: str
    fresh: bool


class EventLog(Protocol):
    """The truth: an append-only log a run, fenced by epoch, compare-and-set on the sequence."""

    async def create(self, run: str, key: str, digest: str, first: Chunk, *, facts: RunFacts) -> Created:
        """Make the run, its row and its first chunk (epoch 0, `first.first == 1`) in one atomic step.

        Args:
            key: idempotency key, already scoped to its owner; empty means none. Remembered for 24 h.
            digest: of the request's body. The same key with another digest raises.

        Raises:
            KeyReused: the key is known with another digest.
        """
        ...

    async def append(self, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
        """Append `chunk` if the log's last seq is `expected` (= chunk.first - 1); returns the new last seq.

        Atomic per chunk. Idempotent: the same chunk again under the same epoch and expected answers as the first time,
        so after an unknown outcome the writer repeats the same bytes.

        Raises:
            Fenced: a newer epoch was given out, or another epoch wrote on from `expected`, or the run has ended.
            RolledBack: the log is shorter than `expected`.
            LogFull: the run's bound of events or bytes would be passed.
        """
        ...

    async def read(self, run: str, after: int, *, max_bytes: int = 262_144) -> list[Chunk]:
        """Whole chunks, in order, that hold any event with seq > `after`; at least one if there is any.

        `max_bytes` bounds the sum of `lines`, except that one chunk always fits. The first chunk may begin at or before
        `after`: the reader cuts it.
        """
        ...

    async def tail(self, run: str) -> Tail:
        """Where the log stands now."""
        ...

    async def changed(self, run: str, after: int) -> None:
        """Return once the log holds anything after `after`, has ended, was deleted or got another incarnation.

        May return early. Cancellation-safe; any number of waiters cost nothing between appends.
        """
        ...


class Letter(msgspec.Struct, frozen=True):
    """A message to a run's writer: `key` is the stop's or request's id, `body` its JSON."""

    key: str
    body: bytes


class Mailbox(Protocol):
    """Stop and input from elsewhere: insert-if-absent, read by the writer, acknowledged after the effect was
    accepted."""

    async def post(self, run: str, key: str, body: bytes) -> bool:
        """Leave a letter; False if one with this key was left before (acknowledged or not)."""
        ...

    async def letters(self, run: str) -> list[Letter]:
        """The letters not acknowledged yet, in the order in which they were left."""
        ...

    async def ack(self, run: str, epoch: int, key: str) -> None:
        """Mark a letter as done.

        Raises:
            Fenced: a newer epoch was given out.
        """
        ...

    async def mail(self, run: str, seen: int) -> int:
        """Wait until more than `seen` letters were ever left for the run; returns their number. May return early."""
        ...


class Lease(msgspec.Struct, frozen=True):
    """The right to write to a run until `until` (seconds of the store's own clock)."""

    run: str
    holder: str
    epoch: int
    until: float


class Leases(Protocol):
    """Who may write. Every `take` that succeeds gives a higher epoch, which fences all earlier holders."""

    async def take(self, run: str, holder: str, *, seconds: float = 15.0) -> Lease | None:
        """The lease if it is free, lapsed, or already `holder`'s (a higher epoch even then); None if someone holds
        it."""
        ...

    async def renew(self, lease: Lease, *, seconds: float = 15.0) -> bool:
        """Extend the lease; False if it lapsed and another took it."""
        ...

    async def give_back(self, lease: Lease) -> None:
        """Let go at once; harmless if it is no longer held."""
        ...

    async def free(self, limit: int) -> list[str]:
        """Up to `limit` running runs that nobody holds (never held, given back, or lapsed), oldest first."""
        ...


class Blob(msgspec.Struct, frozen=True):
    """Stored bytes with their type and name."""

    id: str
    mime: str
    name: str
    data: bytes


class Artifacts(Protocol):
    """Bytes by content: the same bytes under one scope are kept once."""

    async def put(self, run: str, data: bytes, mime: str, *, name: str = "") -> str:
        """Keep `data` under the run (or under `UPLOADS` + owner); returns its id, a hash of the content."""
        ...

    async def get(self, run: str, id: str) -> Blob | None:
        """The bytes, or None."""
        ...


class Kept(msgspec.Struct, frozen=True):
    """A folded state kept by the writer: it holds for the log's prefix up to `seq`."""

    seq: int
    state: bytes


class RunIndex(Protocol):
    """The list of runs: written in the transaction of create and append; never folds logs."""

    async def row(self, run: str) -> RunRow | None:
        """The run's row, or None (also for a deleted run; `gone` tells them apart)."""
        ...

    async def gone(self, run: str) -> bool:
        """Whether a tombstone of the run is kept."""
        ...

    async def page(
        self,
        *,
        owner: str | None = None,
        session: str | None = None,
        running: bool = False,
        before: str = "",
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """Newest first. `before` is the run id that the last page ended with; `owner` None means every owner.

        Args:
            session: only runs of this session, by an index of it; needs an owner.
            running: only runs that have not ended.

        Raises:
            RunUnknown: `before` is no run, or not one of this owner. InvalidInput: a session without an owner.
        """
        ...

    async def forget(self, run: str) -> None:
        """Delete a finished run whole (log, mailbox, artifacts, kept state) and leave a tombstone for 24 h.

        Raises:
            UsageError: the run is still running.
        """
        ...

    async def keep(self, run: str, kept: Kept) -> None:
        """Keep a folded state, replacing an older one."""
        ...

    async def kept(self, run: str) -> Kept | None:
        """The kept folded state, or None."""
        ...


@runtime_checkable
class Store(EventLog, Mailbox, Leases, Artifacts, RunIndex, Protocol):
    """Everything of a run in one place. Used as `async with store`; `level` is memory, process or machine (P12)."""

    @property
    def address(self) -> str:
        """How `open_store` would open it again, without secrets."""
        ...

    @property
    def level(self) -> str:
        """What an accepted event survives: `memory`, `process` or `machine`."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def ping(self) -> None:
        """Return if the store answers and accepts writes."""
        ...
