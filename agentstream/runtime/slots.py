"""Places for invocations: how many agents of one run work at once.

What comes in: invocations. What goes out: permission to work, in the order in which it was asked for. It does not know
what an invocation does; one that waits for another lends its place meanwhile.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

import anyio

from agentstream.runtime.invocation import Invocation

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Slots",)


class Slots:
    """At most `limit` invocations at once."""

    def __init__(self, limit: int) -> None:
        self._limiter = anyio.CapacityLimiter(limit)

    @property
    def full(self) -> bool:
        """Whether the next one has to wait."""
        return self._limiter.available_tokens < 1

    async def take(self, who: Invocation[Any, Any]) -> None:
        """Wait for a place; at once for who has one, or asks for one in another of its tasks."""
        if who.place != "none":
            return
        who.place = "asked"
        try:
            await self._limiter.acquire_on_behalf_of(who)
            who.place = "taken"
        finally:
            if who.place == "asked":
                who.place = "none"

    def take_at_once(self, who: Invocation[Any, Any]) -> None:
        """Take a place if there is one."""
        if who.place == "none":
            with contextlib.suppress(anyio.WouldBlock):
                self._limiter.acquire_on_behalf_of_nowait(who)
                who.place = "taken"

    def give(self, who: Invocation[Any, Any]) -> None:
        """Give the place back; harmless where it is lent or was given back."""
        if who.place == "taken":
            who.place = "none"
            self._limiter.release_on_behalf_of(who)

    def lent(self, who: Invocation[Any, Any] | None) -> _Lent:
        """`async with` around a wait for another invocation."""
        return _Lent(self, who)


class _Lent:
    def __init__(self, slots: Slots, who: Invocation[Any, Any] | None) -> None:
        self._slots = slots
        self._who = who

    async def __aenter__(self) -> None:
        who = self._who
        if who is not None and not who.has_ended:
            who.waiting += 1
            if who.waiting == 1:
                self._slots.give(who)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        who = self._who
        if who is None or who.has_ended:
            return
        who.waiting -= 1
        if who.waiting:
            return
        if error is None or isinstance(error, Exception):
            await self._slots.take(who)
        else:  # a cancelled caller cannot queue for its place again; nearly always it is about to end
            self._slots.take_at_once(who)
