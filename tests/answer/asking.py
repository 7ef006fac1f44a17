"""Asking for a run's events without a server: one ASGI exchange driven by hand.

Comes in: an answer and a request. Goes out: the messages that it sent, in order, and what they say.
It deliberately has no client in it: what is asserted are the bytes and the messages themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from agentstream.answer import ASGIApp, Message, Scope
from agentstream.wire import Decoder
from agentstream.wire import Message as Frame


def scope_of(path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, **more: Any) -> Scope:
    """A request's scope."""
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        **more,
    }


class Exchange:
    """One request to an ASGI application.

    Attributes:
        sent: what the application sent. error: what it raised. clean: whether it sent its last body.
    """

    def __init__(self, app: ASGIApp, scope: Scope, *, on_send: Callable[[Message], Any] | None = None) -> None:
        self.app = app
        self.scope = scope
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self.clean = False
        self.ended = anyio.Event()
        self._left = anyio.Event()
        self._on_send = on_send
        self._asked = False

    def leave(self) -> None:
        """The client leaves."""
        self._left.set()

    async def receive(self) -> Message:
        """The request, then, once the client has left, its disconnect."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take what the application sends; `on_send` may wait or raise."""
        if self._on_send is not None:
            waits = self._on_send(message)
            if waits is not None:
                await waits
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.clean = True

    async def run(self) -> Exchange:
        """Run the application to its end."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001  # kept for the test
            self.error = error
        finally:
            self.ended.set()
        return self

    @property
    def status(self) -> int:
        """The response's status."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers."""
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def pieces(self) -> list[bytes]:
        """The bodies that were sent."""
        return [bytes(message.get("body", b"")) for message in self.sent[1:]]

    @property
    def body(self) -> bytes:
        """All of them."""
        return b"".join(self.pieces)

    @property
    def frames(self) -> list[Frame]:
        """The messages of the event stream."""
        return Decoder().feed(self.body)


async def ask(app: ASGIApp, path: str = "/", *, method: str = "GET", **headers: str) -> Exchange:
    """One whole exchange; header names with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with anyio.fail_after(10):
        return await Exchange(app, scope_of(path, method=method, headers=named)).run()
