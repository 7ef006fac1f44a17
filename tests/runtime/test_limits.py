"""Places: how many runs work, how many agents of a run work, and that waiting for each other never blocks for ever."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentstream.agent import Context, RunOptions, as_agent
from agentstream.errors import Overloaded
from agentstream.events import AgentWaiting, RunWaiting
from agentstream.ports import Created
from agentstream.runtime import Runtime, RuntimeOptions
from agentstream.store.memory import MemoryStore
from run_kit import MoodyStore, VirtualClock, events_of, idle, of_type, virtually


@pytest.mark.anyio
@pytest.mark.parametrize("places", [1, 2, 3])
async def test_calls_deeper_than_there_are_places_do_not_block(places: int) -> None:
    """Who waits for a call lends its place to it."""

    @as_agent
    async def nest(ctx: Context, task: int) -> int:
        return 1 + await ctx.call(nest, task - 1) if task else 0

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(nest, 12, options=RunOptions(max_agents=places))
            assert await run.result() == 12
            await events_of(run)


@pytest.mark.anyio
async def test_no_more_agents_work_than_there_are_places() -> None:
    """Counted while they work; those that wait say so, once a wait."""
    working = most = 0

    @as_agent
    async def work(ctx: Context, task: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        working -= 1
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> list[int]:
        return await ctx.map(work, range(20))

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t", options=RunOptions(max_agents=4))
            assert await run.result() == list(range(20))
            events = await events_of(run)
    assert most == 4
    waits = of_type(events, AgentWaiting, "boss.1")
    assert {event.on for event in waits} == {"slot"}
    assert len(waits) == 16


@st.composite
def _plans(draw: st.DrawFn, depth: int = 3) -> list[object]:
    """What an agent does: call, start and forget, start and await, map; each with the plans of those."""
    steps: list[object] = []
    for _ in range(draw(st.integers(0, 2 if depth else 0))):
        verb = draw(st.sampled_from(["call", "start", "await", "map"]))
        steps.append([verb, draw(_plans(depth - 1))])
    return steps


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(plan=_plans(), places=st.integers(1, 3))
def test_any_tree_of_calls_ends_with_any_number_of_places(plan: list[object], places: int) -> None:
    """Calls, started calls that are awaited or not, and maps, nested at random: no tree of them waits for ever."""

    @as_agent
    async def act(ctx: Context, task: list[object]) -> int:
        done = 1
        for verb, below in task:  # type: ignore[misc]
            await ctx.progress()
            if verb == "call":
                done += await ctx.call(act, below)
            elif verb == "map":
                done += sum(await ctx.map(act, [below, below]))
            else:
                call = await ctx.start(act, below)
                if verb == "await":
                    await anyio.sleep(1)
                    done += await call.result()
        return done

    async def main(clock: VirtualClock) -> None:
        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(act, plan, options=RunOptions(max_agents=places))
            with anyio.fail_after(1000):
                assert await run.result() >= 1
            await events_of(run)

    virtually(main)


def test_two_tasks_of_one_agent_may_call_at_once() -> None:
    """An agent's own task group calls twice at different times: its place is lent and taken back without a muddle."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def sleepy(ctx: Context, task: float) -> float:
            await anyio.sleep(task)
            return task

        @as_agent
        async def boss(ctx: Context, task: str) -> str:
            async def call(after: float, seconds: float) -> None:
                await anyio.sleep(after)
                await ctx.call(sleepy, seconds)

            async with anyio.create_task_group() as group:
                for after, seconds in ((0, 3), (1, 1), (2, 5), (2.5, 0.1), (3, 3)):
                    group.start_soon(call, after, seconds)
            return "done"

        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            for places in (1, 2, 3):
                run = await runtime.start(boss, "t", options=RunOptions(max_agents=places))
                assert await run.result() == "done"
                await events_of(run)

    virtually(main)


def test_runs_wait_for_a_place_in_their_order_and_say_so() -> None:
    """One works; two wait, and their logs say at which position; a fourth is refused; each begins when one ends."""

    async def main(clock: VirtualClock) -> None:
        order: list[str] = []

        @as_agent
        async def sleepy(ctx: Context, task: str) -> str:
            order.append(task)
            await anyio.sleep(30)  # twice the lease: who waits keeps it
            return task

        options = RuntimeOptions(max_runs=1, max_waiting=2)
        async with (
            MemoryStore(clock=clock) as store,
            Runtime(store, clock=clock, options=options) as runtime,
            Runtime(store, clock=clock) as other,
        ):
            runs = [await runtime.start(sleepy, name) for name in ("a", "b", "c")]
            with pytest.raises(Overloaded):
                await runtime.start(sleepy, "d")
            assert [await run.result() for run in runs] == ["a", "b", "c"]
            assert order == ["a", "b", "c"]
            waits = [[event.position for event in of_type(await events_of(run), RunWaiting)] for run in runs]
            assert waits == [[], [1], [2]]
            assert other.statistics().runs == 0
            # When its result is there, its place is free.
            for _ in range(3):
                run = await runtime.start(sleepy, "e")
                await run.result()
                assert not of_type(await events_of(run), RunWaiting)

    virtually(main)


@pytest.mark.anyio
async def test_starts_that_race_do_not_pass_the_bounds() -> None:
    """Ten starts at once on a store that takes its time: one works, one waits, eight are refused."""
    release = anyio.Event()

    @as_agent
    async def waits(ctx: Context, task: str) -> str:
        await release.wait()
        return task

    class Slow(MoodyStore):
        async def create(self, *args: Any, **options: Any) -> Created:
            await anyio.lowlevel.checkpoint()
            return await super().create(*args, **options)

    outcomes: list[str] = []
    with anyio.fail_after(10):
        options = RuntimeOptions(max_runs=1, max_waiting=1)
        async with Slow() as store, Runtime(store, options=options) as runtime:

            async def start() -> None:
                try:
                    run = await runtime.start(waits, "t")
                except Overloaded:
                    outcomes.append("refused")
                    return
                release.set()
                outcomes.append(await run.result())

            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(start)
            await idle(runtime)
    assert sorted(outcomes) == ["refused"] * 8 + ["t"] * 2


@pytest.mark.anyio
async def test_a_start_that_fails_gives_its_place_back() -> None:
    """A store that refuses to create, or a key that was known, uses up no place."""

    @as_agent
    async def quick(ctx: Context, task: str) -> str:
        return task

    class Refusing(MoodyStore):
        refuse = False

        async def create(self, *args: Any, **options: Any) -> Created:
            if self.refuse:
                raise Overloaded("not now")
            return await super().create(*args, **options)

    with anyio.fail_after(10):
        options = RuntimeOptions(max_runs=1, max_waiting=0)
        async with Refusing() as store, Runtime(store, options=options) as runtime:
            for _ in range(5):
                store.refuse = True
                with pytest.raises(Overloaded, match="not now"):
                    await runtime.start(quick, "t")
                store.refuse = False
                run = await runtime.start(quick, "t", key="k")
                assert await run.result() == "t"
