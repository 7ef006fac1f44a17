"""What only asyncio has: tasks and futures that somebody outside every scope cancels."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from agentstream.agent import Context, as_agent
from agentstream.errors import RunFailedError
from agentstream.runtime import Runtime
from run_kit import events_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Trio has nothing of the kind."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.mark.parametrize("how", ["future", "itself"])
async def test_an_agent_that_is_cancelled_from_outside_fails_alone(how: str) -> None:
    """It awaits something that was cancelled, or its task is: its own failure, and no other run's."""

    @as_agent
    async def unlucky(ctx: Context, task: str) -> str:
        if how == "itself":
            me = asyncio.current_task()
            assert me is not None
            me.cancel()
            await anyio.sleep_forever()
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        return str(await future)

    @as_agent
    async def patient(ctx: Context, task: str) -> str:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        return "fine"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            other = await runtime.start(patient, "t")
            run = await runtime.start(unlucky, "t")
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            assert failed.value.failure == "cancelled"
            assert await other.result() == "fine"
            await events_of(run)


async def test_a_timeout_of_asyncios_own_is_a_timeout() -> None:
    """`asyncio.timeout` around a call cancels it, waits for its end, and raises TimeoutError at the caller."""

    @as_agent
    async def endless(ctx: Context, task: str) -> str:
        await anyio.sleep_forever()
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        try:
            async with asyncio.timeout(0.01):
                await ctx.call(endless, "x")
        except TimeoutError:
            await ctx.say("went on")
        return "alive"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "alive"
            types = [event.type for event in await events_of(run)]
    assert types.index("agent.failed") < types.index("text.started")
