"""A web application with teams that do as they are told, and a client that talks to it in this process.

Comes in: options. Goes out: `serving()`, to be used as `async with`, with the runtime, the application and an HTTP
client. It deliberately opens no socket, so that a test is the same on every loop and machine.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio
import httpx
import pydantic
import pytest

from agentstream.agent import Agent, Context, Team
from agentstream.answer import ASGIApp
from agentstream.runtime import Runtime, RuntimeOptions
from agentstream.testing import StreamingTransport
from agentstream.web import WebOptions, app
from agentstream.wire import Decoder

SECRET = "token-of-nobody"


class Echo(Agent):
    """Says its task again."""

    async def run(self, ctx: Context, task: str) -> str:
        await ctx.say(task)
        return f"echo: {task}"


class Waits(Agent):
    """Says one, waits for the test, says two."""

    def __init__(self) -> None:
        self.begun, self.go = anyio.Event(), anyio.Event()

    async def run(self, ctx: Context, task: str) -> str:
        await ctx.say("one")
        self.begun.set()
        await self.go.wait()
        await ctx.say("two")
        return "waited"


class Raises(Agent):
    """Fails with words that nobody may see."""

    async def run(self, ctx: Context, task: str) -> str:
        raise RuntimeError(f"{SECRET} in {__file__}")


class Makes(Agent):
    """Makes artifacts of several kinds."""

    async def run(self, ctx: Context, task: str) -> str:
        await ctx.artifact("page.html", f"<script>{task}</script>" * 9000, mime="text/html")
        await ctx.artifact('schön "x"; a=b.png', b"\x89PNG" + b"\0" * 300_000, mime="image/png")
        return "made"


class Reads(Agent):
    """Says how many bytes each file has."""

    async def run(self, ctx: Context, task: str) -> str:
        sizes = [len(await anyio.Path(file.path).read_bytes()) for file in ctx.files]
        return ", ".join(f"{file.name}={size}" for file, size in zip(ctx.files, sizes, strict=True))


class Question(pydantic.BaseModel):
    """What is asked."""

    text: str = pydantic.Field(min_length=1)
    times: int = pydantic.Field(default=1, ge=1)


class Asked(Agent[Question, list[str]]):
    """Takes a model and gives a list."""

    async def run(self, ctx: Context, task: Question) -> list[str]:
        return [task.text] * task.times


class Serving:
    """See the module. `http` talks to `app`; `waits` is the agent of the team of that name."""

    def __init__(self, options: WebOptions, limits: RuntimeOptions, base: str, store: Any) -> None:
        self.waits = Waits()
        teams = [Team(agent.name, agent) for agent in (Echo(), self.waits, Raises(), Makes(), Reads(), Asked())]
        self.runtime = Runtime(store, teams=teams, options=limits, models={})
        self.app: ASGIApp = app(self.runtime, options=options)
        self.http = httpx.AsyncClient(transport=StreamingTransport(self.app), base_url=base, timeout=10)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.runtime)
        await self._stack.enter_async_context(self.http)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def start(self, team: str = "echo", input: object = "hello", **more: object) -> str:
        """Start a run over HTTP; returns its id."""
        response = await self.http.post("/runs", json={"team": team, "input": input, **more})
        assert response.status_code == 201, response.text
        return str(response.json()["run"])

    async def finish(self, team: str = "echo", input: object = "hello", **more: object) -> str:
        """Start a run and wait for its end."""
        body = {"team": team, "input": input, **more}
        response = await self.http.post("/runs", json=body, headers={"prefer": "wait=10"})
        assert response.json()["status"] != "running", response.text
        return str(response.json()["run"])


def serving(
    options: WebOptions | None = None,
    *,
    limits: RuntimeOptions | None = None,
    base: str = "http://test",
    store: Any = "memory:",
) -> Serving:
    """A runtime with teams, its application and a client."""
    return Serving(options or WebOptions(), limits or RuntimeOptions(), base, store)


def events_of(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream: id and content."""
    return [(frame.id, json.loads(frame.data)) for frame in Decoder().feed(body)]


async def read_until(response: httpx.Response, wanted: bytes) -> bytes:
    """The bytes of a stream up to the piece that holds `wanted`."""
    read = b""
    async for piece in response.aiter_raw():
        read += piece
        if wanted in read:
            break
    return read


async def cut(
    http: httpx.AsyncClient,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    on_piece: Callable[[bytes], Awaitable[None]] | None = None,
) -> bytes:
    """The bytes of a stream that must be answered with 200 and end without its last chunk."""
    read = b""
    try:
        async with http.stream("GET", path, headers=headers) as response:
            assert response.status_code == 200
            assert "server" not in response.headers
            async for piece in response.aiter_raw():
                read += piece
                if on_piece is not None:
                    await on_piece(piece)
    except httpx.TransportError:
        return read
    pytest.fail("the stream ended cleanly")
