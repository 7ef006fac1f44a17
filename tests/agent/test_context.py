"""What an agent holds: facts, recorded steps and their keys, calls; seen in the logs of real runs."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import msgspec
import pytest

from agentstream.agent import Context, RunOptions, as_agent, safe_failure
from agentstream.errors import (
    AgentFailedError,
    EmitAfterEnd,
    NoModelConfigured,
    NotSerializable,
    RunFailedError,
    ToolError,
)
from agentstream.events import AgentFailed, AgentStarted, StepFailed, StepFinished, StepStarted
from agentstream.runtime import Run, Runtime
from run_kit import events_of, log_of, of_type, outline

pytestmark = pytest.mark.anyio


async def test_the_facts_of_a_run() -> None:
    """Id, owner, attempt, metadata; no session, no files."""

    @as_agent
    async def tell(ctx: Context, task: str) -> dict[str, object]:
        return {
            "run": ctx.run_id,
            "owner": ctx.owner,
            "session": ctx.session,
            "attempt": ctx.attempt,
            "metadata": dict(ctx.metadata),
            "files": len(ctx.files),
            "inv": ctx.inv,
        }

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(tell, "t", owner="me", options=RunOptions(metadata={"page": 3}))
            assert await run.result() == {
                "run": run.id, "owner": "me", "session": "", "attempt": 1, "metadata": {"page": 3}, "files": 0,
                "inv": "tell.1",
            }  # fmt: skip


async def test_a_model_that_nobody_configured_names_what_to_set() -> None:
    """At its first use, as a typed error."""

    @as_agent
    async def ask(ctx: Context, task: str) -> str:
        with pytest.raises(NoModelConfigured, match="OPENAI_API_KEY"):
            assert ctx.llm
        return ctx.model("fast").name

    with anyio.fail_after(10):
        async with Runtime(models={}) as runtime:
            run = await runtime.start(ask, "t")
            with pytest.raises(RunFailedError) as failed:
                await run.result()
    assert failed.value.failure == "no_model_configured"


# --- steps ------------------------------------------------------------------------------------------------------------
@pytest.mark.promise("P1")
async def test_a_step_is_in_the_log_before_it_runs_and_its_result_before_it_returns() -> None:
    """`step.started` was accepted when the function runs, `step.finished` when the call returns."""
    seen: list[list[str]] = []

    async def look(run: Run[object]) -> None:
        seen.append([line for line in outline(await log_of(run)) if "step" in line])

    started = anyio.Event()
    holder: list[Run[object]] = []

    @as_agent
    async def worker(ctx: Context, task: str) -> int:
        await started.wait()

        async def body(n: int) -> int:
            await look(holder[0])
            return n + 1

        result = await ctx.step("add", body, 1)
        await look(holder[0])
        return result

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(worker, "t")
            holder.append(run)  # type: ignore[arg-type]
            started.set()
            assert await run.result() == 2
            private = b"".join(chunk.private for chunk in await runtime.store.read(run.id, 0))
    assert seen == [["worker.1 step.started"], ["worker.1 step.started", "worker.1 step.finished"]]
    assert b'"value":2' in private


async def test_steps_may_be_plain_functions() -> None:
    """Without await, and with arguments that JSON can hold."""

    @as_agent
    async def worker(ctx: Context, task: str) -> str:
        return await ctx.step("join", lambda *parts: "".join(parts), "a", "b")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(worker, "t")
            assert await run.result() == "ab"
            started = of_type(await events_of(run), StepStarted)[0]
    assert (started.name, started.step, started.attempt) == ("join", "worker.1.1", 1)
    assert len(started.key) == 32
    assert started.version


async def test_a_step_that_fails_is_closed_with_its_code() -> None:
    """Of a user's exception only the class is told; our own errors say what they say."""

    @as_agent
    async def worker(ctx: Context, task: str) -> str:
        def crash() -> None:
            raise ValueError("hunter2")

        async def refuse() -> None:
            raise ToolError("no scale")

        with pytest.raises(ValueError, match="hunter2"):
            await ctx.step("crash", crash)
        with pytest.raises(ToolError):
            await ctx.step("refuse", refuse)
        with pytest.raises(NotSerializable):
            await ctx.step("odd", object)
        with pytest.raises(NotSerializable):
            await ctx.step("odd argument", lambda value: 1, object())
        return "done"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(worker, "t")
            assert await run.result() == "done"
            failed = of_type(await events_of(run), StepFailed)
    assert [event.code for event in failed] == ["agent_error", "tool_error", "not_serializable"]
    assert "hunter2" not in failed[0].message
    assert failed[1].message == "no scale"


@pytest.mark.promise("P7")
async def test_a_step_that_is_cancelled_is_closed_at_once() -> None:
    """By the agent's own timeout: the agent goes on, and the step does not stay open until its end."""

    @as_agent
    async def worker(ctx: Context, task: str) -> str:
        with anyio.move_on_after(0.01):
            await ctx.step("sleep", anyio.sleep_forever)
        await ctx.say("went on")
        return "done"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(worker, "t")
            assert await run.result() == "done"
            lines = outline(await events_of(run))
    assert lines.index("worker.1 step.failed") < lines.index("worker.1 text.started")


async def _keys(agent: object) -> dict[str, str]:
    """Name (or agent and task) → key, of one run."""
    async with Runtime() as runtime:
        run = await runtime.start(agent, "t")  # type: ignore[arg-type]
        await run.result()
        events = await events_of(run)
    keys = {event.name: event.key for event in of_type(events, StepStarted)}
    keys |= {f"{event.agent} {event.task}": event.key for event in of_type(events, AgentStarted) if event.parent}
    return keys


