"""The reassembler: order, duplicates, gaps and causality, one invocation at a time.

What comes in: items (`Item`) of many invocations, each with its invocation's own count `n` (1, 2, 3 …), at least once
and perhaps out of order. What goes out: every item at most once, in order within its invocation, after whatever it
names in `after`. It does not know what an item says, where it goes, or what time it is: `now` is an argument.

Rules (P3, P4 of the design):

1. An item whose `n` is the next of its lane is ready. For lanes of this process that is one comparison an event.
2. Below the next: a duplicate, dropped. The memory of what was seen is one number a lane and epoch (a high-water mark).
3. Above the next: held, at most `window` a lane. A full window that the missing item does not empty, or a gap older
   than    `gap_timeout`, closes the lane: the caller gets a `Gap`, everything later of that lane is refused.
4. A lower epoch than the lane's is stale and refused; a higher one starts the lane anew at 1.
5. `after` names items of other lanes that must have been ready before. A closed lane counts as met. Waiting for `after`
   counts as a gap for rule 3, so that a cycle or a lost cause cannot wait for ever.

Bounds: O(lanes) numbers, and at most `window` held items a remote lane. Time: O(1) an item in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

import msgspec

__all__ = (
    "DEFAULT_GAP_TIMEOUT",
    "DEFAULT_WINDOW",
    "Extra",
    "Gap",
    "Item",
    "Lane",
    "Reassembler",
    "ReassemblerStatistics",
)

DEFAULT_WINDOW: Final = 256
"""Held items a lane: one bus bound's worth; a producer further ahead than that lost something."""

DEFAULT_GAP_TIMEOUT: Final = 10.0
"""Seconds (DESIGN §9): twice what a store may take before a writer gives up."""

_REMOTE: Final = -1


class Lane:
    """The place of one invocation. `next` is compared with an item's `n` on the fast path; it is -1 for lanes whose
    items come from elsewhere or need a closer look, so that one comparison decides both questions."""

    __slots__ = ("closed", "epoch", "expected", "full", "held", "inv", "next", "since")

    def __init__(self, inv: str, *, remote: bool = False) -> None:
        self.inv = inv
        self.next = _REMOTE if remote else 1
        self.expected = 1
        self.epoch = 0
        self.closed = False
        self.full = False  # an item was refused for want of room: the lane has a hole, whatever comes now
        self.held: dict[int, Item] = {}
        self.since = 0.0

    @property
    def remote(self) -> bool:
        """Whether its items come from elsewhere."""
        return self.next == _REMOTE

    @property
    def passed(self) -> int:
        """The highest `n` that was ready."""
        return (self.expected if self.next == _REMOTE else self.next) - 1


class Extra(msgspec.Struct, frozen=True, gc=False):
    """What travels beside an item, where there is anything.

    Attributes:
        private: the recorded result as JSON. epoch: the worker's. after: `{inv: n}` that must precede it.
        bare: a run-level event, whose line carries no number of its lane.
        ends: `finished`, `failed` or `stopped` on the run's terminal event.
    """

    private: bytes = b""
    epoch: int = 0
    after: dict[str, int] = {}
    bare: bool = False
    ends: str = ""


Item: TypeAlias = tuple[Lane, int, bytes, bytes, Extra | None]
"""(lane, n, form, rest, extra). The line is `form % (seq, at, n, rest)`, or `form % (seq, at, rest)` where
`extra.bare`: formatted once, when the seq is known. A tuple, since one is made for every event: a class costs twice as
much to make."""


class Gap(msgspec.Struct, frozen=True):
    """A lane that was closed: `expected` never came. The caller reports `agent.failed {code: gap}` with that number."""

    inv: str
    expected: int
    held: int
    reason: str


class ReassemblerStatistics(NamedTuple):
    """Counters since the start; `held` and `lanes` are of now."""

    lanes: int
    held: int
    duplicates: int
    stale: int
    refused: int
    gaps: int


