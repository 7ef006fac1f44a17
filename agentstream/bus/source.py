"""Where one invocation's events enter the merging bus.

What comes in: encoded events of one invocation, from the loop's thread and from others. What goes out: numbered items
on the bus's lists. It does not know how the bus orders, stamps or appends; the two are friends and share their lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio.lowlevel

from agentstream.bus.encode import check_size
from agentstream.errors import AgentStreamError, EmitAfterEnd
from agentstream.order import Extra, Item, Lane

if TYPE_CHECKING:
    from agentstream.bus.merge import MergeBus
    from agentstream.loops import Wake

__all__ = ("LOOK_EVERY", "MAX_PARKED", "Draft", "Source", "until")

MAX_PARKED: Final = 8
"""Parked events a source: tasks that share one emitter. The next one waits before it is numbered."""


LOOK_EVERY: Final = 16
"""Waits of a source between two looks for a cancellation: a look costs as much as the wait itself (1.5 µs)."""


async def until(wake: Awaitable[None]) -> None:
    """Wait, and be cancelled.

    On asyncio a scope's cancellation passes over a task whose future is done already. For an agent that does nothing
    but emit, into a log that answers at once, that is each time: it could never be stopped.
    """
    await wake
    await anyio.lowlevel.checkpoint_if_cancelled()


class Draft:
    """An event that waits in line for its number: one of another thread, or the ninth of a source with eight parked.

    `hook` is called right before the event gets its number; what it raises goes to the emitter instead. `done` is
    called when the event was taken or refused. Both are called on the loop's thread.
    """

    __slots__ = ("done", "error", "extra", "form", "hook", "rest")

    def __init__(
        self,
        form: bytes,
        rest: bytes,
        done: Callable[[], None],
        *,
        extra: Extra | None = None,
        hook: Callable[[], object] | None = None,
    ) -> None:
        self.form = form
        self.rest = rest
        self.done = done
        self.extra = extra
        self.hook = hook
        self.error: BaseException | None = None


class Source:
    """Where one invocation's events enter. Made by `MergeBus.source`; everything but `hand_over` on the loop's
    thread."""

    __slots__ = ("_bus", "_closed", "_inbox", "_lane", "_n", "_parked", "_slow", "_waits")

    def __init__(self, bus: MergeBus, lane: Lane) -> None:
        self._bus = bus
        self._lane = lane
        self._n = lane.passed
        self._parked = 0
        self._closed: AgentStreamError | None = None
        self._inbox: deque[Draft] = deque()
        self._slow = False
        self._waits = 0

    @property
    def last(self) -> int:
        """`agent_seq` of the newest numbered event."""
        return self._n

    @property
    def loop_thread(self) -> int:
        """The identity of the loop's thread."""
        return self._bus._thread

    def put(self, form: bytes, rest: bytes, extra: Extra | None = None) -> Awaitable[None] | None:
        """As `put_delta`, for everything else."""
        if self._slow:
            self._tidy()
            if self._slow:
                return self._put_later(form, rest, extra, None)
        bus = self._bus
        bus.loud = True
        if len(rest) > bus._light:
            bus._weigh(rest)
        n = self._n = self._n + 1
        item = (self._lane, n, form, rest, extra)
        if len(bus._buffer) < bus._room:
            bus._buffer.append(item)
            bus._ring()
            return None
        return self._park(item)

    def put_delta(self, form: bytes, rest: bytes) -> Awaitable[None] | None:
        """Number and hand in a delta of a block: `rest` in the form of its line (`agentstream.order.line_form`).

        Returns:
            None if there was room; else what to await before the next emit: the event is parked (or, with eight parked
            ones, about to be). After the wait `check` says whether the bus failed meanwhile.

        Raises:
            EmitAfterEnd: the source or its bus was closed. EventTooLarge: above 256 KiB.
        """
        if self._slow:
            self._tidy()
            if self._slow:
                return self._put_later(form, rest, None, None)
        bus = self._bus
        if len(rest) > bus._light:
            bus._weigh(rest)
        n = self._n = self._n + 1
        buffer = bus._buffer
        if len(buffer) < bus._room:
            buffer.append((self._lane, n, form, rest, None))
            if bus._wake is not None:
                bus._ring()
            return None
        return self._park((self._lane, n, form, rest, None))

    def put_with(
        self, hook: Callable[[], object], form: bytes, rest: bytes, extra: Extra | None = None
    ) -> Awaitable[None] | None:
        """As `put`, with something that must happen exactly if and when the event gets its number.

        Raises:
            What `hook` raises, here or at the wait: then nothing was numbered.
        """
        if self._slow:
            self._tidy()
            if self._slow:
                return self._put_later(form, rest, extra, hook)
        check_size(rest, "the event")
        hook()
        return self.put(form, rest, extra)

    def weigh(self, beside: bytes) -> None:
        """Count what travels beside an event against the bound of bytes."""
        self._bus._heavy += len(beside)

    async def wait(self, waiting: Awaitable[None]) -> None:
        """Wait for what `put` returned.

        On asyncio a scope's cancellation passes over a task whose future is done already. For an agent that does
        nothing but emit, into a log that answers at once, that is each time: it looks by itself, now and then.

        Raises:
            What made the bus fail, if it did.
        """
        await waiting
        bus = self._bus
        if bus._failure is not None:
            bus._check_failure()
        self._waits += 1
        if not self._waits % LOOK_EVERY:
            await anyio.lowlevel.checkpoint_if_cancelled()

    def put_closing(self, form: bytes, rest: bytes, extra: Extra | None = None) -> Awaitable[None] | None:
        """As `put`, for an event that closes something: it never waits for its number, so that a cancelled emitter can
        still close what it opened (bounded by what is open)."""
        if self._closed is not None:
            return None
        self._take_inbox()
        parked, self._parked = self._parked, min(self._parked, MAX_PARKED - 1)
        self._slow = False
        try:
            return self.put(form, rest, extra)
        finally:
            self._parked += parked - min(parked, MAX_PARKED - 1)
            if self._inbox or self._parked >= MAX_PARKED:
                self._slow = True

    async def flush(self) -> None:
        """Return once everything that this source handed in was accepted by the log.

        Raises:
            What the append raised.
        """
        if self._inbox:
            self._take_inbox()
        await self._bus.flush()

    async def settle(self) -> None:
        """Return once what was handed in until now is numbered, and accepted where it was parked: what others emit next
        comes after it. Tasks that go on emitting meanwhile do not prolong the wait."""
        if not self._inbox and not self._parked:
            return
        self._take_inbox()
        newest = self._inbox[-1] if self._inbox else None
        while newest is not None and newest in self._inbox:
            await self._bus._next_append()
        if self._parked:
            await self._bus.flush()

    def hand_over(self, draft: Draft) -> None:
        """From any thread: leave an event to be taken at the next turn of the loop; `draft.done` is called then.

        Raises:
            EmitAfterEnd: the source, the bus or the loop has ended.
        """
        self._inbox.append(draft)
        self._slow = True
        # `close` sets its mark and then empties the inbox; here it is the other way round, so no draft is left behind.
        reason = self._closed
        if reason is None and not self._bus._loop.call_soon(self._take_inbox):
            reason = EmitAfterEnd("the event loop has ended: this event was not accepted")
        if reason is not None and self._withdraw(draft):
            raise EmitAfterEnd(reason.detail)

    def close(self, reason: AgentStreamError) -> None:
        """Refuse everything from now on with `reason`; threads that wait are let go with it."""
        if self._closed is None:
            self._closed = reason
            self._slow = True
            self._bus._sources.discard(self)
            while self._inbox:
                draft = self._inbox.popleft()
                draft.error = reason
                draft.done()

    # --- the slow side ------------------------------------------------------------------------------------------------
    def _tidy(self) -> None:
        if self._closed is not None:
            raise EmitAfterEnd(self._closed.detail) from self._closed
        self._take_inbox()

    def _take_inbox(self) -> None:
        """Number what waits in line, oldest first, as far as parking goes; the rest is taken after the next append."""
        if self._closed is not None:
            return
        self._slow = False  # a thread may set it again at any time from here on: it is never cleared below
        while self._inbox and self._parked < MAX_PARKED:
            draft = self._inbox.popleft()
            try:
                self._put_draft(draft)
            except AgentStreamError as error:
                draft.error = error
                draft.done()
        if self._inbox:
            self._bus._crowded[self] = None
        if self._inbox or self._parked >= MAX_PARKED:
            self._slow = True

    def _withdraw(self, draft: Draft) -> bool:
        """Take a draft out of the line; False if it was taken or refused already."""
        try:
            self._inbox.remove(draft)
        except ValueError:
            return False
        return True

    def _put_draft(self, draft: Draft) -> None:
        bus = self._bus
        bus._weigh(draft.rest)
        if draft.hook is not None:
            draft.hook()
        bus.loud = True
        n = self._n = self._n + 1
        item = (self._lane, n, draft.form, draft.rest, draft.extra)
        bus._drafts.append(draft)
        if len(bus._buffer) < bus._room:
            bus._buffer.append(item)
            bus._ring()
        else:
            self._park(item)  # type: ignore[unused-awaitable]  # the thread waits for its draft instead

    def _park(self, item: Item) -> Wake:
        bus = self._bus
        wake = bus._park(item)
        self._parked += 1
        if self._parked >= MAX_PARKED:
            self._slow = True
        bus._parkers.append(self)
        return wake

    async def _put_later(
        self, form: bytes, rest: bytes, extra: Extra | None, hook: Callable[[], object] | None
    ) -> None:
        """Wait in line with the threads, so that nobody starves; who is cancelled before the number has not emitted."""
        wake = self._bus._loop.wake()
        draft = Draft(form, rest, wake.set, extra=extra, hook=hook)
        if self._closed is not None:
            raise EmitAfterEnd(self._closed.detail)
        self._inbox.append(draft)
        self._take_inbox()
        try:
            await wake
        except BaseException:
            self._withdraw(draft)
            raise
        if draft.error is not None:
            raise draft.error.with_traceback(None)
