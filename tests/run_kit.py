"""Runs under a magnifying glass: their events, the rules that every log must keep, stores with moods, virtual time.

Comes in: runs and coroutine functions. Goes out: lists of events, asserted. It deliberately does not know HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import trio.testing

from agentstream.errors import AgentStreamError
from agentstream.events import AnyEvent, Reset, is_terminal
from agentstream.ports import Chunk, Lease
from agentstream.runtime import Run, Runtime, RuntimeOptions
from agentstream.store.memory import MemoryStore
from agentstream.wire import decode_event

__all__ = [
    "QUICK",
    "MoodyStore",
    "VirtualClock",
    "check_log",
    "events_of",
    "idle",
    "log_of",
    "of_type",
    "outline",
    "virtually",
]

T = TypeVar("T")

QUICK = RuntimeOptions(stop_grace=0.05, emit_timeout=0.1, renew=0.05, lease=0.5, poll=0.05)
"""Real seconds that a test can wait for."""

_CLOSES = {
    "agent.started": ("inv", {"agent.finished", "agent.failed"}),
    "text.started": ("block", {"text.finished"}),
    "thinking.started": ("block", {"thinking.finished"}),
    "tool.started": ("call", {"tool.finished", "tool.failed", "tool.denied"}),
    "step.started": ("step", {"step.finished", "step.failed"}),
}


async def events_of(run: Run[Any]) -> list[AnyEvent]:
    """Every event of a run, to its end, checked."""
    found: list[AnyEvent] = []
    async with run.events(coalesce=False) as events:
        async for event in events:
            assert not isinstance(event, Reset)
            found.append(event)
    check_log(found)
    return found


async def log_of(run: Run[Any]) -> list[AnyEvent]:
    """The events of a run so far."""
    chunks = await run._store.read(run.id, 0, max_bytes=2**30)
    return [decode_event(line) for chunk in chunks for line in chunk.lines.splitlines()]


async def idle(runtime: Runtime) -> None:
    """Wait until the runtime holds no run: its last task ends a little after the last event is seen."""
    while runtime.statistics().runs:
        await anyio.lowlevel.checkpoint()


def check_log(events: list[AnyEvent]) -> None:
    """P2, P3 and P7, for the log of any run that has ended."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[0].type == "run.started"
    assert [index for index, event in enumerate(events) if is_terminal(event)] == [len(events) - 1]
    last: dict[str, int] = {}
    open_: dict[tuple[str, str], str] = {}
    ended: set[str] = set()
    for event in events:
        if event.inv:
            assert event.inv not in ended, f"{event.type} after the end of {event.inv}"
            assert event.agent_seq == last.get(event.inv, 0) + 1
            last[event.inv] = event.agent_seq
        if event.type in _CLOSES:
            key = event.type, str(getattr(event, _CLOSES[event.type][0]))
            assert key not in open_
            open_[key] = event.inv
        for opens, (field, closes) in _CLOSES.items():
            if event.type in closes:
                del open_[opens, str(getattr(event, field))]
        if event.type in ("agent.finished", "agent.failed"):
            left = [key for key, inv in open_.items() if inv == event.inv]
            assert not left, f"{event.inv} ended with {left} open"
            ended.add(event.inv)
    assert not open_, f"open at the end: {open_}"


def outline(events: Iterable[AnyEvent]) -> list[str]:
    """`inv type`, run-level events by their type alone."""
    return [f"{event.inv} {event.type}".strip() for event in events]


def of_type(events: Iterable[AnyEvent], type_: type[T], inv: str = "") -> list[T]:
    """The events of one type, of one invocation where it is given."""
    return [event for event in events if isinstance(event, type_) and inv in ("", event.inv)]  # type: ignore[attr-defined]


# --- a store with moods -----------------------------------------------------------------------------------------------
class MoodyStore(MemoryStore):  # type: ignore[misc]  # final for users; a test may look inside
    """A store in memory whose append and renew do what the test says.

    Attributes:
        mood: called before an append is carried out; may raise or wait. after: the same, once it was.
        tried: every chunk that was handed to append.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.mood: Callable[[Chunk], Awaitable[None]] | None = None
        self.after: Callable[[Chunk], Awaitable[None]] | None = None
        self.renews = True
        self.tried: list[Chunk] = []

    async def append(self, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
        """As the mood is."""
        self.tried.append(chunk)
        if self.mood is not None:
            await self.mood(chunk)
        last = await super().append(run, epoch, expected, chunk)
        if self.after is not None:
            await self.after(chunk)
        return last

    async def renew(self, lease: Lease, *, seconds: float = 15.0) -> bool:
        """As usual, or hanging for ever."""
        if not self.renews:
            await anyio.sleep_forever()
        return await super().renew(lease, seconds=seconds)


def raising(error: AgentStreamError) -> Callable[[Chunk], Awaitable[None]]:
    """A mood that raises."""

    async def mood(chunk: Chunk) -> None:
        raise error

    return mood


# --- virtual time -----------------------------------------------------------------------------------------------------
class VirtualClock:
    """The clock of a virtual loop, readable from every thread."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._clock.current_time()

    def wall_ms(self) -> int:
        """Virtual milliseconds."""
        return 1_700_000_000_000 + int(self._clock.current_time() * 1000)


def virtually(main: Callable[[VirtualClock], Awaitable[T]]) -> T:
    """Run `main` in a loop whose time jumps to the next timer whenever nothing else is to be done."""
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def run() -> T:
        with anyio.fail_after(100_000):
            return await main(VirtualClock(clock))

    return anyio.run(run, backend="trio", backend_options={"clock": clock})
