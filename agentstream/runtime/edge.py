"""What the answers of one runtime share.

What comes in: a store. What goes out: answers for runs, and responses for the frameworks' handlers. It does not know
routes, or whether the client may see the run.
"""

from __future__ import annotations

from collections.abc import Callable

from agentstream.answer import AnswerOptions, DrainSwitch, EventStreamAnswer, FrameCache
from agentstream.clock import SYSTEM_CLOCK, Clock
from agentstream.ports import Store
from agentstream.stream import Audience

__all__ = ("Edge",)


class Edge:
    """Makes answers that share framed pages and end together when the runtime drains.

    Attributes:
        audience: the readers of a run that is executed in this process, else None.
        halted: the attempt of a run that lost its store in this process, else None.
        clock: the runtime's.
    """

    def __init__(
        self,
        store: Store,
        drain: DrainSwitch,
        options: AnswerOptions | None = None,
        *,
        audience: Callable[[str], Audience | None],
        halted: Callable[[str], int | None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.clock = clock
        self.audience = audience
        self.halted = halted
        self._store = store
        self._drain = drain
        self._frames = FrameCache()
        self._options = options or AnswerOptions()

    def answer(self, run: str, *, location: str = "") -> EventStreamAnswer:
        """The events of a run as an ASGI application for one request."""
        return EventStreamAnswer(
            self._store,
            run,
            drain=self._drain,
            frames=self._frames,
            options=self._options,
            location=location,
            audience=self.audience(run),
        )
