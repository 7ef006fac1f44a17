"""The merging bus: order, completeness, bounds, and every waiter let go whatever happens to the log."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from agentstream.bus import Emitter, MergeBus
from agentstream.errors import AgentStreamError, EmitAfterEnd, EventTooLarge, InvalidInput, LogFull, StoreDown
from agentstream.events import AgentProgress, Custom, TextDelta
from bus_kit import HeldLog, Rig

pytestmark = pytest.mark.anyio


async def _emit(emitter: Emitter, count: int, rng: random.Random) -> None:
    for n in range(count):
        await emitter.custom("n", n)
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            await anyio.lowlevel.checkpoint()


# --- order and completeness -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.promise("P2", "P3")
async def test_sixteen_emitters_lose_nothing_and_keep_their_order(seed: int) -> None:
    """16 × 300 events with random yields and a small bus: all there, seq and each agent_seq without a gap."""
    rng = random.Random(seed)
    with anyio.fail_after(20):
        async with Rig(capacity=32) as rig, anyio.create_task_group() as group:
            for agent in range(16):
                group.start_soon(_emit, rig.emitter(f"a.{agent + 1}"), 300, random.Random(rng.random()))
    rig.log.check()
    for agent in range(16):
        values = [event.value for event in rig.log.events if event.inv == f"a.{agent + 1}"]  # type: ignore[union-attr]
        assert values == list(range(300))


@pytest.mark.promise("P4")
async def test_what_was_emitted_before_another_was_called_comes_first() -> None:
    """A baton goes round eight emitters on a bus of two: the order of the log is the order of the baton."""
    with anyio.fail_after(20):
        async with Rig(capacity=2) as rig:
            emitters = [rig.emitter(f"a.{n + 1}") for n in range(8)]
            batons = [anyio.create_memory_object_stream[int](1) for _ in emitters]

            async def run(index: int) -> None:
                async for step in batons[index][1]:
                    await emitters[index].custom("step", step)
                    if step == 400:
                        for send, _ in batons:
                            send.close()
                        return
                    await batons[(index + 1) % 8][0].send(step + 1)

            async with anyio.create_task_group() as group:
                for index in range(8):
                    group.start_soon(run, index)
                await batons[0][0].send(0)
            for send, receive in batons:
                send.close()
                receive.close()
    assert [event.value for event in rig.log.events] == list(range(401))  # type: ignore[union-attr]


@pytest.mark.promise("P4")
async def test_a_cancelled_emit_still_comes_before_what_it_caused() -> None:
    """A parked event has its place: who cancels the wait and tells another cannot be overtaken."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            first, second, third = rig.emitter("a.1"), rig.emitter("b.1"), rig.emitter("c.1")
            rig.log.hang()
            await first.custom("n", 0)
            await anyio.wait_all_tasks_blocked()
            await second.custom("n", 1)
            with anyio.move_on_after(0):
                await first.custom("cause", 2)
            with anyio.move_on_after(0):
                await third.custom("effect", 3)
    assert [event.value for event in rig.log.events] == [0, 1, 2, 3]  # type: ignore[union-attr]


# --- bounds -----------------------------------------------------------------------------------------------------------
async def _forever(emitter: Emitter) -> None:
    while True:
        await emitter.progress("x")


@pytest.mark.parametrize(("capacity", "emitters", "tasks"), [(4, 3, 1), (4, 2, 20), (64, 10, 9), (2, 1, 1)])
@pytest.mark.promise("P9")
async def test_what_waits_is_bounded_while_the_log_hangs(capacity: int, emitters: int, tasks: int) -> None:
    """Emitted minus accepted ≤ 2 × bound + 8 × producers, however many tasks share an emitter."""
    with anyio.fail_after(20):
        async with Rig(capacity=capacity) as rig, anyio.create_task_group() as group:
            rig.log.hang()
            for n in range(emitters):
                emitter = rig.emitter(f"a.{n + 1}")
                for _ in range(tasks):
                    group.start_soon(_forever, emitter)
            await anyio.wait_all_tasks_blocked()
            statistics = rig.bus.statistics()
            room = max(capacity, emitters)
            assert capacity <= statistics.emitted - statistics.accepted <= 2 * room + 8 * emitters
            assert statistics.accepted == 0
            group.cancel_scope.cancel()
    rig.log.check()


