"""Folded states that are kept, so that a state costs the last thousand events and not the whole log.

What comes in: a store, a run, and chunks as they are appended. What goes out: the run's state now. It does not know
what is in a state; one that is missing, unreadable or of another log only makes the next reading longer.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from agentstream.errors import StoreError
from agentstream.ids import Cursor
from agentstream.loops import current_loop
from agentstream.ports import Chunk, EventLog, Kept, RunIndex, Tail
from agentstream.stream.fold import RunState, fold
from agentstream.stream.reader import skip_lines

__all__ = ("KEEP_EVERY", "StateKeeper", "load_state")

KEEP_EVERY: Final = 1000
"""Events after which the writer keeps the state again."""


class _Source(EventLog, RunIndex, Protocol):
    """What is read: the log and the kept state."""


async def load_state(store: _Source, run: str) -> RunState:
    """The run's state as its log stands now: the kept one, and what was appended since.

    Raises:
        RunUnknown, RunGone, StoreDown: as the store says.

    Bounds: reads what was appended since the state was kept, by 256 KiB at a time.
    """
    tail = await store.tail(run)
    state = _usable(await store.kept(run), run, tail)
    loop = current_loop()
    while state.seq < tail.last:
        for chunk in await store.read(run, state.seq):
            state = fold(state, chunk.lines[skip_lines(chunk.lines, state.seq + 1 - chunk.first) :])
        await loop.turn()
    return msgspec.structs.replace(state, cursor=str(Cursor(run, tail.incarnation, state.seq)))


def _usable(kept: Kept | None, run: str, tail: Tail) -> RunState:
    """The kept state if it is a prefix of this log, else that of no events."""
    # Before the first retained event nothing is known; folding goes on from there.
    nothing = RunState(run=run, seq=tail.first - 1)
    if kept is None or kept.seq > tail.last:
        return nothing
    try:
        state = _decode(kept.state)
        at = Cursor.parse(state.cursor)
    except (msgspec.DecodeError, ValueError):  # written by another version, whose fields differ
        return nothing
    if at is None or (at.run, at.incarnation, at.seq) != (run, tail.incarnation, kept.seq) or state.seq != kept.seq:
        return nothing
    return state


_decode = msgspec.json.Decoder(RunState).decode
_encode = msgspec.json.Encoder().encode


class StateKeeper:
    """Folds a run as its writer appends, and keeps the state each thousand events.

    Args:
        index: where the state is kept.
        run, incarnation: whose state it is.
        state: the state of what was appended before; None for a new run.

    Attributes:
        state: the run's state after the last `advance`.
    """

    __slots__ = ("_cursor", "_index", "_keeping", "_kept", "_run", "state")

    def __init__(self, index: RunIndex, run: str, incarnation: str, state: RunState | None = None) -> None:
        self.state = state or RunState()
        self._index = index
        self._run = run
        self._cursor = Cursor(run, incarnation, 0)
        self._kept = self.state.seq
        self._keeping = False

    def advance(self, chunk: Chunk) -> bool:
        """Fold a chunk that the log accepted, in order. True when it is time to `keep`.

        About 0.2 µs a delta; nothing is written and nothing awaited.
        """
        if chunk.quiet:
            self.state = msgspec.structs.replace(self.state, seq=chunk.last)
        else:
            self.state = fold(self.state, chunk.lines)
        return (self.state.seq - self._kept >= KEEP_EVERY or bool(chunk.ends)) and not self._keeping

    async def keep(self) -> bool:
        """Keep the state as it is now. False if the store refused, or is still busy with the last one: no harm done."""
        if self._keeping:
            return False
        self._keeping = True
        try:
            state, self._kept = self.state, self.state.seq
            cursor = msgspec.structs.replace(self._cursor, seq=state.seq)
            body = _encode(msgspec.structs.replace(state, cursor=str(cursor)))
            await self._index.keep(self._run, Kept(state.seq, body))
        except StoreError:
            return False
        finally:
            self._keeping = False
        return True
