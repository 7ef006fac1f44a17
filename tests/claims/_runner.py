"""Runs one claim and says what came of it.

Comes in: a claim and a seed. Goes out: an `Outcome`, whatever happened inside: a figure, an error, a missing part, or
too little time; and the one line of JSON that `make claim` ends with.
It deliberately does not know any claim.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import anyio

from claims import BrokenFamily, Claim, Figure, MissingPart, family_errors, load


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running one claim: `figure` or `error`, never both."""

    id: str
    unit: str
    seed: int
    seconds: float
    figure: Figure | None = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Tell whether the claim holds."""
        return self.error is None and self.figure is not None and self.figure.holds()

    def line(self) -> str:
        """Return the result as one line of JSON."""
        figure = self.figure
        value = None if figure is None or not math.isfinite(figure.value) else figure.value
        return json.dumps(
            {
                "id": self.id,
                "ok": self.ok,
                "figure": value,
                "unit": self.unit,
                "n": 0 if figure is None else figure.n,
                "seed": self.seed if figure is None else figure.seed,
                "seconds": round(self.seconds, 3),
            },
            ensure_ascii=False,
        )

    def story(self) -> str:
        """Return what a person wants to know besides the line: bound, further figures, or the error."""
        if self.figure is None:
            if isinstance(self.error, MissingPart | BrokenFamily | TimeoutError):
                return f"{self.id}: {self.error}"
            return "".join(traceback.format_exception(self.error)) if self.error else ""
        bound = self.figure.bound or "without a bound, so it cannot hold"
        further = [f"  {name}: {value}" for name, value in self.figure.detail.items()]
        return "\n".join([f"{self.id}: {self.figure.value:g} {self.unit} ({bound}), n = {self.figure.n}", *further])


async def _awaited(measurement: Coroutine[Any, Any, Figure]) -> Figure:  # Any: nothing is sent into it
    return await measurement


@contextmanager
def _time_limit(claim: Claim) -> Iterator[None]:
    """Break off after the claim's limit, by a signal: a claim may be plain code that no loop can cancel."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield  # no such signal here; the test runner's own limit holds
        return

    def out_of_time(_signal: int, _frame: FrameType | None) -> None:
        message = f"broken off after {claim.limit:g} s"
        raise TimeoutError(message)

    before = signal.signal(signal.SIGALRM, out_of_time)
    timer = signal.setitimer(signal.ITIMER_REAL, claim.limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def run(claim: Claim, seed: int) -> Outcome:
    """Run one claim to its end, on asyncio where its function is async. Raises nothing but an interrupt."""
    began = time.perf_counter()
    figure: Figure | None = None
    error: BaseException | None = None
    try:
        with _time_limit(claim):
            measured = claim.call(seed)
            figure = measured if isinstance(measured, Figure) else anyio.run(_awaited, measured)
    except (Exception, SystemExit) as caught:  # noqa: BLE001 - a claim that raises does not hold, whatever it raised
        error = caught
    return Outcome(claim.id, claim.unit, seed, time.perf_counter() - began, figure, error)


def _list() -> int:
    claims = load()
    width = max((len(name) for name in claims), default=0)
    for one in claims.values():
        print(f"{one.id:<{width}}  {'quick' if one.quick else 'long '}  {one.about}")
    for family, reason in family_errors().items():
        print(f"{family}.*: cannot be loaded: {reason}", file=sys.stderr)
    return 1 if family_errors() else 0


def main(arguments: Sequence[str]) -> int:
    """List the claims, or run the one named by the first argument with the seed in the second."""
    if not arguments:
        return _list()
    name, *rest = arguments
    seed = int(rest[0]) if rest else 1
    claim = load().get(name)
    if claim is not None:
        outcome = run(claim, seed)
    else:
        reason = family_errors().get(name.partition(".")[0])
        wrong = f"its family cannot be loaded: {reason}" if reason else "no such claim; `make claims` lists them"
        outcome = Outcome(name, "", seed, 0.0, error=BrokenFamily(wrong))
    print(outcome.story(), file=sys.stderr, flush=True)
    print(outcome.line(), flush=True)
    return 0 if outcome.ok else 1