@pytest.mark.promise("P9")
async def test_cancelled_emits_do_not_pass_the_bound() -> None:
    """An emitter that gives up its waits and tries again is held at eight parked events."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            for n in range(100):
                with anyio.move_on_after(0):
                    await emitter.custom("n", n)
            statistics = rig.bus.statistics()
            assert statistics.emitted - statistics.accepted <= 2 + 8
    rig.log.check()
    assert len(rig.log.events) <= 2 + 8


@pytest.mark.parametrize("emitters", [4, 64])
@pytest.mark.promise("P9")
async def test_bytes_are_bounded_too(emitters: int) -> None:
    """Large events park long before 256 of them: at most the bound of bytes, and one parked event each, wait."""
    bound, size = 1024 * 1024, 64 * 1024
    with anyio.fail_after(20):
        async with Rig(max_bytes=bound) as rig, anyio.create_task_group() as group:
            rig.log.hang()

            async def run(emitter: Emitter) -> None:
                while True:
                    await emitter.custom("x", "x" * size)

            for n in range(emitters):
                group.start_soon(run, rig.emitter(f"a.{n + 1}"))
            await anyio.wait_all_tasks_blocked()
            assert bound // 2 <= rig.bus.statistics().waiting_bytes <= bound + (emitters + 1) * (size + 100)
            group.cancel_scope.cancel()


@pytest.mark.promise("P9")
async def test_small_events_of_thousands_of_emitters_stay_within_the_bytes() -> None:
    """The bound of events grows with the emitters, the bound of bytes does not: 3,000 × 4,000 bytes are not let in."""
    with anyio.fail_after(30):
        async with Rig(max_bytes=1024 * 1024) as rig, anyio.create_task_group() as group:
            rig.log.hang()
            emitters = [rig.emitter(f"a.{n + 1}") for n in range(3000)]
            parked = 0
            for emitter in emitters:
                with anyio.move_on_after(0) as scope:
                    await emitter.custom("x", "x" * 4000)
                parked += scope.cancelled_caught
            in_list = rig.bus.statistics().waiting - rig.bus.statistics().parked
            assert in_list * 4000 <= 1024 * 1024 + 4100
            assert parked >= 2000
            group.cancel_scope.cancel()


async def test_the_bound_is_at_least_the_number_of_emitters() -> None:
    """300 emitters on a bus of 256: one event each waits without anybody being parked."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitters = [rig.emitter(f"a.{n + 1}") for n in range(300)]
            await anyio.wait_all_tasks_blocked()
            rig.log.hang()
            await emitters[0].progress()
            await anyio.wait_all_tasks_blocked()
            for emitter in emitters:
                await emitter.progress()
            assert rig.bus.statistics().parked == 0


async def test_nobody_starves() -> None:
    """One quiet emitter among fifteen that flood a full bus gets each of its events through."""
    with anyio.fail_after(20):
        async with Rig(capacity=4) as rig, anyio.create_task_group() as group:
            for n in range(15):
                group.start_soon(_forever, rig.emitter(f"loud.{n + 1}"))
            quiet = rig.emitter("quiet.1")
            for n in range(50):
                await quiet.custom("n", n)
            group.cancel_scope.cancel()
    rig.log.check()
    assert len([event for event in rig.log.events if event.inv == "quiet.1"]) == 50


