"""Runs that go on by themselves: another process takes them up where their log ends, and does nothing twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from agentstream.agent import Agent, Context, RunOptions, Team, as_agent, tool
from agentstream.errors import AgentFailedError, RunFailedError, StepChanged
from agentstream.events import (
    AgentFailed,
    AgentStarted,
    AttemptSuperseded,
    RunAttempt,
    RunWaiting,
    StateSnapshot,
    StepStarted,
    ToolCalled,
)
from agentstream.llm import ToolCall
from agentstream.runtime import Runtime, RuntimeOptions
from agentstream.store.memory import MemoryStore
from agentstream.testing import ScriptedModel
from run_kit import QUICK, VirtualClock, events_of, of_type, outline, virtually

LEASE, POLL = 15, 2


class Lasting(MemoryStore):  # type: ignore[misc]  # final for users; a test may look inside
    """A store in memory that outlives the processes of this test."""

    level = "process"


class Line:
    """The way of one process to the store. Once `cut`, nothing comes through any more: the process is as good as
    dead."""

    def __init__(self, store: Lasting) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("append", "renew", "take", "give_back", "free", "keep", "create"):
            return found

        async def asked(*args: Any, **options: Any) -> Any:
            if self.cut:
                await anyio.sleep_forever()
            return await found(*args, **options)

        return asked


class Doubled(BaseModel):
    value: int


class Bench:
    """What the agents below did, and where the first process stops."""

    def __init__(self) -> None:
        self.did: Counter[str] = Counter()
        self.hold = anyio.Event()  # set once the first attempt is where the test wants it


class Worker(Agent[int, Doubled]):
    """Records a step and a tool call."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def run(self, ctx: Context, task: int, /) -> Doubled:
        async def double(number: int) -> Doubled:
            self._bench.did[f"step {number}"] += 1
            return Doubled(value=number * 2)

        @tool(version="1")
        async def note(number: int) -> int:
            """Note."""
            self._bench.did[f"tool {number}"] += 1
            return number

        await anyio.sleep(10 - task if ctx.attempt == 1 else task)  # another order each time
        await ctx.tool(note, task)
        result = await ctx.step("double", double, task, key="mine")
        if task == 3 and ctx.attempt == 1:
            self._bench.hold.set()
            await anyio.sleep_forever()
        await ctx.state.set(f"/{task}", result.value)
        return result


class Boss(Agent[list[int], int]):
    """Maps, then adds up."""

    def __init__(self, bench: Bench) -> None:
        self._worker = Worker(bench)

    async def run(self, ctx: Context, task: list[int], /) -> int:
        await ctx.state.set("/attempts", ctx.attempt)
        return sum([double.value for double in await ctx.map(self._worker, task)])


@pytest.mark.promise("P10", "P11")
def test_another_process_goes_on_and_repeats_nothing() -> None:
    """Of three parallel workers one is open: only it runs again, its recorded step and tool call do not, in time."""

    async def main(clock: VirtualClock) -> None:
        bench = Bench()
        team = Team("bosses", Boss(bench))
        async with Lasting(clock=clock) as store:
            first = Line(store)
            async with (
                Runtime(first, teams=[team], clock=clock) as one,
                Runtime(store, teams=[team], clock=clock) as two,
            ):
                run = await one.start(team, [1, 2, 3])
                await bench.hold.wait()
                await anyio.sleep(20)
                first.cut = True
                cut = clock.monotonic()
                other = await two.get(run.id)
                async with other.events(after="tail", coalesce=False) as events:
                    async for event in events:
                        if isinstance(event, RunAttempt):
                            break
                assert clock.monotonic() - cut <= LEASE + POLL
                assert await other.result() == 12
                log = await events_of(other)
                state = await other.state()
                first.cut = False
        assert set(bench.did.values()) == {1}
        assert [event.attempt for event in of_type(log, RunAttempt)] == [2]
        starts = of_type(log, AgentStarted)
        three = next(event.inv for event in starts if event.task == 3)
        again = [(event.inv, event.attempt, event.replaces) for event in starts[4:]]
        assert again == [("boss.2", 2, "boss.1"), ("worker.4", 2, three)]
        assert {event.of for event in of_type(log, AttemptSuperseded)} == {"boss.1", three}
        assert of_type(log, StateSnapshot)[0].state == {"1": 2, "2": 4}
        assert {event.code for event in of_type(log, AgentFailed)} == {"worker_lost"}
        assert state.agents["boss.1"].status == "superseded"
        assert state.attempt == 2

    virtually(main)


