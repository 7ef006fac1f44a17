"""Claims about cost: CPU time an event, as a ratio to a row of the same run.

Comes in: the rows of `benchmarks/bus.py`. Goes out: ratios of the least of the rounds, and medians round by round.
It deliberately does not know absolute times: the machine may be shared, and its neighbours slow every row alike.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
from types import ModuleType
from typing import Final

from claims import ROOT, Figure, at_most, claim

_AGENTS: Final = 16
_EVENTS: Final = 64_000
_ROUNDS: Final = 9
_TO_LOOP: Final = 3.0
_TO_QUEUE: Final = 0.8


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@claim(
    "speed.bus",
    f"Bus, order, memory log and SSE frames cost at most {_TO_LOOP:g} times the pure loop, {_TO_QUEUE:g} times a queue",
    unit="times the loop's CPU time an event",
)
def speed_bus() -> Figure:
    """16 hot agents on asyncio; each writes tokens into a block, a reader frames them as the HTTP answer does."""
    figures: dict[str, list[float]] = _benchmark("bus").measure(_AGENTS, _EVENTS, _ROUNDS)

    # The least of the rounds: whatever else the machine does can only add time. The medians are printed too.
    def ratio(row: str, to: str) -> float:
        return min(figures[row]) / min(figures[to])

    def median(row: str, to: str) -> float:
        return round(statistics.median(a / b for a, b in zip(figures[row], figures[to], strict=True)), 3)

    to_queue = ratio("write", "queue")
    return Figure(
        ratio("write", "loop"),
        n=_EVENTS * _ROUNDS,
        bound=at_most(_TO_LOOP),
        ok=to_queue <= _TO_QUEUE,
        detail={
            "write to queue (at most 0.8)": round(to_queue, 3),
            "medians of write to loop and to queue": (median("write", "loop"), median("write", "queue")),
            "emit to loop": round(ratio("emit", "loop"), 3),
            "queue to loop": round(ratio("queue", "loop"), 3),
            "rounds": _ROUNDS,
        },
    )
