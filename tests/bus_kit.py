"""A bus on a log that a test holds in its hand.

Comes in: how the log behaves: at once, hanging, raising. Goes out: emitters, and what the log accepted, decoded.
It deliberately does not know stores or the runtime.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc

from agentstream.bus import Document, Emitter, MergeBus
from agentstream.events import AnyEvent
from agentstream.ports import Chunk
from agentstream.wire import decode_event

__all__ = ["HeldLog", "LoopClock", "Rig"]


class LoopClock:
    """The clock that the loop's timers follow: virtual where the loop's is."""

    def monotonic(self) -> float:
        """The loop's seconds."""
        return anyio.current_time()

    def wall_ms(self) -> int:
        """Milliseconds that move with it."""
        return 1_700_000_000_000 + int(anyio.current_time() * 1000)


class HeldLog:
    """Accepts chunks, unless it is told to hang or to fail."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.error: BaseException | None = None
        self.asked = 0
        self._more = anyio.Event()
        self._open = anyio.Event()
        self._open.set()

    async def append(self, chunk: Chunk) -> None:
        """What the bus calls."""
        self.asked += 1
        await self._open.wait()
        if self.error is not None:
            raise self.error
        self.chunks.append(chunk)
        self._more.set()
        self._more = anyio.Event()

    async def until(self, count: int) -> None:
        """Wait until this many events were accepted."""
        while len(self.lines) < count:
            await self._more.wait()

    def hang(self) -> None:
        """Hang from the next append on."""
        self._open = anyio.Event()

    def go_on(self) -> None:
        """Answer what hangs, and everything later."""
        self._open.set()

    @property
    def lines(self) -> list[bytes]:
        """Every accepted line."""
        return [line for chunk in self.chunks for line in chunk.lines.splitlines()]

    @property
    def events(self) -> list[AnyEvent]:
        """Every accepted event."""
        return [decode_event(line) for line in self.lines]

    def types(self, inv: str = "") -> list[str]:
        """The types of all events, or of one invocation's."""
        return [event.type for event in self.events if inv in ("", event.inv)]

    def check(self) -> None:
        """Assert P2 and P3: seq is 1, 2, 3 …, and so is each invocation's agent_seq."""
        counts: Counter[str] = Counter()
        for seq, event in enumerate(self.events, 1):
            assert event.seq == seq
            counts[event.inv] += 1
            assert event.agent_seq == counts[event.inv], (event.inv, event.agent_seq, counts[event.inv])


class Rig:
    """`async with Rig() as rig`: a bus that drains, closed at the end.

    Attributes:
        failure: what the drain raised.
    """

    def __init__(self, **options: Any) -> None:  # Any: whatever MergeBus takes
        self._options = options
        self.log = HeldLog()
        self.document = Document()
        self.kept: dict[str, bytes] = {}
        self.failure: BaseException | None = None
        self.bus: MergeBus
        self.drained = anyio.Event()
        self.scope = anyio.CancelScope()
        self._group: anyio.abc.TaskGroup

    async def __aenter__(self) -> Self:
        self.bus = MergeBus(self.log.append, **self._options)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._drain)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.go_on()
        self.bus.close()
        if error is not None:
            self._group.cancel_scope.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def _drain(self) -> None:
        try:
            with self.scope:
                await self.bus.drain()
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            self.failure = error
        finally:
            self.drained.set()

    def emitter(self, inv: str = "a.1") -> Emitter:
        """An emitter for one invocation."""
        agent = inv.partition(".")[0]
        return Emitter(self.bus.source(inv), agent=agent, inv=inv, keeper=self._keep, document=self.document)

    async def _keep(self, data: bytes, mime: str, name: str) -> tuple[str, str]:
        key = hashlib.sha256(data).hexdigest()
        self.kept[key] = data
        return key, f"/artifacts/{key}"
