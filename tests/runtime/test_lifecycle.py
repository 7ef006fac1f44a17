"""A run from its start to its one terminal event, however its agents end."""

from __future__ import annotations

import logging
import threading

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from agentstream.agent import Agent, Context, Team, as_agent
from agentstream.errors import (
    AgentFailedError,
    AgentStreamError,
    EmitAfterEnd,
    InvalidInput,
    NoModelConfigured,
    RunFailedError,
    RunStoppedError,
    RuntimeNotRunning,
    ToolError,
)
from agentstream.events import AgentFailed, AgentStarted, RunFailed, RunFinished, RunStarted, RunStopped, TextDelta
from agentstream.runtime import Runtime
from agentstream.store.memory import MemoryStore
from run_kit import QUICK, check_log, events_of, of_type, outline

pytestmark = pytest.mark.anyio


@as_agent
async def upper(ctx: Context, task: str) -> str:
    """Shout."""
    await ctx.say(task.upper())
    return task.upper()


# --- good ends --------------------------------------------------------------------------------------------------------
@pytest.mark.promise("P7")
async def test_a_run_is_one_log_with_one_end() -> None:
    """Started, the agent between its two events, finished with the output; the state says the same."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(Team("shout", upper), "hello")
            assert await run.result() == "HELLO"
            events = await events_of(run)
            state = await run.state()
    assert outline(events) == [
        "run.started",
        "upper.1 agent.started",
        "upper.1 text.started",
        "upper.1 text.delta",
        "upper.1 text.finished",
        "upper.1 agent.finished",
        "run.finished",
    ]
    (started,) = of_type(events, RunStarted)
    assert (started.run, started.team, started.input, started.attempt) == (run.id, "shout", "hello", 1)
    assert of_type(events, RunFinished)[0].output == "HELLO"
    assert (state.status, state.output, state.seq) == ("finished", "HELLO", len(events))


@pytest.mark.promise("P4", "P7")
async def test_calls_stand_between_what_came_before_and_after_them() -> None:
    """What the caller emitted is first; a call's events follow its start and precede what the caller does next."""

    class Boss(Agent[str, str]):
        role = "planner"

        async def run(self, ctx: Context, task: str) -> str:
            await ctx.say("before")
            first = await ctx.call(upper, task)
            await ctx.say("after")
            return first + await ctx.call(upper, "b")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(Boss(), "a")
            assert await run.result() == "AB"
            events = await events_of(run)
    texts = [(event.inv, event.text) for event in of_type(events, TextDelta)]
    assert texts == [("boss.1", "before"), ("upper.1", "A"), ("boss.1", "after"), ("upper.2", "B")]
    starts = {event.inv: (event.parent, event.role, event.task) for event in of_type(events, AgentStarted)}
    assert starts == {"boss.1": ("", "planner", "a"), "upper.1": ("boss.1", "", "a"), "upper.2": ("boss.1", "", "b")}


async def test_a_started_call_that_is_still_open_is_awaited() -> None:
    """The caller returns; its invocation ends after what it started."""
    go = anyio.Event()

    @as_agent
    async def slow(ctx: Context, task: str) -> str:
        await go.wait()
        await ctx.say("done")
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        call = await ctx.start(slow, "x")
        assert call.inv == "slow.1"
        go.set()
        return "left"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "left"
            events = await events_of(run)
    lines = outline(events)
    assert lines.index("slow.1 agent.finished") < lines.index("boss.1 agent.finished")


