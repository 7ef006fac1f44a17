"""Finished runs go whole, by age, number and size; running ones stay; who reads one is told."""

from __future__ import annotations

import anyio
import pytest

from agentstream.agent import Context, as_agent
from agentstream.errors import RunGone
from agentstream.runtime import Retention, Runtime, RuntimeOptions
from agentstream.runtime.retention import sweep_once
from agentstream.store.memory import MemoryStore
from run_kit import VirtualClock, idle, virtually


@as_agent
async def talk(ctx: Context, task: int) -> int:
    """Says `task` kilobytes."""
    for _ in range(task):
        await ctx.say("x" * 1000)
    return task


def test_finished_runs_go_when_they_are_old() -> None:
    """The sweeper of the runtime forgets them; they answer as gone, and what runs stays."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def slow(ctx: Context, task: float) -> float:
            await anyio.sleep(task)
            return task

        options = RuntimeOptions(retention=Retention(age=100, every=10))
        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock, options=options) as runtime:
            old = await runtime.start(talk, 1)
            long = await runtime.start(slow, 1000)
            await old.result()
            await anyio.sleep(90)
            await runtime.get(old.id)
            await anyio.sleep(30)
            with pytest.raises(RunGone):
                await runtime.get(old.id)
            await anyio.sleep(500)
            assert await long.result() == 1000

    virtually(main)


@pytest.mark.anyio
async def test_the_newest_stay() -> None:
    """By number, then by size: the newest that fit are kept; a second sweep finds nothing."""
    with anyio.fail_after(20):
        async with Runtime() as runtime:
            runs = []
            for _ in range(6):
                runs.append(await runtime.start(talk, 5))
                await runs[-1].result()
            clock = runtime._clock
            await idle(runtime)
            assert await sweep_once(runtime.store, Retention(runs=4), clock) == 2
            left = [row.run for row in await runtime.list(owner=None)]
            assert len(left) == 4
            size = (await runtime.list(owner=None))[0].size
            assert await sweep_once(runtime.store, Retention(size=2 * size + size // 2), clock) == 2
            assert await sweep_once(runtime.store, Retention(size=2 * size + size // 2), clock) == 0
            assert [row.run for row in await runtime.list(owner=None)] == left[:2]


@pytest.mark.anyio
async def test_a_reader_in_the_middle_is_told() -> None:
    """It gets whole events, then the typed error; never a piece of one, and never a clean end."""
    with anyio.fail_after(20):
        async with Runtime() as runtime:
            run = await runtime.start(talk, 200)
            await run.result()
            await idle(runtime)
            seen = 0
            async with run.events(coalesce=False) as events:
                await anext(events)
                await runtime.store.forget(run.id)
                with pytest.raises(RunGone):  # noqa: PT012  (somewhere in the middle)
                    async for event in events:
                        seen += 1
                        assert event.seq == seen + 1
            assert seen < (200 * 3 + 4)  # how many depends on how the log was cut into chunks
