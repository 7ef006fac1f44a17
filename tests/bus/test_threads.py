"""Emitting from worker threads: complete, in order, and nobody hangs when the loop's side ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from agentstream.bus import BlockingEmitter, Emitter
from agentstream.errors import EmitAfterEnd, EventTooLarge, InvalidInput, NotSerializable, StoreDown
from agentstream.events import Custom, RunFinished, TextDelta, ToolFinished, ToolStarted
from bus_kit import Rig

pytestmark = pytest.mark.anyio


async def _in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in `count` threads at once; they have ended when this returns."""
    limiter = anyio.CapacityLimiter(count)
    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(lambda n=n: anyio.to_thread.run_sync(work, n, limiter=limiter))  # type: ignore[misc]


@pytest.mark.parametrize(("threads", "capacity"), [(4, 256), (20, 1), (3, 2)])
@pytest.mark.promise("P3")
async def test_every_event_of_every_thread_arrives_in_its_order(threads: int, capacity: int) -> None:
    """N threads × M events through one emitter, with the loop emitting too: all there, agent_seq without a gap."""
    each = 60
    with anyio.fail_after(30):
        async with Rig(capacity=capacity) as rig:
            emitter = rig.emitter()
            blocking = emitter.blocking()

            def work(thread: int) -> None:
                for n in range(each):
                    blocking.custom(f"t{thread}", n)

            async with anyio.create_task_group() as group:
                group.start_soon(_in_threads, threads, work)
                for n in range(each):
                    await emitter.custom("loop", n)
                    await anyio.lowlevel.checkpoint()
    rig.log.check()
    for name in ("loop", *(f"t{n}" for n in range(threads))):
        values = [event.value for event in rig.log.events if isinstance(event, Custom) and event.name == name]
        assert values == list(range(each))


async def test_more_threads_than_may_be_parked_get_through_a_full_bus() -> None:
    """Eight drafts are parked, the others wait in line; each append lets the next ones in, though nobody else emits."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            await emitter.progress()
            await anyio.wait_all_tasks_blocked()
            blocking = emitter.blocking()
            started = threading.Semaphore(0)

            def work(thread: int) -> None:
                started.release()
                blocking.custom("t", thread)

            async with anyio.create_task_group() as group:
                group.start_soon(_in_threads, 25, work)
                for _ in range(25):
                    await anyio.to_thread.run_sync(started.acquire)
                statistics = rig.bus.statistics()
                assert statistics.emitted - statistics.accepted <= 2 + 8
                rig.log.go_on()
    rig.log.check()
    assert sorted(event.value for event in rig.log.events if isinstance(event, Custom)) == list(range(25))


@pytest.mark.promise("P4")
async def test_the_loops_emit_comes_after_what_a_thread_left() -> None:
    """A draft that waits is numbered before what the loop's side emits next."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()

            def work() -> None:
                emitter.blocking().custom("thread", 1)

            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, work)
                while not emitter._source._inbox:
                    await anyio.lowlevel.checkpoint()
                    if rig.bus.statistics().emitted:
                        break  # the loop took it already
                await emitter.custom("loop", 2)
    assert [event.value for event in rig.log.events] == [1, 2]  # type: ignore[union-attr]


async def test_blocks_of_threads_are_blocks() -> None:
    """Started, deltas of bounded size, finished; `think` and `progress` as on the loop."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            blocking = rig.emitter().blocking()

            def work() -> None:
                with blocking.text() as block:
                    block.write("")
                    block.write("x" * 40_000)
                blocking.think("hm")
                blocking.say("done")
                blocking.progress("half", done=1, total=2)
                with pytest.raises(EmitAfterEnd):
                    block.write("late")
                with pytest.raises(NotSerializable), blocking.text() as other:
                    other.write(b"x")  # type: ignore[arg-type]

            await anyio.to_thread.run_sync(work)
    assert rig.log.types() == [
        *("text.started", "text.delta", "text.delta", "text.finished"),
        *("thinking.started", "thinking.delta", "thinking.finished"),
        *("text.started", "text.delta", "text.finished"),
        "agent.progress",
        *("text.started", "text.finished"),
    ]


async def test_what_is_refused_is_refused_in_the_thread() -> None:
    """Too large, not JSON, not the user's type: the thread gets the error, and no number is used up."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            blocking = rig.emitter().blocking()

            def work() -> None:
                with pytest.raises(EventTooLarge):
                    blocking.emit(TextDelta("b", "x" * 300_000))
                with pytest.raises(NotSerializable):
                    blocking.custom("n", object())
                with pytest.raises(InvalidInput):
                    blocking.emit(RunFinished())
                blocking.custom("n", 1)

            await anyio.to_thread.run_sync(work)
    assert [event.agent_seq for event in rig.log.events] == [1]


