"""Events from at-least-once sources: put in order, freed of duplicates, and failed in place where one was lost."""

from __future__ import annotations

import random

import anyio
import pytest

from agentstream.bus import encode_event
from agentstream.errors import EmitAfterEnd, EventTooLarge, InvalidInput
from agentstream.events import AgentFailed, Custom, Event
from agentstream.order import Extra, Item, Reassembler, line_form
from bus_kit import LoopClock, Rig

pytestmark = pytest.mark.anyio


def remote(
    rig: Rig, n: int, event: Event, *, inv: str = "r.1", epoch: int = 0, after: dict[str, int] | None = None
) -> Item:
    """What a transport would hand in."""
    encoded = encode_event(event)[len(event.type) + 10 :]
    form = line_form(event.type, "r", inv)
    return rig.bus.remote_lane(inv), n, form, encoded, Extra(epoch=epoch, after=after or {})


@pytest.mark.promise("P3")
async def test_duplicates_and_disorder_are_undone() -> None:
    """Each of 500 events delivered twice, shuffled within a window: once each, in order, beside a local emitter."""
    rng = random.Random(7)
    order = [n for n in range(1, 501) for _ in range(2)]
    for start in range(0, len(order), 20):
        part = order[start : start + 20]
        rng.shuffle(part)
        order[start : start + 20] = part
    with anyio.fail_after(10):
        async with Rig(capacity=16) as rig:
            local = rig.emitter()
            for n in order:
                waiting = rig.bus.offer(remote(rig, n, Custom("n", value=n)))
                if waiting is not None:
                    await waiting
                await local.progress()
    rig.log.check()
    assert [event.value for event in rig.log.events if event.inv == "r.1"] == list(range(1, 501))  # type: ignore[union-attr]
    assert rig.bus.statistics().reassembler.duplicates == 500


async def test_a_full_window_fails_the_invocation_in_place() -> None:
    """Where the missing event would have been stands `agent.failed {code: gap}`; later ones are refused, others go on.

    And the chunk that tells of it is not marked as one of deltas only.
    """
    with anyio.fail_after(10):
        async with Rig(reassembler=Reassembler(window=3)) as rig:
            local = rig.emitter()
            for n in (1, 2, 4, 5, 6, 7, 3):
                rig.bus.offer(remote(rig, n, Custom("n", value=n)))
            await rig.bus.flush()
            await local.progress()
            await rig.bus.flush()
            rig.bus.offer(remote(rig, 8, Custom("n", value=8)))
    rig.log.check()
    ours = [event for event in rig.log.events if event.inv == "r.1"]
    assert [event.type for event in ours] == ["custom", "custom", "agent.failed"]
    assert isinstance(ours[2], AgentFailed)
    assert (ours[2].code, ours[2].agent, ours[2].agent_seq) == ("gap", "r", 3)
    assert not any(chunk.quiet for chunk in rig.log.chunks)


async def test_a_gap_is_reported_after_its_time_with_nobody_emitting() -> None:
    """The drain wakes by itself when a lane has waited too long."""
    with anyio.fail_after(10):
        async with Rig(reassembler=Reassembler(gap_timeout=0.02), clock=LoopClock()) as rig:
            rig.bus.offer(remote(rig, 2, Custom("n", value=2)))
            await rig.bus.flush()
            assert rig.log.chunks == []
            await rig.log.until(1)
    assert rig.log.types("r.1") == ["agent.failed"]


@pytest.mark.promise("P4")
async def test_an_effect_from_elsewhere_waits_for_its_cause_here() -> None:
    """`after` names the local event that sent the work away."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            local = rig.emitter("a.1")
            rig.bus.offer(remote(rig, 1, Custom("effect"), after={"a.1": 2}))
            await rig.bus.flush()
            assert rig.log.chunks == []
            await local.custom("other", 1)
            await local.custom("cause", 2)
    assert [event.name for event in rig.log.events] == ["other", "cause", "effect"]  # type: ignore[union-attr]


async def test_a_new_worker_begins_again_and_the_old_one_is_stale() -> None:
    """Its number starts at 1 under the higher epoch; what the old one still sends is dropped."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            for epoch, n in ((1, 1), (1, 2), (2, 1), (1, 3), (2, 2)):
                rig.bus.offer(remote(rig, n, Custom("n", value=[epoch, n]), epoch=epoch))
    assert [event.value for event in rig.log.events] == [[1, 1], [1, 2], [2, 1], [2, 2]]  # type: ignore[union-attr]
    assert rig.bus.statistics().reassembler.stale == 1


async def test_an_invocation_is_here_or_elsewhere() -> None:
    """One name cannot be counted in two places."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            rig.emitter("a.1")
            with pytest.raises(InvalidInput, match="invocation of this process"):
                rig.bus.remote_lane("a.1")
            rig.bus.remote_lane("r.1")
            with pytest.raises(InvalidInput, match="come from elsewhere"):
                rig.emitter("r.1")


async def test_offers_are_bounded_and_refused_like_emits() -> None:
    """Too large is refused; after the end nothing is taken; a full bus makes the source wait."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            with pytest.raises(EventTooLarge):
                rig.bus.offer(remote(rig, 1, Custom("n", value="x" * 300_000)))
            rig.log.hang()
            assert rig.bus.offer(remote(rig, 1, Custom("n"))) is None
            await anyio.wait_all_tasks_blocked()
            assert rig.bus.offer(remote(rig, 2, Custom("n"))) is None
            assert rig.bus.offer(remote(rig, 3, Custom("n"))) is not None
            item = remote(rig, 4, Custom("n"))
            rig.bus.close()
            with pytest.raises(EmitAfterEnd):
                rig.bus.offer(item)
    assert len(rig.log.events) == 3
