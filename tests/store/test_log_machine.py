"""Any history of appends, repeats, leases, crashes and reads gives what a plain list would give."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentstream.errors import AgentStreamError, Fenced, RolledBack, RunGone
from agentstream.ids import new_run_id
from agentstream.ports import Chunk, Lease, RunFacts, Store
from agentstream.store import open_store


def _chunk(first: int, count: int, tag: int, ends: str) -> Chunk:
    return Chunk(first, first + count - 1, b'{"tag":%d}\n' % tag * count, b"%d" % tag, ends)


class _LogMachine(RuleBasedStateMachine):
    """The model: a list of (epoch, chunk), the epoch given out last, and whether the run has ended."""

    address = "memory:"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.open: list[Store] = []
        self.reopen()
        self.start()

    # --- helpers ------------------------------------------------------------------------------------------------------
    def do(self, call: Any) -> Any:  # Any: a coroutine of whatever the store answers
        async def bounded() -> Any:
            with anyio.fail_after(20):
                return await call

        return self.runner.run(bounded())

    def outcome(self, call: Any) -> Any:
        try:
            return self.do(call)
        except AgentStreamError as error:
            return type(error)

    def start(self) -> None:
        self.run = new_run_id()
        first = _chunk(1, 1, 0, "")
        self.do(self.store.create(self.run, "", "", first, facts=RunFacts()))
        self.log: list[tuple[int, Chunk]] = [(0, first)]
        self.epoch = 0
        self.held: Lease | None = None

    def reopen(self) -> None:
        self.store = open_store(self.address.format(self.folder.name))
        self.do(self.store.__aenter__())
        self.open.append(self.store)

    @property
    def last(self) -> int:
        return self.log[-1][1].last

    @property
    def ended(self) -> bool:
        return bool(self.log[-1][1].ends)

    def judge(self, epoch: int, chunk: Chunk) -> int | type[AgentStreamError]:
        if epoch != self.epoch:
            return Fenced if epoch < self.epoch else RolledBack
        if chunk.first > self.last + 1:
            return RolledBack
        if (epoch, chunk) in self.log:
            return chunk.last
        if chunk.first <= self.last or self.ended:
            return Fenced
        self.log.append((epoch, chunk))
        return chunk.last

    # --- rules --------------------------------------------------------------------------------------------------------
    @rule(
        epoch=st.sampled_from([0, 0, 0, 0, -1, 1]),
        place=st.sampled_from([0, 0, 0, 0, -3, -1, 1, 5]),
        count=st.integers(1, 5),
        tag=st.integers(0, 1),
        ends=st.sampled_from([""] * 12 + ["finished"]),
    )
    def append(self, epoch: int, place: int, count: int, tag: int, ends: str) -> None:
        """Append anywhere, under any epoch."""
        chunk = _chunk(max(2, self.last + 1 + place), count, tag, ends)
        call = self.store.append(self.run, self.epoch + epoch, chunk.first - 1, chunk)
        wanted = self.judge(self.epoch + epoch, chunk)
        assert self.outcome(call) == wanted

    @rule(data=st.data(), count=st.integers(1, 3))
    def repeat(self, data: st.DataObject, count: int) -> None:
        """Repeat a chunk that is in the log, under the epoch that wrote it."""
        epoch, chunk = data.draw(st.sampled_from(self.log))
        for _ in range(count):
            wanted = self.judge(epoch, chunk)
            assert self.outcome(self.store.append(self.run, epoch, chunk.first - 1, chunk)) == wanted

    @rule(count=st.integers(1, 3))
    def append_cancelled(self, count: int) -> None:
        """Lose the answer of an append; whatever became of it, the same bytes again settle it."""
        chunk = _chunk(self.last + 1, count, 2, "")

        async def lost() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await self.store.append(self.run, self.epoch, self.last, chunk)

        self.outcome(lost())
        wanted = self.judge(self.epoch, chunk)
        assert self.outcome(self.store.append(self.run, self.epoch, chunk.first - 1, chunk)) == wanted

    @rule(holder=st.sampled_from("ab"), seconds=st.sampled_from([0.0, 3_600.0]))
    def take(self, holder: str, seconds: float) -> None:
        """A lease that lapses at once, or one that holds: then the store may answer from memory."""
        lease = self.do(self.store.take(self.run, holder, seconds=seconds))
        if self.ended or (self.held is not None and self.held.holder != holder):
            assert lease is None
            return
        self.epoch += 1
        assert (lease.holder, lease.epoch) == (holder, self.epoch)
        self.held = lease if seconds else None

    @precondition(lambda self: self.held is not None)
    @rule(late=st.booleans())
    def give_back(self, late: bool) -> None:
        """Let go of the lease, or let it lapse."""
        if late:
            assert self.do(self.store.renew(self.held, seconds=0.0))
        else:
            self.do(self.store.give_back(self.held))
        self.held = None

    @rule(after=st.integers(-2, 3), max_bytes=st.sampled_from([0, 15, 40, 1_000]))
    def read(self, after: int, max_bytes: int) -> None:
        """Read from anywhere near the end or the beginning."""
        for position in (max(0, after), max(0, self.last + after)):
            rest = [chunk for _, chunk in self.log if chunk.last > position]
            piece = self.do(self.store.read(self.run, position, max_bytes=max_bytes))
            assert piece == rest[: len(piece)]
            assert bool(piece) == bool(rest)
            assert len(piece) <= 1 or sum(len(chunk.lines) for chunk in piece) <= max_bytes

    @rule()
    def changed(self) -> None:
        """What is there already is told at once."""
        self.do(self.store.changed(self.run, self.last if self.ended else self.last - 1))

    @rule()
    def kill_handle(self) -> None:
        """The writer's handle is lost and another one is opened; on disk the lost one may still be there."""
        if self.address == "memory:":
            return
        self.reopen()
        if len(self.open) > 2:
            self.do(self.open.pop(0).__aexit__())

    @precondition(lambda self: self.ended)
    @rule()
    def forget(self) -> None:
        """A run that has ended is deleted; the next one begins anew."""
        self.do(self.store.forget(self.run))
        assert self.outcome(self.store.tail(self.run)) is RunGone
        self.start()

    # --- always -------------------------------------------------------------------------------------------------------
    @invariant()
    def tail(self) -> None:
        """The tail is the model's."""
        tail = self.do(self.store.tail(self.run))
        assert (tail.epoch, tail.first, tail.last, tail.ended) == (self.epoch, 1, self.last, self.ended)

    def teardown(self) -> None:
        """The whole log and its row are the model's."""
        found: list[Chunk] = []
        while piece := self.do(self.store.read(self.run, found[-1].last if found else 0, max_bytes=64)):
            found += piece
        assert found == [chunk for _, chunk in self.log]
        row = self.do(self.store.row(self.run))
        assert (row.last, row.status) == (self.last, self.log[-1][1].ends or "running")
        assert row.size == sum(len(chunk.lines) + len(chunk.private) for chunk in found)
        for store in self.open:
            self.do(store.__aexit__())
        self.runner.close()
        self.folder.cleanup()


class _SqliteMachine(_LogMachine):
    address = "sqlite:{}/runs.db"


class _SmallCacheMachine(_LogMachine):
    """Chunks leave the memory soon, so reads go back and forth between it and the file."""

    address = "sqlite:{}/runs.db?cache_bytes=1000"


TestMemoryLog = _LogMachine.TestCase
TestSqliteLog = _SqliteMachine.TestCase
TestSmallCacheLog = _SmallCacheMachine.TestCase
TestMemoryLog.settings = settings(stateful_step_count=40)
TestSqliteLog.settings = settings(stateful_step_count=30, max_examples=25)
TestSmallCacheLog.settings = settings(stateful_step_count=30, max_examples=25)