async def test_nobody_starves_within_one_emitter() -> None:
    """Of thirty tasks that share an emitter on a full bus, each gets its turn."""
    turns = [0] * 30
    with anyio.fail_after(20):
        async with Rig(capacity=1) as rig, anyio.create_task_group() as group:
            emitter = rig.emitter()

            async def run(task: int) -> None:
                while True:
                    await emitter.custom("task", task)
                    turns[task] += 1
                    if min(turns) >= 5:
                        group.cancel_scope.cancel()

            for task in range(30):
                group.start_soon(run, task)
    assert min(turns) >= 5
    rig.log.check()


async def test_a_wait_before_a_call_ends_though_others_go_on_emitting() -> None:
    """`settle` waits for what was there, not for a quiet moment that never comes."""
    with anyio.fail_after(20):
        async with Rig(capacity=1) as rig, anyio.create_task_group() as group:
            emitter = rig.emitter()
            for _ in range(20):
                group.start_soon(_forever, emitter)
            await anyio.lowlevel.checkpoint()
            for _ in range(5):
                await emitter._source.settle()
            group.cancel_scope.cancel()
    rig.log.check()


async def test_memory_does_not_grow_with_the_events() -> None:
    """After a hundred thousand events with an accepting log the bus holds nothing."""

    async def forget(chunk: object) -> None:
        await anyio.lowlevel.checkpoint()

    with anyio.fail_after(30):
        bus = MergeBus(forget)
        rig = Rig()
        rig.bus = bus
        async with anyio.create_task_group() as group:
            group.start_soon(bus.drain)
            emitter = rig.emitter()
            for _ in range(2000):
                await emitter.progress()
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(20_000):
                await emitter.progress()
            await emitter.flush()
            after, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            bus.close()
    assert after - before < 200_000
    assert bus.statistics().accepted == 22_000


# --- cancellation -----------------------------------------------------------------------------------------------------
async def test_a_cancelled_emit_counts_if_it_had_its_number() -> None:
    """Parked is emitted: it comes out, once, and the next number follows it."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            await emitter.custom("n", 0)
            await anyio.wait_all_tasks_blocked()
            await emitter.custom("n", 1)
            with anyio.move_on_after(0) as scope:
                await emitter.custom("n", 2)
            assert scope.cancelled_caught
            rig.log.go_on()
            await emitter.custom("n", 3)
    assert [event.value for event in rig.log.events] == [0, 1, 2, 3]  # type: ignore[union-attr]
    rig.log.check()


async def test_a_cancelled_emit_that_waits_for_its_number_was_not_emitted() -> None:
    """The ninth of a source with eight parked events leaves no event and no gap."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            await emitter.custom("n", 0)
            await anyio.wait_all_tasks_blocked()
            await emitter.custom("n", 1)
            for n in range(2, 10):
                with anyio.move_on_after(0):
                    await emitter.custom("n", n)
            with anyio.move_on_after(0) as scope:
                await emitter.custom("never", 10)
            assert scope.cancelled_caught
            rig.log.go_on()
            await emitter.custom("n", 11)
    assert [event.value for event in rig.log.events] == [*range(10), 11]  # type: ignore[union-attr]
    rig.log.check()


# --- ends -------------------------------------------------------------------------------------------------------------
Wait = Callable[[Rig, Emitter], Awaitable[object]]

_WAITS: dict[str, Wait] = {
    "parked": lambda rig, emitter: emitter.progress(),
    "flush": lambda rig, emitter: emitter.flush(),
    "bus flush": lambda rig, emitter: rig.bus.flush(),
    "settle": lambda rig, emitter: emitter._source.settle(),
    "state": lambda rig, emitter: emitter.state.set("/a", 1),
    "block": lambda rig, emitter: emitter.say("x"),
}


async def _full(rig: Rig, *, parked: int) -> Emitter:
    """An emitter on a hanging log: one event in its hands, one on the bus, `parked` parked."""
    emitter = rig.emitter()
    rig.log.hang()
    await emitter.progress()
    await anyio.wait_all_tasks_blocked()
    await emitter.progress()
    for _ in range(parked):
        with anyio.move_on_after(0):
            await emitter.progress()
    return emitter


