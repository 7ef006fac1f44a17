"""The application as a whole: what it says of itself, its page, its life, and mounting it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import anyio
import httpx
import pytest

from agentstream.agent import Agent, Context, Team
from agentstream.answer import ASGIApp, Message, Receive, Scope, Send
from agentstream.errors import StoreDown
from agentstream.llm.pool import Endpoint, EndpointPool
from agentstream.runtime import Runtime
from agentstream.testing import StreamingTransport
from agentstream.web import WebOptions, app
from web.serving import Echo, cut, events_of, serving

pytestmark = pytest.mark.anyio


# --- facts ------------------------------------------------------------------------------------------------------------
async def test_teams_have_schemas() -> None:
    """Each team says what it takes and what it gives, so that a page can ask for it."""
    with anyio.fail_after(10):
        async with serving() as web:
            teams = {team["name"]: team for team in (await web.http.get("/teams")).json()["teams"]}
            assert list(teams) == list(web.runtime.teams)
            assert teams["echo"]["input"] == {"type": "string"}
            assert teams["asked"]["input"]["required"] == ["text"]
            assert teams["asked"]["output"] == {"items": {"type": "string"}, "type": "array"}
            assert teams["asked"]["description"] == "Takes a model and gives a list."
            assert teams["asked"]["version"] == "1"


class Opaque:
    """A type that JSON schemas know nothing of."""


class Odd(Agent[Opaque, Opaque]):
    """Takes what cannot come over HTTP."""

    async def run(self, ctx: Context, task: Opaque) -> Opaque:
        return task


async def test_a_team_without_schemas() -> None:
    """A type that has no schema is shown as any value; the list of the others does not suffer."""
    with anyio.fail_after(10):
        async with serving() as web:
            web.runtime.add_team(Team("odd", Odd()))
            teams = {team["name"]: team for team in (await web.http.get("/teams")).json()["teams"]}
            assert (teams["odd"]["input"], teams["odd"]["output"]) == ({}, {})
            assert teams["echo"]["input"] == {"type": "string"}


async def test_ready_asks_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose store is away lives, and is not ready; it is again when the store is back."""

    async def away() -> None:
        raise StoreDown("the store is away")

    with anyio.fail_after(10):
        async with serving() as web:
            assert (await web.http.get("/ready")).json() == {"status": "ready"}
            with monkeypatch.context() as patch:
                patch.setattr(web.runtime.store, "ping", away)
                response = await web.http.get("/ready")
                assert (response.status_code, response.json()["code"]) == (503, "store_down")
                assert (await web.http.get("/health")).json() == {"status": "ok"}
            assert (await web.http.get("/ready")).status_code == 200


@pytest.mark.promise("W-drain")
async def test_a_store_that_is_away_sends_streams_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream is told to come again, since its client would take any other status for the end; a poll gets 503."""

    async def away(run: str) -> None:
        raise StoreDown("the store is away")

    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.finish()
            monkeypatch.setattr(web.runtime.store, "row", away)
            read = await cut(web.http, f"/runs/{run}/events")
            assert read.startswith(b"retry: ")
            assert b"id:" not in read
            poll = await web.http.get(f"/runs/{run}/events", headers={"accept": "application/json"})
            assert (poll.status_code, poll.json()["code"]) == (503, "store_down")


# --- the page ---------------------------------------------------------------------------------------------------------
async def test_the_page_is_whole() -> None:
    """`/` and everything that it and its modules name is served, with the right kind, and may load nothing else."""
    with anyio.fail_after(10):
        async with serving() as web:
            index = await web.http.get("/")
            assert index.headers["content-type"] == "text/html; charset=utf-8"
            todo, seen = set(re.findall(r'(?:src|href)="([\w.]+\.\w+)"', index.text)), {"index.html"}
            while todo:
                name = todo.pop()
                seen.add(name)
                response = await web.http.get(f"/{name}")
                assert response.status_code == 200, name
                kind = {
                    "js": "text/javascript; charset=utf-8",
                    "css": "text/css; charset=utf-8",
                    "svg": "image/svg+xml",
                }
                assert response.headers["content-type"] == kind[name.rpartition(".")[2]]
                for headers in (response.headers, index.headers):
                    policy = headers["content-security-policy"]
                    assert "default-src 'none'" in policy
                    assert "script-src 'self';" in policy
                    assert "unsafe" not in policy
                    assert headers["x-content-type-options"] == "nosniff"
                    assert headers["referrer-policy"] == "no-referrer"
                todo |= set(re.findall(r'from "\./([\w.]+)"', response.text)) - seen
            in_package = {item.name for item in (files("agentstream.web") / "page").iterdir()}
            assert seen == in_package - {"package.json"}
            assert (await web.http.get("/package.json")).status_code == 404


async def test_the_page_is_asked_for_again() -> None:
    """A browser keeps it and asks whether it changed: 304 for its tag, also for a weak one."""
    with anyio.fail_after(10):
        async with serving() as web:
            first = await web.http.get("/app.js")
            assert first.headers["cache-control"] == "no-cache"
            for tag in (first.headers["etag"], f"W/{first.headers['etag']}"):
                again = await web.http.get("/app.js", headers={"if-none-match": tag})
                assert (again.status_code, again.content) == (304, b"")


async def test_without_the_page() -> None:
    """`page=False` serves the routes alone."""
    with anyio.fail_after(10):
        async with serving(WebOptions(page=False)) as web:
            assert (await web.http.get("/")).status_code == 404
            assert (await web.http.get("/app.js")).status_code == 404
            assert (await web.http.get("/teams")).status_code == 200


# --- life -------------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def lifespan(asgi: ASGIApp) -> AsyncIterator[list[Message]]:
    """Run an application's lifespan as a server does; gives what it said."""
    told: list[Message] = []
    to_app, from_test = anyio.create_memory_object_stream[Message](1)
    heard = anyio.Event()

    async def send(message: Message) -> None:
        told.append(message)
        heard.set()

    async with anyio.create_task_group() as group, to_app, from_test:
        await to_app.send({"type": "lifespan.startup"})
        group.start_soon(asgi, {"type": "lifespan"}, from_test.receive, send)
        await heard.wait()
        yield told
        await to_app.send({"type": "lifespan.shutdown"})


