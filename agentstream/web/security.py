"""Which pages may call this server, and by which name.

What comes in: a request's Host and Origin. What goes out: a refusal, or the headers by which a browser lets an allowed
page read the answer. It does not know who the client is: there is no authentication here.

Programs send no Origin, and are let through. A browser sends one with every POST, and with every request across sites,
and no page can change it; a page that may not read answers could still start runs, so these are refused before anything
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentstream.answer import Message, Scope, Send, header
from agentstream.web.options import WebOptions
from agentstream.web.problems import HostNotAllowed, OriginNotAllowed
from agentstream.web.settings import is_loopback

__all__ = ("Gate",)

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_EXPOSED: Final = b"X-Run-Id, Content-Location, Location, Retry-After, Agentstream-Resume, traceparent"
_TAKEN: Final = b"Content-Type, Accept, Last-Event-ID, Idempotency-Key, Prefer, X-File-Name, Cache-Control, traceparent"
_PREFLIGHT_S: Final = b"600"


class Gate:
    """Checks requests, and marks answers to allowed pages of other sites."""

    def __init__(self, options: WebOptions) -> None:
        self._origins = frozenset(options.cors)
        self._hosts = frozenset(options.hosts)

    def check(self, scope: Scope) -> None:
        """Let the request pass.

        Raises:
            HostNotAllowed: called by a foreign name. OriginNotAllowed: a page of another site wants to change
            something.
        """
        host = header(scope, b"host").lower()
        if not self._knows(host, scope):
            raise HostNotAllowed(
                f"this server is not {_name(host)[:64]!r}; if it is, add that name to its `hosts` (AGENTSTREAM_HOSTS)"
            )
        if scope["method"] not in _READS and not self._may_write(scope, host):
            raise OriginNotAllowed("a page of another site sent this; if it may, add its origin to `cors`")

    def preflight(self, scope: Scope, allow: str) -> Mapping[bytes, bytes]:
        """Headers of the answer to OPTIONS; who may read it is said by `marked`."""
        headers = {b"allow": allow.encode("ascii")}
        if header(scope, b"access-control-request-method") and self._may_read(header(scope, b"origin").lower()):
            headers[b"access-control-allow-methods"] = headers[b"allow"]
            headers[b"access-control-allow-headers"] = _TAKEN
            headers[b"access-control-max-age"] = _PREFLIGHT_S
        return headers

    def marked(self, scope: Scope, send: Send) -> Send:
        """`send`, with the CORS headers on the answer's start; itself where CORS is off."""
        if not self._origins:
            return send
        extra = [(b"vary", b"Origin")]
        origin = header(scope, b"origin")
        if origin and self._may_read(origin.lower()):
            # Credentials are never allowed, so `*` would do as well; the origin itself keeps caches apart.
            extra += [(b"access-control-allow-origin", origin.encode("latin-1"))]
            extra += [(b"access-control-expose-headers", _EXPOSED)]

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        return send_marked

    def _may_read(self, origin: str) -> bool:
        return bool(origin) and (origin in self._origins or "*" in self._origins)

    def _may_write(self, scope: Scope, host: str) -> bool:
        origin = header(scope, b"origin").lower()
        if not origin or self._may_read(origin):
            return True
        # The scheme may differ: a proxy in front of us may have taken TLS off. One that puts its own name for us into
        # Host leaves the browser's word for it, which no page can put in its mouth.
        return (bool(host) and origin.partition("://")[2] == host) or header(scope, b"sec-fetch-site") == "same-origin"

    def _knows(self, host: str, scope: Scope) -> bool:
        server: tuple[str, int | None] | None = scope.get("server")
        # Which address of ours was called: a page elsewhere can make its own name point to the loopback, and no
        # further.
        is_local = server is not None and server[0] != "localhost" and is_loopback(server[0])
        if "*" in self._hosts or not (self._hosts or is_local):
            return True
        name = _name(host)
        return is_loopback(name) or name in self._hosts


def _name(host: str) -> str:
    """The name in a Host header: without port and final dot."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".")
