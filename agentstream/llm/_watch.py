"""An HTTP client that is watched: how long its connections took, what its answers said, and which are still open.

What comes in: a client that was handed in, or what makes one; requests as `HttpLLM` sends them. What goes out: the same
answers, and a word to whoever watches for each connection and each answer's head. It does not know models or formats.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from agentstream.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    import httpx

__all__ = ("CALL", "Watched", "Watcher")

CALL: ContextVar[str] = ContextVar("agentstream_call", default="")
"""The name of the call that this task makes; only for log lines."""

_CLOSE_S: Final = 2.0


class Watcher(Protocol):
    """What a watched client tells."""

    def connected(self, call: str, connection: int, seconds: float) -> None:
        """A new connection is established."""
        ...

    def answered(self, call: str, connection: int, headers: Mapping[str, str], now: float) -> None:
        """The head of an answer is here; `connection` is 0 where the client does not tell."""
        ...


class Watched:
    """As much of `httpx.AsyncClient` as is used, over one of our own or one that was handed in.

    Args:
        make: makes a client of our own, at the first request and again after `aclose`; None where `given` is one.
    """

    def __init__(
        self, watcher: Watcher, make: Callable[[], httpx.AsyncClient] | None, given: httpx.AsyncClient | None
    ) -> None:
        self._watcher = watcher
        self._make = make
        self._given = given
        self._own: httpx.AsyncClient | None = None
        # Any: what another library calls its responses and streams.
        self._responses: weakref.WeakSet[Any] = weakref.WeakSet()
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._count = 0

    @property
    def connected(self) -> bool:
        """Whether there may be connections of our own."""
        return self._own is not None

    def build_request(self, method: str, url: str, **more: Any) -> httpx.Request:  # Any: passed through
        """As the client's own."""
        client = self._client()
        if self._given is None:
            more["extensions"] = {"trace": _Trace(CALL.get()).event}
        return client.build_request(method, url, **more)

    async def send(self, request: httpx.Request, *, stream: bool = False, follow_redirects: bool = False) -> Any:
        """As the client's own. Any: the response of whatever library."""
        trace = None if self._given is not None else request.extensions.get("trace")
        response = await self._client().send(request, stream=stream, follow_redirects=follow_redirects)
        if self._given is not None:
            self._responses.add(response)
        number = 0
        seen = getattr(trace, "__self__", None)
        if isinstance(seen, _Trace):
            number = self._number(response)
            if seen.seconds is not None:
                self._watcher.connected(seen.call, number, seen.seconds)
        self._watcher.answered(CALL.get(), number, response.headers, anyio.current_time())
        return response

    async def aclose(self) -> None:
        """Close what our own client holds, and every answer that is still read from a client that was handed in."""
        own, self._own = self._own, None
        left = list(self._responses)
        self._responses.clear()
        self._numbers.clear()
        with anyio.move_on_after(_CLOSE_S, shield=True):
            for response in left:
                if not getattr(response, "is_closed", False):
                    await response.aclose()
            if own is not None:
                await own.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._given is not None:
            return self._given
        if self._own is None:
            assert self._make is not None
            self._own = self._make()
        return self._own

    def _number(self, response: httpx.Response) -> int:
        """Which connection this is, from 1; requests over one connection get one number."""
        stream = response.extensions.get("network_stream")
        if stream is None:
            return 0
        if stream not in self._numbers:
            self._count += 1
            self._numbers[stream] = self._count
        return self._numbers[stream]


class _Trace:
    """Measures one request's connection, TLS included; `seconds` stays None where a kept one served.

    By the machine's clock: a loop's own may count whole milliseconds (uvloop), and a network takes no virtual time.
    """

    def __init__(self, call: str) -> None:
        self.call = call
        self.seconds: float | None = None
        self._began = 0.0

    async def event(self, name: str, _info: Mapping[str, Any]) -> None:  # Any: whatever the library tells
        if name == "connection.connect_tcp.started":
            self._began = SYSTEM_CLOCK.monotonic()
        elif name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.seconds = SYSTEM_CLOCK.monotonic() - self._began
