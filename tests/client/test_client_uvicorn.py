"""The client and the real application on uvicorn, with every connection cut by RST after a few bytes."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from typing import Any

import anyio
import anyio.abc
import pytest
import uvicorn

from agentstream import web
from agentstream.agent import Agent, Context, Team
from agentstream.client import Retry, connect
from agentstream.events import AnyEvent, Reset
from agentstream.runtime import Runtime

FAST = Retry(shortest=0.0, longest=0.0, give_up=20.0, silence=5.0)
WORDS = 120


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on asyncio, which is uvicorn's loop."""
    return "asyncio", {}


class Writer(Agent[str, str]):
    """Writes many words in characters of several bytes, letting others run between them."""

    async def run(self, ctx: Context, task: str, /) -> str:
        async with ctx.text() as block:
            for n in range(WORDS):
                await block.write(f"{task} {n} ")
                await anyio.lowlevel.checkpoint()
        return task


class Cutter:
    """A proxy that resets each connection to its client after a random number of bytes."""

    def __init__(self, port: int, seed: int) -> None:
        self.connections = 0
        self._port = port
        self._random = random.Random(seed)

    async def handle(self, client: anyio.abc.SocketStream) -> None:
        """Pass bytes both ways until the client got its share."""
        self.connections += 1
        left = self._random.randint(1, 2500)
        server = await anyio.connect_tcp("127.0.0.1", self._port)
        async with client, server, anyio.create_task_group() as group:
            group.start_soon(self._up, client, server, group.cancel_scope)
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for data in server:
                    await client.send(data[:left])
                    left -= len(data)
                    if left <= 0:
                        raw = client.extra(anyio.abc.SocketAttribute.raw_socket)
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        break
            group.cancel_scope.cancel()

    async def _up(self, client: Any, server: Any, scope: anyio.CancelScope) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in client:
                await server.send(data)
        scope.cancel()


@pytest.mark.anyio
@pytest.mark.promise("P5", "W-client")
@pytest.mark.parametrize("seed", [1, 2])
async def test_cut_again_and_again_nothing_is_lost_or_doubled(seed: int) -> None:
    """Through a proxy that resets every connection, the client has the log, event by event, and starts one run."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with Runtime(teams=[Team("writer", Writer())]) as runtime, anyio.create_task_group() as group:
            server = uvicorn.Server(uvicorn.Config(web.app(runtime), lifespan="off", log_level="critical", ws="none"))
            # Not `serve`, which would take over the signals of the process that runs the tests.
            group.start_soon(server._serve, [listener])
            cutter = Cutter(listener.getsockname()[1], seed)
            with anyio.fail_after(40):
                seen, resumes, run_id = await _read_through(cutter)
            async with (await runtime.get(run_id)).events(coalesce=False) as log:
                assert seen == [event async for event in log]
            assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
            assert len(seen) > WORDS
            assert resumes > 5
            assert len(await runtime.list()) == 1
            server.should_exit = True


async def _read_through(cutter: Cutter) -> tuple[list[AnyEvent], int, str]:
    """Start a run behind the proxy and read it: its events, how often it was resumed, its id."""
    proxy = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with proxy, anyio.create_task_group() as group:
        group.start_soon(proxy.serve, cutter.handle)
        port = proxy.extra(anyio.abc.SocketAttribute.local_port)
        async with connect(f"http://127.0.0.1:{port}", retry=FAST) as client:
            run = await client.start("writer", "grüße 数 🦉")
            async with run.events(coalesce=False) as events:
                seen = [event async for event in events if not isinstance(event, Reset)]
        group.cancel_scope.cancel()
    return seen, events.status.resumes, run.id
