"""The times of a run: silence, steps, readers that leave, and clocks that stand while a person is waited for."""

from __future__ import annotations

import anyio
import pytest

from agentstream.agent import Context, RunOptions, as_agent, stop_after
from agentstream.errors import Overloaded, StepTimeout
from agentstream.runtime import Run, Runtime, RuntimeOptions
from run_kit import VirtualClock, events_of, virtually


@as_agent
async def quiet(ctx: Context, task: float) -> str:
    """Says something, is silent for so long, and ends."""
    await ctx.say("one")
    await anyio.sleep(task)
    return "done"


async def _cause(run: Run[str]) -> tuple[str, float]:
    began = anyio.current_time()
    while not (await run._store.tail(run.id)).ended:  # noqa: ASYNC110
        await anyio.sleep(0.25)
    state = await run.state()
    return state.cause or state.status, anyio.current_time() - began


def test_an_idle_run_is_stopped_and_a_busy_one_is_not() -> None:
    """Silence counts from the last event, not from the beginning."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def chatty(ctx: Context, task: int) -> str:
            for _ in range(task):
                await ctx.progress()
                await anyio.sleep(4)
            return "done"

        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(quiet, 100, options=RunOptions(idle=5))
            cause, seconds = await _cause(run)
            assert cause == "idle" and 5 <= seconds < 6
            assert (await run.state()).resume == "ask"
            run = await runtime.start(chatty, 10, options=RunOptions(idle=5))
            assert await run.result() == "done"

    virtually(main)


def test_a_step_that_takes_too_long_fails_alone() -> None:
    """Its agent sees a typed error that is a TimeoutError, and may go on; the step is closed in the log."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def patient(ctx: Context, task: str) -> str:
            with pytest.raises(StepTimeout) as late:
                await ctx.step("nap", anyio.sleep, 100)
            assert isinstance(late.value, TimeoutError)
            await ctx.step("nap", anyio.sleep, 1)
            return "went on"

        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(patient, "t", options=RunOptions(step=3))
            assert await run.result() == "went on"
            failed = [event for event in await events_of(run) if event.type == "step.failed"]
            assert [event.code for event in failed] == ["step_timeout"]  # type: ignore[attr-defined]

    virtually(main)


def test_a_run_without_readers_stops_after_a_while() -> None:
    """The countdown begins when the last reader leaves; one that comes back in time cancels it."""

    async def main(clock: VirtualClock) -> None:
        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(quiet, 1000, options=RunOptions(on_disconnect=stop_after(20)))
            for _ in range(3):
                async with run.events() as events:
                    await anext(events)
                    await anyio.sleep(100)
                await anyio.sleep(19)
                assert not (await run.state()).is_over
            cause, seconds = await _cause(run)
            assert cause == "client_gone" and 0 <= seconds < 2

    virtually(main)


def test_the_first_reader_has_time_to_come() -> None:
    """With `stop_after(0)` a run still waits half a minute for its first reader; then a leave ends it at once."""

    async def main(clock: VirtualClock) -> None:
        options = RunOptions(on_disconnect=stop_after(0))
        async with Runtime(clock=clock) as runtime:
            cause, seconds = await _cause(await runtime.start(quiet, 1000, options=options))
            assert cause == "client_gone" and 30 <= seconds < 31
            run = await runtime.start(quiet, 1000, options=options)
            await anyio.sleep(29)
            async with run.events() as events:
                await anext(events)
                await anyio.sleep(100)
            assert (await _cause(run))[1] < 1

    virtually(main)


def test_whoever_waits_for_the_result_is_there() -> None:
    """Waiting for the result counts as reading; giving it up does not stop a run that may go on alone."""

    async def main(clock: VirtualClock) -> None:
        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(quiet, 100, options=RunOptions(on_disconnect=stop_after(1)))
            assert await run.result() == "done"
            run = await runtime.start(quiet, 100)
            async with run.events() as events:
                await anext(events)
            assert await _cause(run) == ("finished", pytest.approx(100, abs=1))

    virtually(main)


def test_detached_runs_are_capped_in_age_and_number() -> None:
    """Too many without a reader: a new one is refused; too long without one: it is stopped, cause `deadline`."""

    async def main(clock: VirtualClock) -> None:
        options = RuntimeOptions(max_detached=2, max_detached_age=50)
        async with Runtime(clock=clock, options=options) as runtime:
            runs = [await runtime.start(quiet, 1000) for _ in range(2)]
            with pytest.raises(Overloaded, match="no reader"):
                await runtime.start(quiet, 1)
            async with runs[0].events() as events:
                await anext(events)
                assert await (await runtime.start(quiet, 1)).result() == "done"
            assert (await _cause(runs[1]))[0] == "deadline"
            assert (await _cause(runs[0]))[0] == "deadline"

    virtually(main)


def test_clocks_stand_while_a_person_is_waited_for() -> None:
    """The deadline and the limit of a step count the time before and after the question only."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def asking(ctx: Context, task: str) -> str:
            async def inner() -> str:
                await anyio.sleep(4)
                answer = await ctx.ask("May I?")
                await anyio.sleep(4)
                return answer

            return await ctx.step("asked", inner)

        async with Runtime(clock=clock) as runtime:
            for seconds, ends in ((9.0, "finished"), (6.0, "deadline")):
                options = RunOptions(deadline=seconds, idle=5, step=100)
                run = await runtime.start(asking, "t", options=options)
                await anyio.sleep(500)
                (ask,) = (await run.state()).asks
                await run.answer(ask.request, "yes")
                assert (await _cause(run))[0] == ends

    virtually(main)
