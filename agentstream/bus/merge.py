"""The merging bus: many emitters in, one ordered and numbered log out.

What comes in: encoded bodies of many sources, by plain calls. What goes out: chunks, handed to `append` one after the
other; an event is nobody's before its append returned. It does not know agents, stores, runs or readers.

The design that came nearest the limit when measured (research: 0.56 µs over the loop hop at 16 producers):

- `Source.put` is a plain call while there is room: number, format, append to one shared list. No lock, task or scope.
- A drain swaps the whole list, then takes the whole overflow: arrival order is causal (P4) and nobody starves.
- Full: the event is *parked* in the overflow and its emitter waits for the next drain. The event is parked, not the
  intent: waking everybody to test for room again would be a thundering herd.
- Once an event is parked, everything parks behind it until the drain (`_room` is 0), so order needs no second look.

Bounds: emitted minus accepted ≤ 2 × capacity + 8 × sources events (plus what closes a block or call of a cancelled
emitter), and 2 × `max_bytes` plus the parked events.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import anyio

from agentstream.bus.encode import check_size
from agentstream.bus.source import Draft, Source, until
from agentstream.clock import SYSTEM_CLOCK, Clock
from agentstream.errors import AgentStreamError, EmitAfterEnd, InvalidInput
from agentstream.ids import agent_of
from agentstream.loops import Wake, current_loop
from agentstream.order import Item, Lane, Reassembler, ReassemblerStatistics, Sequencer, line_form
from agentstream.ports import Chunk

__all__ = (
    "DEFAULT_CAPACITY",
    "LIGHT_BYTES",
    "MAX_BUS_BYTES",
    "BusStatistics",
    "MergeBus",
)

DEFAULT_CAPACITY: Final = 256
MAX_BUS_BYTES: Final = 4 * 1024 * 1024
LIGHT_BYTES: Final = 4096
"""Events up to this size are not weighed: 256 of them are 1 MiB, a quarter of the bound. With more sources it is
less."""


class BusStatistics(NamedTuple):
    """What the bus did and holds; counts since the start, sizes of now."""

    emitted: int
    accepted: int
    waiting: int
    waiting_bytes: int
    parked: int
    appends: int
    sources: int
    reassembler: ReassemblerStatistics


class MergeBus:
    """Merges the sources of one run. `drain` must run in a task of its own for as long as the bus is used.

    Args:
        append: takes a chunk and returns when it was accepted; what it raises ends the bus.
        capacity: events that may wait; raised to the number of sources (below it every emit would park).
        last: the log's last seq.
        gate: awaited before what waits is taken. With one the bus has no room: every emit waits until it is taken.
    """

    def __init__(
        self,
        append: Callable[[Chunk], Awaitable[None]],
        *,
        capacity: int = DEFAULT_CAPACITY,
        max_bytes: int = MAX_BUS_BYTES,
        last: int = 0,
        reassembler: Reassembler | None = None,
        clock: Clock = SYSTEM_CLOCK,
        gate: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._append = append
        self._gate = gate
        self._capacity = capacity
        self._room = capacity if gate is None else 0
        self._max_bytes = max_bytes
        self._light = 0
        self._clock = clock
        self._loop = current_loop()
        self._thread = threading.get_ident()
        self._reassembler = reassembler or Reassembler()
        self._sequencer = Sequencer(last)
        self._buffer: list[Item] = []
        self._overflow: list[Item] = []
        self.loud = False  # something else than a delta of a block was handed in since the last append
        self._heavy = 0  # bytes of waiting events above LIGHT_BYTES; the others cannot reach the bound
        self._wake: Wake | None = None
        self._drained: list[Wake] = []  # set at the next drain
        self._drafts: list[Draft] = []  # told at the next drain
        self._appended: list[Wake] = []  # set after the next append
        self._parkers: list[Source] = []
        self._crowded: dict[Source, None] = {}  # sources with drafts that wait for the next append
        self._sources: set[Source] = set()
        self._flushers: deque[tuple[int, Wake]] = deque()
        self._taken = self._accepted = self._appends = 0
        self._closing = False
        self._failure: AgentStreamError | None = None
        self._widen()

    def source(self, inv: str) -> Source:
        """The place where events of `inv` enter; `""` for run-level events.

        Raises:
            EmitAfterEnd: the bus was closed. InvalidInput: events of `inv` come in through `offer`.
        """
        self._check_open()
        lane = self._reassembler.lane(inv)
        if lane.remote:
            raise InvalidInput(f"events of {inv} come from elsewhere: give this emitter another name")
        source = Source(self, lane)
        self._sources.add(source)
        if len(self._sources) > self._capacity:
            self._capacity = len(self._sources)
            self._widen()
        return source

    def _widen(self) -> None:
        # Light events together weigh at most a quarter of the bound; the heavy ones have the rest.
        self._light = min(LIGHT_BYTES, self._max_bytes // (4 * self._capacity))
        self._heaviest = self._max_bytes - self._capacity * self._light

    def offer(self, item: Item) -> Awaitable[None] | None:
        """Hand in an item whose lane and number come from elsewhere (at-least-once; the reassembler decides)."""
        self._check_open()
        self._weigh(item[3])
        self.loud = True
        if len(self._buffer) < self._room:
            self._buffer.append(item)
            self._ring()
            return None
        return self._park(item)

    def remote_lane(self, inv: str) -> Lane:
        """The lane of an invocation whose events come in through `offer`.

        Raises:
            InvalidInput: `inv` is an invocation of this process.
        """
        lane = self._reassembler.lane(inv, remote=True)
        if not lane.remote:
            raise InvalidInput(f"{inv} is an invocation of this process: its events cannot come from elsewhere too")
        return lane

    async def flush(self) -> None:
        """Return once everything handed in until now was taken through the reassembler and accepted.

        Raises:
            What the append raised.
        """
        target = self._taken + len(self._buffer) + len(self._overflow)
        if target > self._accepted and self._failure is None:
            wake = self._loop.wake()
            self._flushers.append((target, wake))
            await until(wake)
        if target > self._accepted:
            self._check_failure()

    def close(self) -> None:
        """Take no more events; `drain` returns when those handed in are accepted."""
        self._closing = True
        for source in list(self._sources):
            source.close(EmitAfterEnd("the run has ended: this event was not accepted"))
        self._ring()

    async def drain(self) -> None:
        """Take, order, number and append until the bus is closed and empty.

        Raises:
            What the append raised; every emitter that waits gets the same.
        """
        try:
            await self._drain()
        except AgentStreamError as error:
            self._fail(error)
            raise
        except BaseException:
            self._fail(EmitAfterEnd("the bus has ended: this event was not accepted"))
            raise

    def statistics(self) -> BusStatistics:
        """Plain counters; free to call."""
        waiting = len(self._buffer) + len(self._overflow)
        return BusStatistics(
            self._taken + waiting,
            self._accepted,
            waiting,
            sum(len(item[3]) for item in (*self._buffer, *self._overflow)),
            len(self._overflow),
            self._appends,
            len(self._sources),
            self._reassembler.statistics(),
        )

    # --- the drain ----------------------------------------------------------------------------------------------------
    async def _drain(self) -> None:
        loop = self._loop
        while True:
            if not self._buffer and not self._overflow:
                if self._closing:
                    return
                # One turn before arming a wake: with a single streaming agent the next event is nearly always there.
                await loop.turn()
                if not self._buffer and not self._overflow and not self._closing:
                    self._wake = loop.wake()
                    await self._wait()
                continue
            if self._gate is not None:
                await self._gate()
            await self._pass_on(*self._take())

    async def _wait(self) -> None:
        wake, deadline = self._wake, self._reassembler.deadline
        assert wake is not None
        if deadline is None:
            await wake
            return
        with anyio.move_on_after(max(0.0, deadline - self._clock.monotonic())):
            await wake
        self._report_gaps()

    def _take(self) -> tuple[list[Item], bool]:
        """Everything that waits, and whether it is nothing but deltas of blocks."""
        batch, self._buffer = self._buffer, []
        quiet, self.loud = not self.loud, False
        if self._overflow:
            batch += self._overflow
            self._overflow = []
        self._heavy = 0
        self._room = self._capacity if self._gate is None else 0
        self._taken += len(batch)
        if self._drained:
            drained, self._drained = self._drained, []
            for wake in drained:
                wake.set()
        if self._drafts:
            drafts, self._drafts = self._drafts, []
            for draft in drafts:
                draft.done()
        return batch, quiet

    async def _pass_on(self, batch: list[Item], quiet: bool) -> None:
        parkers, self._parkers = self._parkers, []
        reassembler = self._reassembler
        if reassembler.deadline is not None:
            quiet = False  # what was held may come out now, whatever it is
        ready = reassembler.feed(batch, self._clock.monotonic())
        if reassembler.deadline is not None:
            self._report_gaps()
        for chunk in self._sequencer.stamp(ready, self._clock.wall_ms(), quiet=quiet):
            await self._append(chunk)
            self._appends += 1
        self._accepted += len(batch)
        # Only now: events in the hands of a hanging append still count against a source's eight.
        for source in parkers:
            source._parked -= 1
        if self._crowded:
            crowded, self._crowded = self._crowded, {}
            for source in crowded:
                source._take_inbox()
        if self._appended:
            appended, self._appended = self._appended, []
            for wake in appended:
                wake.set()
        flushers = self._flushers
        while flushers and flushers[0][0] <= self._accepted:
            flushers.popleft()[1].set()

    def _report_gaps(self) -> None:
        """An invocation that lost an event fails in the stream, in the place where the event would have been."""
        for gap in self._reassembler.tick(self._clock.monotonic()):
            lane = Lane(gap.inv)
            lane.next = gap.expected
            form = line_form("agent.failed", agent_of(gap.inv), gap.inv)
            rest = b',"code":"gap","message":"event %d was lost: %b"}' % (gap.expected, gap.reason.encode())
            self.loud = True
            self._overflow.append((lane, gap.expected, form, rest, None))

    async def _next_append(self) -> None:
        """Wait for the end of the append under way or of the next one; only called while an event is parked."""
        wake = self._loop.wake()
        self._appended.append(wake)
        await until(wake)
        self._check_failure()

    def _park(self, item: Item) -> Wake:
        self._room = 0  # everything that comes before the next drain stays behind this event
        self._overflow.append(item)
        self._ring()
        wake = self._loop.wake()
        self._drained.append(wake)
        return wake

    def _weigh(self, rest: bytes) -> None:
        """Count a heavy event against the bound of bytes.

        Raises:
            EventTooLarge: above 256 KiB.
        """
        check_size(rest, "the event")
        self._heavy += len(rest)
        if self._heavy >= self._heaviest:
            self._room = 0

    def _ring(self) -> None:
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.set()

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # one instance for all: their frames would pile up in it

    def _check_open(self) -> None:
        self._check_failure()
        if self._closing:
            raise EmitAfterEnd("the run has ended: this event was not accepted")

    def _fail(self, error: AgentStreamError) -> None:
        self._failure = error
        for source in list(self._sources):
            source.close(error)
        for draft in self._drafts:
            draft.error = error
            draft.done()
        self._drafts.clear()
        for wake in [*self._drained, *self._appended, *(wake for _, wake in self._flushers)]:
            wake.set()
        self._drained.clear()
        self._appended.clear()
        self._flushers.clear()
