"""The recent chunks of the runs that this process writes, and the readers that wait for more.

What comes in: what the store learned from its own commits. What goes out: answers without a trip to the disk, where
they are sure to be right. It does not know SQLite; everything here happens on the event loop.

An answer is given only while this store holds a live lease of the run, by the store's clock: until then nobody else can
have been given a newer epoch, so nobody else can have written. A lapsed lease sends every question to the file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from itertools import islice
from typing import Final, final

from agentstream.loops import Wake
from agentstream.ports import Chunk, Tail
from agentstream.store._transactions import Taken

__all__ = ("EVERYONE", "Recent", "Watch", "wake")

EVERYONE: Final = 2**63
_MAX_RUNS: Final = 10_000
_CHUNK_OVERHEAD: Final = 200  # bytes of the objects around a chunk's lines


def wake(waiters: dict[Wake, int], reached: int) -> None:
    """Wake those who wait for anything after less than `reached`; the others sleep on."""
    for waiter in [waiter for waiter, after in waiters.items() if after < reached]:
        del waiters[waiter]
        waiter.set()


@final
class Watch:
    """Who waits for one run: for its log (after a seq), for its mailbox (after a number of letters)."""

    __slots__ = ("incarnation", "letters", "log", "mail")

    def __init__(self) -> None:
        self.incarnation = ""
        self.letters = 0
        self.log: dict[Wake, int] = {}
        self.mail: dict[Wake, int] = {}

    def wake_all(self) -> None:
        """Something happened that concerns everybody, or nobody knows what."""
        wake(self.log, EVERYONE)
        wake(self.mail, EVERYONE)


@final
class _Held:
    """A run whose lease this store has."""

    __slots__ = ("chunks", "ended", "epoch", "incarnation", "last", "lasts", "size", "until")

    def __init__(self, taken: Taken) -> None:
        self.incarnation = taken.incarnation
        self.epoch = taken.lease.epoch
        self.until = taken.lease.until
        self.last = taken.last
        self.ended = False
        # Always the end of the log: without gaps up to `last`, or empty.
        self.chunks: list[Chunk] = []
        self.lasts: list[int] = []
        self.size = 0

    def drop_chunks(self, count: int) -> int:
        """Drop the oldest ones; returns the bytes that this frees."""
        freed = sum(_cost(chunk) for chunk in islice(self.chunks, count))
        del self.chunks[:count], self.lasts[:count]
        self.size -= freed
        return freed


def _cost(chunk: Chunk) -> int:
    return len(chunk.lines) + len(chunk.private) + _CHUNK_OVERHEAD


@final
class Recent:
    """At most `max_bytes` of chunks; the runs that were appended to longest ago lose theirs first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._held: OrderedDict[str, _Held] = OrderedDict()

    # --- what the store learned ---------------------------------------------------------------------------------------
    def taken(self, taken: Taken | None) -> None:
        """A lease was given to a holder in this process. Chunks of its earlier epoch stay if nothing followed them."""
        if taken is None:
            return
        run = taken.lease.run
        old = self._held.get(run)
        if old is not None and (old.incarnation, old.last) == (taken.incarnation, taken.last):
            old.epoch, old.until = taken.lease.epoch, taken.lease.until
            return
        self.drop(run)
        self._held[run] = _Held(taken)
        if len(self._held) > _MAX_RUNS:
            self.drop(next(iter(self._held)))

    def renewed(self, run: str, epoch: int, until: float) -> None:
        """A lease was extended, or lost where `until` is 0."""
        held = self._held.get(run)
        if held is not None and held.epoch == epoch:
            if until:
                held.until = until
            else:
                self.drop(run)

    def appended(self, run: str, epoch: int, chunk: Chunk) -> None:
        """A chunk was accepted, now or before."""
        held = self._held.get(run)
        if held is None or held.epoch != epoch or chunk.first != held.last + 1:
            return
        held.chunks.append(chunk)
        held.lasts.append(chunk.last)
        held.last = chunk.last
        held.ended = bool(chunk.ends)
        held.size += _cost(chunk)
        self._size += _cost(chunk)
        if self._size > self._max_bytes:
            self._held.move_to_end(run)
            self._make_room()

    def drop(self, run: str) -> None:
        """Nothing is known any more of this run."""
        held = self._held.pop(run, None)
        if held is not None:
            self._size -= held.size

    def drop_older(self, run: str, epoch: int) -> None:
        """Another holder was seen with this epoch."""
        held = self._held.get(run)
        if held is not None and held.epoch < epoch:
            self.drop(run)

    # --- what it can answer -------------------------------------------------------------------------------------------
    def tail(self, run: str, now: float) -> Tail | None:
        """Where the log stands, if that is sure."""
        held = self._held.get(run)
        if held is None or held.until <= now:
            return None
        return Tail(held.incarnation, held.epoch, 1, held.last, held.ended)

    def read(self, run: str, after: int, max_bytes: int, now: float) -> list[Chunk] | None:
        """What follows `after`, if it is all here and that is sure."""
        held = self._held.get(run)
        if held is None or held.until <= now:
            return None
        if after >= held.last:
            return []
        if not held.chunks or held.chunks[0].first > after + 1:
            return None
        found: list[Chunk] = []
        for chunk in islice(held.chunks, bisect_right(held.lasts, after), None):
            max_bytes -= len(chunk.lines)
            if max_bytes < 0 and found:
                break
            found.append(chunk)
        return found

    def _make_room(self) -> None:
        """Empty the runs at the front; of the last one only its older half, as its readers are at its end."""
        for held in list(self._held.values()):
            if self._size <= self._max_bytes:
                return
            if held.chunks:
                newest = held is self._held[next(reversed(self._held))]
                self._size -= held.drop_chunks((len(held.chunks) + 1) // 2 if newest else len(held.chunks))
