"""Stops: of a run, of one invocation, after a step; bounded whatever the agents do, and named in the log."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
import pytest

from agentstream.agent import Context, RunOptions, as_agent
from agentstream.errors import AgentFailedError, InvalidInput, Overloaded, RunFailedError, RunStoppedError
from agentstream.events import AgentFailed, RunFailed, RunStopped, StepFinished
from agentstream.runtime import Runtime, RuntimeOptions
from agentstream.store.memory import MemoryStore
from run_kit import QUICK, VirtualClock, events_of, log_of, of_type, outline, virtually


@as_agent
async def endless(ctx: Context, task: str) -> str:
    """Never ends by itself."""
    async with ctx.text() as block:
        await block.write(task)
        await anyio.sleep_forever()
    return task


@pytest.mark.anyio
@pytest.mark.promise("P8")
async def test_stop_ends_the_run_with_its_cause_and_keeps_what_was_written() -> None:
    """Twice is once; after the end it does nothing; the partial text is in the log, closed."""

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        return await ctx.call(endless, "partial")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            await anyio.wait_all_tasks_blocked()
            await run.stop(reason="changed my mind")
            await run.stop(reason="again")
            with pytest.raises(RunStoppedError) as stopped:
                await run.result()
            assert (stopped.value.cause, stopped.value.reason) == ("user_stop", "changed my mind")
            await run.stop()
            events = await events_of(run)
            while await runtime.store.letters(run.id):  # acknowledged when the end was accepted
                await anyio.lowlevel.checkpoint()
    assert outline(events)[-4:] == [
        "endless.1 text.finished",
        "endless.1 agent.failed",
        "boss.1 agent.failed",
        "run.stopped",
    ]
    assert {event.code for event in of_type(events, AgentFailed)} == {"stopped"}


@pytest.mark.anyio
async def test_one_invocation_can_be_stopped_with_what_it_called() -> None:
    """Its caller gets the failure and may go on; the others live."""

    @as_agent
    async def middle(ctx: Context, task: str) -> str:
        return await ctx.call(endless, task)

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        other = await ctx.start(endless, "other")
        try:
            await ctx.call(middle, "x")
        except AgentFailedError as error:
            await other.stop("not needed any more")
            return f"{error.inv} {error.failure} {error.message}"
        return "no"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            await anyio.wait_all_tasks_blocked()
            await run.stop(inv="nobody.7")
            await run.stop(inv="middle.1", reason="too slow")
            assert await run.result() == "middle.1 stopped too slow"
            events = await events_of(run)
    failed = {event.inv: event.message for event in of_type(events, AgentFailed)}
    assert failed == {"endless.2": "too slow", "middle.1": "too slow", "endless.1": "not needed any more"}


@pytest.mark.anyio
@pytest.mark.promise("P8")
async def test_stopping_the_entry_agent_is_stopping_the_run() -> None:
    """The cause is the user's stop and not a failure."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(endless, "t")
            await anyio.wait_all_tasks_blocked()
            await run.stop(inv="endless.1")
            with pytest.raises(RunStoppedError):
                await run.result()


@pytest.mark.anyio
async def test_stop_after_the_step_under_way() -> None:
    """The step, and steps inside it, end well; then the run stops; nothing of the next step happens."""
    inside, go = anyio.Event(), anyio.Event()
    ran: list[str] = []

    @as_agent
    async def worker(ctx: Context, task: str) -> str:
        async def outer() -> str:
            inside.set()
            await go.wait()
            return await ctx.step("inner", lambda: ran.append("inner") or "i")

        await ctx.step("outer", outer)
        ran.append("after")
        await ctx.step("next", lambda: ran.append("next"))
        return "no"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(worker, "t")
            await inside.wait()
            await run.stop(mode="after_step", reason="lunch")
            await anyio.wait_all_tasks_blocked()
            assert not (await runtime.store.tail(run.id)).ended
            go.set()
            with pytest.raises(RunStoppedError, match="lunch"):
                await run.result()
            events = await events_of(run)
    assert [event.step for event in of_type(events, StepFinished)] == ["worker.1.2", "worker.1.1"]
    assert "next" not in ran


