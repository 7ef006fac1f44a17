"""CPU per event of the answer room against raw ASGI, over a real socket.

What comes in: nothing (`python benchmarks/answer.py`; `--rounds`, `--events`). What goes out: a table and one line of
JSON. It does not know runs or agents: the events are ready in a memory log, as for a reader that catches up.

Rows, each on uvicorn (httptools, uvloop) with one client in another process that reads and drops:

    raw       the frames, made before, in sends of 64 events: what a server can do at best
    warm      our answer, uncoalesced, frames shared with an earlier reader: the rule for all but the first reader
    cold      the same with nothing shared: every page is framed
    coalesced our answer as it is by default, nothing shared

The goal (G6) is warm <= 1.5 x raw, in CPU time of the server, in one run, as the median of rotated rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import uvicorn

from agentstream.answer import AnswerOptions, EventStreamAnswer, FrameCache
from agentstream.ports import Chunk, RunFacts
from agentstream.store import MemoryStore
from agentstream.wire import frames

RUN = "Bench00000000000000001"
App = Callable[[Any, Any, Any], Awaitable[None]]


def lines(first: int, count: int, agents: int) -> bytes:
    """Text deltas of about 150 B, from several agents in turn."""
    out = []
    for seq in range(first, first + count):
        inv = f"agent{seq % agents}.1"
        out.append(
            b'{"seq":%d,"at":1789000000000,"type":"text.delta","agent":"%b","inv":"%b","agent_seq":%d,'
            b'"block":"%b.1","text":"hello wo"}\n'
            % (seq, inv[:-2].encode(), inv.encode(), seq // agents + 1, inv.encode())
        )
    return b"".join(out)


async def filled(events: int, chunk: int, agents: int) -> tuple[MemoryStore, bytes]:
    """A finished run of so many events."""
    store = await MemoryStore().__aenter__()
    body = [b'{"seq":1,"at":1,"type":"run.started","run":"x","team":"t"}\n']
    created = await store.create(RUN, "", "", Chunk(1, 1, body[0]), facts=RunFacts(team="t"))
    lease = await store.take(RUN, "bench")
    assert lease is not None
    last = 1
    while last < events:
        part = lines(last + 1, chunk, agents)
        await store.append(RUN, lease.epoch, last, Chunk(last + 1, last + chunk, part))
        last += chunk
    end = b'{"seq":%d,"at":1,"type":"run.finished"}\n' % (last + 1)
    await store.append(RUN, lease.epoch, last, Chunk(last + 1, last + 1, end, ends="finished"))
    return store, f"{RUN}.{created.incarnation}.".encode()


def raw(pieces: list[bytes]) -> App:
    """An ASGI application that sends ready pieces."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def drop(port: int, asks: Any) -> None:
    """The client: for each path asked for, read to the last chunk."""
    while True:
        path = asks.recv()
        if path is None:
            return
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            end, size = b"", 0
            while not end.endswith(b"0\r\n\r\n"):
                data = connection.recv(1 << 18)
                size += len(data)
                end = (end + data)[-5:]
        asks.send(size)


async def measure(rounds: int, events: int, chunk: int, agents: int) -> dict[str, list[float]]:
    """CPU µs per event of each row, by round."""
    store, prefix = await filled(events, chunk, agents)
    log = b"".join([piece.lines for piece in await store.read(RUN, 0, max_bytes=1 << 40)])
    rows = log.split(b"\n")[:-1]
    pieces = [frames(prefix, at + 1, b"\n".join(rows[at : at + 64])) for at in range(0, len(rows), 64)]
    cache = FrameCache(1 << 30)
    options = AnswerOptions()
    apps: dict[str, tuple[App, str]] = {
        "raw": (raw(pieces), "/raw?"),
        "warm": (EventStreamAnswer(store, RUN, frames=cache, options=options), "/warm?coalesce=0"),
        "cold": (EventStreamAnswer(store, RUN, options=options), "/cold?coalesce=0"),
        "coalesced": (EventStreamAnswer(store, RUN, options=options), "/coalesced?"),
    }

    async def route(scope: Any, receive: Any, send: Any) -> None:
        await apps[scope["path"][1:]][0](scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    asks, theirs = mp.Pipe()
    client = mp.Process(target=drop, args=(listener.getsockname()[1], theirs), daemon=True)
    client.start()
    config = uvicorn.Config(route, lifespan="off", log_level="error", access_log=False, http="httptools")
    server = uvicorn.Server(config)
    found: dict[str, list[float]] = {name: [] for name in apps}
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        names = list(apps)
        for n in range(rounds + 1):  # the first one warms up
            for name in names[n % len(names) :] + names[: n % len(names)]:
                began = time.process_time()
                asks.send(apps[name][1])
                await anyio.wait_readable(asks)
                asks.recv()
                if n:
                    found[name].append((time.process_time() - began) / events * 1e6)
        server.should_exit = True
    asks.send(None)
    client.join()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--agents", type=int, default=16)
    args = parser.parse_args()
    found = anyio.run(measure, args.rounds, args.events, args.chunk, args.agents, backend_options={"use_uvloop": True})
    base = found["raw"]
    for name, values in found.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(f"{name:10} {statistics.median(values):7.3f} µs/event  {ratio:5.2f} x raw")
    ratio = statistics.median(warm / other for warm, other in zip(found["warm"], base, strict=True))
    print(
        json.dumps(
            {"id": "speed.answer", "ok": ratio <= 1.5, "figure": round(ratio, 3), "unit": "x raw", "n": args.events}
        )
    )


if __name__ == "__main__":
    main()