async def test_the_lifespan_runs_the_runtime() -> None:
    """Started by its server the application enters the runtime and leaves it; runs work in between."""
    with anyio.fail_after(10):
        runtime = Runtime(teams=[Team("echo", Echo())], models={})
        asgi = app(runtime)
        http = httpx.AsyncClient(transport=StreamingTransport(asgi), base_url="http://test")
        async with lifespan(asgi) as told, http:
            response = await http.post("/runs", json={"team": "echo", "input": "x"}, headers={"prefer": "wait=5"})
            assert response.json()["output"] == "echo: x"
        assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        with pytest.raises(Exception, match="not running"):
            runtime.statistics()


async def test_the_lifespan_leaves_a_running_runtime_alone() -> None:
    """Whoever entered the runtime before leaves it."""
    with anyio.fail_after(10):
        async with Runtime(models={}) as runtime:
            async with lifespan(app(runtime)) as told:
                pass
            assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
            assert runtime.statistics().runs == 0


async def _one_round(asgi: ASGIApp, runtime: Runtime) -> str:
    http = httpx.AsyncClient(transport=StreamingTransport(asgi), base_url="http://test")
    with anyio.fail_after(10):
        async with runtime, http:
            await http.post("/files", content=b"x")
            response = await http.post("/runs", json={"team": "echo", "input": "x"}, headers={"prefer": "wait=5"})
            return str(response.json()["output"])


MODULE_LEVEL = Runtime(teams=[Team("echo", Echo())], models={})
MODULE_LEVEL_APP = app(MODULE_LEVEL)


async def test_it_may_live_at_module_level() -> None:
    """Made before any loop, one application serves on one loop after the other, whichever they are."""
    assert await _one_round(MODULE_LEVEL_APP, MODULE_LEVEL) == "echo: x"


async def test_a_runtime_that_cannot_start_says_so() -> None:
    """The server is told why, in one sentence."""
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            told: list[Message] = []

            async def receive() -> Message:
                return {"type": "lifespan.startup"}

            async def send(message: Message) -> None:
                told.append(message)

            group.start_soon(app(Runtime("nowhere:", models={})), {"type": "lifespan"}, receive, send)
        assert told[0]["type"] == "lifespan.startup.failed"
        assert "sqlite:PATH" in told[0]["message"]


# --- mounted ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("keeps_path", [True, False], ids=["path-with-root", "path-without-root"])
async def test_mounted(keeps_path: bool) -> None:
    """Below a path of another application every route is found and every address begins with that path."""
    with anyio.fail_after(10):
        async with serving() as web:

            async def outer(scope: Scope, receive: Receive, send: Send) -> None:
                path = scope["path"].removeprefix("/agénts")
                inner = {**scope, "root_path": "/agénts", "path": scope["path"] if keeps_path else path}
                await web.app(inner, receive, send)

            async with httpx.AsyncClient(transport=StreamingTransport(outer), base_url="http://test") as http:
                started = await http.post("/agénts/runs", json={"team": "echo", "input": "x"})
                document: dict[str, Any] = started.json()
                assert document["events"].startswith("/ag%C3%A9nts/runs/")
                assert started.headers["location"] == document["state"]
                stream = await http.get(document["events"])
                assert events_of(stream.content)[-1][1]["type"] == "run.finished"
                assert stream.headers["content-location"] == document["events"]
                assert (await http.get("/agénts/")).status_code == 200
                bare = await http.get("/agénts")
                assert (bare.status_code, bare.headers["location"]) == (308, "/ag%C3%A9nts/")


async def test_no_socket() -> None:
    """A WebSocket is refused, and anything else is the server's mistake."""
    with anyio.fail_after(10):
        web = serving()
        told: list[Message] = []

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            told.append(message)

        await web.app({"type": "websocket", "path": "/", "headers": []}, receive, send)
        assert told[0]["type"] == "websocket.close"
        with pytest.raises(RuntimeError, match="telepathy"):
            await web.app({"type": "telepathy"}, receive, send)


async def test_endpoints_shows_pools_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators see each pool's endpoints, their breakers and counts, and nothing of the keys."""
    monkeypatch.setenv("POOL_KEY", "sk-canary")
    endpoint = Endpoint(url="http://127.0.0.1:9/v1", model="m", key_env="POOL_KEY", name="near")
    with anyio.fail_after(10):
        async with EndpointPool("default", [endpoint]) as pool, Runtime(models=pool) as runtime:
            transport = StreamingTransport(app(runtime))
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
                answer = await http.get("/endpoints", headers={"host": "127.0.0.1"})
    assert answer.status_code == 200
    (shown,) = answer.json()["pools"]
    assert (shown["name"], shown["endpoints"][0]["name"]) == ("default", "near")
    assert "canary" not in answer.text