async def test_on_the_loops_thread_it_would_wait_for_itself() -> None:
    """An error instead of a deadlock, whoever made the blocking emitter and wherever."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            with pytest.raises(RuntimeError, match="worker threads"):
                emitter.blocking().progress()
            made: list[BlockingEmitter] = []

            def work() -> None:
                made.append(emitter.blocking())
                made[0].progress("from the thread that made it")

            await anyio.to_thread.run_sync(work)
            with pytest.raises(RuntimeError):
                made[0].progress()
    assert rig.log.types() == ["agent.progress"]


@pytest.mark.parametrize("how", ["emitter", "bus", "failure", "cancelled"])
async def test_threads_that_wait_are_let_go_at_the_end(how: str) -> None:
    """Twenty threads wait on a full bus; whatever ends it, each returns or gets its error, and none hangs."""
    outcomes: list[str] = []
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            await emitter.progress()
            await anyio.wait_all_tasks_blocked()
            blocking = emitter.blocking()
            inside = threading.Semaphore(0)

            def work(thread: int) -> None:
                inside.release()
                try:
                    blocking.custom("t", thread)
                except (EmitAfterEnd, StoreDown) as error:
                    outcomes.append(error.name)
                else:
                    outcomes.append("emitted")

            async with anyio.create_task_group() as group:
                group.start_soon(_in_threads, 20, work)
                for _ in range(20):
                    await anyio.to_thread.run_sync(inside.acquire)
                if how == "emitter":
                    emitter.end()
                    rig.log.go_on()
                elif how == "bus":
                    rig.bus.close()
                    rig.log.go_on()
                elif how == "failure":
                    rig.log.error = StoreDown("gone")
                    rig.log.go_on()
                else:
                    rig.scope.cancel()
    assert len(outcomes) == 20
    emitted = [event for event in rig.log.events if isinstance(event, Custom)]
    assert outcomes.count("emitted") == len(emitted)
    if how in ("failure", "cancelled"):
        assert "emitted" not in outcomes
    rig.log.check()


async def test_a_thread_that_races_with_the_end_never_hangs() -> None:
    """Emitters are ended while threads are in the middle of an emit, a hundred times: each thread returns."""
    with anyio.fail_after(30):
        async with Rig() as rig:
            for n in range(100):
                emitter = rig.emitter(f"a.{n + 1}")
                blocking = emitter.blocking()
                going = threading.Event()

                def work(blocking: BlockingEmitter = blocking, going: threading.Event = going) -> None:
                    try:
                        for step in range(10_000):
                            blocking.custom("n", step)
                            going.set()
                    except EmitAfterEnd:
                        return
                    pytest.fail("the end did not reach the thread")

                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.to_thread.run_sync, work)
                    group.start_soon(anyio.to_thread.run_sync, work)
                    while not going.is_set():
                        await anyio.lowlevel.checkpoint()
                    emitter.end()
    rig.log.check()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_after_the_loops_end_a_thread_gets_an_error(backend: str) -> None:
    """The emitter outlived its loop: `EmitAfterEnd`, at once."""

    async def main() -> tuple[Emitter, BlockingEmitter]:
        with anyio.fail_after(5):
            async with Rig() as rig:
                emitter = rig.emitter()
                return emitter, emitter.blocking()

    _, blocking = anyio.run(main, backend=backend)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            blocking.say("too late")
        except EmitAfterEnd as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert len(raised) == 1


@pytest.mark.promise("P7")
async def test_what_a_thread_left_open_is_closed_at_the_end() -> None:
    """Blocks and calls that a thread opened are known where the invocation ends."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            blocking = emitter.blocking()

            def work() -> None:
                blocking.text().__enter__()
                blocking.emit(ToolStarted("open", "search"))
                blocking.emit(ToolStarted("done", "search"))
                blocking.emit(ToolFinished("done"))

            await anyio.to_thread.run_sync(work)
            emitter.close_open()
    assert rig.log.types()[-2:] == ["tool.failed", "text.finished"]
    assert len(rig.log.types()) == 6


async def test_a_failure_inside_a_threads_block_is_what_is_raised() -> None:
    """The end of the invocation meanwhile does not hide it."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            blocking = emitter.blocking()

            def work() -> None:
                with blocking.text():
                    anyio.from_thread.run_sync(emitter.end)
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await anyio.to_thread.run_sync(work)


async def test_ids_made_by_many_threads_are_unique() -> None:
    """Blocks that threads open through one emitter never share an id."""
    with anyio.fail_after(20):
        async with Rig() as rig:
            blocking = rig.emitter().blocking()
            found: list[str] = []

            def work(thread: int) -> None:
                found.extend(blocking.text().id for _ in range(500))

            await _in_threads(8, work)
    assert len(set(found)) == 4000
