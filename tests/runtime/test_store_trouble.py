"""A store that refuses, hangs, forgets or was taken over: what was accepted stays, agents end, others go on."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentstream.agent import Context, as_agent
from agentstream.errors import AgentStreamError, Fenced, RunFailedError, StoreDown
from agentstream.events import AgentFailed, RunFailed, TextDelta
from agentstream.ports import Chunk, Created
from agentstream.runtime import Runtime
from agentstream.store._rules import Limits
from agentstream.store.memory import MemoryStore
from run_kit import MoodyStore, VirtualClock, events_of, of_type, outline, raising, virtually


@as_agent
async def writer(ctx: Context, task: int) -> int:
    """Writes numbers, one a second."""
    async with ctx.text() as block:
        for n in range(task):
            await block.write(f"{n} ")
            await anyio.sleep(1)
    return task


@pytest.mark.promise("P1", "P2")
def test_a_store_that_is_down_for_a_while_gets_the_same_bytes_again() -> None:
    """Three seconds of refusals: the writer repeats exactly what it sent, nothing is lost or doubled."""

    async def main(clock: VirtualClock) -> None:
        async with MoodyStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(writer, 10)
            await anyio.sleep(2.5)
            until = clock.monotonic() + 3

            async def down(chunk: Chunk) -> None:
                if clock.monotonic() < until:
                    raise StoreDown("not now")

            store.mood = down
            assert await run.result() == 10
            events = await events_of(run)
        firsts = [chunk.first for chunk in store.tried]
        for first in set(firsts):
            assert len({chunk for chunk in store.tried if chunk.first == first}) == 1
        assert max(map(firsts.count, firsts)) > 3
        assert "".join(event.text for event in of_type(events, TextDelta)) == "".join(f"{n} " for n in range(10))

    virtually(main)


def test_an_answer_that_got_lost_does_not_double_anything() -> None:
    """The store took the chunk and then failed to say so: the repeated append is recognised."""

    async def main(clock: VirtualClock) -> None:
        lost = 0

        async def forget_to_answer(chunk: Chunk) -> None:
            nonlocal lost
            if chunk.first % 3 == 0 and lost < 5:
                lost += 1
                raise StoreDown("the answer was lost")

        async with MoodyStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            store.after = forget_to_answer
            run = await runtime.start(writer, 20)
            assert await run.result() == 20
            await events_of(run)
        assert lost == 5

    virtually(main)


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_store_that_stays_down_ends_the_runs_agents(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """After the limit the agents are cancelled, nothing of them is left; when the store is back the run is ended."""

    async def main(clock: VirtualClock) -> None:
        cancelled: list[float] = []

        @as_agent
        async def endless(ctx: Context, task: str) -> str:
            try:
                while True:
                    await ctx.say("x")
                    await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                cancelled.append(clock.monotonic())
                with anyio.CancelScope(shield=True), contextlib.suppress(AgentStreamError):
                    await ctx.say("nobody can be told any more")
                raise

        async def hang(chunk: Chunk) -> None:
            await anyio.sleep_forever()

        async with MoodyStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(endless, "t")
            await anyio.sleep(2.5)
            began = clock.monotonic()
            store.mood = hang if how == "hangs" else raising(StoreDown("no disk"))
            await anyio.sleep(30)
            assert len(cancelled) == 1
            assert 4 <= cancelled[0] - began <= 5 + 2.5 + 1
            assert runtime.statistics().runs == 0
            assert not (await store.tail(run.id)).ended
            store.mood = None
            with pytest.raises(RunFailedError):
                await run.result()
            events = await events_of(run)
        assert of_type(events, RunFailed)[0].retryable
        assert outline(events)[-2:] == ["endless.1 agent.failed", "run.failed"]

    with caplog.at_level(logging.ERROR, "agentstream"):
        virtually(main)
    assert "lost its store (store_down)" in caplog.text


def test_a_store_that_is_back_in_time_for_the_end_gets_the_cause() -> None:
    """Down too long for the run, but back when its agents have ended: run.failed says `store`."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def chatty(ctx: Context, task: str) -> str:
            while True:
                try:
                    await ctx.say("x")
                    await anyio.sleep(1)
                except BaseException:
                    store.mood = None
                    raise

        async with MoodyStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(chatty, "t")
            await anyio.sleep(2.5)
            store.mood = raising(StoreDown("no disk"))
            with anyio.fail_after(9), pytest.raises(RunFailedError) as failed:
                await run.result()
            assert failed.value.failure == "store"
            await events_of(run)

    virtually(main)