@pytest.mark.anyio
@pytest.mark.promise("P11")
async def test_a_shutdown_hands_runs_to_the_next_process(tmp_path: Path) -> None:
    """On a file: a drained runtime leaves its run, the next one finishes it; no attempt is used up."""
    address = f"sqlite:{tmp_path / 'runs.db'}"
    asked = 0

    @as_agent
    async def asker(ctx: Context, task: str) -> str:
        nonlocal asked
        asked += 1
        reply = await ctx.generate(task)
        async with ctx.text() as block:
            await block.write("on")
            if ctx.attempt < 3:
                hold.set()
                await anyio.sleep_forever()
        return reply.text

    team = Team("askers", asker, options=RunOptions(attempts=1))
    with anyio.fail_after(20):
        run_id = ""
        for attempt in (1, 2, 3):
            hold = anyio.Event()
            models = ScriptedModel("once") if attempt == 1 else ScriptedModel()
            async with Runtime(address, teams=[team], options=QUICK, models=models) as runtime:
                if attempt == 1:
                    run_id = (await runtime.start(team, "q")).id
                run = await runtime.get(run_id)
                if attempt < 3:
                    await hold.wait()
                else:
                    assert await run.result() == "once"
                    log = await events_of(run)
                    state = await run.state()
    assert asked == 3
    assert [event.reason for event in of_type(log, RunAttempt)] == ["shutdown", "shutdown"]
    assert [event.on for event in of_type(log, RunWaiting)] == ["worker", "worker"]
    assert len(of_type(log, StepStarted)) == 1
    assert state.usage.calls == 1


def _lose(team: Team[Any, Any], later: Team[Any, Any] | None, **options: Any) -> Any:
    """Start a run of `team`, cut its process off when it sleeps, and let a process that has `later` find it."""

    async def main(clock: VirtualClock) -> tuple[list[Any], float, RunFailedError | None]:
        async with Lasting(clock=clock) as store:
            first = Line(store)
            limits = RuntimeOptions(**options)
            async with (
                Runtime(first, teams=[team], clock=clock, options=limits) as one,
                Runtime(store, teams=[later] if later else [], clock=clock, options=limits) as two,
            ):
                run = await one.start(team, "t")
                await anyio.sleep(1)
                first.cut = True
                cut, error = clock.monotonic(), None
                other = await two.get(run.id)
                try:
                    await other.result()
                except RunFailedError as failed:
                    error = failed
                took = clock.monotonic() - cut
                log = await events_of(other)
                first.cut = False
                return log, took, error

    return virtually(main)


@as_agent(name="sleeper")
async def sleeper(ctx: Context, task: str) -> str:
    """Sleeps in its first attempt."""
    if ctx.attempt == 1:
        await anyio.sleep_forever()
    return task


def test_another_version_of_the_team_refuses() -> None:
    """After one more lease, in which a process with the old version may come: a clear error, and nothing is done."""
    log, took, error = _lose(Team("t", sleeper), Team("t", sleeper, version="2"))
    assert error is not None
    assert error.failure == "team_changed"
    assert LEASE < took <= 2 * (LEASE + POLL)
    assert not of_type(log, RunAttempt)


def test_an_unknown_team_is_left_to_those_who_have_it() -> None:
    """A process without the team waits ten minutes before it ends the run."""
    _, took, error = _lose(Team("t", sleeper), None)
    assert error is not None
    assert error.failure == "worker_lost"
    assert 600 < took <= 600 + LEASE + 2 * POLL


def test_attempts_are_bounded() -> None:
    """With one attempt allowed, the run fails and says so."""
    _, _, error = _lose(Team("t", sleeper, options=RunOptions(attempts=1)), Team("t", sleeper))
    assert error is not None
    assert error.failure == "worker_lost"
    assert "attempt 1" in str(error)


def test_changed_code_is_an_error() -> None:
    """The same step with other code: the run fails as `step_changed`, also where the agent catches everything."""

    def make(version: str) -> Team[str, str]:
        async def work() -> str:
            return version

        @as_agent(name="stepper")
        async def stepper(ctx: Context, task: str) -> str:
            try:
                await ctx.step("work", work, version=version)
            except StepChanged:
                return "swallowed"
            return await sleeper.run(ctx, task)

        return Team("t", stepper)

    _, _, error = _lose(make("1"), make("2"))
    assert error is not None
    assert error.failure == "step_changed"
    log, _, error = _lose(make("1"), make("1"))
    assert error is None
    assert len(of_type(log, StepStarted)) == 1


