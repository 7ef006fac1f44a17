"""The store checks are whole, and each of these planted faults is found by one of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from agentstream.errors import Fenced, StoreError
from agentstream.ports import Chunk, Lease, Letter, RunRow
from agentstream.store import MemoryStore
from agentstream.testing import _store_kit
from agentstream.testing.store_checks import SHARED_STORE_CHECKS, SMALL_STORE_CHECKS, STORE_CHECKS

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: the checks themselves run on all of them in tests/store."""
    return "asyncio"


def test_each_states_its_promise() -> None:
    """Every check is named once and says in one sentence what it checks."""
    checks = STORE_CHECKS + SHARED_STORE_CHECKS + SMALL_STORE_CHECKS
    assert len({check.__name__ for check in checks}) == len(checks)
    for check in checks:
        promise = (check.__doc__ or "").strip()
        assert promise.endswith("."), check.__name__
        assert "\n" not in promise, check.__name__


class _Faulty:
    """A memory store with one method replaced."""

    def __init__(self, name: str, fault: Callable[..., Any]) -> None:
        self._store = MemoryStore()
        self._name, self._fault = name, fault

    def __getattr__(self, name: str) -> Any:
        if name != self._name:
            return getattr(self._store, name)

        async def faulty(*args: Any, **options: Any) -> Any:
            return await self._fault(self._store, *args, **options)

        return faulty


async def _unfenced(store: MemoryStore, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
    return await store.append(run, (await store.tail(run)).epoch, expected, chunk)


async def _doubling(store: MemoryStore, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
    last = (await store.tail(run)).last
    moved = msgspec.structs.replace(chunk, first=last + 1, last=last + chunk.last - chunk.first + 1)
    return moved.last if await store.append(run, epoch, last, moved) else 0


async def _forgets_private(store: MemoryStore, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
    return await store.append(run, epoch, expected, msgspec.structs.replace(chunk, private=b""))


async def _no_repeat(store: MemoryStore, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
    if expected != (await store.tail(run)).last:
        raise Fenced("no repeats here")
    return await store.append(run, epoch, expected, chunk)


async def _off_by_one(store: MemoryStore, run: str, after: int, *, max_bytes: int = 262_144) -> list[Chunk]:
    return await store.read(run, after + 1, max_bytes=max_bytes)


async def _unbounded(store: MemoryStore, run: str, after: int, *, max_bytes: int = 262_144) -> list[Chunk]:
    return await store.read(run, after, max_bytes=10**9)


async def _never_wakes(store: MemoryStore, run: str, after: int) -> None:
    if (await store.tail(run)).last <= after:
        await anyio.sleep_forever()


async def _unordered(store: MemoryStore, run: str) -> list[Letter]:
    return (await store.letters(run))[::-1]


async def _left_again(store: MemoryStore, run: str, key: str, body: bytes) -> bool:
    await store.post(run, key, body)
    return True


async def _generous(store: MemoryStore, run: str, holder: str, *, seconds: float = 15.0) -> Lease | None:
    store._log(run).lease = None
    return await store.take(run, holder, seconds=seconds)


async def _same_epoch(store: MemoryStore, run: str, holder: str, *, seconds: float = 15.0) -> Lease | None:
    lease = await store.take(run, holder, seconds=seconds)
    if lease is not None:
        store._log(run).epoch = 1
        lease = msgspec.structs.replace(lease, epoch=1)
    return lease


async def _clings(store: MemoryStore, lease: Lease) -> None:
    await store.renew(lease)


async def _oldest_first(store: MemoryStore, **options: Any) -> list[RunRow]:
    return (await store.page(**options))[::-1]


async def _forgets_nothing(store: MemoryStore, run: str) -> None:
    await store.tail(run)


async def _other_bytes(store: MemoryStore, run: str, data: bytes, mime: str, *, name: str = "") -> str:
    return await store.put(run, data.strip(b"\0"), mime, name=name)


async def _late_state(store: MemoryStore, run: str, kept: Any) -> None:
    store._log(run).kept = kept


@pytest.mark.parametrize(
    ("method", "fault", "check"),
    [
        ("append", _unfenced, "check_fencing"),
        ("append", _doubling, "check_append_repeats"),
        ("append", _forgets_private, "check_append"),
        ("append", _no_repeat, "check_append_cancelled"),
        ("read", _off_by_one, "check_read"),
        ("read", _unbounded, "check_read_bound"),
        ("changed", _never_wakes, "check_changed_concurrent"),
        ("letters", _unordered, "check_mailbox"),
        ("post", _left_again, "check_mailbox"),
        ("take", _generous, "check_leases_race"),
        ("take", _same_epoch, "check_epochs"),
        ("give_back", _clings, "check_leases"),
        ("page", _oldest_first, "check_pages"),
        ("forget", _forgets_nothing, "check_forget"),
        ("put", _other_bytes, "check_artifacts"),
        ("keep", _late_state, "check_kept"),
    ],
)
async def test_planted_faults_are_found(
    method: str, fault: Callable[..., Any], check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store with this fault fails this check."""
    monkeypatch.setattr(_store_kit, "LIMIT_S", 0.5)

    @asynccontextmanager
    async def open_() -> Any:
        store = _Faulty(method, fault)
        async with store._store:
            yield store

    (chosen,) = [one for one in STORE_CHECKS if one.__name__ == check]
    with pytest.raises((AssertionError, TimeoutError, StoreError, ExceptionGroup)):
        await chosen(open_)
