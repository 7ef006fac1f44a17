"""What the memory store promises beyond the contract: the same objects, and waiters that sleep on where they can."""

from __future__ import annotations

import anyio
import pytest

from agentstream.ids import new_run_id
from agentstream.ports import Chunk, RunFacts
from agentstream.store import MemoryStore

pytestmark = pytest.mark.anyio


async def _run(store: MemoryStore) -> str:
    run = new_run_id()
    await store.create(run, "", "", Chunk(1, 1, b"{}\n"), facts=RunFacts())
    return run


async def test_replay_copies_nothing() -> None:
    """A read gives the very objects that were appended."""
    async with MemoryStore() as store:
        run = await _run(store)
        chunk = Chunk(2, 2, b"{}\n")
        await store.append(run, 0, 1, chunk)
        assert (await store.read(run, 1))[0] is chunk


async def test_append_does_not_wake_those_it_does_not_concern() -> None:
    """A waiter for a later event sleeps through an append, so that n readers cost n wakes and not n per event."""
    async with MemoryStore() as store:
        run = await _run(store)
        woken: list[int] = []

        async def wait(after: int) -> None:
            await store.changed(run, after)
            woken.append(after)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for after in (1, 1, 3):
                    tasks.start_soon(wait, after)
                await anyio.wait_all_tasks_blocked()
                await store.append(run, 0, 1, Chunk(2, 2, b"{}\n"))
                await anyio.wait_all_tasks_blocked()
                assert woken == [1, 1]
                await store.append(run, 0, 2, Chunk(3, 4, b"{}\n{}\n"))
            assert woken == [1, 1, 3]


async def test_cancelled_waiters_leave_nothing() -> None:
    """A cancelled wait leaves no entry behind."""
    async with MemoryStore() as store:
        run = await _run(store)
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(store.changed, run, 1)
                tasks.start_soon(store.mail, run, 0)
            await anyio.wait_all_tasks_blocked()
            assert len(store._runs[run].waiters) == len(store._runs[run].mail_waiters) == 10
            tasks.cancel_scope.cancel()
        assert not store._runs[run].waiters
        assert not store._runs[run].mail_waiters


async def test_append_never_suspends() -> None:
    """An append is done when it is called: stepping its coroutine once ends it."""
    async with MemoryStore() as store:
        run = await _run(store)
        with pytest.raises(StopIteration) as done:
            store.append(run, 0, 1, Chunk(2, 2, b"{}\n")).send(None)
        assert done.value.value == 2