def test_a_failed_call_fails_again_without_running() -> None:
    """What its caller saw stays so: the call is not made again, and its caller goes on as before."""
    ran = 0

    @as_agent(name="broken")
    async def broken(ctx: Context, task: str) -> str:
        nonlocal ran
        ran += 1
        raise RuntimeError("no")

    @as_agent(name="caller")
    async def caller(ctx: Context, task: str) -> str:
        try:
            await ctx.call(broken, task)
        except AgentFailedError as error:
            code = error.failure
        call = await ctx.start(broken, "other")
        with pytest.raises(AgentFailedError):
            await call.result()
        return await sleeper.run(ctx, code)

    team = Team("t", caller)
    log, _, error = _lose(team, team)
    assert error is None
    assert ran == 2
    assert outline(log)[-1] == "run.finished"


def test_a_tool_that_a_model_asked_for_is_not_called_again() -> None:
    """The answer broke off between two tools: the next attempt asks anew, and the finished call is answered from the
    log."""

    async def main(clock: VirtualClock) -> None:
        called: Counter[str] = Counter()
        hold = anyio.Event()

        @tool(version="1")
        async def pay(to: str) -> str:
            """Pay."""
            called[to] += 1
            if to == "b" and called[to] == 1:
                hold.set()
                await anyio.sleep_forever()
            return f"paid {to}"

        @as_agent(name="payer", tools=[pay])
        async def payer(ctx: Context, task: str) -> str:
            return (await ctx.generate(task)).text

        def script() -> ScriptedModel:
            return ScriptedModel(ToolCall("1", "pay", '{"to": "a"}'), ToolCall("2", "pay", '{"to": "b"}'), "done")

        team = Team("t", payer)
        async with Lasting(clock=clock) as store:
            first = Line(store)
            async with (
                Runtime(first, teams=[team], clock=clock, models=script()) as one,
                Runtime(store, teams=[team], clock=clock, models=script()) as two,
            ):
                run = await one.start(team, "t")
                await hold.wait()
                first.cut = True
                other = await two.get(run.id)
                assert await other.result() == "done"
                log = await events_of(other)
                first.cut = False
        assert called == {"a": 1, "b": 2}
        assert [event.arguments for event in of_type(log, ToolCalled)] == [{"to": "a"}, {"to": "b"}, {"to": "b"}]

    virtually(main)


def test_a_store_in_memory_is_not_taken_over() -> None:
    """Its runs end with their process: whoever finds one ends it."""

    async def main(clock: VirtualClock) -> None:
        team = Team("t", sleeper)
        async with MemoryStore(clock=clock) as store:
            first = Line(store)
            async with (
                Runtime(first, teams=[team], clock=clock) as one,
                Runtime(store, teams=[team], clock=clock) as two,
            ):
                run = await one.start(team, "t")
                await anyio.sleep(1)
                first.cut = True
                with pytest.raises(RunFailedError) as failed:
                    await (await two.get(run.id)).result()
                first.cut = False
        assert failed.value.failure == "worker_lost"

    virtually(main)


@pytest.mark.anyio
async def test_files_metadata_and_owner_come_back(tmp_path: Path) -> None:
    """What the starter handed in is there in the second attempt, uploads and local files alike."""
    address = f"sqlite:{tmp_path / 'runs.db'}"
    (tmp_path / "local.txt").write_text("local")

    @as_agent
    async def reader(ctx: Context, task: list[int]) -> list[Any]:
        found = [file.path.read_text() for file in ctx.files]
        if ctx.attempt == 1:
            hold.set()
            await anyio.sleep_forever()
        return [found, ctx.metadata, ctx.owner, task]

    hold = anyio.Event()
    team = Team("readers", reader)
    with anyio.fail_after(20):
        async with Runtime(address, teams=[team], options=QUICK) as runtime:
            sent = await runtime.uploaded(await runtime.upload("a.txt", b"sent", owner="me"), owner="me")
            files = [tmp_path / "local.txt", sent]
            run = await runtime.start(team, [1], owner="me", files=files, options=RunOptions(metadata={"x": 1}))
            await hold.wait()
        async with Runtime(address, teams=[team], options=QUICK) as runtime:
            found = await (await runtime.get(run.id, owner="me")).result()
    assert found == [["local", "sent"], {"x": 1}, "me", [1]]
