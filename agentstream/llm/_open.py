"""Opens what an endpoint is reached over: an HTTP client with its limits, and the model's client on top of it.

What comes in: an endpoint and its key. What goes out: clients, not yet connected, and the status of what a check
fetches. It does not know pools or calls.
"""

from __future__ import annotations

import importlib
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

import anyio

from agentstream.errors import LLMConnectionError, LLMTimeout
from agentstream.llm._watch import Watched
from agentstream.llm.contract import LLM
from agentstream.llm.endpoint import Endpoint
from agentstream.llm.http import HttpLLM
from agentstream.llm.providers import provider_named

if TYPE_CHECKING:
    import httpx

__all__ = ("ClientMaker", "fetch_status", "open_endpoint")

_MOST_BYTES: Final = 4 << 20  # the longest list of models that is known has half a MiB
_CLOSE_S: Final = 1.0
_NETWORK_ERRORS: Final = {"TransportError", "StreamError", "OSError", "ClosedResourceError", "BrokenResourceError"}

# A path that has died under a kept connection is noticed within a minute, and no router forgets a quiet one.
_KEEPALIVE: Final = tuple(
    (socket.IPPROTO_TCP if name.startswith("TCP") else socket.SOL_SOCKET, getattr(socket, name), value)
    for name, value in (("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
)


class ClientMaker:
    """Makes HTTP clients that share one TLS context: reading the machine's certificates is what a start costs."""

    def __init__(self) -> None:
        # Not at the top: see `HttpLLM`. The other is drawn in by httpx, and is as slow to import.
        self._httpx = importlib.import_module("httpx")
        self._proxies = importlib.import_module("urllib.request").getproxies
        self._tls: ssl.SSLContext | None = None

    def make(self, endpoint: Endpoint) -> httpx.AsyncClient:
        """A client with this endpoint's limits. Proxies come from the environment, redirects are not followed."""
        kept = endpoint.connections
        limits = self._httpx.Limits(
            max_connections=kept.most, max_keepalive_connections=kept.kept, keepalive_expiry=kept.expiry
        )
        proxied = bool(self._proxies())
        tls = self._context(plain=endpoint.address.startswith("http:") and not proxied)
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
    return HttpLLM(
        endpoint.label,
        endpoint.address,
        endpoint.model,
        key,
        provider=endpoint.provider,
        http=http,
        timeouts=endpoint.timeouts.limits(),
    )


async def fetch_status(endpoint: Endpoint, key: str, http: Watched) -> int:
    """Fetch what costs nothing (`HealthCheck.path`), and read it so that the connection can be used again.

    Raises:
        LLMConnectionError, LLMTimeout: no answer.
    """
    how, provider = endpoint.health_check, provider_named(endpoint.provider)
    limits = (endpoint.timeouts.connect, how.timeout, how.timeout, endpoint.timeouts.pool)
    address = f"{endpoint.address}/{(how.path or provider.models).lstrip('/')}"
    headers = {**provider.request_headers(key), "accept": "application/json"}
    failed: LLMConnectionError | LLMTimeout
    try:
        request = http.build_request("GET", address, headers=headers, timeout=limits)
        response = await http.send(request, stream=True)
        try:
            received = 0
            async for piece in response.aiter_raw():
                received += len(piece)
                if received > _MOST_BYTES:
                    break
        finally:
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await response.aclose()
        return int(response.status_code)
    except Exception as error:
        # Told by name: the classes of another library of this shape are not httpx's.
        names = {class_.__name__ for class_ in type(error).__mro__}
        kind = type(error).__name__
        if "TimeoutException" in names:
            failed = LLMTimeout(f"no answer to the check within its limit ({kind})", provider=endpoint.label)
        elif names & _NETWORK_ERRORS:
            failed = LLMConnectionError(f"no connection to the endpoint ({kind})", provider=endpoint.label)
        else:
            raise
    # Outside of `except`: the library's error holds the request, hence the key.
    raise failed
