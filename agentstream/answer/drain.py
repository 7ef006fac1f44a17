"""The switch that ends all answers of a runtime.

What comes in: one call of `drain`. What goes out: a call to everyone who listens. It does not know what is drained, how
long that takes, or whether anything comes after.
"""

from __future__ import annotations

from collections.abc import Callable

from agentstream.loops import current_loop

__all__ = ("DrainSwitch",)


class DrainSwitch:
    """Off at first; switched on once, for good. Made anywhere, used on one event loop.

    Answers that share it send `retry`, end abortively, and so send their clients to another server or a later moment.
    """

    __slots__ = ("_draining", "_listeners")

    def __init__(self) -> None:
        self._draining = False
        self._listeners: dict[object, Callable[[], object]] = {}

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def drain(self) -> None:
        """Switch on: everyone who listens is called, once. Calling it again does nothing."""
        self._draining = True
        while self._listeners:
            _, listener = self._listeners.popitem()
            listener()

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Have `listener` called by `drain`, or now if that was before. It must not raise.

        Returns:
            A call that makes this undone; harmless afterwards.
        """
        if self._draining:
            listener()
            return lambda: None
        key = object()
        self._listeners[key] = listener

        def leave() -> None:
            self._listeners.pop(key, None)

        return leave

    async def wait(self) -> None:
        """Return once `drain` was called."""
        wake = current_loop().wake()
        leave = self.listen(wake.set)
        try:
            await wake
        finally:
            leave()