async def test_map_keeps_the_order_of_its_tasks_and_its_limit() -> None:
    """Results by task, not by arrival; never more than `limit` at once; no tasks give no results."""
    working = most = 0

    @as_agent
    async def work(ctx: Context, task: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        for _ in range(10 - task):
            await anyio.lowlevel.checkpoint()
        working -= 1
        return task * task

    @as_agent
    async def boss(ctx: Context, task: str) -> list[int]:
        assert await ctx.map(work, []) == []
        with pytest.raises(InvalidInput, match="at least 1"):
            await ctx.map(work, [1], limit=0)
        return await ctx.map(work, range(8), limit=3)

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == [n * n for n in range(8)]
            await events_of(run)
    assert most == 3


# --- agents that fail -------------------------------------------------------------------------------------------------
@pytest.mark.promise("P7")
async def test_an_exception_fails_the_run_and_its_text_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    """Readers learn the class and nothing else; the traceback is in the log of the process; what was open is closed."""
    secret = "the password is hunter2"

    @as_agent
    async def broken(ctx: Context, task: str) -> str:
        block = await ctx.text().__aenter__()
        await block.write("so far")
        raise ValueError(secret)

    with anyio.fail_after(10), caplog.at_level(logging.ERROR, "agentstream"):
        async with Runtime() as runtime:
            run = await runtime.start(broken, "t")
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            events = await events_of(run)
            lines = b"".join(chunk.lines for chunk in await runtime.store.read(run.id, 0))
    assert failed.value.failure == "agent_error"
    assert "ValueError" in failed.value.message
    assert b"hunter2" not in lines
    assert b"Traceback" not in lines
    assert "hunter2" not in str(failed.value)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert secret in str(record.exc_info[1])
    assert outline(events)[-3:] == ["broken.1 text.finished", "broken.1 agent.failed", "run.failed"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ToolError("the scale is broken"), "tool_error", "the scale is broken"),
        (NoModelConfigured("set X"), "no_model_configured", "set X"),
        (ToolError("x" * 300_000), "tool_error", "x" * 4000),
        (ToolError("half \ud800"), "tool_error", "half \ufffd"),
        (ToolError(12345), "tool_error", "12345"),  # type: ignore[arg-type]
    ],
    ids=["tool", "model", "long", "surrogate", "number"],
)
@pytest.mark.promise("P7")
async def test_our_own_errors_say_what_they_say(error: AgentStreamError, code: str, message: str) -> None:
    """Code and message reach the stream, cut to a length that an event holds, and always as text."""

    @as_agent
    async def broken(ctx: Context, task: str) -> str:
        raise error

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(broken, "t")
            with pytest.raises(RunFailedError):
                await run.result()
            events = await events_of(run)
    for failed in (of_type(events, AgentFailed)[0], of_type(events, RunFailed)[0]):
        assert (failed.code, failed.message) == (code, message)


async def test_a_group_of_one_failure_is_that_failure() -> None:
    """An agent's own task group wraps what failed in it; the stream names the cause."""

    @as_agent
    async def grouped(ctx: Context, task: str) -> str:
        async def fail() -> None:
            raise ToolError("inside")

        async with anyio.create_task_group() as group:
            group.start_soon(fail)
        return task

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(grouped, "t")
            with pytest.raises(RunFailedError) as failed:
                await run.result()
    assert (failed.value.failure, failed.value.message) == ("tool_error", "inside")


async def test_a_called_agents_failure_may_be_caught_or_not() -> None:
    """Caught, the caller goes on; not caught, it fails with the same code, and names who it was."""

    @as_agent
    async def weak(ctx: Context, task: str) -> str:
        raise ToolError(f"cannot {task}")

    @as_agent
    async def careful(ctx: Context, task: str) -> str:
        try:
            return await ctx.call(weak, "lift")
        except AgentFailedError as error:
            return f"{error.inv}: {error.failure}: {error.message}"

    @as_agent
    async def careless(ctx: Context, task: str) -> str:
        return await ctx.call(weak, "lift")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(careful, "t")
            assert await run.result() == "weak.1: tool_error: cannot lift"
            await events_of(run)
            run = await runtime.start(careless, "t")
            with pytest.raises(RunFailedError, match="cannot lift"):
                await run.result()
            assert outline(await events_of(run))[-3:] == [
                "weak.1 agent.failed",
                "careless.1 agent.failed",
                "run.failed",
            ]


