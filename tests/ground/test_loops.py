"""What differs between the loops: one-shot wakes, calls from threads, turns and time."""

from __future__ import annotations

import threading

import anyio
import anyio.to_thread
import pytest

from agentstream.loops import Loop, current_loop

pytestmark = pytest.mark.anyio


async def test_a_wake_that_was_set_does_not_wait() -> None:
    """Setting before waiting, and setting twice, is fine."""
    wake = current_loop().wake()
    wake.set()
    wake.set()
    with anyio.fail_after(5):
        await wake


async def test_a_waiter_is_woken() -> None:
    """A task that waits goes on after `set`, and not before."""
    wake = current_loop().wake()
    seen: list[str] = []

    async def wait() -> None:
        await wake
        seen.append("woken")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert seen == []
            wake.set()
    assert seen == ["woken"]


async def test_a_cancelled_wait_leaves_a_harmless_wake() -> None:
    """Who sets it later gets no error."""
    wake = current_loop().wake()
    with anyio.move_on_after(0):
        await wake
    wake.set()


async def test_call_soon_runs_on_the_loops_thread_in_order() -> None:
    """Calls from another thread run here, each once, in the order in which they were made."""
    loop = current_loop()
    here = threading.get_ident()
    ran: list[tuple[int, int]] = []
    wake = loop.wake()

    def work() -> None:
        assert threading.get_ident() != here
        for n in range(100):
            assert loop.call_soon(lambda n=n: ran.append((n, threading.get_ident())))  # type: ignore[misc]
        loop.call_soon(wake.set)

    with anyio.fail_after(5):
        await anyio.to_thread.run_sync(work)
        await wake
    assert ran == [(n, here) for n in range(100)]


async def test_call_soon_wakes_a_sleeping_loop() -> None:
    """A loop that waits for nothing but this goes on."""
    loop = current_loop()
    wake = loop.wake()
    thread = threading.Thread(target=lambda: loop.call_soon(wake.set))
    with anyio.fail_after(5):
        thread.start()
        await wake
    thread.join()


async def test_a_turn_lets_the_others_run_and_takes_a_cancellation() -> None:
    """Everything that is ready runs once; a cancelled scope is left at it."""
    loop = current_loop()
    ran: list[str] = []

    async def other() -> None:
        ran.append("other")

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await loop.turn()
        await loop.turn()
        assert ran == ["other"]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await loop.turn()
        pytest.fail("the turn was no checkpoint")
    assert scope.cancelled_caught


async def test_time_is_the_loops() -> None:
    """Timers and `time` follow one clock."""
    assert abs(current_loop().time() - anyio.current_time()) < 1


def test_outside_a_loop_there_is_none() -> None:
    """Asking without a loop is an error of anyio's own."""
    with pytest.raises(anyio.NoEventLoopError):
        current_loop()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_after_the_loops_end_call_soon_says_so(backend: str) -> None:
    """False instead of an error or a call that never runs."""

    async def main() -> Loop:
        return current_loop()

    loop = anyio.run(main, backend=backend)
    assert loop.call_soon(lambda: None) is False
