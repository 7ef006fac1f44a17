"""Answers returned from handlers of frameworks, bare and behind middleware."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentstream.answer import ASGIApp, DrainSwitch, EventStreamAnswer, as_response
from agentstream.ports import Chunk
from agentstream.store import MemoryStore
from agentstream.testing.transport import StreamingTransport
from agentstream.web import abortable
from agentstream.wire import Decoder
from stream.logs import RUN, LossyLog, Writer, chunks_of, small_run

LINES = small_run()
LAST = len(LINES)

pytestmark = [
    pytest.mark.anyio,
    # httpx leaves its generators to the collector when a response is left in the middle; trio says so.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
]
Handler = Callable[[Any], Response]


def in_starlette(handler: Handler) -> Any:
    """A Starlette application with this handler."""

    async def endpoint(request: Request) -> Response:
        return handler(request)

    return Starlette(routes=[Route("/", endpoint)])


def in_fastapi(handler: Handler) -> Any:
    """A FastAPI application with this handler."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(request: FastAPIRequest) -> Response:
        return handler(request)

    return app


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Middleware that does nothing, and makes every end clean."""
    return await call_next(request)


def wrapped(app: Any) -> ASGIApp:
    """Behind three of the middleware that makes every end clean."""
    for _ in range(3):
        app = BaseHTTPMiddleware(app, dispatch=pass_on)
    return app  # type: ignore[no-any-return]


FRAMEWORKS = pytest.mark.parametrize("framework", [in_starlette, in_fastapi])
AROUND = pytest.mark.parametrize("around", [lambda app: app, wrapped], ids=["bare", "behind-three"])


@FRAMEWORKS
@AROUND
async def test_returned_from_a_handler(framework: Callable[[Handler], Any], around: Callable[[Any], ASGIApp]) -> None:
    """The whole stream arrives with our headers, the handler's own, a cookie, and the background task behind it."""
    after: list[str] = []
    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write()

        def handler(request: Any) -> Response:
            response = as_response(EventStreamAnswer(store, RUN), request)
            response.headers["x-mine"] = "1"
            response.set_cookie("a", "b")
            response.background = BackgroundTask(after.append, "done")
            return response

        transport = StreamingTransport(around(framework(handler)))
        with anyio.fail_after(5):
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                got = await http.get("/?coalesce=0")
                again = await http.get("/", headers={"Last-Event-ID": Decoder().feed(got.content)[-1].id})
                wrong = await http.get("/?coalesce=x")
    assert got.headers["content-type"] == "text/event-stream"
    assert got.headers["cache-control"] == "no-store, no-transform"
    assert (got.headers["x-mine"], got.cookies["a"]) == ("1", "b")
    assert [json.loads(frame.data)["seq"] for frame in Decoder().feed(got.content)] == list(range(1, LAST + 1))
    assert (again.status_code, again.content) == (204, b"")
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")
    assert after == ["done"] * 3


@pytest.mark.promise("W-abort", "W-abortable")
@FRAMEWORKS
@AROUND
async def test_a_cut_stays_a_cut(framework: Callable[[Handler], Any], around: Callable[[Any], ASGIApp]) -> None:
    """A stream that is cut never ends cleanly, also behind middleware, with `abortable` outermost."""
    drain = DrainSwitch()
    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write(1)
        answer = EventStreamAnswer(store, RUN, drain=drain)
        app = abortable(around(framework(lambda request: as_response(answer, request))))
        with anyio.fail_after(5):
            async with httpx.AsyncClient(transport=StreamingTransport(app), base_url="http://test") as http:
                for _ in range(2):  # while it streams, then one that is asked for while it drains
                    async with http.stream("GET", "/") as got:
                        body = b""
                        with pytest.raises(httpx.ReadError):  # noqa: PT012  # it is the reading that fails at last
                            async for piece in got.aiter_raw():
                                body += piece
                                if b'"seq":4' in body:
                                    drain.drain()
                    assert body.count(b"retry: ") == 2


@pytest.mark.promise("P7", "W-abortable")
@FRAMEWORKS
async def test_a_bug_is_no_clean_end(framework: Callable[[Handler], Any]) -> None:
    """A stream that breaks by an error of ours never ends cleanly either."""
    log = LossyLog([*chunks_of(LINES, [4])[:1], Chunk(5, 5, b'{"seq":5}\r\n', ends="finished")])
    app = abortable(wrapped(framework(lambda request: as_response(EventStreamAnswer(log, RUN), request))))
    with anyio.fail_after(5):
        async with httpx.AsyncClient(transport=StreamingTransport(app), base_url="http://test") as http:
            with pytest.raises(httpx.ReadError):
                await http.get("/")


@pytest.mark.promise("P8")
@FRAMEWORKS
@AROUND
async def test_leaving_ends_the_answer(framework: Callable[[Handler], Any], around: Callable[[Any], ASGIApp]) -> None:
    """When the client leaves, the handler's response ends by itself, and its background task runs."""
    ended = anyio.Event()
    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write(1)

        def handler(request: Any) -> Response:
            response = as_response(EventStreamAnswer(store, RUN), request)
            response.background = BackgroundTask(set_event)
            return response

        async def set_event() -> None:
            ended.set()

        transport = StreamingTransport(around(framework(handler)))
        with anyio.fail_after(4):
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                async with http.stream("GET", "/") as got:
                    body = b""
                    async for piece in got.aiter_raw():
                        body += piece
                        if b'"seq":4' in body:
                            break
                await ended.wait()


async def test_abortable_leaves_the_rest_alone() -> None:
    """Other scopes, clean responses and foreign errors pass through as they are."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if scope["path"] == "/bug":
                raise LookupError("bug")
            await send({"type": "http.response.body", "body": b"whole"})

    outer = abortable(app)
    await outer({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=StreamingTransport(outer), base_url="http://test") as http:
        assert (await http.get("/")).content == b"whole"
        with pytest.raises(httpx.ReadError) as caught:
            await http.get("/bug")
    assert isinstance(caught.value.__cause__, LookupError)
    assert seen == ["lifespan", "http", "http"]


def test_without_a_framework() -> None:
    """A request of no known framework gets the ASGI answer itself."""

    class Plain:
        scope: dict[str, Any] = {}  # noqa: RUF012
        headers: dict[str, str] = {}  # noqa: RUF012

    answer = EventStreamAnswer(MemoryStore(), RUN)
    assert as_response(answer, Plain()) is answer
