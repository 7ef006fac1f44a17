"""The shared document: one order for it and for its events, bounds, and typed errors."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import pytest

from agentstream.bus import MAX_STATE_BYTES, Emitter
from agentstream.errors import EmitAfterEnd, PatchError, StateTooLarge
from agentstream.events import Json, StateDelta
from agentstream.wire import patch
from bus_kit import Rig

pytestmark = pytest.mark.anyio


def _folded(rig: Rig) -> Json:
    document: Json = {}
    for event in rig.log.events:
        if isinstance(event, StateDelta):
            document = patch.apply(document, event.ops)
    return document


async def test_set_append_delete() -> None:
    """One operation a change; the document and the fold of the log are alike."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            state = rig.emitter().state
            await state.set("/plan", [])
            await state.append("/plan", {"title": "a/b"})
            await state.append("/plan", 2)
            await state.set("/plan/0/done", True)
            await state.delete("/plan/1")
            await state.set("/a~1b", None)
            assert state.get("/plan/0/title") == "a/b"
            assert state.value == {"plan": [{"title": "a/b", "done": True}], "a/b": None}
            assert _folded(rig) != state.value or rig.log.events
    assert _folded(rig) == state.value
    assert all(len(event.ops) == 1 for event in rig.log.events if isinstance(event, StateDelta))


@pytest.mark.parametrize("pointer", ["/missing/x", "no-slash", "/~2", "/list/7", "/list/x"])
async def test_what_does_not_apply_changes_nothing(pointer: str) -> None:
    """`PatchError`; neither the document nor the log knows of it."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            state = rig.emitter().state
            await state.set("/list", [])
            with pytest.raises(PatchError):
                await state.set(pointer, 1)
            with pytest.raises(PatchError):
                await state.delete("/missing")
            with pytest.raises(PatchError):
                state.get("/missing")
            assert state.value == {"list": []}
    assert [event.agent_seq for event in rig.log.events] == [1]


@pytest.mark.promise("P9")
async def test_the_document_has_a_bound() -> None:
    """192 KiB: what would pass it is refused and changes nothing; what was deleted makes room again."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            state = rig.emitter().state
            await state.set("/a", "x" * 150_000)
            with pytest.raises(StateTooLarge, match="artifact"):
                await state.set("/b", "x" * 60_000)
            assert set(state.value) == {"a"}
            await state.delete("/a")
            await state.set("/b", "x" * 150_000)
            for n in range(1000):
                await state.set("/n", n)
            await state.set("/b", "y" * (MAX_STATE_BYTES - 100))
    assert _folded(rig) == state.value
    assert max(map(len, rig.log.lines)) < 256 * 1024


@pytest.mark.parametrize("capacity", [1, 4])
async def test_concurrent_writers_have_one_order(capacity: int) -> None:
    """Thirty tasks of three agents write the same places on a full bus: the document is the fold of the log."""
    rng = random.Random(capacity)
    with anyio.fail_after(20):
        async with Rig(capacity=capacity) as rig:
            emitters = [rig.emitter(f"a.{n + 1}") for n in range(3)]
            await emitters[0].state.set("/list", [])

            async def run(emitter: Emitter, task: int) -> None:
                for n in range(20):
                    await emitter.state.set(f"/k{n % 3}", [task, n])
                    await emitter.state.append("/list", task)
                    for _ in range(rng.choice((0, 1))):
                        await anyio.lowlevel.checkpoint()

            async with anyio.create_task_group() as group:
                for task in range(30):
                    group.start_soon(run, emitters[task % 3], task)
    rig.log.check()
    assert _folded(rig) == rig.document.value
    assert len(rig.document.value["list"]) == 600


async def test_a_change_that_was_never_numbered_never_happened() -> None:
    """Cancelled in the line for a number: neither the document nor the log has it."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            await emitter.progress()
            await anyio.wait_all_tasks_blocked()
            await emitter.progress()
            for n in range(8):
                with anyio.move_on_after(0):
                    await emitter.state.set("/n", n)
            with anyio.move_on_after(0):
                await emitter.state.set("/never", 1)
            assert rig.document.value == {"n": 7}
    assert _folded(rig) == {"n": 7}


async def test_an_ended_emitter_changes_nothing() -> None:
    """`EmitAfterEnd`, and the document of the others is as it was."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter, other = rig.emitter("a.1"), rig.emitter("b.1")
            await emitter.state.set("/a", 1)
            emitter.end()
            with pytest.raises(EmitAfterEnd):
                await emitter.state.set("/a", 2)
            with pytest.raises(EmitAfterEnd):
                await emitter.state.delete("/a")
            assert other.state.get("/a") == 1
