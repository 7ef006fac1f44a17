"""One request and its answer, as the routes see them.

What comes in: ASGI's scope and receive, and the parameters of a path. What goes out: headers, query and addresses as
values, and whole answers of JSON or bytes. It does not know routes or runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Final, TypeAlias
from urllib.parse import parse_qs, quote

import msgspec

from agentstream.answer import ASGIApp, Receive, Scope, Send, send_whole
from agentstream.errors import InvalidInput

__all__ = ("NO_STORE", "Handler", "HttpRequest", "JsonAnswer", "WholeAnswer", "sub_path")

_MOST_FIELDS: Final = 64
NO_STORE: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

_encode = msgspec.json.Encoder().encode


class HttpRequest:
    """A request whose route was found.

    Attributes:
        parameters: parts of the path by name, decoded.
        root: path under which the application is mounted; addresses that go out begin with it.
    """

    def __init__(self, scope: Scope, receive: Receive, parameters: Mapping[str, str]) -> None:
        self.scope = scope
        self.receive = receive
        self.parameters = parameters
        self.root = quote(scope.get("root_path", "").rstrip("/"))

    def header(self, name: bytes) -> str | None:
        """The values of a header, joined by commas; None if it was not sent, which is not the same as sent empty."""
        values = [value.decode("latin-1") for key, value in self.scope["headers"] if key.lower() == name]
        return ", ".join(values) if values else None

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query's fields; of one that is repeated the last.

        Raises:
            InvalidInput: more than 64 fields.
        """
        text = self.scope["query_string"].decode("latin-1")
        try:
            fields = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise InvalidInput(f"the query holds more than {_MOST_FIELDS} fields") from None
        return {name: values[-1] for name, values in fields.items()}

    def run_path(self, run: str, rest: str = "") -> str:
        """Address of a run, or of something of it."""
        return f"{self.root}/runs/{run}{rest}"


Handler: TypeAlias = Callable[[HttpRequest], Awaitable[ASGIApp]]
"""Finds the answer to a request; what it raises becomes a problem document."""


class WholeAnswer:
    """A response that is complete at once."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, headers: Mapping[bytes, bytes], body: bytes = b"") -> None:
        self._status = status
        self._headers = tuple(headers.items())
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # the shape of ASGI
        """Send it; nothing is read."""
        if self._status != 304:
            await send_whole(scope, send, self._status, self._headers, self._body)
            return
        # A length here would be taken for that of the body that was not sent.
        await send({"type": "http.response.start", "status": 304, "headers": list(self._headers)})
        await send({"type": "http.response.body", "body": b""})


class JsonAnswer(WholeAnswer):
    """A JSON document. It is never cached: everything here changes."""

    __slots__ = ()

    def __init__(self, document: object, *, status: int = 200, headers: Mapping[bytes, bytes] | None = None) -> None:
        every = {b"content-type": b"application/json", **dict(NO_STORE), **(headers or {})}
        super().__init__(status, every, _encode(document))


def sub_path(scope: Scope) -> str:
    """The path below the mount point, decoded; empty at the mount point itself."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    # Servers differ: the path holds the mount point (ASGI's text), or it was taken away already.
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path
