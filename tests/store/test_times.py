"""What lapses with time: leases by the store's clock, idempotency keys and tombstones after 24 hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentstream.errors import RunGone, RunUnknown
from agentstream.ids import new_run_id
from agentstream.ports import Chunk, Lease, RunFacts, Store
from agentstream.store import MemoryStore, SqliteStore
from agentstream.store._boot import BootClock, boot_of

pytestmark = pytest.mark.anyio

_DAY_MS = 24 * 3_600_000


class _Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall_ms(self) -> int:
        return int(self.seconds * 1_000)


@pytest.fixture
def clock() -> _Clock:
    """The clock that the test moves."""
    return _Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, clock: _Clock, tmp_path: Path) -> Store:
    """A store of each kind, not opened yet, on the clock that stands."""
    return MemoryStore(clock=clock) if request.param == "memory" else SqliteStore(tmp_path / "runs.db", clock=clock)


async def _run(store: Store, *, key: str = "", ends: str = "") -> str:
    run = new_run_id()
    await store.create(run, key, "d", Chunk(1, 1, b"{}\n", ends=ends), facts=RunFacts(owner="me"))
    return run


async def test_lease_lapses_on_time(store: Store, clock: _Clock) -> None:
    """A lease holds to its last instant, a renewal counts from when it was made, and a lapsed one is anybody's."""
    async with store:
        run = await _run(store)
        assert await store.take(run, "one", seconds=15) == Lease(run, "one", 1, 1_015.0)
        clock.seconds = 1_014.999
        assert await store.take(run, "two") is None
        assert await store.free(10) == []
        assert await store.renew(Lease(run, "one", 1, 0.0), seconds=15)
        clock.seconds = 1_029.998
        assert await store.take(run, "two") is None
        clock.seconds = 1_029.999
        assert await store.free(10) == [run]
        assert await store.take(run, "two", seconds=1) == Lease(run, "two", 2, 1_030.999)


async def test_key_is_forgotten_after_a_day(store: Store, clock: _Clock) -> None:
    """A key answers for 24 hours; after them it makes a new run, even with another digest."""
    async with store:
        run = await _run(store, key="k")
        clock.seconds += _DAY_MS / 1_000 - 0.001
        again = await store.create(new_run_id(), "k", "d", Chunk(1, 1, b"{}\n"), facts=RunFacts())
        assert (again.run, again.fresh) == (run, False)
        clock.seconds += 0.001
        new = await store.create(new_run_id(), "k", "other", Chunk(1, 1, b"{}\n"), facts=RunFacts())
        assert new.fresh
        again = await store.create(new_run_id(), "k", "other", Chunk(1, 1, b"{}\n"), facts=RunFacts())
        assert (again.run, again.fresh) == (new.run, False)


async def test_tombstone_is_forgotten_after_a_day(store: Store, clock: _Clock) -> None:
    """A deleted run is gone for 24 hours and unknown after them."""
    async with store:
        run, other = await _run(store, ends="finished"), await _run(store, ends="finished")
        await store.forget(run)
        clock.seconds += _DAY_MS / 1_000 - 0.001
        assert await store.gone(run)
        with pytest.raises(RunGone):
            await store.tail(run)
        clock.seconds += 0.001
        assert not await store.gone(run)
        with pytest.raises(RunUnknown):
            await store.tail(run)
        await store.forget(other)  # sweeps what lapsed
        with pytest.raises(RunUnknown):
            await store.page(before=run)
        assert await store.page(before=other) == []


async def test_row_tells_when_it_ended(store: Store, clock: _Clock) -> None:
    """The row's `ended` is the wall time of the terminal chunk."""
    async with store:
        run = await _run(store)
        lease = await store.take(run, "w")
        assert lease is not None
        clock.seconds = 2_000.5
        await store.append(run, lease.epoch, 1, Chunk(2, 2, b"{}\n", ends="failed"))
        row = await store.row(run)
        assert row is not None
        assert (row.status, row.ended) == ("failed", 2_000_500)


async def test_lease_of_another_boot_is_free(tmp_path: Path) -> None:
    """Seconds of an earlier boot say nothing: such a lease is free however far its end lies ahead."""
    before, after = BootClock(), BootClock()
    assert boot_of(before) == boot_of(after)
    before.boot = before.boot and "an earlier boot"
    if not before.boot:
        pytest.skip("the kernel does not name its boots")
    async with SqliteStore(tmp_path / "runs.db", clock=before) as store:
        run = await _run(store)
        assert await store.take(run, "one", seconds=10**6) is not None
        assert await store.free(1) == []
    async with SqliteStore(tmp_path / "runs.db", clock=after) as store:
        assert await store.free(1) == [run]
        lease = await store.take(run, "two")
        assert lease is not None
        assert lease.epoch == 2
