"""Lockstep: agents really wait for the slowest counted reader, and never for one that is not there."""

from __future__ import annotations

import anyio
import pytest

from agentstream.agent import Context, Lockstep, RunOptions, as_agent, lockstep
from agentstream.runtime import Runtime
from run_kit import VirtualClock, check_log, log_of, virtually

_EVENTS = 200


def test_agents_wait_for_a_slow_reader() -> None:
    """A reader of one event a second: the log is never more than `ahead` and one event an agent before it."""

    async def main(clock: VirtualClock) -> None:
        emitted = 0

        @as_agent
        async def fast(ctx: Context, task: int) -> int:
            nonlocal emitted
            for _ in range(task):
                await ctx.progress()
                emitted += 1
            return task

        @as_agent
        async def boss(ctx: Context, task: int) -> list[int]:
            await anyio.sleep(5)
            return await ctx.map(fast, [task] * 4)

        worst = 0
        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(boss, _EVENTS // 4, options=RunOptions(pacing=lockstep(8)))
            async with run.events(coalesce=False) as events:
                async for event in events:
                    last = (await run._store.tail(run.id)).last
                    if event.seq > 2:
                        worst = max(worst, last - event.seq)
                    await anyio.sleep(1)
        assert emitted == _EVENTS
        assert 0 < worst <= 8 + 2 * 5
        check_log(await log_of(run))

    virtually(main)


@pytest.mark.parametrize("alone", ["continue", "stop"])
def test_without_a_reader_agents_wait_for_a_grace(alone: str) -> None:
    """Nobody reads: after the grace the run goes on by itself, or stops with `client_gone`."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def fast(ctx: Context, task: int) -> int:
            for _ in range(task):
                await ctx.progress()
            return task

        how = Lockstep(ahead=4, grace=7, alone=alone)  # type: ignore[arg-type]
        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(fast, 50, options=RunOptions(pacing=how))
            began = anyio.current_time()
            await anyio.sleep(6)
            assert (await run._store.tail(run.id)).last < 12
            while not (await run._store.tail(run.id)).ended:  # noqa: ASYNC110
                await anyio.sleep(0.5)
            assert 7 <= anyio.current_time() - began < 9
            state = await run.state()
            assert (state.status, state.cause) == (
                ("finished", "") if alone == "continue" else ("stopped", "client_gone")
            )

    virtually(main)


def test_a_reader_that_stalls_is_not_waited_for() -> None:
    """After `stall` seconds without progress it counts no more, and the run ends."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def fast(ctx: Context, task: int) -> int:
            await anyio.sleep(1)
            for _ in range(task):
                await ctx.progress()
            return task

        how = Lockstep(ahead=4, stall=20, grace=5)
        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(fast, 100, options=RunOptions(pacing=how))
            async with run.events(coalesce=False) as events:
                await anext(events)
                await anext(events)
                with anyio.move_on_after(0.5):
                    await anext(events)  # now it stands at the tail
                began = anyio.current_time()
                while not (await run._store.tail(run.id)).ended:  # noqa: ASYNC110
                    await anyio.sleep(0.5)
                assert 20 <= anyio.current_time() - began < 30

    virtually(main)


def test_a_stop_does_not_wait_for_readers() -> None:
    """The reader stands still; the stop closes everything within the grace all the same."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def fast(ctx: Context, task: int) -> int:
            await anyio.sleep(1)
            async with ctx.text() as block:
                while True:
                    await block.write("x")

        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(fast, 1, options=RunOptions(pacing=lockstep(4)))
            async with run.events(coalesce=False) as events:
                await anext(events)
                await anext(events)
                with anyio.move_on_after(0.5):
                    await anext(events)
                await anyio.sleep(5)
                began = anyio.current_time()
                await run.stop()
                while not (await run._store.tail(run.id)).ended:  # noqa: ASYNC110
                    await anyio.sleep(0.1)
                assert anyio.current_time() - began < 1
            check_log(await log_of(run))

    virtually(main)