async def test_one_failure_in_a_map_stops_the_others() -> None:
    """The first that failed is raised at the caller; the others end as stopped, before the caller does."""

    @as_agent
    async def work(ctx: Context, task: int) -> int:
        if task == 3:
            raise ToolError("three")
        await anyio.sleep_forever()
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        try:
            await ctx.map(work, range(5))
        except AgentFailedError as error:
            return error.message
        return "no"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "three"
            events = await events_of(run)
    codes = sorted(event.code for event in of_type(events, AgentFailed))
    assert codes == ["stopped"] * 4 + ["tool_error"]


async def test_a_failing_caller_takes_what_it_started_along() -> None:
    """What is open when an agent raises is stopped, and the agent's failure is the cause."""

    @as_agent
    async def endless(ctx: Context, task: str) -> str:
        async with ctx.text() as block:
            await block.write("…")
            await anyio.sleep_forever()
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        await ctx.start(endless, "x")
        raise ToolError("enough")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            with pytest.raises(RunFailedError, match="enough"):
                await run.result()
            events = await events_of(run)
    assert [event.code for event in of_type(events, AgentFailed)] == ["stopped", "tool_error"]


async def test_a_timeout_around_a_call_cancels_it_and_waits_for_its_end() -> None:
    """The caller goes on only when the child's last event has its place."""

    @as_agent
    async def endless(ctx: Context, task: str) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                await ctx.say("cleaned up")
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        with anyio.move_on_after(0.01):
            await ctx.call(endless, "x")
        await ctx.say("went on")
        return "alive"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "alive"
            events = await events_of(run)
    lines = outline(events)
    assert lines.index("endless.1 agent.failed") < lines.index("boss.1 text.started")
    assert [event.text for event in of_type(events, TextDelta)] == ["cleaned up", "went on"]


async def test_an_agent_without_run_says_so() -> None:
    """The base class's message reaches the log, the stream learns the class."""

    class Empty(Agent[str, str]):
        pass

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(Empty(), "t")
            with pytest.raises(RunFailedError, match="NotImplementedError"):
                await run.result()


@pytest.mark.parametrize("wrong", ["upper", None, 5, Agent], ids=["text", "None", "number", "class"])
async def test_only_agents_can_be_called(wrong: object) -> None:
    """A clear error instead of an attribute that is missing."""

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        await ctx.call(wrong, "t")  # type: ignore[arg-type]
        return "no"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            with pytest.raises(RunFailedError, match="as_agent") as failed:
                await run.result()
    assert failed.value.failure == "invalid_input"


async def test_a_task_that_json_cannot_hold_is_the_callers_error() -> None:
    """Nothing began: the child is not in the log, and the caller may go on."""

    @as_agent
    async def child(ctx: Context, task: object) -> str:
        return "no"

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        with pytest.raises(TypeError):
            await ctx.call(child, object())
        return "yes"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "yes"
            assert "child.1 agent.started" not in outline(await events_of(run))


# --- after the end ----------------------------------------------------------------------------------------------------
@pytest.mark.promise("P7")
async def test_nothing_follows_the_end_of_an_invocation() -> None:
    """A context that was handed on says `EmitAfterEnd`, for emits and for calls, during the run and after it."""
    kept: list[Context] = []

    @as_agent
    async def child(ctx: Context, task: str) -> str:
        kept.append(ctx)
        return task

    async def refused(ctx: Context) -> None:
        with pytest.raises(EmitAfterEnd):
            await ctx.say("late")
        with pytest.raises(EmitAfterEnd):
            await ctx.state.set("/x", 1)
        with pytest.raises(EmitAfterEnd):
            await ctx.call(upper, "late")
        with pytest.raises(EmitAfterEnd):
            await ctx.start(upper, "late")
        with pytest.raises(EmitAfterEnd):
            await ctx.step("late", lambda: 1)

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        kept.append(ctx)
        await ctx.call(child, "x")
        await refused(kept[1])
        return "done"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "done"
            for ctx in kept:
                await refused(ctx)
            events = await events_of(run)
    assert not of_type(events, TextDelta)