@pytest.mark.anyio
async def test_stop_after_a_step_where_there_is_none_stops_now() -> None:
    """Nobody waits for a step that may never come."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(endless, "t")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(InvalidInput):
                await run.stop(mode="later")  # type: ignore[arg-type]
            with pytest.raises(InvalidInput):
                await run.stop(inv="endless.1", mode="after_step")
            await run.stop(mode="after_step")
            with pytest.raises(RunStoppedError):
                await run.result()


@pytest.mark.anyio
async def test_an_agent_may_clean_up_and_what_it_starts_then_is_stopped() -> None:
    """Shielded cleanup may still emit and call; a child that begins while the run stops does not hold it up."""

    @as_agent
    async def tidy(ctx: Context, task: str) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.say("cleaning")
                with pytest.raises(AgentFailedError, match="stopped"):
                    await ctx.call(endless, "x")
        return task

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(tidy, "t")
            await anyio.wait_all_tasks_blocked()
            await run.stop()
            with pytest.raises(RunStoppedError):
                await run.result()
            events = await events_of(run)
            assert runtime.statistics().abandoned == 0
    assert "tidy.1 text.finished" in outline(events)


@pytest.mark.anyio
async def test_an_agent_that_only_emits_can_be_stopped() -> None:
    """A hot loop of writes into a log that never waits ends at the stop, well within the grace."""

    @as_agent
    async def chatter(ctx: Context, task: str) -> str:
        async with ctx.text() as block:
            while True:
                await block.write("x")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(chatter, "t")
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            await run.stop()
            with pytest.raises(RunStoppedError):
                await run.result()
            assert runtime.statistics().abandoned == 0


# --- agents that do not let themselves be stopped ---------------------------------------------------------------------
@pytest.mark.anyio
@pytest.mark.promise("P7", "P8")
async def test_an_agent_that_swallows_its_cancellation_is_given_up_and_does_not_spin(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After the grace the run ends as uncancellable; the agent is named in the log, counted, and left in peace."""
    swallowed = 0
    release = anyio.Event()
    kept: list[Context] = []

    @as_agent
    async def stubborn(ctx: Context, task: str) -> str:
        nonlocal swallowed
        kept.append(ctx)
        await ctx.text().__aenter__()
        while not release.is_set():
            try:
                await release.wait()
            except anyio.get_cancelled_exc_class():
                swallowed += 1
        return "at last"

    with anyio.fail_after(10), caplog.at_level(logging.ERROR, "agentstream"):
        async with Runtime(options=QUICK) as runtime:
            run = await runtime.start(stubborn, "t")
            await anyio.wait_all_tasks_blocked()
            await run.stop()
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            assert failed.value.failure == "uncancellable"
            before = swallowed
            for _ in range(200):
                await anyio.lowlevel.checkpoint()
            assert swallowed - before <= 1
            assert runtime.statistics().abandoned == 1
            assert "stubborn.1 was given up" in caplog.text
            release.set()
            events = await events_of(run)
    assert outline(events)[-3:] == ["stubborn.1 text.finished", "stubborn.1 agent.failed", "run.failed"]
    assert of_type(events, AgentFailed)[0].code == "uncancellable"
    assert kept[0].inv == "stubborn.1"


@pytest.mark.promise("P7")
def test_who_waits_for_a_stubborn_agent_is_not_stubborn_itself() -> None:
    """A chain of calls over an agent that does not end: only that one is given up; the run ends within a few graces."""

    async def main(clock: VirtualClock) -> None:
        release = anyio.Event()

        @as_agent
        async def stubborn(ctx: Context, task: str) -> str:
            with anyio.CancelScope(shield=True):
                await release.wait()
            return task

        @as_agent
        async def middle(ctx: Context, task: str) -> str:
            return await ctx.call(stubborn, task)

        @as_agent
        async def boss(ctx: Context, task: str) -> str:
            await ctx.start(stubborn, task)
            return await ctx.call(middle, task)

        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(boss, "t")
            await anyio.wait_all_tasks_blocked()
            began = clock.monotonic()
            await run.stop()
            with pytest.raises(RunFailedError):
                await run.result()
            assert 5.0 <= clock.monotonic() - began <= 8.0
            codes = {event.inv: event.code for event in of_type(await events_of(run), AgentFailed)}
            assert runtime.statistics().abandoned == 2
            release.set()
        assert codes == {
            "stubborn.1": "uncancellable", "stubborn.2": "uncancellable", "middle.1": "stopped", "boss.1": "stopped",
        }  # fmt: skip

    virtually(main)


