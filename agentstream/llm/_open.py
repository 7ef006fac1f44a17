"""Opens what an endpoint is reached over: an HTTP client with its limits, and the model's client on top of it.

What comes in: an endpoint and its key. What goes out: clients, not yet connected. It does not know pools or calls.
"""

from __future__ import annotations

import importlib
import socket
import ssl
import urllib.request
from typing import TYPE_CHECKING, Final, cast

from agentstream.llm.contract import LLM
from agentstream.llm.endpoint import Endpoint
from agentstream.llm.http import HttpLLM

if TYPE_CHECKING:
    import httpx

__all__ = ("ClientMaker", "open_endpoint")

# A path that has died under a kept connection is noticed within a minute, and no router forgets a quiet one.
_KEEPALIVE: Final = tuple(
    (socket.IPPROTO_TCP if name.startswith("TCP") else socket.SOL_SOCKET, getattr(socket, name), value)
    for name, value in (("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
)


class ClientMaker:
    """Makes HTTP clients that share one TLS context: reading the machine's certificates is what a client's start costs."""

    def __init__(self) -> None:
        self._httpx = importlib.import_module("httpx")  # not at the top: see `HttpLLM`
        self._tls: ssl.SSLContext | None = None

    def make(self, endpoint: Endpoint) -> httpx.AsyncClient:
        """A client with this endpoint's limits. Proxies come from the environment, redirects are not followed."""
        kept = endpoint.connections
        limits = self._httpx.Limits(
            max_connections=kept.most, max_keepalive_connections=kept.kept, keepalive_expiry=kept.expiry
        )
        proxied = bool(urllib.request.getproxies())
        tls = self._context(plain=endpoint.url.startswith("http:") and not proxied)
        if proxied:
            return cast("httpx.AsyncClient", self._httpx.AsyncClient(verify=tls, limits=limits))
        transport = self._httpx.AsyncHTTPTransport(verify=tls, limits=limits, socket_options=_KEEPALIVE)
        return cast("httpx.AsyncClient", self._httpx.AsyncClient(transport=transport, trust_env=False))

    def _context(self, *, plain: bool) -> ssl.SSLContext:
        if plain:  # trusts nobody: should TLS be spoken after all, it fails
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._tls is None:
            self._tls = cast("ssl.SSLContext", self._httpx.create_ssl_context())
        return self._tls


def open_endpoint(endpoint: Endpoint, key: str, http: httpx.AsyncClient) -> LLM:
    """The client of an endpoint, in the format of its provider.

    Raises:
        InvalidInput: no such provider, or a key that no header can carry.
    """
    return HttpLLM(endpoint.label, endpoint.url, endpoint.model, key, http=http, timeouts=endpoint.timeouts.limits())
