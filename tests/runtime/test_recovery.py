"""Runs whose process died: ended once, in order, by whoever finds them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from agentstream.agent import Context, as_agent
from agentstream.errors import RunFailedError
from agentstream.events import AgentFailed, RunFailed, RunStarted, StepFailed, ToolFailed
from agentstream.ids import new_run_id
from agentstream.ports import Chunk, Created, RunFacts, Store, Tail
from agentstream.runtime import Runtime, RuntimeOptions
from agentstream.runtime.first import first_chunk
from agentstream.store import open_store
from agentstream.store.memory import MemoryStore
from run_kit import QUICK, MoodyStore, VirtualClock, events_of, of_type, outline, virtually


def _chunk(first: int, events: list[dict[str, object]]) -> Chunk:
    lines = [msgspec.json.encode({"seq": seq, "at": 1, **event}) + b"\n" for seq, event in enumerate(events, first)]
    return Chunk(first, first + len(events) - 1, b"".join(lines))


_LEFT: list[dict[str, object]] = [
    {"type": "agent.started", "agent": "boss", "inv": "boss.1", "agent_seq": 1, "task": "t"},
    {"type": "thinking.started", "agent": "boss", "inv": "boss.1", "agent_seq": 2, "block": "boss.1.1"},
    {"type": "agent.started", "agent": "worker", "inv": "worker.1", "agent_seq": 1, "parent": "boss.1"},
    {"type": "agent.finished", "agent": "worker", "inv": "worker.1", "agent_seq": 2},
    {"type": "agent.started", "agent": "worker", "inv": "worker.2", "agent_seq": 1, "parent": "boss.1"},
    {"type": "step.started", "agent": "worker", "inv": "worker.2", "agent_seq": 2, "step": "worker.2.1"},
    {"type": "tool.started", "agent": "worker", "inv": "worker.2", "agent_seq": 3, "call": "worker.2.2", "name": "x"},
    {"type": "text.started", "agent": "worker", "inv": "worker.2", "agent_seq": 4, "block": "worker.2.3"},
    {"type": "text.finished", "agent": "worker", "inv": "worker.2", "agent_seq": 5, "block": "worker.2.3"},
    {"type": "text.started", "agent": "worker", "inv": "worker.2", "agent_seq": 6, "block": "worker.2.4"},
    {"type": "text.delta", "agent": "worker", "inv": "worker.2", "agent_seq": 7, "block": "worker.2.4", "text": "hal"},
    {"type": "later.thing", "agent": "worker", "inv": "worker.2", "agent_seq": 8, "what": "of a later version"},
]


async def _leave(store: Store, *, seconds: float, created: int = 0) -> str:
    """A run in the middle of its work, whose process is gone."""
    run = new_run_id()
    await store.create(run, "", "", first_chunk(RunStarted(run, "gone"), 1), facts=RunFacts("gone", created=created))
    lease = await store.take(run, "dead process", seconds=seconds)
    assert lease is not None
    await store.append(run, lease.epoch, 1, _chunk(2, _LEFT))
    return run


@pytest.mark.promise("P7")
def test_an_orphan_is_ended_in_order_and_once() -> None:
    """All that is open is closed, innermost first, with numbers that go on; then one run.failed; two runtimes look."""

    async def main(clock: VirtualClock) -> None:
        async with (
            MemoryStore(clock=clock) as store,
            Runtime(store, clock=clock) as one,
            Runtime(store, clock=clock),
        ):
            run = await one.get(await _leave(store, seconds=15))
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            assert failed.value.failure == "worker_lost"
            assert clock.monotonic() <= 15 + 2 + 1
            events = await events_of(run)
            state = await run.state()
        assert outline(events)[-8:] == [
            "worker.2 later.thing",
            "worker.2 text.finished",
            "worker.2 tool.failed",
            "worker.2 step.failed",
            "worker.2 agent.failed",
            "boss.1 thinking.finished",
            "boss.1 agent.failed",
            "run.failed",
        ]
        for closed in (*of_type(events, AgentFailed), *of_type(events, ToolFailed), *of_type(events, StepFailed)):
            assert closed.code == "worker_lost"
        assert of_type(events, RunFailed)[0].retryable
        assert state.status == "failed"
        assert state.agents["worker.2"].status == "failed"

    virtually(main)


def test_a_run_that_was_never_taken_is_ended_when_it_is_old_enough() -> None:
    """Its starter died between creating and taking it; one that was created this moment is left to its starter."""

    async def main(clock: VirtualClock) -> None:
        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run_id = new_run_id()
            facts = RunFacts("gone", created=clock.wall_ms())
            await store.create(run_id, "", "", first_chunk(RunStarted(run_id, "gone"), 1), facts=facts)
            await anyio.sleep(10)
            assert not (await store.tail(run_id)).ended
            run = await runtime.get(run_id)
            with pytest.raises(RunFailedError):
                await run.result()
            assert clock.monotonic() <= 20
            assert outline(await events_of(run)) == ["run.started", "run.failed"]

    virtually(main)


def test_a_run_that_is_just_being_started_is_no_orphan() -> None:
    """Seen between its creation and its lease by a search that takes its time: it is its starter's, and finishes."""

    class Slow(MoodyStore):
        async def create(self, *args: Any, **options: Any) -> Created:
            created = await super().create(*args, **options)
            await anyio.sleep(2.5)
            return created

        async def tail(self, run: str) -> Tail:
            await anyio.sleep(3)
            return await super().tail(run)

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def sleepy(ctx: Context, task: str) -> str:
            await anyio.sleep(20)
            return task

        async with Slow(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            for _ in range(5):
                assert await (await runtime.start(sleepy, "t")).result() == "t"

    virtually(main)


def test_a_living_process_keeps_its_runs() -> None:
    """Longer than many leases: renewed by its writer, no run is taken for an orphan, not even one that waits."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def sleepy(ctx: Context, task: str) -> str:
            await anyio.sleep(200)
            return task

        async with (
            MemoryStore(clock=clock) as store,
            Runtime(store, clock=clock, options=RuntimeOptions(max_runs=1)) as one,
            Runtime(store, clock=clock),
        ):
            runs = [await one.start(sleepy, "t") for _ in range(2)]
            assert [await run.result() for run in runs] == ["t", "t"]
            for run in runs:
                await events_of(run)

    virtually(main)


def test_a_log_that_cannot_be_read_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """An orphan whose lines are no JSON is left alone and logged; others are still ended, and runs still work."""

    async def main(clock: VirtualClock) -> None:
        @as_agent
        async def quick(ctx: Context, task: str) -> str:
            return task

        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            broken = new_run_id()
            await store.create(broken, "", "", first_chunk(RunStarted(broken, "x"), 1), facts=RunFacts("x"))
            lease = await store.take(broken, "dead", seconds=1)
            assert lease is not None
            await store.append(broken, lease.epoch, 1, Chunk(2, 2, b"{not json\n"))
            left = await runtime.get(await _leave(store, seconds=5))
            with pytest.raises(RunFailedError):
                await left.result()
            assert await (await runtime.start(quick, "t")).result() == "t"

    with caplog.at_level(logging.WARNING, "agentstream"):
        virtually(main)
    assert "has no worker and could not be ended" in caplog.text


@pytest.mark.anyio
@pytest.mark.promise("P12")
async def test_runs_of_a_process_that_died_are_ended_by_the_next_one(tmp_path: Path) -> None:
    """On a file: what was accepted is there after the restart, and the run ends in one terminal event."""
    address = f"sqlite:{tmp_path / 'runs.db'}"
    with anyio.fail_after(20):
        async with open_store(address) as store:
            run_id = await _leave(store, seconds=0.2)
        async with Runtime(address, options=QUICK) as runtime:
            run = await runtime.get(run_id)
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            events = await events_of(run)
            state = await run.state()
    assert failed.value.failure == "worker_lost"
    assert len(events) == 1 + len(_LEFT) + 7
    assert state.status == "failed"
