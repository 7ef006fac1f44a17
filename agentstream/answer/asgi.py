"""The little of ASGI 3 that answers need.

What comes in: a server's scope, receive and send. What goes out: header values, and whole small responses. It does not
know runs, events or frameworks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

__all__ = ("ASGIApp", "Headers", "Message", "Receive", "Scope", "Send", "header", "send_whole")

# Any: ASGI messages and scopes are open dicts; these are the very types that frameworks use for them.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Names in lower case, as ASGI asks for."""


def header(scope: Scope, name: bytes) -> str:
    """The values of a request header, joined by commas; empty if it is missing."""
    return ", ".join([value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name])


async def send_whole(scope: Scope, send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    """A response that is complete at once; to HEAD only its headers."""
    lengths = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *lengths]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