@pytest.mark.promise("P2")
def test_a_writer_that_was_fenced_writes_nothing_more() -> None:
    """Another holder took the run: the agents end, the log is the other's, and no terminal event of ours is in it."""

    async def main(clock: VirtualClock) -> None:
        ended = anyio.Event()

        @as_agent
        async def endless(ctx: Context, task: str) -> str:
            try:
                while True:
                    await ctx.progress()
                    await anyio.sleep(1)
            finally:
                ended.set()

        async with MoodyStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(endless, "t")
            await anyio.sleep(2.5)
            # What a takeover elsewhere does when this process was asleep for longer than its lease.
            log = store._runs[run.id]
            log.lease = None
            lease = await store.take(run.id, "somebody else", seconds=1000)
            assert lease is not None
            before = await store.tail(run.id)
            await ended.wait()
            await anyio.sleep(20)
            assert await store.tail(run.id) == before
            assert runtime.statistics().runs == 0
            with pytest.raises(Fenced):
                await store.append(run.id, lease.epoch - 1, before.last, store.tried[-1])

    virtually(main)


def test_a_lease_that_cannot_be_renewed_is_let_go_in_time() -> None:
    """The renewals hang: the agents are cancelled one stop grace before another may write."""

    async def main(clock: VirtualClock) -> None:
        cancelled: list[float] = []

        @as_agent
        async def quiet(ctx: Context, task: str) -> str:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(clock.monotonic())
            return task

        async with MoodyStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(quiet, "t")
            store.renews = False
            lapses = store._runs[run.id].lease.until if store._runs[run.id].lease else clock.monotonic() + 15
            await anyio.sleep(60)
            assert cancelled
            assert cancelled[0] <= lapses - 5 + 2.6
            with pytest.raises(RunFailedError):
                await run.result()
            await events_of(run)

    virtually(main)


@pytest.mark.anyio
@pytest.mark.promise("P7", "P9")
async def test_a_log_that_is_full_fails_its_run_in_order() -> None:
    """What was accepted stays, everything open is closed behind it, and the last event says `log_full`."""

    @as_agent
    async def child(ctx: Context, task: str) -> str:
        async with ctx.text() as block:
            while True:
                await block.write("x")

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        async with ctx.thinking():
            return await ctx.call(child, task)

    with anyio.fail_after(10):
        async with MemoryStore(Limits(max_events=600)) as store, Runtime(store) as runtime:
            run = await runtime.start(boss, "t")
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            assert failed.value.failure == "log_full"
            events = await events_of(run)
            state = await run.state()
    assert outline(events)[-5:] == [
        *(
            "child.1 text.finished",
            "child.1 agent.failed",
            "boss.1 thinking.finished",
            "boss.1 agent.failed",
            "run.failed",
        )
    ]
    assert {event.code for event in of_type(events, AgentFailed)} == {"log_full"}
    assert state.status == "failed"


@pytest.mark.anyio
async def test_a_store_with_a_defect_harms_only_its_run(caplog: pytest.LogCaptureFixture) -> None:
    """An error that no port names is logged with its traceback; other runs of the runtime go on."""

    @as_agent
    async def quick(ctx: Context, task: str) -> str:
        await ctx.say(task)
        return task

    bad: list[str] = []

    async def defect(chunk: Chunk) -> None:
        if b"poison" in chunk.lines:
            bad.append("x")
            raise ZeroDivisionError("a defect of the store")

    with anyio.fail_after(10), caplog.at_level(logging.ERROR, "agentstream"):
        async with MoodyStore() as store, Runtime(store) as runtime:
            store.mood = defect
            run = await runtime.start(quick, "poison")
            other = await runtime.start(quick, "fine")
            assert await other.result() == "fine"
            with pytest.raises(RunFailedError):
                await run.result()
            await events_of(run)
    assert bad
    assert "a defect of the store" in caplog.text


@pytest.mark.anyio
async def test_a_store_that_is_down_at_the_start_is_told_to_the_starter() -> None:
    """`start` raises what the store raised; no run, no place and no task is left."""

    class Down(MoodyStore):
        async def create(self, *args: Any, **options: Any) -> Created:
            raise StoreDown("no disk")

    with anyio.fail_after(10):
        async with Down() as store, Runtime(store) as runtime:
            with pytest.raises(StoreDown):
                await runtime.start(writer, 1)
            assert runtime.statistics().runs == 0
