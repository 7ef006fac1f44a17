"""What a run amounts to."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import StoreDown
from agentstream.events import PlanItem, Usage
from agentstream.ports import Kept
from agentstream.store import MemoryStore
from agentstream.stream import KEEP_EVERY, AgentState, RunState, StateKeeper, fold, load_state
from stream.logs import AT, RUN, Script, Writer, chunks_of

PLAN = [{"id": "1", "title": "look"}, {"id": "2", "title": "count", "status": "active"}]


def whole() -> Script:
    """A run that uses everything the state shows."""
    return (
        Script()
        .add("run.started", run=RUN, team="analyst", input={"q": "how many"})
        .add("run.waiting", on="slot", position=1)
        .add("agent.started", "planner.1", role="planner")
        .add("agent.waiting", "planner.1", on="llm")
        .add("text.started", "planner.1", block="planner.1.1")
        .text("planner.1", "a", 'run.finished","output":')
        .add("plan.updated", "planner.1", steps=PLAN)
        .add("agent.started", "executor.1", role="executor", parent="planner.1", task="x")
        .add("agent.progress", "executor.1", message="half", done=1, total=2)
        .add("artifact.created", "executor.1", id="executor.1.1", mime="image/png", name="p", size=3, data="AAAA")
        .add("agent.failed", "executor.1", code="worker_lost", message="gone")
        .add("run.attempt", attempt=2, reason="worker_lost")
        .add("attempt.superseded", of="executor.1", attempt=1, ids=["executor.1.1"])
        .add("agent.started", "executor.2", role="executor", parent="planner.1", attempt=2, replaces="executor.1")
        .add("tool.output", "executor.2", call="executor.2.1", channel="stdout", text="x")
        .add("artifact.created", "executor.2", id="executor.2.2", mime="text/csv")
        .add("agent.waiting", "executor.2", on="tool")
        .add("verdict.given", "verifier.1", ok=False, feedback="no", step="1")
        .add("song.sung", "executor.2", notes=[1])
        .add("agent.finished", "executor.2", result=1)
        .add("agent.finished", "planner.1", result=2)
    )


def lines_of(script: Script) -> bytes:
    """The script's lines as bytes."""
    return b"".join(line + b"\n" for line in script.lines)


