"""What a runtime holds: nothing of runs that have ended, and a watchdog that says who blocks it."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import tracemalloc

import anyio
import anyio.lowlevel
import pytest
import trio.lowlevel

from agentstream.agent import Context, as_agent
from agentstream.clock import SYSTEM_CLOCK
from agentstream.runtime import Runtime
from agentstream.runtime.watchdog import Watchdog
from agentstream.store.memory import MemoryStore
from run_kit import VirtualClock, events_of, virtually


@as_agent
async def child(ctx: Context, task: str) -> str:
    """Says what it was told."""
    await ctx.say(task)
    return task


@as_agent
async def parent(ctx: Context, task: str) -> str:
    """Calls, maps, steps."""
    await ctx.map(child, [task, task])
    await ctx.state.set("/task", task)
    return await ctx.step("n", lambda: task)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return int(trio.lowlevel.current_statistics().tasks_living)


@pytest.mark.anyio
async def test_three_hundred_runs_leave_nothing_behind() -> None:
    """No task, no entry in any of the host's tables, no growing memory but the store's."""
    with anyio.fail_after(50):
        async with MemoryStore() as store, Runtime(store) as runtime:

            async def once() -> None:
                run = await runtime.start(parent, "t")
                assert await run.result() == "t"
                host = runtime._host
                assert host is not None
                while host.count:
                    await anyio.lowlevel.checkpoint()
                await store.forget(run.id)
                store._tombs.clear()

            for _ in range(30):
                await once()
            gc.collect()
            tasks = _tasks()
            grown: list[int] = []
            for _ in range(3):  # a leak grows every time; what a cache or the test runner keeps does not
                tracemalloc.start()
                before, _ = tracemalloc.get_traced_memory()
                for _ in range(100):
                    await once()
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                grown.append(after - before)
            assert _tasks() <= tasks
            host = runtime._host
            assert host is not None
            assert (host.count, host._admitted, len(host._working) + len(host._line)) == (0, 0, 0)
            assert min(grown) < 100_000, grown


@pytest.mark.anyio
async def test_a_caller_holds_nothing_of_calls_that_have_ended() -> None:
    """A thousand calls of one agent: its list of children is empty again."""

    @as_agent
    async def boss(ctx: Context, task: str) -> int:
        for _ in range(200):
            await ctx.call(child, "x")
        invocation = ctx._engine._live[ctx.inv]  # type: ignore[attr-defined]
        return len(invocation.children)

    with anyio.fail_after(20):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == 0
            await events_of(run)


@pytest.mark.anyio
async def test_code_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """After a second of silence the log has the stack of the loop's thread; the run itself goes on and finishes."""

    @as_agent
    async def blocking_agent(ctx: Context, task: str) -> str:
        time.sleep(1.6)  # noqa: ASYNC251  (the very fault)
        return task

    with anyio.fail_after(20), caplog.at_level(logging.ERROR, "agentstream"):
        async with Runtime() as runtime:
            run = await runtime.start(blocking_agent, "t")
            assert await run.result() == "t"
            assert runtime.statistics().blocked == 1
    (record,) = [record for record in caplog.records if "blocked" in record.message]
    assert "blocking_agent" in record.getMessage()
    assert "time.sleep(1.6)" in record.getMessage()


def test_a_watchdog_watches_again_after_a_restart() -> None:
    """Its thread ends with the runtime and a new one begins with the next."""
    watchdog = Watchdog(SYSTEM_CLOCK)
    alive: list[int] = []

    async def main() -> None:
        for _ in range(2):
            async with anyio.create_task_group() as group:
                group.start_soon(watchdog.watch)
                await anyio.lowlevel.checkpoint()
                await anyio.sleep(0.3)
                alive.append(sum(thread.name == "agentstream-watchdog" for thread in threading.enumerate()))
                group.cancel_scope.cancel()
            alive.append(sum(thread.name == "agentstream-watchdog" for thread in threading.enumerate()))

    anyio.run(main)
    assert alive == [1, 0, 1, 0]


@pytest.mark.promise("P8")
def test_two_runtimes_share_a_store() -> None:
    """Each executes its own runs; both can read, and stop, all of them."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def endless(ctx: Context, task: str) -> str:
            await anyio.sleep_forever()
            return task

        async with (
            MemoryStore(clock=clock) as store,
            Runtime(store, clock=clock) as one,
            Runtime(store, clock=clock) as two,
        ):
            run = await one.start(endless, "t")
            seen = await two.get(run.id)
            await anyio.sleep(100)
            assert (one.statistics().runs, two.statistics().runs) == (1, 0)
            await seen.stop(reason="from the other one")
            assert [event.type for event in await events_of(seen)][-1] == "run.stopped"

    virtually(main)


@pytest.mark.anyio
@pytest.mark.promise("P9")
async def test_a_reader_that_stopped_holds_up_nobody() -> None:
    """One reader stands still after its first event; the run goes on to its end, and another reader has all of it."""

    @as_agent
    async def chatty(ctx: Context, task: str) -> str:
        for n in range(3000):
            await ctx.progress(str(n))
        return task

    with anyio.fail_after(20):
        async with Runtime() as runtime:
            run = await runtime.start(chatty, "t")
            async with run.events(coalesce=False) as stalled:
                first = await stalled.__anext__()
                assert first.seq == 1  # type: ignore[union-attr]
                assert await run.result() == "t"
                assert len(await events_of(run)) == 3004
                rest = [event async for event in stalled]
    assert [event.seq for event in rest] == list(range(2, 3005))  # type: ignore[union-attr]