@pytest.mark.promise("P8")
def test_a_timeout_around_a_stubborn_child_is_bounded() -> None:
    """The caller's own timeout waits at most the grace for the child; then the run fails for it."""

    async def main(clock: VirtualClock) -> None:
        release = anyio.Event()

        @as_agent
        async def stubborn(ctx: Context, task: str) -> str:
            with anyio.CancelScope(shield=True):
                await release.wait()
            return task

        @as_agent
        async def boss(ctx: Context, task: str) -> str:
            with anyio.move_on_after(10):
                await ctx.call(stubborn, task)
            await anyio.sleep_forever()
            return "no"

        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(boss, "t")
            with pytest.raises(RunFailedError, match=r"stubborn\.1"):
                await run.result()
            assert 15.0 <= clock.monotonic() <= 17.0
            release.set()
            await events_of(run)

    virtually(main)


# --- ends by time and by the server -----------------------------------------------------------------------------------
@pytest.mark.promise("P8")
def test_a_deadline_is_a_cause() -> None:
    """After its seconds the run is stopped with cause deadline; one that ends before is not."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def sleepy(ctx: Context, task: float) -> str:
            await anyio.sleep(task)
            return "done"

        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(sleepy, 59.0, options=RunOptions(deadline=60))
            assert await run.result() == "done"
            began = clock.monotonic()
            run = await runtime.start(sleepy, 1000.0, options=RunOptions(deadline=60))
            with pytest.raises(RunStoppedError) as stopped:
                await run.result()
            assert stopped.value.cause == "deadline"
            assert 60 <= clock.monotonic() - began <= 61
            await events_of(run)

    virtually(main)


def test_a_deadline_begins_with_the_work() -> None:
    """The wait for a place is not the run's fault."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def sleepy(ctx: Context, task: str) -> str:
            await anyio.sleep(50)
            return task

        one_place = RuntimeOptions(max_runs=1)
        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock, options=one_place) as runtime:
            options = RunOptions(deadline=60)
            runs = [await runtime.start(sleepy, "t", options=options) for _ in range(3)]
            assert [await run.result() for run in runs] == ["t"] * 3

    virtually(main)


@pytest.mark.promise("P8")
def test_drain_gives_runs_their_time_and_stops_the_rest() -> None:
    """New ones are refused at once; who is done within the grace finishes; the others are stopped: shutdown."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def sleepy(ctx: Context, task: float) -> str:
            await anyio.sleep(task)
            return "done"

        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            short = await runtime.start(sleepy, 5.0)
            long = await runtime.start(sleepy, 500.0)
            async with anyio.create_task_group() as group:
                group.start_soon(runtime.drain, 10.0)
                await anyio.sleep(1)
                assert runtime.draining
                with pytest.raises(Overloaded, match="shutting down"):
                    await runtime.start(sleepy, 1.0)
            assert 10 <= clock.monotonic() <= 11
            assert await short.result() == "done"
            with pytest.raises(RunStoppedError) as stopped:
                await long.result()
            assert stopped.value.cause == "shutdown"
            assert runtime.statistics().runs == 0

    virtually(main)


@pytest.mark.anyio
@pytest.mark.promise("P8")
async def test_a_run_that_waits_for_a_place_can_be_stopped() -> None:
    """It ends at once, without its agent ever beginning, and frees its place in the queue."""
    with anyio.fail_after(10):
        async with Runtime(options=RuntimeOptions(max_runs=1, max_waiting=1)) as runtime:
            first = await runtime.start(endless, "t")
            second = await runtime.start(endless, "t")
            with pytest.raises(Overloaded, match="try again") as full:
                await runtime.start(endless, "t")
            assert full.value.details == {"running": 1, "waiting": 1}
            await second.stop()
            with pytest.raises(RunStoppedError):
                await second.result()
            assert outline(await events_of(second)) == ["run.started", "run.waiting", "run.stopped"]
            third = await runtime.start(endless, "t")
            await first.stop()
            with pytest.raises(RunStoppedError):
                await first.result()
            while "endless.1 text.delta" not in outline(await log_of(third)):
                await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_the_terminal_event_says_why_it_was_stopped_not_how() -> None:
    """A reason longer than a letter takes is cut; the cause is one of the named ones."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(endless, "t")
            await run.stop(reason="x" * 5000)
            with pytest.raises(RunStoppedError):
                await run.result()
            (stopped,) = of_type(await events_of(run), RunStopped)
    assert stopped.cause == "user_stop"
    assert stopped.detail == "x" * 1000
    assert not of_type([stopped], RunFailed)