def test_everything_in_one() -> None:
    """Each part of the state is what the events say."""
    script = whole()
    state = fold(RunState(), lines_of(script))
    assert (state.run, state.team, state.status, state.resume) == (RUN, "analyst", "running", "auto")
    assert (state.seq, state.attempt, state.started, state.is_over) == (len(script.lines), 2, AT + 1, False)
    assert state.input == {"q": "how many"}
    assert state.plan == (PlanItem("1", "look"), PlanItem("2", "count", "active"))
    assert list(state.agents) == ["planner.1", "executor.1", "executor.2"]
    assert state.agents["planner.1"] == AgentState("planner.1", "planner", "planner", "finished")
    lost = state.agents["executor.1"]
    assert (lost.status, lost.message, lost.done, lost.parent) == ("superseded", "half", 1, "planner.1")
    assert lost.failure is not None
    assert lost.failure.code == "worker_lost"
    assert state.agents["executor.2"].replaces == "executor.1"
    assert [artifact.id for artifact in state.artifacts] == ["executor.2.2"]
    assert [(verdict.inv, verdict.ok, verdict.step) for verdict in state.verdicts] == [("verifier.1", False, "1")]


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (
            "run.finished",
            {"output": ["x.delta", "y"], "usage": {"input_tokens": 3}},
            {"status": "finished", "output": ["x.delta", "y"], "usage": Usage(3)},
        ),
        ("run.failed", {"code": "store", "message": "m"}, {"status": "failed"}),
        (
            "run.stopped",
            {"cause": "user_stop", "detail": "d"},
            {"status": "stopped", "cause": "user_stop", "detail": "d"},
        ),
    ],
)
def test_ends(kind: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each terminal event ends the run, and nobody should attach by himself any more."""
    state = fold(RunState(), lines_of(whole().add(kind, **fields)))
    assert state.is_over
    assert state.resume == "no"
    assert {name: getattr(state, name) for name in expected} == expected
    assert (state.failure is not None) == (kind == "run.failed")


def test_waiting_until_something_happens() -> None:
    """What an invocation waits for is shown until its next event that is not a delta."""
    script = (
        Script().add("run.started", run=RUN, team="t").add("agent.started", "a.1").add("agent.waiting", "a.1", on="llm")
    )
    assert fold(RunState(), lines_of(script)).agents["a.1"].waiting_on == "llm"
    script.add("text.started", "a.1", block="a.1.1")
    assert fold(RunState(), lines_of(script)).agents["a.1"].waiting_on == ""


@given(st.lists(st.integers(1, 7), max_size=20))
def test_in_parts_or_in_one(sizes: list[int]) -> None:
    """Folding in parts, also by way of the kept form, gives what folding in one go gives, and changes nothing given."""
    script = whole().add("run.finished", output=1)
    state = RunState()
    for chunk in chunks_of(script.lines, sizes):
        before = msgspec.json.encode(state)
        after = fold(state, chunk.lines)
        assert msgspec.json.encode(state) == before
        state = msgspec.json.decode(msgspec.json.encode(after), type=RunState)
    assert state == fold(RunState(), lines_of(script))


def test_coalesced_lines_fold_alike() -> None:
    """Coalescing changes nothing for the state but the numbers of events, which the log alone has."""
    script = Script().add("run.started", run=RUN, team="t").add("agent.started", "a.1").text("a.1", *"xyz")
    state = fold(RunState(), lines_of(script))
    assert list(state.agents) == ["a.1"]
    assert state.seq == 5


@pytest.mark.anyio
async def test_kept_state_is_used_and_checked() -> None:
    """Loading begins at the kept state if it is of this log, and from the start if it is not."""
    script = whole().add("run.finished", output=1)
    expected = fold(RunState(), lines_of(script))
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(script.lines, [3] * 10))
        await writer.write()
        plain = await load_state(store, RUN)
        assert plain == msgspec.structs.replace(expected, cursor=writer.cursor(len(script.lines)))

        marked = msgspec.structs.replace(fold(RunState(), lines_of(script)), team="from the kept state")
        at = len(script.lines)
        for cursor, seq, team in (
            (writer.cursor(at), at, "from the kept state"),
            (f"{RUN}.zzzzzz.{at}", at, "analyst"),
            (writer.cursor(at + 1), at + 1, "analyst"),
            ("", at, "analyst"),
        ):
            body = msgspec.json.encode(msgspec.structs.replace(marked, cursor=cursor, seq=seq))
            await store.keep(RUN, Kept(seq, body))
            assert (await load_state(store, RUN)).team == team
        for junk in (b"", b"{", b'{"seq":"x"}', b"[]"):
            await store.keep(RUN, Kept(at, junk))
            assert await load_state(store, RUN) == plain


@pytest.mark.anyio
async def test_keeper_keeps_each_thousand_events() -> None:
    """The writer's keeper asks for keeping each thousand events and at the end; a load then reads only the rest."""
    script = Script().add("run.started", run=RUN, team="t").add("agent.started", "a.1").text("a.1", *["x"] * 2500)
    script.add("run.finished", output=1)
    chunks = chunks_of(script.lines, [100] * 25)
    async with MemoryStore() as store:
        writer = Writer(store, chunks)
        await writer.write(1)
        keeper = StateKeeper(store, RUN, writer.incarnation)
        due: list[int] = []
        for number, chunk in enumerate(chunks):
            if number:
                await writer.write(1)
            if keeper.advance(chunk):
                due.append(chunk.last)
                assert await keeper.keep()
        assert due == [1000, 2000, len(script.lines)]
        assert KEEP_EVERY == 1000
        kept = await store.kept(RUN)
        assert kept is not None
        assert kept.seq == len(script.lines)
        assert msgspec.structs.replace(await load_state(store, RUN), cursor="") == keeper.state


@pytest.mark.anyio
async def test_keeper_survives_the_store() -> None:
    """A store that refuses costs the kept state, not the run; two keeps at once are one."""

    class Slow:
        calls = 0
        go = anyio.Event()

        async def keep(self, run: str, kept: Kept) -> None:
            self.calls += 1
            await self.go.wait()
            raise StoreDown("away")

    slow = Slow()
    keeper = StateKeeper(slow, RUN, "aaaaaa")  # type: ignore[arg-type]
    results: list[bool] = []

    async def keep() -> None:
        results.append(await keeper.keep())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(keep)
            await anyio.wait_all_tasks_blocked()
            assert await keeper.keep() is False
            slow.go.set()
    assert (results, slow.calls) == ([False], 1)
