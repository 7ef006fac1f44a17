"""Budgets of runs and calls: reserved before anything is asked, shared, told, and a hard end."""

from __future__ import annotations

import anyio
import pytest

from agentstream.agent import Budget, Context, Price, RunOptions, as_agent
from agentstream.errors import AgentFailedError, BudgetExceededError, LLMTimeout, RunFailedError, RunStoppedError
from agentstream.events import BudgetExceeded, BudgetLow, BudgetUpdated, Usage
from agentstream.llm.messages import LLMRequest, LLMResult, Message
from agentstream.runtime import Runtime, RuntimeOptions
from agentstream.runtime.metering import MAX_OUTPUT, estimate_tokens
from agentstream.testing import ScriptedModel
from hanging_model import HangingModel
from run_kit import VirtualClock, events_of, of_type, virtually

pytestmark = pytest.mark.anyio


@as_agent
async def twice(ctx: Context, task: str) -> str:
    """Asks two times."""
    await ctx.generate(task)
    return (await ctx.generate(task)).text


async def test_a_run_stops_when_its_budget_is_used_up() -> None:
    """One call of two: low is told once, the second is never sent, the cause is `budget`."""
    model = ScriptedModel("one", "two")
    with anyio.fail_after(10):
        async with Runtime(models=model) as runtime:
            run = await runtime.start(twice, "t", options=RunOptions(budget=Budget(calls=1)))
            with pytest.raises(RunStoppedError) as stopped:
                await run.result()
            events = await events_of(run)
    assert stopped.value.cause == "budget"
    assert len(model.requests) == 1
    assert [event.of for event in of_type(events, BudgetLow)] == ["calls"]
    assert [(event.of, event.used, event.limit) for event in of_type(events, BudgetExceeded)] == [("calls", 1, 1)]


async def test_a_reservation_is_in_the_log_before_the_request() -> None:
    """What the model is asked with is bounded, and the bound is what was reserved."""

    def look(request: LLMRequest) -> str:
        assert request.max_tokens == MAX_OUTPUT
        return "fine"

    model = ScriptedModel(look, look)
    with anyio.fail_after(10):
        async with Runtime(models=model) as runtime:
            run = await runtime.start(twice, "t", options=RunOptions(budget=Budget(tokens=100_000)))
            await run.result()
            events = await events_of(run)
    updates = of_type(events, BudgetUpdated)
    prompt = estimate_tokens(LLMRequest((Message("user", "t"),)))
    assert [event.reserved["tokens"] for event in updates] == [prompt + MAX_OUTPUT, 0, prompt + MAX_OUTPUT, 0]
    assert updates[-1].used["tokens"] < 100
    waits = [event.seq for event in events if event.type == "text.started"]
    assert updates[0].seq < waits[0]


async def test_a_call_has_a_budget_of_its_own_inside_the_runs() -> None:
    """The call fails with `budget`; its caller goes on with what is left of the run's."""

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        with pytest.raises(AgentFailedError) as failed:
            await ctx.call(twice, task, budget=Budget(calls=1))
        assert failed.value.failure == "budget"
        return (await ctx.generate(task)).text

    with anyio.fail_after(10):
        async with Runtime(models=ScriptedModel("one", "two")) as runtime:
            run = await runtime.start(boss, "t", options=RunOptions(budget=Budget(calls=2)))
            assert await run.result() == "two"
            events = await events_of(run)
    assert [event.inv for event in of_type(events, BudgetExceeded)] == ["twice.1"]
    last = of_type([event for event in events if not event.inv], BudgetUpdated)[-1]
    assert last.used == {"calls": 2.0}


async def test_cost_needs_a_price() -> None:
    """Without one the call is refused by name; with one tokens are counted in money."""
    usage = LLMResult("done", usage=Usage(1_000_000, 100_000, calls=1), finish_reason="stop")
    with anyio.fail_after(10):
        async with Runtime(models=ScriptedModel("x")) as runtime:
            run = await runtime.start(twice, "t", options=RunOptions(budget=Budget(cost=1.0)))
            with pytest.raises(RunFailedError, match="RuntimeOptions"):
                await run.result()
        options = RuntimeOptions(prices={"default": Price(input=2.0, output=10.0)})
        async with Runtime(models=ScriptedModel(usage, "never"), options=options) as runtime:
            run = await runtime.start(twice, "t", options=RunOptions(budget=Budget(cost=3.0)))
            with pytest.raises(RunStoppedError):
                await run.result()
            events = await events_of(run)
    assert of_type(events, BudgetExceeded)[0].used == pytest.approx(3.0)


async def test_a_raw_request_is_metered_too() -> None:
    """`ctx.llm` spends from the same budget; the error is typed and nothing is sent."""

    @as_agent
    async def raw(ctx: Context, task: str) -> str:
        with pytest.raises(BudgetExceededError):
            await ctx.llm.complete(LLMRequest((Message("user", task),)))
        return "refused"

    model = ScriptedModel("never")
    with anyio.fail_after(10):
        async with Runtime(models=model) as runtime:
            run = await runtime.start(raw, "t", options=RunOptions(budget=Budget(tokens=0)))
            with pytest.raises(RunStoppedError):
                await run.result()
    assert model.requests == []


def test_the_seconds_of_a_call_end_the_call_alone() -> None:
    """A call that takes too long fails with `budget`, and its caller goes on."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def sleepy(ctx: Context, task: str) -> str:
            await anyio.sleep(100)
            return task

        @as_agent
        async def boss(ctx: Context, task: str) -> float:
            began = anyio.current_time()
            with pytest.raises(AgentFailedError) as failed:
                await ctx.call(sleepy, task, budget=Budget(seconds=7))
            assert failed.value.failure == "budget"
            return anyio.current_time() - began

        async with Runtime(clock=clock) as runtime:
            run = await runtime.start(boss, "t")
            assert 7 <= await run.result() < 8
            await events_of(run)

    virtually(main)


def test_a_silent_model_is_given_up() -> None:
    """`first_token` and `between_tokens` end an answer with `llm_timeout`, in `generate` and raw."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def ask(ctx: Context, task: str) -> float:
            began = anyio.current_time()
            with pytest.raises(LLMTimeout, match="2 s"):
                await ctx.llm.complete(LLMRequest((Message("user", task),)))
            return anyio.current_time() - began

        model = HangingModel()
        async with Runtime(models=model, clock=clock) as runtime:
            run = await runtime.start(ask, "t", options=RunOptions(first_token=9, between_tokens=2))
            assert 2 <= await run.result() < 3
            assert len(model.closed) == 1

    virtually(main)
