"""The reassembler against a model that is too simple to be wrong, and its bounds one by one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentstream.order import Extra, Gap, Item, Lane, Reassembler

WINDOW = 6
TIMEOUT = 10.0
REMOTE = ("r1", "r2", "r3")
LOCAL = ("l1", "l2")


def item(lane: Lane, n: int, *, epoch: int = 0, after: dict[str, int] | None = None) -> Item:
    """An item whose body says what it is."""
    extra = Extra(epoch=epoch, after=after or {}) if epoch or after or lane.remote else None
    return lane, n, lane.inv.encode(), b"%d/%d" % (epoch, n), extra


def numbers(items: Iterable[Item]) -> list[tuple[str, int]]:
    """The lane and number of each."""
    return [(one[0].inv, one[1]) for one in items]


class Model:
    """What the rules say, with sets and loops over everything."""

    def __init__(self) -> None:
        self.epoch = dict.fromkeys((*REMOTE, *LOCAL), 0)
        self.passed = dict.fromkeys((*REMOTE, *LOCAL), 0)
        self.held: dict[str, dict[int, dict[str, int]]] = {inv: {} for inv in (*REMOTE, *LOCAL)}
        self.since = dict.fromkeys((*REMOTE, *LOCAL), 0.0)
        self.closed: set[str] = set()
        self.full: set[str] = set()

    def met(self, after: dict[str, int]) -> bool:
        return all(inv in self.closed or self.passed[inv] >= n for inv, n in after.items())

    def advance(self, inv: str, now: float) -> set[tuple[str, int, int]]:
        out = set()
        held = self.held[inv]
        while inv not in self.full and self.passed[inv] + 1 in held and self.met(held[self.passed[inv] + 1]):
            self.passed[inv] += 1
            del held[self.passed[inv]]
            out.add((inv, self.epoch[inv], self.passed[inv]))
        if out:
            self.since[inv] = now
        return out

    def feed(self, batch: list[tuple[str, int, int, dict[str, int]]], now: float) -> set[tuple[str, int, int]]:
        out: set[tuple[str, int, int]] = set()
        for inv, epoch, n, after in batch:
            if inv in self.closed or epoch < self.epoch[inv]:
                continue
            if epoch > self.epoch[inv]:
                self.epoch[inv], self.passed[inv] = epoch, 0
                self.held[inv].clear()
                self.full.discard(inv)
            if n <= self.passed[inv] or n in self.held[inv]:
                continue
            ready = n == self.passed[inv] + 1 and inv not in self.full and self.met(after)
            if not ready and len(self.held[inv]) >= WINDOW:
                self.full.add(inv)
                continue
            if not self.held[inv]:
                self.since[inv] = now
            self.held[inv][n] = after
            if ready:
                out |= self.advance(inv, now)
        while more := {one for inv in self.held for one in self.advance(inv, now)}:
            out |= more
        return out

    def tick(self, now: float) -> set[str]:
        gone = set()
        for lost_cause in (False, True):
            for inv, held in self.held.items():
                head = held.get(self.passed[inv] + 1)
                if not held or (head is not None) != lost_cause:
                    continue
                old = now >= self.since[inv] + TIMEOUT and (head is None or not self.met(head))
                if inv in self.full or len(held) >= WINDOW or old:
                    gone.add(inv)
                    self.close(inv)
        return gone

    def close(self, inv: str) -> None:
        self.closed.add(inv)
        self.held[inv].clear()


class ReassemblerMachine(RuleBasedStateMachine):
    """Producers number their items and name causes; the network delivers any of them, in any order, repeatedly."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.model = Model()
        self.real = Reassembler(window=WINDOW, gap_timeout=TIMEOUT)
        self.lanes = {inv: self.real.lane(inv, remote=inv in REMOTE) for inv in (*REMOTE, *LOCAL)}
        self.made: list[tuple[str, int, int, dict[str, int]]] = []
        self.latest = dict.fromkeys((*REMOTE, *LOCAL), 0)
        self.worker = dict.fromkeys(REMOTE, 0)
        self.out: list[tuple[str, int, int]] = []
        self.causes: dict[tuple[str, int, int], dict[str, int]] = {}

    def feed(self, batch: list[tuple[str, int, int, dict[str, int]]]) -> None:
        ready = self.real.feed(
            [item(self.lanes[inv], n, epoch=epoch, after=after) for inv, epoch, n, after in batch], self.now
        )
        got = []
        for lane, n, _, rest, extra in ready:
            epoch = extra.epoch if extra is not None else 0
            assert rest == b"%d/%d" % (epoch, n)
            got.append((lane.inv, epoch, n))
            for inv, cause in (extra.after if extra is not None else {}).items():
                before = {(one[0], one[2]) for one in (*self.out, *got[:-1])}
                assert inv in self.model.closed or (inv, cause) in before, "an effect came before its cause"
        expected = self.model.feed(batch, self.now)
        assert set(got) == expected
        assert len(got) == len(expected), "an item came out twice"
        self.out += got

    @rule(inv=st.sampled_from(REMOTE), causes=st.sets(st.sampled_from((*REMOTE, *LOCAL)), max_size=2))
    def produce(self, inv: str, causes: set[str]) -> None:
        """A worker numbers its next item, which may name what was there before."""
        after = {cause: self.latest[cause] for cause in causes - {inv} if self.latest[cause]}
        self.latest[inv] += 1
        self.made.append((inv, self.worker[inv], self.latest[inv], after))

    @rule(inv=st.sampled_from(REMOTE))
    def replace_worker(self, inv: str) -> None:
        """Another worker takes the invocation over and counts from 1; the old one's items are still on their way."""
        self.worker[inv] += 1
        self.latest[inv] = 0

    @rule(picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
    def deliver(self, picks: list[int]) -> None:
        """Any items, any number of times; recent ones more often, so that windows are used and not only passed."""
        if self.made:
            recent = self.made[-12:]
            self.feed([recent[pick % len(recent)] for pick in picks])

    @rule(picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
    def deliver_old(self, picks: list[int]) -> None:
        """Anything that was ever made."""
        if self.made:
            self.feed([self.made[pick % len(self.made)] for pick in picks])

    @rule(inv=st.sampled_from(LOCAL), count=st.integers(1, 3))
    def emit_here(self, inv: str, count: int) -> None:
        """An invocation of this process: always in order."""
        if inv not in self.model.closed:
            first = self.latest[inv] + 1
            self.latest[inv] += count
            self.feed([(inv, 0, n, {}) for n in range(first, first + count)])

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, and the caller looks for gaps; what they held up comes out at the next feed."""
        self.now += seconds
        gaps = self.real.tick(self.now)
        assert {gap.inv for gap in gaps} == self.model.tick(self.now)
        assert all(isinstance(gap, Gap) and gap.held <= WINDOW for gap in gaps)
        self.feed([])

    @rule(inv=st.sampled_from((*REMOTE, *LOCAL)))
    def end(self, inv: str) -> None:
        """The invocation ends in good order."""
        if len(self.model.closed) < 3:
            self.real.close(inv)
            self.model.close(inv)
            self.feed([])

    @rule()
    def restart(self) -> None:
        """The writer's process dies: all that is left is what the log implies."""
        marks = {inv: (self.model.epoch[inv], self.model.passed[inv]) for inv in self.model.passed}
        self.real = Reassembler(window=WINDOW, gap_timeout=TIMEOUT)
        self.real.restore(marks, self.model.closed)
        self.lanes = {inv: self.real.lane(inv, remote=inv in REMOTE) for inv in (*REMOTE, *LOCAL)}
        for held in self.model.held.values():
            held.clear()
        self.model.full.clear()

    @invariant()
    def in_order_and_once(self) -> None:
        """Each (lane, epoch) is 1, 2, 3 …; epochs never go back."""
        if not hasattr(self, "out"):
            return
        seen: dict[str, tuple[int, int]] = {}
        for inv, epoch, n in self.out:
            last = seen.get(inv, (0, 0))
            assert (epoch, n) == (last[0], last[1] + 1) or (epoch > last[0] and n == 1)
            seen[inv] = epoch, n

    @invariant()
    def memory_is_bounded(self) -> None:
        """One lane an invocation, and at most a window of held items each, whatever was delivered."""
        if hasattr(self, "real"):
            statistics = self.real.statistics()
            assert statistics.lanes == len(REMOTE) + len(LOCAL)
            assert statistics.held == sum(map(len, self.model.held.values()))
            assert all(len(lane.held) <= WINDOW for lane in self.lanes.values())
            assert (self.real.deadline is None) == (statistics.held == 0)

    def teardown(self) -> None:
        """Redelivered in order by the newest workers, everything that is not closed comes out."""
        if not hasattr(self, "made"):
            return
        for _ in range(len(REMOTE)):
            for one in self.made:
                self.feed([one])
                for gap in self.real.tick(self.now):
                    self.model.close(gap.inv)
        for inv in REMOTE:
            lost = any(
                cause in REMOTE and self.worker[cause] for made in self.made for cause in made[3]
            )  # a cause of a replaced worker may never come
            if inv not in self.model.closed and not lost:
                assert self.model.passed[inv] == self.latest[inv] or self.worker[inv]


TestReassembler = pytest.mark.promise("P3")(ReassemblerMachine.TestCase)
TestReassembler.settings = settings(stateful_step_count=40)


@pytest.mark.promise("P3")
def test_items_of_this_process_pass_as_they_are() -> None:
    """In order, nothing is copied or looked up: the very list comes back."""
    real = Reassembler()
    lane = real.lane("a.1")
    batch = [item(lane, n) for n in range(1, 100)]
    assert real.feed(batch, 0.0) is batch
    assert lane.passed == 99
    assert real.deadline is None


def test_the_memory_of_what_was_seen_is_one_number() -> None:
    """A hundred thousand items and their duplicates leave no trace but the mark."""
    real = Reassembler()
    lane = real.lane("r.1", remote=True)
    for n in range(1, 100_001):
        real.feed([item(lane, n), item(lane, n)], 0.0)
    assert real.statistics().duplicates == 100_000
    assert lane.held == {}
    assert lane.passed == 100_000


def test_a_reversed_window_comes_out_in_order() -> None:
    """As many as fit the window may arrive the wrong way round, the missing one last."""
    real = Reassembler(window=4)
    lane = real.lane("r.1", remote=True)
    assert real.feed([item(lane, n) for n in (5, 4, 3, 2)], 0.0) == []
    assert numbers(real.feed([item(lane, 1)], 0.0)) == [("r.1", n) for n in (1, 2, 3, 4, 5)]
    assert real.tick(99.0) == []


def test_the_missing_item_is_taken_by_a_full_window_of_the_same_batch() -> None:
    """The one item that empties a full window is not refused for want of room."""
    real = Reassembler(window=2)
    lane = real.lane("r.1", remote=True)
    assert numbers(real.feed([item(lane, n) for n in (2, 3, 1)], 0.0)) == [("r.1", 1), ("r.1", 2), ("r.1", 3)]


def test_a_full_window_closes_the_lane() -> None:
    """The gap says which number never came; what comes later is refused and counted."""
    real = Reassembler(window=2)
    lane = real.lane("r.1", remote=True)
    real.feed([item(lane, n) for n in (1, 3, 4, 5)], 0.0)
    assert real.tick(0.0) == [Gap("r.1", 2, 2, "window full")]
    assert real.feed([item(lane, n) for n in (2, 3)], 0.0) == []
    assert (real.statistics().refused, real.statistics().gaps) == (5, 1)
    assert real.deadline is None


def test_a_refused_item_leaves_a_hole_that_is_told() -> None:
    """Once an item was refused for want of room the lane is closed, even if the missing item is in the same batch."""
    real = Reassembler(window=2)
    lane = real.lane("r.1", remote=True)
    assert real.feed([item(lane, n) for n in (2, 3, 4, 1)], 0.0) == []
    assert [gap.expected for gap in real.tick(0.0)] == [1]


def test_a_gap_is_reported_after_its_timeout_and_not_before() -> None:
    """`deadline` says when; progress starts the time anew."""
    real = Reassembler(gap_timeout=10)
    lane = real.lane("r.1", remote=True)
    real.feed([item(lane, 2), item(lane, 4)], 5.0)
    assert real.deadline == 15.0
    assert real.tick(14.9) == []
    assert numbers(real.feed([item(lane, 1)], 14.9)) == [("r.1", 1), ("r.1", 2)]
    assert real.deadline == 24.9
    assert real.tick(24.8) == []
    assert real.tick(24.9) == [Gap("r.1", 3, 1, "timeout")]


def test_progress_by_another_lane_starts_the_time_anew_too() -> None:
    """A lane that waited for a cause, and now for a number, has its whole time for that."""
    real = Reassembler(gap_timeout=10)
    cause, effect = real.lane("c.1", remote=True), real.lane("e.1", remote=True)
    real.feed([item(effect, 1, after={"c.1": 1}), item(effect, 3)], 0.0)
    assert numbers(real.feed([item(cause, 1)], 9.0)) == [("c.1", 1), ("e.1", 1)]
    assert real.tick(12.0) == []
    assert [gap.inv for gap in real.tick(19.0)] == ["e.1"]


@pytest.mark.promise("P4")
def test_effects_wait_for_their_causes_through_a_chain() -> None:
    """Effect, cause and its cause, delivered backwards: they come out the right way round."""
    real = Reassembler()
    a, b, c = (real.lane(inv, remote=True) for inv in ("a.1", "b.1", "c.1"))
    assert real.feed([item(c, 1, after={"b.1": 1})], 0.0) == []
    assert real.feed([item(b, 1, after={"a.1": 2})], 0.0) == []
    assert numbers(real.feed([item(a, 1)], 0.0)) == [("a.1", 1)]
    assert numbers(real.feed([item(a, 2)], 0.0)) == [("a.1", 2), ("b.1", 1), ("c.1", 1)]


@pytest.mark.promise("P4")
def test_a_cause_in_this_process_is_a_cause() -> None:
    """What came back from a worker waits for the local event that sent it there."""
    real = Reassembler()
    here, there = real.lane("here.1"), real.lane("there.1", remote=True)
    assert real.feed([item(there, 1, after={"here.1": 1})], 0.0) == []
    assert numbers(real.feed([item(here, 1)], 0.0)) == [("here.1", 1), ("there.1", 1)]


def test_a_cycle_cannot_wait_for_ever() -> None:
    """Two that wait for each other: one is given up, which frees the other."""
    real = Reassembler(gap_timeout=10)
    a, b = real.lane("a.1", remote=True), real.lane("b.1", remote=True)
    real.feed([item(a, 1, after={"b.1": 1}), item(b, 1, after={"a.1": 1})], 0.0)
    assert len(real.tick(10.0)) == 1
    assert len(real.feed([], 10.0)) == 1


def test_a_lost_cause_is_given_up_before_its_effects() -> None:
    """Cause and effect have waited equally long: only the lane that lost something is closed."""
    real = Reassembler(gap_timeout=10)
    effect, cause = real.lane("e.1", remote=True), real.lane("c.1", remote=True)
    real.feed([item(effect, 1, after={"c.1": 2}), item(cause, 2)], 0.0)
    assert [gap.inv for gap in real.tick(10.0)] == ["c.1"]
    assert numbers(real.feed([], 10.0)) == [("e.1", 1)]


def test_a_closed_lane_counts_as_met_even_if_it_was_never_seen() -> None:
    """`after` on an invocation that has ended holds nothing up."""
    real = Reassembler()
    lane = real.lane("e.1", remote=True)
    real.close("gone.1")
    assert numbers(real.feed([item(lane, 1, after={"gone.1": 7})], 0.0)) == [("e.1", 1)]


def test_a_higher_epoch_begins_again_and_the_lower_one_is_stale() -> None:
    """What the old worker still sends, and what was held of it, is refused."""
    real = Reassembler()
    lane = real.lane("r.1", remote=True)
    real.feed([item(lane, 1, epoch=1), item(lane, 3, epoch=1)], 0.0)
    assert numbers(real.feed([item(lane, 1, epoch=2), item(lane, 2, epoch=1)], 0.0)) == [("r.1", 1)]
    assert real.statistics().stale == 1
    assert real.statistics().held == 0
    assert real.tick(99.0) == []


def test_a_lane_of_this_process_fed_out_of_order_is_put_in_order() -> None:
    """The fast path is a fast path only: a local lane with a hole waits like every other."""
    real = Reassembler(gap_timeout=10)
    lane = real.lane("a.1")
    assert numbers(real.feed([item(lane, 1), item(lane, 3)], 0.0)) == [("a.1", 1)]
    assert numbers(real.feed([item(lane, 2)], 0.0)) == [("a.1", 2), ("a.1", 3)]
    assert numbers(real.feed([item(lane, 5)], 0.0)) == []
    assert [gap.expected for gap in real.tick(10.0)] == [4]


def test_restored_marks_refuse_what_the_log_has() -> None:
    """After a crash what was accepted is a duplicate, what follows is taken, and a closed lane stays closed."""
    real = Reassembler()
    real.restore({"r.1": (3, 7), "gone.1": (0, 2)}, closed=["gone.1"])
    lane, gone = real.lane("r.1"), real.lane("gone.1")
    batch = [item(lane, 7, epoch=3), item(lane, 8, epoch=3), item(lane, 9, epoch=2), item(gone, 3)]
    assert numbers(real.feed(batch, 0.0)) == [("r.1", 8)]
    assert real.statistics()[2:] == (1, 1, 1, 0)