@pytest.mark.parametrize("how", ["raises", "raises something else", "cancelled"])
@pytest.mark.parametrize("parked", [1, 8])
@pytest.mark.parametrize("wait", _WAITS)
async def test_everybody_who_waits_is_let_go_with_a_typed_error(wait: str, parked: int, how: str) -> None:
    """The append raises, or the drain is cancelled: nobody hangs, and nobody believes that his event was accepted."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = await _full(rig, parked=parked)
            errors: list[BaseException] = []

            async def run() -> None:
                try:
                    await _WAITS[wait](rig, emitter)
                except AgentStreamError as error:
                    errors.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await anyio.wait_all_tasks_blocked()
                assert errors == []
                if how == "cancelled":
                    rig.scope.cancel()
                else:
                    rig.log.error = StoreDown("gone") if how == "raises" else OSError("gone")
                    rig.log.go_on()
            expected = StoreDown if how == "raises" else EmitAfterEnd
            assert [type(error) for error in errors] in ([expected], [EmitAfterEnd])
            with pytest.raises(EmitAfterEnd):
                await emitter.progress()
            with pytest.raises((StoreDown, EmitAfterEnd)):
                await emitter.flush()
            with pytest.raises((StoreDown, EmitAfterEnd)):
                rig.emitter("b.1")
    assert rig.log.chunks == []


async def test_what_the_append_raised_is_what_the_drain_raises() -> None:
    """The owner of the bus learns the cause; whoever comes later gets it as well, without a growing traceback."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            rig.log.error = LogFull("full")
            emitter = rig.emitter()
            await emitter.progress()
            with pytest.raises(LogFull):
                await emitter.flush()
            await rig.drained.wait()
            assert rig.failure is rig.log.error
            lengths = []
            for _ in range(3):
                with pytest.raises(LogFull) as raised:
                    await emitter.flush()
                lengths.append(len(raised.traceback))
            assert len(set(lengths)) == 1


async def test_closing_lets_in_nothing_more_and_loses_nothing() -> None:
    """What was handed in before is accepted, parked events included; later emits raise."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = await _full(rig, parked=3)
            rig.bus.close()
            with pytest.raises(EmitAfterEnd):
                await emitter.progress()
            with pytest.raises(EmitAfterEnd):
                rig.emitter("b.1")
            rig.log.go_on()
            await rig.drained.wait()
            await rig.bus.flush()
    assert rig.failure is None
    assert len(rig.log.events) == 5
    rig.log.check()


async def test_who_waits_while_the_bus_is_closed_and_drained_was_accepted() -> None:
    """A parked emit that was taken by the last drain returns as usual: its event is in the log."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = await _full(rig, parked=0)
            async with anyio.create_task_group() as group:
                group.start_soon(emitter.custom, "last", 1)
                await anyio.wait_all_tasks_blocked()
                rig.bus.close()
                rig.log.go_on()
    assert rig.log.events[-1].value == 1  # type: ignore[union-attr]