async def test_keys_do_not_depend_on_who_comes_first() -> None:
    """Two runs whose children begin in other orders give the same keys relative to their enclosing unit."""
    orders: list[list[str]] = []

    @as_agent
    async def child(ctx: Context, task: str) -> str:
        orders[-1].append(task)
        for _ in range({"a": 3, "b": 0, "c": 1}[task] if len(orders) % 2 else {"a": 0, "b": 5, "c": 2}[task]):
            await anyio.lowlevel.checkpoint()
        return await ctx.step(f"in {task}", lambda: task)

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        await ctx.map(child, ["a", "b", "c"])
        await ctx.step("same", lambda: 1, key="mine")
        return "done"

    with anyio.fail_after(20):
        found = []
        for _ in range(2):
            orders.append([])
            async with Runtime() as runtime:
                run = await runtime.start(boss, "t")
                await run.result()
                found.append((run.id, await events_of(run)))
    for _, events in found:
        keys = [event.key for event in (*of_type(events, StepStarted), *of_type(events, AgentStarted))]
        assert len(set(keys)) == len(keys)
        assert [event.key for event in of_type(events, StepStarted) if event.name == "same"] == ["mine"]
    versions = [{event.name: event.version for event in of_type(events, StepStarted)} for _, events in found]
    assert versions[0] == versions[1]


async def test_equal_calls_have_different_keys() -> None:
    """The n-th repeat of the same agent and task is another unit."""

    @as_agent
    async def child(ctx: Context, task: str) -> str:
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        for _ in range(3):
            await ctx.call(child, "same")
        return "done"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            await run.result()
            keys = [event.key for event in of_type(await events_of(run), AgentStarted, "") if event.parent]
    assert len(set(keys)) == 3
    assert keys[1:] == [f"{keys[0]}-1", f"{keys[0]}-2"]


# --- calls ------------------------------------------------------------------------------------------------------------
async def test_a_started_call_can_be_awaited_many_times_and_stopped() -> None:
    """`result` gives the same each time; abandoning a wait leaves the call alone; `stop` ends it."""
    go = anyio.Event()

    @as_agent
    async def slow(ctx: Context, task: str) -> str:
        await go.wait()
        return task

    @as_agent
    async def endless(ctx: Context, task: str) -> str:
        await anyio.sleep_forever()
        return task

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        call = await ctx.start(slow, "x")
        with anyio.move_on_after(0.01) as scope:
            await call.result()
        assert scope.cancelled_caught
        go.set()
        assert [await call.result(), await call.result()] == ["x", "x"]
        await call.stop()
        other = await ctx.start(endless, "y")
        await other.stop("enough")
        await other.stop("twice")
        with pytest.raises(AgentFailedError) as failed:
            await other.result()
        assert (failed.value.inv, failed.value.failure, failed.value.message) == ("endless.1", "stopped", "enough")
        return "done"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "done"
            await events_of(run)


async def test_the_state_is_shared_by_the_agents_of_a_run() -> None:
    """What one sets another reads, and nobody of another run."""

    @as_agent
    async def reads(ctx: Context, task: str) -> object:
        return ctx.state.value

    @as_agent
    async def boss(ctx: Context, task: str) -> object:
        await ctx.state.set("/seen", [task])
        return await ctx.call(reads, "t")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            runs = [await runtime.start(boss, name) for name in ("a", "b")]
            assert [await run.result() for run in runs] == [{"seen": ["a"]}, {"seen": ["b"]}]


async def test_an_agent_object_may_serve_many_runs_at_once() -> None:
    """Its configuration is shared; each invocation has a context of its own."""

    @as_agent
    async def count(ctx: Context, task: int) -> list[str]:
        for _ in range(3):
            await ctx.progress()
            await anyio.lowlevel.checkpoint()
        return [ctx.inv, ctx.run_id]

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            runs = [await runtime.start(count, n) for n in range(10)]
            assert [await run.result() for run in runs] == [["count.1", run.id] for run in runs]


async def test_recorded_results_stand_beside_their_lines() -> None:
    """Under the seq of the event that closes the unit, as plain JSON; readers of the lines never see them."""

    @as_agent
    async def child(ctx: Context, task: str) -> dict[str, int]:
        return {"n": await ctx.step("secret", lambda: 42)}

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(child, "t")
            await run.result()
            events = await events_of(run)
            chunks = await runtime.store.read(run.id, 0)
    beside: dict[str, dict[str, object]] = {}
    for chunk in chunks:
        beside |= msgspec.json.decode(chunk.private) if chunk.private else {}
    step = of_type(events, StepFinished)[0]
    assert beside[str(step.seq)] == {"value": 42}
    assert beside[str(step.seq + 1)] == {"value": {"n": 42}}


# --- what may be shown ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ToolError("fine"), ("tool_error", "fine")),
        (AgentFailedError("a.1", "deep", "why"), ("deep", "why")),
        (KeyError("hunter2"), ("agent_error", "KeyError was raised; the log of the process has the cause")),
        (EmitAfterEnd("x" * 9000), ("emit_after_end", "x" * 4000)),
    ],
    ids=["ours", "a called agent's", "a user's", "long"],
)
async def test_failures_show_what_is_safe(error: Exception, shown: tuple[str, str]) -> None:
    """Our own errors say what they say, cut; of others the class."""
    assert safe_failure(error) == shown


async def test_the_failure_of_a_callers_child_is_told_once_more() -> None:
    """The caller that does not catch it fails with the child's code and message."""

    @as_agent
    async def child(ctx: Context, task: str) -> str:
        raise ToolError("broken")

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        return await ctx.call(child, "t")

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            with pytest.raises(RunFailedError):
                await run.result()
            failed = of_type(await events_of(run), AgentFailed)
    assert [(event.code, event.message) for event in failed] == [("tool_error", "broken")] * 2