class Reassembler:
    """Feed items, take what is ready.

    Args:
        window: held items a lane.
        gap_timeout: seconds that a lane may wait for a missing item or an unmet `after`.
    """

    def __init__(self, *, window: int = DEFAULT_WINDOW, gap_timeout: float = DEFAULT_GAP_TIMEOUT) -> None:
        self._window = window
        self._gap_timeout = gap_timeout
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[str, Lane] = {}  # lanes that hold anything, in the order in which they began to
        self._duplicates = self._stale = self._refused = self._gaps = 0

    def lane(self, inv: str, *, remote: bool = False) -> Lane:
        """The lane of `inv`, made when it is new."""
        lane = self._lanes.get(inv)
        if lane is None:
            lane = self._lanes[inv] = Lane(inv, remote=remote)
        return lane

    def restore(self, passed: Mapping[str, tuple[int, int]], closed: Iterable[str] = ()) -> None:
        """Take up the state that a log implies: `{inv: (epoch, highest n)}` and the lanes that were closed."""
        for inv, (epoch, n) in passed.items():
            lane = self.lane(inv, remote=True)
            lane.epoch, lane.expected = epoch, n + 1
        for inv in closed:
            self.lane(inv, remote=True).closed = True

    def feed(self, batch: list[Item], now: float) -> list[Item]:
        """The items that are ready now, in order."""
        for done, item in enumerate(batch):
            lane = item[0]
            n = item[1]
            if n != lane.next:
                return self._feed_closely(batch, done, now)
            lane.next = n + 1
        return self._feed_closely(batch, len(batch), now) if self._waiting else batch

    def tick(self, now: float) -> list[Gap]:
        """Close every lane that has waited longer than `gap_timeout`, or whose window is full.

        What waited for a closed lane only is ready at the next `feed`, be it an empty one.
        """
        gaps: list[Gap] = []
        # Lost items before lost causes: a cause that is given up here is no reason to give up its effects too.
        for lane in sorted(self._waiting.values(), key=lambda lane: lane.expected in lane.held):
            head = lane.held.get(lane.expected)
            if lane.full or len(lane.held) >= self._window:
                gaps.append(self._close(lane, "window full"))
            elif now >= lane.since + self._gap_timeout and (head is None or not self._met(head[4])):
                gaps.append(self._close(lane, "timeout"))
        return gaps

    def close(self, inv: str) -> None:
        """The invocation has ended: refuse its later items and count it as met in every `after`."""
        lane = self.lane(inv, remote=True)
        self._refused += len(lane.held)
        lane.held.clear()
        lane.closed = True
        lane.expected, lane.next = lane.passed + 1, _REMOTE
        self._waiting.pop(inv, None)

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do at the earliest, or None."""
        oldest = min((lane.since for lane in self._waiting.values()), default=None)
        return None if oldest is None else oldest + self._gap_timeout

    def statistics(self) -> ReassemblerStatistics:
        """Counters; O(lanes that wait)."""
        held = sum(len(lane.held) for lane in self._waiting.values())
        return ReassemblerStatistics(len(self._lanes), held, self._duplicates, self._stale, self._refused, self._gaps)

    # --- the slow side ------------------------------------------------------------------------------------------------
    def _feed_closely(self, batch: list[Item], done: int, now: float) -> list[Item]:
        ready = batch[:done]
        for item in batch[done:]:
            lane = item[0]
            if item[1] == lane.next:
                lane.next += 1
                ready.append(item)
            else:
                self._look_closer(lane, item, now, ready)
        if self._waiting:
            self._release(ready, now)
        return ready

    def _look_closer(self, lane: Lane, item: Item, now: float, ready: list[Item]) -> None:
        n, extra = item[1], item[4]
        if lane.next != _REMOTE and n > lane.next:  # a lane of this process that is fed out of order after all
            lane.expected, lane.next = lane.next, _REMOTE
        epoch = extra.epoch if extra is not None else lane.epoch
        if epoch > lane.epoch and not lane.closed:
            self._refused += len(lane.held)
            lane.held.clear()
            lane.full = False
            lane.epoch, lane.expected, lane.next = epoch, 1, _REMOTE
        if lane.closed or epoch < lane.epoch:
            self._refused += lane.closed
            self._stale += not lane.closed
        elif n <= lane.passed or n in lane.held:
            self._duplicates += 1
        elif n == lane.expected and not lane.full and self._met(extra):
            lane.expected = n + 1
            ready.append(item)
            if lane.held:
                self._advance(lane, now, ready, moved=True)
        elif len(lane.held) >= self._window:
            self._refused += 1
            lane.full = True  # the next `tick` closes the lane
        else:
            if not lane.held:
                lane.since = now
                self._waiting[lane.inv] = lane
            lane.held[n] = item

    def _advance(self, lane: Lane, now: float, ready: list[Item], *, moved: bool = False) -> None:
        """Move what is in order and has its causes from `held` to `ready`."""
        while not lane.full and (item := lane.held.get(lane.expected)) is not None and self._met(item[4]):
            del lane.held[lane.expected]
            lane.expected += 1
            ready.append(item)
            moved = True
        if not lane.held:
            self._waiting.pop(lane.inv, None)
        elif moved:
            lane.since = now

    def _release(self, ready: list[Item], now: float) -> None:
        """Try the waiting lanes again until none moves: one lane's progress may be another one's cause."""
        before = -1
        while before != len(ready):
            before = len(ready)
            for lane in list(self._waiting.values()):
                self._advance(lane, now, ready)

    def _met(self, extra: Extra | None) -> bool:
        if extra is None or not extra.after:
            return True
        for inv, n in extra.after.items():
            lane = self._lanes.get(inv)
            if lane is None or not (lane.closed or lane.passed >= n):
                return False
        return True

    def _close(self, lane: Lane, reason: str) -> Gap:
        gap = Gap(lane.inv, lane.expected, len(lane.held), reason)
        self._gaps += 1
        self.close(lane.inv)
        return gap