async def test_who_waits_for_a_number_when_the_bus_closes_is_refused() -> None:
    """Not numbered is not emitted: the error says so and the log has no gap."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = await _full(rig, parked=8)
            refused: list[EmitAfterEnd] = []

            async def run() -> None:
                try:
                    await emitter.custom("late", 1)
                except EmitAfterEnd as error:
                    refused.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await anyio.wait_all_tasks_blocked()
                rig.bus.close()
            assert len(refused) == 1
            assert rig.log.chunks == []
    assert len(rig.log.events) == 10
    rig.log.check()


@pytest.mark.promise("P1")
async def test_flush_returns_only_after_the_log_accepted() -> None:
    """While the append hangs the flush waits; emits that come later do not prolong it."""
    done: list[str] = []
    with anyio.fail_after(10):
        async with Rig() as rig, anyio.create_task_group() as group:
            emitter = rig.emitter()
            await emitter.flush()  # nothing was emitted: nothing to wait for
            rig.log.hang()
            await emitter.progress()

            async def flush() -> None:
                await emitter.flush()
                assert rig.log.events[0].inv == "a.1"
                done.append("flushed")
                group.cancel_scope.cancel()

            group.start_soon(flush)
            await anyio.wait_all_tasks_blocked()
            assert done == []
            rig.log.go_on()
            await _forever(rig.emitter("b.1"))
    assert done == ["flushed"]


async def test_numbers_go_on_from_the_logs_last() -> None:
    """A bus that takes a log over begins behind it."""
    with anyio.fail_after(10):
        async with Rig(last=41) as rig:
            await rig.emitter().progress()
    assert [event.seq for event in rig.log.events] == [42]
    assert rig.log.chunks[0].first == 42


# --- refused before anything is numbered ------------------------------------------------------------------------------
async def test_an_event_that_is_too_large_is_refused_at_its_emitter() -> None:
    """The error says how large it is and what to do; the numbers have no gap; others go on."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            await emitter.custom("n", 1)
            with pytest.raises(EventTooLarge, match="artifact") as refused:
                await emitter.custom("n", "x" * 300_000)
            assert refused.value.details["limit"] == 256 * 1024
            await emitter.emit(TextDelta("b", "x" * 250_000))
            with pytest.raises(EventTooLarge):
                await emitter.emit(TextDelta("b", "x" * 300_000))
            await emitter.custom("n", 2)
    assert [event.agent_seq for event in rig.log.events] == [1, 2, 3]
    assert rig.bus.statistics().emitted == 3


async def test_statistics_count() -> None:
    """Emitted, accepted, appends, sources; waiting and parked are of now."""
    with anyio.fail_after(10):
        async with Rig(capacity=2) as rig:
            one, _two = rig.emitter("a.1"), rig.emitter("b.1")
            rig.log.hang()
            await one.progress("x")
            await anyio.wait_all_tasks_blocked()
            await one.progress("x")
            await one.progress("x")
            with anyio.move_on_after(0):
                await one.emit(AgentProgress("parked"))
            now = rig.bus.statistics()
            assert (now.emitted, now.accepted, now.waiting, now.parked, now.appends, now.sources) == (4, 0, 3, 1, 0, 2)
            assert now.waiting_bytes > 0
            one.end()
            rig.log.go_on()
            await rig.bus.flush()
            now = rig.bus.statistics()
            assert (now.emitted, now.accepted, now.waiting, now.parked, now.sources) == (4, 4, 0, 0, 1)
            assert now.appends == 2


async def test_a_wrong_type_says_which() -> None:
    """Not an event, or one that only the runtime emits: refused, and nothing is numbered."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            for wrong in ("text", None, AgentProgress, {"type": "custom"}):
                with pytest.raises(InvalidInput, match="an event of"):
                    await emitter.emit(wrong)  # type: ignore[arg-type]
            await emitter.emit(Custom("n", value=1))
    assert [event.agent_seq for event in rig.log.events] == [1]


async def test_a_log_in_memory_that_never_waits_starves_nobody() -> None:
    """An append without a checkpoint and an emitter without one still let others run."""
    log = HeldLog()
    ran: list[int] = []

    async def now(chunk: object) -> None:
        log.asked += 1

    with anyio.fail_after(10):
        bus = MergeBus(now)
        rig = Rig()
        rig.bus = bus

        async def other() -> None:
            while True:
                ran.append(1)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(bus.drain)
            group.start_soon(other)
            emitter = rig.emitter()
            for _ in range(5000):
                await emitter.progress()
            group.cancel_scope.cancel()
    assert len(ran) >= 5


async def test_an_emitter_that_does_nothing_else_can_be_cancelled() -> None:
    """A hot loop of emits ends at a cancellation: the wait for room is a place where it is delivered."""
    with anyio.fail_after(5):
        async with Rig() as rig, anyio.create_task_group() as group:
            emitter = rig.emitter()
            group.start_soon(_forever, emitter)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    rig.log.check()
