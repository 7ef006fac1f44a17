"""The line of calls that wait for a place at some endpoint.

What comes in: calls, and a word whenever something may have changed. What goes out: one of them after the other gets
its turn to look. It does not know endpoints; bounded by the number of calls that may stand in it.

Whoever gets the word and cannot use it passes it on to the next: calls may differ in which endpoints they may go to.
"""

from __future__ import annotations

from collections import OrderedDict

import anyio

__all__ = ("Line", "Place")


class Place:
    """A place in the line."""

    __slots__ = ("_event", "served")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.served = False

    def wake(self) -> None:
        """Give the word."""
        self.served = True
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the word, at most so long; whether it came."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        if self.served:
            self.served = False
            self._event = anyio.Event()
            return True
        return False


class Line:
    """First come, first served, as far as what they wait for is the same."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._places: OrderedDict[Place, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return len(self._places) >= self.most

    def enter(self) -> Place:
        """Stand at the end."""
        place = Place()
        self._places[place] = None
        return place

    def leave(self, place: Place) -> None:
        """Step out; a word that was not used goes to the next."""
        follower = self._after(place)
        self._places.pop(place, None)
        if follower is not None:
            follower.wake()

    def pass_on(self, place: Place) -> None:
        """Let the next one look."""
        follower = self._after(place)
        if follower is not None:
            follower.wake()

    def wake(self) -> None:
        """Something changed: let the first one look."""
        first = next(iter(self._places), None)
        if first is not None:
            first.wake()

    def wake_all(self) -> None:
        """Everything changed: let all of them look."""
        for place in self._places:
            place.wake()

    def _after(self, place: Place) -> Place | None:
        found = False
        for other in self._places:
            if found:
                return other
            found = other is place
        return None
