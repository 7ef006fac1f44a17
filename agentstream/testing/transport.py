"""An ASGI application as an httpx transport that really streams.

What comes in: an ASGI 3 application, and the requests of an `httpx.AsyncClient`. What goes out: responses whose body
arrives piece by piece, as the application sends it. It does not know sockets, servers or time: all of it happens on one
event loop, so what a test sees does not depend on the machine.

httpx's own ASGITransport runs the application to its end before it hands out the response: a stream that waits for its
reader then never arrives, and a client can never leave in the middle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self, final

import anyio
import httpx
from anyio.abc import TaskGroup
from typing_extensions import override

from agentstream.answer import ASGIApp, Message, Scope

__all__ = ("StreamingTransport",)

_END: Final = 5.0


@final
class StreamingTransport(httpx.AsyncBaseTransport):
    """Runs each request's application in a task of its own: `httpx.AsyncClient(transport=StreamingTransport(app))`.

    Enter the client (or the transport itself) with `async with`; leaving ends what still runs. As on a real server:

    - `send` waits until the client has taken the piece before (`buffer` pieces may be on the way);
    - closing the response, or leaving its `stream` block, is a disconnect: `receive` says so, `send` no longer does
      anything, and the application has 5 s to end before it is cancelled;
    - an application that raises, or returns before its last body, ends the body with `httpx.ReadError`; one that raises
      before its response has begun raises that very exception at the client.

    httpx's read timeout counts for each piece; set `timeout=None` where a stream is silent for long.

    Args:
        app: the application. Its lifespan is not run.
        buffer: pieces that `send` may be ahead of the client.
        client: address of the client in the scope.
    """

    def __init__(self, app: ASGIApp, *, buffer: int = 0, client: tuple[str, int] = ("127.0.0.1", 50000)) -> None:
        self._app = app
        self._buffer = buffer
        self._client = client
        self._group: TaskGroup | None = None
        self._entered = 0

    @override
    async def __aenter__(self) -> Self:
        if self._group is None:
            self._group = await anyio.create_task_group().__aenter__()
        self._entered += 1
        return self

    @override
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._entered -= 1
        if self._entered == 0 and self._group is not None:
            group, self._group = self._group, None
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Start the application and wait for the beginning of its response."""
        if self._group is None:
            raise RuntimeError("enter the client first: async with httpx.AsyncClient(transport=…) as client")
        body = await request.aread()
        exchange = _Exchange(self._app, self._scope(request), body, self._buffer, _read_timeout(request))
        self._group.start_soon(exchange.run)
        try:
            start = await exchange.start()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx.Response(start["status"], headers=list(start["headers"]), stream=exchange, request=request)

    def _scope(self, request: httpx.Request) -> Scope:
        path, _, query = request.url.raw_path.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": self._client,
            "server": (request.url.host, request.url.port),
            "extensions": {},
            "state": {},
        }


def _read_timeout(request: httpx.Request) -> float | None:
    timeout: dict[str, float | None] = request.extensions.get("timeout", {})
    return timeout.get("read")


class _Exchange(httpx.AsyncByteStream):
    """One request and its response: the application on one side, the client's body iterator on the other."""

    def __init__(self, app: ASGIApp, scope: Scope, body: bytes, buffer: int, read_timeout: float | None) -> None:
        self._app = app
        self._scope = scope
        self._requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._read_timeout = read_timeout
        self._give, self._take = anyio.create_memory_object_stream[Message](buffer)
        self._left = anyio.Event()
        self._ended = anyio.Event()
        self._running = anyio.CancelScope()
        self._started = False
        self._complete = False  # the application gave its last body
        self._taken = False  # the client took it
        self._failure: Exception | None = None

    # --- the application's side ---------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Run the application; whatever it raises is kept for the client."""
        try:
            with self._running:
                await self._app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  # handed to the client, which is the test
            self._failure = error
        except BaseException:  # the transport ends
            self._take.close()
            raise
        finally:
            self._ended.set()
            self._give.close()

    async def _receive(self) -> Message:
        if self._requests and not self._left.is_set():
            return self._requests.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._left.is_set():
            return
        if self._complete or (message["type"] == "http.response.start") == self._started:
            raise RuntimeError(f"{message['type']} does not belong here")
        if message["type"] == "http.response.start":
            self._started = True
        elif not message.get("more_body", False):
            self._complete = True
        try:
            await self._give.send(dict(message))
        except anyio.BrokenResourceError:  # the client left while we waited for it
            return

    # --- the client's side --------------------------------------------------------------------------------------------
    async def start(self) -> Message:
        """The start of the response.

        Raises:
            Exception: the application's own, if it raised before.
        """
        try:
            return await self._next()
        except anyio.EndOfStream:
            raise self._failure or RuntimeError("the application returned without a response") from None

    async def _next(self) -> Message:
        with anyio.move_on_after(self._read_timeout):
            return await self._take.receive()
        raise httpx.ReadTimeout(f"the application sent nothing for {self._read_timeout} s")

    @override
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._taken:
            try:
                message = await self._next()
            except anyio.EndOfStream:
                raise httpx.ReadError("the application ended its response in the middle") from self._failure
            self._taken = not message.get("more_body", False)
            if message.get("body") and self._scope["method"] != "HEAD":
                return bytes(message["body"])
        raise StopAsyncIteration

    @override
    async def aclose(self) -> None:
        """The client leaves: the application is told, and has 5 s to end."""
        self._left.set()
        self._take.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_END):
            await self._ended.wait()
        self._running.cancel()
