"""Everything that limits one run, in one place: its clocks, readers, pace and budget.

What comes in: the options of the run and of the runtime. What goes out: the objects that watch, made when the run has a
writer. It does not know agents; what is watched and what follows stands in the modules of those objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import anyio

from agentstream.agent import Lockstep, RunOptions
from agentstream.bus import Emitter
from agentstream.clock import Clock
from agentstream.runtime.clocks import RunClocks, Stopper
from agentstream.runtime.options import RuntimeOptions
from agentstream.runtime.pacing import Pace
from agentstream.runtime.spending import Spending
from agentstream.runtime.writer import Writer
from agentstream.stream import Audience

__all__ = ("Limits",)


class Limits:
    """The limits of one run.

    Attributes:
        audience: its readers in this process. clocks: its times. spending: its budget.
        pace: the gate of a run in lockstep, else None.
    """

    def __init__(self, options: RunOptions, runtime: RuntimeOptions, clock: Clock, first: int, stop: Stopper) -> None:
        self._clock = clock
        self._writer: Writer | None = None
        self._first = first
        self.audience = Audience(self._last)
        self.spending = Spending(options, runtime.prices, partial(stop, "budget"))
        self.clocks = RunClocks(options, runtime.max_detached_age, self.audience, self._quiet, stop)
        self.pace: Pace | None = None
        if isinstance(options.pacing, Lockstep):
            alone = partial(stop, "client_gone", "no reader kept up with the run")
            self.pace = Pace(options.pacing, self.audience, self._last, alone)

    def begin(self, writer: Writer, root: Emitter, used: Mapping[str, float] | None = None) -> None:
        """The run has a writer; `root` emits its own events, `used` is what earlier attempts spent and reserved."""
        self._writer = writer
        self.spending.begin(root, used)

    async def watch(self, placed: anyio.Event) -> None:
        """Watch readers at once, times from when the run is `placed`; until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.clocks.watch_readers)
            await placed.wait()
            await self.clocks.watch()

    def lift(self) -> None:
        """The run ends: nothing waits for readers any more."""
        if self.pace is not None:
            self.pace.open()

    def _last(self) -> int:
        return self._writer.last if self._writer is not None else self._first

    def _quiet(self) -> float:
        return self._clock.monotonic() - self._writer.grown if self._writer is not None else 0.0
