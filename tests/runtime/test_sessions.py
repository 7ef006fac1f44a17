"""Sessions: one run at a time by a named policy, and what was said before."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from agentstream.agent import Context, RunOptions, Team, as_agent
from agentstream.errors import InvalidInput, RunFailedError, RunStoppedError, SessionBusy
from agentstream.events import RunWaiting
from agentstream.llm import Message
from agentstream.runtime import Runtime, RuntimeOptions
from run_kit import QUICK, events_of, of_type

ENQUEUE = RunOptions(busy="enqueue")


@as_agent
async def chat(ctx: Context, task: str) -> list[tuple[str, str]]:
    """Says what it knows of the session."""
    return [(message.role, message.content) for message in await ctx.history(4)]


@as_agent
async def fails(ctx: Context, task: str) -> str:
    """Fails."""
    raise ValueError(task)


class Gate:
    """Runs that wait for the test, and how many worked at once."""

    def __init__(self) -> None:
        self.go, self.working, self.most = anyio.Event(), 0, 0
        self.order: list[str] = []
        gate = self

        @as_agent
        async def waits(ctx: Context, task: str) -> str:
            gate.working += 1
            gate.most = max(gate.most, gate.working)
            gate.order.append(task)
            try:
                await gate.go.wait()
            finally:
                gate.working -= 1
            return task

        self.agent = waits


@pytest.mark.anyio
async def test_a_busy_session_refuses_and_is_free_after_the_end() -> None:
    """The error names the run; other sessions and other owners are not concerned."""
    with anyio.fail_after(10):
        gate = Gate()
        async with Runtime() as runtime:
            run = await runtime.start(gate.agent, "a", session="s")
            with pytest.raises(SessionBusy) as busy:
                await runtime.start(gate.agent, "b", session="s")
            assert busy.value.details == {"run": run.id}
            others = [
                await runtime.start(gate.agent, "c", session="t"),
                await runtime.start(gate.agent, "d", session="s", owner="kim"),
                await runtime.start(gate.agent, "e"),
            ]
            gate.go.set()
            for one in (run, *others):
                await one.result()
            assert await (await runtime.start(gate.agent, "f", session="s")).result() == "f"


@pytest.mark.anyio
async def test_of_two_starts_at_once_one_is_refused() -> None:
    """Looking and starting are one step in a process."""
    refused = 0
    with anyio.fail_after(10):
        gate = Gate()
        async with Runtime() as runtime:

            async def start() -> None:
                nonlocal refused
                try:
                    await runtime.start(gate.agent, "t", session="s")
                except SessionBusy:
                    refused += 1

            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(start)
            gate.go.set()
    assert refused == 9


@pytest.mark.anyio
async def test_queued_runs_follow_each_other_and_block_nobody() -> None:
    """In the order of their starts, one at a time, and they take no place of other runs while they wait."""
    with anyio.fail_after(10):
        gate = Gate()
        async with Runtime(options=RuntimeOptions(max_runs=2)) as runtime:
            runs = [await runtime.start(gate.agent, str(n), session="s", options=ENQUEUE) for n in range(4)]
            assert await (await runtime.start(chat, "t")).result() == []
            assert (await runs[1].state()).status == "waiting"
            gate.go.set()
            assert [await run.result() for run in runs] == ["0", "1", "2", "3"]
            waits = [of_type(await events_of(run), RunWaiting) for run in runs]
    assert (gate.order, gate.most) == (["0", "1", "2", "3"], 1)
    assert [[(event.on, event.position) for event in found] for found in waits] == [
        [],
        [("session", 1)],
        [("session", 2)],
        [("session", 3)],
    ]


@pytest.mark.anyio
async def test_a_queued_run_can_be_stopped() -> None:
    """It ends at once; the next one still waits for the first."""
    with anyio.fail_after(10):
        gate = Gate()
        async with Runtime() as runtime:
            first, second, third = [
                await runtime.start(gate.agent, str(n), session="s", options=ENQUEUE) for n in range(3)
            ]
            await second.stop()
            with pytest.raises(RunStoppedError):
                await second.result()
            await anyio.wait_all_tasks_blocked()
            assert (await third.state()).status == "waiting"
            gate.go.set()
            assert [await first.result(), await third.result()] == ["0", "2"]


@pytest.mark.anyio
@pytest.mark.promise("P8")
async def test_an_interrupting_run_replaces_the_earlier_one() -> None:
    """The earlier one stops with cause `replaced`; only then the new one works."""
    with anyio.fail_after(10):
        gate = Gate()
        async with Runtime() as runtime:
            first = await runtime.start(gate.agent, "0", session="s")
            await anyio.wait_all_tasks_blocked()
            second = await runtime.start(gate.agent, "1", session="s", options=RunOptions(busy="interrupt"))
            with pytest.raises(RunStoppedError) as stopped:
                await first.result()
            assert (stopped.value.cause, second.id in stopped.value.reason) == ("replaced", True)
            gate.go.set()
            assert await second.result() == "1"
    assert gate.most == 1


@pytest.mark.anyio
@pytest.mark.promise("P10")
async def test_turns_outlive_the_process(tmp_path: Path) -> None:
    """After a restart the queued runs go on, still one at a time and in their order."""
    address = f"sqlite:{tmp_path / 'runs.db'}"
    with anyio.fail_after(20):
        gate = Gate()
        team = Team("waits", gate.agent, options=ENQUEUE)
        async with Runtime(address, teams=[team], options=QUICK) as runtime:
            runs = [await runtime.start(team, str(n), session="s") for n in range(3)]
            await anyio.wait_all_tasks_blocked()
        gate.go.set()
        gate.order.clear()
        async with Runtime(address, teams=[team], options=QUICK) as runtime:
            again = [await runtime.get(run.id) for run in runs]
            assert [await run.result() for run in again] == ["0", "1", "2"]
    assert (gate.order, gate.most) == (["0", "1", "2"], 1)


@pytest.mark.anyio
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_history_is_inputs_and_outputs_of_earlier_runs(store: str, tmp_path: Path) -> None:
    """Oldest first, bounded, of this session and owner only; a run that failed gives what was asked."""
    address = f"sqlite:{tmp_path / 'runs.db'}" if store == "sqlite" else store
    with anyio.fail_after(20):
        async with Runtime(address) as runtime:
            await (await runtime.start(chat, "other", session="t")).result()
            await (await runtime.start(chat, "foreign", session="s", owner="kim")).result()
            assert await (await runtime.start(chat, "one", session="s")).result() == []
            second = await (await runtime.start(chat, "two", session="s")).result()
            with pytest.raises(RunFailedError):
                await (await runtime.start(fails, "three", session="s")).result()
            third = await (await runtime.start(chat, "four", session="s")).result()
            assert await (await runtime.start(chat, "none")).result() == []
    assert second == [("user", "one"), ("assistant", "[]")]
    assert third == [
        ("assistant", "[]"),
        ("user", "two"),
        ("assistant", '[["user","one"],["assistant","[]"]]'),
        ("user", "three"),
    ]


@pytest.mark.anyio
async def test_history_is_bounded() -> None:
    """A long message is cut and says so; a limit that is none is refused."""

    @as_agent
    async def looks(ctx: Context, task: str) -> list[int]:
        with pytest.raises(InvalidInput):
            await ctx.history(0)
        found: list[Message] = await ctx.history(1)
        return [len(message.content) for message in found]

    @as_agent
    async def talks(ctx: Context, task: str) -> str:
        return "x" * 200_000

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            await (await runtime.start(talks, "t", session="s")).result()
            lengths = await (await runtime.start(looks, "t", session="s")).result()
    assert 32_000 < lengths[0] < 32_100


@pytest.mark.anyio
async def test_names_of_sessions() -> None:
    """Printable and short."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            for name in ("x" * 201, "a\nb"):
                with pytest.raises(InvalidInput, match="session"):
                    await runtime.start(chat, "t", session=name)
