"""What the stores cost: CPU per appended event, append to wake, replay.

What comes in: `--rounds N` (default 5), `--events N`. What goes out: a table, and the same figures as a line of JSON.
It does not know the bus or HTTP; the least of the rounds is shown for CPU, as other work only ever adds to it.

    python benchmarks/store.py

Goals (DESIGN §12): memory ≤ 0.4 µs an event at batches of 10 and more, SQLite ≤ 2 (appends in flight, as a bus that
does not wait for each has them); append → read at a low rate p50 / p99 ≤ 30 / 100 µs in memory, ≤ 200 / 500 in SQLite;
replay ≤ 0.1 and ≤ 0.15 µs an event from chunks of 64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio

from agentstream.ids import new_run_id
from agentstream.ports import Chunk, Lease, RunFacts, Store
from agentstream.store import open_store

_LINE = b'{"seq":0,"at":1789000000000,"type":"text.delta","agent":"executor","inv":"executor.1","text":"and so on"}\n'


async def _leased(store: Store) -> tuple[str, Lease]:
    run = new_run_id()
    await store.create(run, "", "", Chunk(1, 1, b"{}\n"), facts=RunFacts())
    lease = await store.take(run, "bench", seconds=3_600)
    assert lease is not None
    return run, lease


def _chunks(events: int, batch: int) -> list[Chunk]:
    return [Chunk(first, first + batch - 1, _LINE * batch) for first in range(2, events + 2, batch)]


async def _append(store: Store, runs: int, events: int, batch: int, *, in_flight: int = 1) -> float:
    """CPU µs an event, all threads; `runs` writers at once, each with so many appends in flight."""
    leases = [await _leased(store) for _ in range(runs)]
    chunks = _chunks(events // runs, batch)

    async def write(run: str, epoch: int, source: Iterator[Chunk]) -> None:
        for chunk in source:
            await store.append(run, epoch, chunk.first - 1, chunk)

    begin = time.process_time()
    async with anyio.create_task_group() as tasks:
        for run, lease in leases:
            # Tasks of one run take from one iterator: each takes its next chunk when its last one was accepted.
            source = iter(chunks)
            for _ in range(in_flight):
                tasks.start_soon(write, run, lease.epoch, source)
    return (time.process_time() - begin) / (len(chunks) * batch * runs) * 1e6


async def _wake(store: Store, times: int) -> tuple[float, float]:
    """p50 and p99 in µs from the call of `append` until a tailing reader has read the chunk; 1 ms between appends."""
    run, lease = await _leased(store)
    began: dict[int, float] = {}
    took: list[float] = []

    async def follow() -> None:
        after = 1
        while after <= times:
            for chunk in await store.read(run, after):
                took.append(time.perf_counter() - began[chunk.first])
                after = chunk.last
            await store.changed(run, after)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        for chunk in _chunks(times, 1):
            await anyio.sleep(0.001)
            began[chunk.first] = time.perf_counter()
            await store.append(run, lease.epoch, chunk.first - 1, chunk)
        tasks.cancel_scope.cancel()
    cuts = statistics.quantiles(took, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6


async def _replay(store: Store, events: int, batch: int) -> float:
    """CPU µs an event, from the first to the last; the lease is given back, so that SQLite reads its file."""
    run, lease = await _leased(store)
    for chunk in _chunks(events, batch):
        await store.append(run, lease.epoch, chunk.first - 1, chunk)
    await store.give_back(lease)
    begin = time.process_time()
    after = 0
    while found := await store.read(run, after):
        after = found[-1].last
    return (time.process_time() - begin) / after * 1e6


async def _measure(address: str, rounds: int, events: int) -> dict[str, float]:
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        async with open_store(address) as store:
            for batch in (1, 10, 100):
                few = events if address == "memory:" else events // 10 * min(batch, 10)
                figures.setdefault(f"append, batch {batch}", []).append(await _append(store, 1, few, batch))
            figures.setdefault("append, batch 10, 16 runs", []).append(await _append(store, 16, events, 10))
            deep = await _append(store, 1, events, 10, in_flight=32)
            figures.setdefault("append, batch 10, 32 ahead", []).append(deep)
            p50, p99 = await _wake(store, 500)
            figures.setdefault("append → read, p50", []).append(p50)
            figures.setdefault("append → read, p99", []).append(p99)
            for batch in (1, 64):
                figures.setdefault(f"replay, batch {batch}", []).append(
                    await _replay(store, events if batch > 1 else events // 4, batch)
                )
    # Latency has no least that means anything: the middle round stands for it.
    return {name: (statistics.median if "→" in name else min)(values) for name, values in figures.items()}


def main() -> None:
    """Print the figures of both backends on asyncio and uvloop."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--events", type=int, default=40_000)
    chosen = options.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("memory", "process", "machine"):
            for loop in ("asyncio", "uvloop"):
                place = Path(folder) / f"{kind}-{loop}.db"
                address = "memory:" if kind == "memory" else f"sqlite:{place}?level={kind}"
                results[f"{kind}, {loop}"] = anyio.run(
                    _measure,
                    address,
                    chosen.rounds,
                    chosen.events,
                    backend_options={"use_uvloop": loop == "uvloop"},
                )
    rows = list(next(iter(results.values())))
    print(f"{'µs':28}" + "".join(f"{name:>18}" for name in results))
    for row in rows:
        print(f"{row:28}" + "".join(f"{figures[row]:18.3f}" for figures in results.values()))
    print(json.dumps(results, ensure_ascii=False))


if __name__ == "__main__":
    main()
