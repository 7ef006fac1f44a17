"""The times of one run: its deadline, its silence, its steps, and how long it may be without a reader.

What comes in: the run's options, its readers, and when its log last grew. What goes out: stops with their cause, and
steps that fail. It does not know how a run is stopped, or what a step does.

While a person is waited for, the deadline, the idle clock and the clocks of steps stand still (`hold`, `release`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Protocol

import anyio

from agentstream.agent import RunOptions, StopAfter
from agentstream.errors import StepTimeout
from agentstream.stream import Audience

__all__ = ("FIRST_READER_S", "RunClocks", "Stopper")

FIRST_READER_S: Final = 30.0
"""Seconds that a run with `stop_after` waits for its first reader, at least."""


class Stopper(Protocol):
    """What stops the run; the first cause counts."""

    def __call__(self, cause: str, detail: str = "") -> None:
        """Stop for `cause`."""
        ...


class RunClocks:
    """Watches one run from the time it has a place.

    Args:
        options: of the run. detached_age: seconds without a reader after which any run is stopped, or None.
        audience: the run's readers. quiet: seconds since the log last grew.
        stop: stops the run.
    """

    def __init__(
        self,
        options: RunOptions,
        detached_age: float | None,
        audience: Audience,
        quiet: Callable[[], float],
        stop: Stopper,
    ) -> None:
        self._options = options
        self._detached_age = detached_age
        self._audience = audience
        self._quiet = quiet
        self._stop = stop
        self._began = 0.0
        self._held = 0
        self._held_at = 0.0
        self._paused = 0.0
        self._released_at = 0.0
        self._turned = anyio.Event()  # held or released
        self._steps: dict[_StepClock, None] = {}

    # --- people -------------------------------------------------------------------------------------------------------
    def hold(self) -> None:
        """A person is waited for: the clocks stand still until as many `release`."""
        self._held += 1
        if self._held == 1:
            self._held_at = anyio.current_time()
            for step in self._steps:
                step.pause(self._held_at)
            self._turn()

    def release(self) -> None:
        """The wait is over."""
        self._held -= 1
        if not self._held:
            now = self._released_at = anyio.current_time()
            self._paused += now - self._held_at
            for step in self._steps:
                step.resume(now)
            self._turn()

    def _turn(self) -> None:
        turned, self._turned = self._turned, anyio.Event()
        turned.set()

    # --- steps --------------------------------------------------------------------------------------------------------
    def step(self, name: str) -> AbstractContextManager[None]:
        """`with` around a recorded unit.

        Raises:
            StepTimeout: it took longer than the run's options allow.
        """
        if self._options.step is None:
            return contextlib.nullcontext()
        return _StepClock(self._steps, name, self._options.step, held=self._held > 0)

    # --- the run ------------------------------------------------------------------------------------------------------
    async def watch(self) -> None:
        """Stop the run when one of its times is up; until cancelled."""
        self._began = anyio.current_time()
        budget = self._options.budget
        async with anyio.create_task_group() as group:
            if self._options.deadline is not None:
                group.start_soon(self._limit, self._options.deadline, "deadline", "the run reached its limit of {:g} s")
            if budget is not None and budget.seconds is not None:
                group.start_soon(self._limit, budget.seconds, "budget", "the run used up its budget of {:g} s")
            if self._options.idle is not None:
                group.start_soon(self._idle, self._options.idle)

    async def watch_readers(self) -> None:
        """Stop the run when it was without a reader for too long; until cancelled."""
        how = self._options.on_disconnect
        after = how.stop_after if isinstance(how, StopAfter) else None
        age = self._detached_age
        if after is None and age is None:
            return
        while True:
            limit, cause = (after, "client_gone") if after is not None else (age, "deadline")
            if after is not None and not self._audience.seen:
                limit = max(after, FIRST_READER_S)
            if age is not None and (limit is None or age < limit):
                limit, cause = age, "deadline"
            assert limit is not None
            if not await self._read_within(limit):
                self._stop(cause, f"nobody read the run for {limit:g} s")
                return
            while self._audience.present:
                await self._moved()

    async def _read_within(self, seconds: float) -> bool:
        """Whether there is a reader within so many seconds."""
        with anyio.move_on_after(seconds):
            while not self._audience.present:
                await self._moved()
        return self._audience.present > 0

    async def _moved(self) -> None:
        if self._audience.moved.is_set():
            self._audience.moved = anyio.Event()
        await self._audience.moved.wait()

    async def _limit(self, seconds: float, cause: str, detail: str) -> None:
        while (left := self._began + self._paused + seconds - anyio.current_time()) > 0 or self._held:
            await self._sleep(left)
        self._stop(cause, detail.format(seconds))

    async def _idle(self, seconds: float) -> None:
        while True:
            since = max(self._began, self._released_at)
            left = seconds - min(self._quiet(), anyio.current_time() - since)
            if left <= 0 and not self._held:
                self._stop("idle", f"nothing happened in the run for {seconds:g} s")
                return
            await self._sleep(left)

    async def _sleep(self, seconds: float) -> None:
        """So long, or until the clocks are held or released; while they are held, only until that changes."""
        turned = self._turned
        with anyio.move_on_after(None if self._held else max(0.0, seconds)):
            await turned.wait()


class _StepClock:
    def __init__(self, running: dict[_StepClock, None], name: str, seconds: float, *, held: bool) -> None:
        self._running = running
        self._name = name
        self._seconds = seconds
        self._left: float | None = seconds if held else None  # while it stands still
        self._scope = anyio.CancelScope()

    def pause(self, now: float) -> None:
        self._left = self._scope.deadline - now
        self._scope.deadline = float("inf")

    def resume(self, now: float) -> None:
        if self._left is not None:
            self._scope.deadline = now + self._left
            self._left = None

    def __enter__(self) -> None:
        if self._left is None:
            self._scope.deadline = anyio.current_time() + self._seconds
        self._scope.__enter__()
        self._running[self] = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._running.pop(self, None)
        caught = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise StepTimeout(f"step {self._name!r} did not end within the run's {self._seconds:g} s for one")
        return caught