@pytest.mark.promise("P7")
async def test_a_thread_that_goes_on_after_the_end_gets_an_error() -> None:
    """A thread of the agent's own emits while and after the run ends: it is told, and the log has nothing of it."""
    raised: list[BaseException] = []
    ended = threading.Event()
    threads: list[threading.Thread] = []

    @as_agent
    async def leaky(ctx: Context, task: str) -> str:
        blocking = ctx.blocking()
        first = threading.Event()

        def work() -> None:
            try:
                while not ended.is_set():
                    blocking.progress()
                    first.set()
                blocking.progress()
            except EmitAfterEnd as error:
                raised.append(error)

        threads.append(threading.Thread(target=work))
        threads[0].start()
        await anyio.to_thread.run_sync(first.wait)
        return "left the thread behind"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(leaky, "t")
            await run.result()
            ended.set()
            await anyio.to_thread.run_sync(threads[0].join)
            await events_of(run)
    assert len(raised) == 1


# --- the runtime itself -----------------------------------------------------------------------------------------------
async def test_a_runtime_must_be_entered_and_only_once() -> None:
    """Before and after, every use says how to enter it; twice at once is refused; again later is fine."""
    runtime = Runtime()
    for _ in range(2):
        with pytest.raises(RuntimeNotRunning, match="lifespan"):
            await runtime.start(upper, "t")
        with pytest.raises(RuntimeNotRunning):
            await runtime.get("A" * 22)
        with anyio.fail_after(10):
            async with runtime:
                with pytest.raises(InvalidInput, match="already"):
                    async with runtime:
                        pass
                run = await runtime.start(upper, "t")
                assert await run.result() == "T"


@pytest.mark.promise("P8")
async def test_leaving_the_runtime_stops_its_runs() -> None:
    """Running and waiting ones end as `run.stopped {shutdown}`, with everything closed, before the store is closed."""

    @as_agent
    async def endless(ctx: Context, task: str) -> str:
        async with ctx.text() as block:
            await block.write("…")
            await anyio.sleep_forever()
        return task

    store = MemoryStore()
    with anyio.fail_after(10):
        async with store:
            async with Runtime(store, options=QUICK.model_copy(update={"max_runs": 1})) as runtime:
                runs = [await runtime.start(endless, "t") for _ in range(2)]
                await anyio.wait_all_tasks_blocked()
            for run in runs:
                with pytest.raises(RunStoppedError) as stopped:
                    await run.result()
                assert stopped.value.cause == "shutdown"
                await events_of(run)


@pytest.mark.promise("P8")
async def test_cancelling_the_host_stops_its_runs_in_order() -> None:
    """The scope around the runtime is cancelled: runs still end in their logs, with cause shutdown."""

    @as_agent
    async def child(ctx: Context, task: str) -> str:
        async with ctx.thinking() as block:
            await block.write("…")
            await anyio.sleep_forever()
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        return await ctx.call(child, "x")

    store = MemoryStore()
    with anyio.fail_after(10):
        async with store:
            with anyio.CancelScope() as scope:
                async with Runtime(store, options=QUICK) as runtime:
                    run = await runtime.start(boss, "t")
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
            events = await events_of(run)
    (stopped,) = of_type(events, RunStopped)
    assert stopped.cause == "shutdown"
    assert [event.code for event in of_type(events, AgentFailed)] == ["stopped", "stopped"]


async def test_an_error_in_the_hosts_block_is_the_hosts() -> None:
    """It comes out as it was raised, after the runs were stopped."""
    store = MemoryStore()
    with anyio.fail_after(10):
        async with store:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012  (from inside the block)
                async with Runtime(store, options=QUICK) as runtime:
                    run = await runtime.start(upper, "t")
                    raise ZeroDivisionError
            check_log(await events_of(run))
