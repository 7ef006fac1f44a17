"""An ASGI application as an httpx transport that really streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from agentstream.answer import Message, Receive, Scope, Send
from agentstream.testing.transport import StreamingTransport

pytestmark = [
    pytest.mark.anyio,
    # httpx leaves its generators to the collector when a response is left in the middle; trio says so.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
]


def start(status: int = 200) -> Message:
    """The start of a response."""
    return {"type": "http.response.start", "status": status, "headers": [(b"x-a", b"b")]}


def body(data: bytes, *, more: bool = True) -> Message:
    """A piece of a response."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def client(app: object, **options: object) -> httpx.AsyncClient:
    """A client of the application."""
    transport = StreamingTransport(app, **options)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=5)


async def test_pieces_arrive_as_they_are_sent() -> None:
    """Each piece reaches the client before the next one is sent, and the application waits for the client."""
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for n in range(3):
            sent.append(n)
            await send(body(b"%d" % n, more=n < 2))

    with anyio.fail_after(5):
        async with client(app) as http, http.stream("GET", "/") as response:
            assert response.headers["x-a"] == "b"
            pieces: list[bytes] = []
            async for piece in response.aiter_raw():
                pieces.append(piece)
                await anyio.wait_all_tasks_blocked()
                assert len(sent) <= len(pieces) + 1
    assert pieces == [b"0", b"1", b"2"]


async def test_request_arrives_whole() -> None:
    """Method, path, query, headers and body are those of the request."""
    seen: dict[str, object] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope)
        seen["body"] = (await receive())["body"]
        await send(start(201))
        await send(body(b"", more=False))

    async with client(app) as http:
        response = await http.post("/ä b?x=1&y=%20", headers={"X-Y": "z"}, content=b"hello")
    assert response.status_code == 201
    assert (seen["method"], seen["path"], seen["query_string"]) == ("POST", "/ä b", b"x=1&y=%20")
    assert (b"x-y", b"z") in seen["headers"]  # type: ignore[operator]
    assert seen["body"] == b"hello"


async def test_leaving_is_a_disconnect() -> None:
    """A client that leaves is a disconnect for `receive`; sends behind it do nothing; the application ends first."""
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await send(body(b"x"))
        events.append((await receive())["type"])
        await send(body(b"nobody sees this"))
        events.append("end")

    with anyio.fail_after(5):
        async with client(app) as http:
            async with http.stream("GET", "/") as response:
                assert await anext(aiter(response.aiter_raw())) == b"x"
            assert events == ["http.disconnect", "end"]


async def test_leaving_while_the_application_sends() -> None:
    """A send that waits for a client ends when the client leaves."""
    ended = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"taken"))
        await send(body(b"waits"))
        ended.set()

    with anyio.fail_after(5):
        async with client(app) as http:
            async with http.stream("GET", "/") as response:
                assert await anext(aiter(response.aiter_raw())) == b"taken"
                await anyio.wait_all_tasks_blocked()
                assert not ended.is_set()
            assert ended.is_set()


async def test_an_application_that_does_not_end_is_cancelled() -> None:
    """Leaving the client ends applications that wait for something else."""
    cancelled = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async def leave() -> None:
        async with client(app) as http:
            request = http.build_request("GET", "/")
            await http.send(request, stream=True)

    with anyio.fail_after(5):
        await leave()
    assert cancelled.is_set()


@pytest.mark.promise("W-abort")
async def test_abortive_ends() -> None:
    """An application that raises or stops in the middle is a broken body; what it raises before is raised as it is."""

    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x"))
        raise ValueError("y")

    async def stops(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"x"))

    async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("z")

    async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
        return

    with anyio.fail_after(5):
        for app in (raises, stops):
            async with client(app) as http, http.stream("GET", "/") as response:
                pieces: AsyncIterator[bytes] = response.aiter_raw()
                assert await anext(pieces) == b"x"
                with pytest.raises(httpx.ReadError, match="middle"):
                    await anext(pieces)
        async with client(raises_at_once) as http:
            with pytest.raises(ValueError, match="z"):
                await http.get("/")
        async with client(says_nothing) as http:
            with pytest.raises(RuntimeError, match="without a response"):
                await http.get("/")


async def test_read_timeout() -> None:
    """The read timeout of httpx counts for each piece."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await receive()
        await receive()

    with anyio.fail_after(5):
        async with client(app) as http, http.stream("GET", "/", timeout=0.01) as response:
            with pytest.raises(httpx.ReadTimeout):
                await response.aread()


async def test_a_client_that_was_not_entered() -> None:
    """Without `async with` there is nobody who would end the applications: refused with what to do."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    http = client(app)
    with pytest.raises(RuntimeError, match="async with"):
        await http.get("/")
