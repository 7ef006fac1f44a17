"""Requests to one server: the only module of the client that knows the HTTP library.

What comes in: an address, requests, and how to deal with failures. What goes out: whole answers, or responses whose
bytes are read piece by piece; `Dropped` where trying again may help, `Refused` where not. It does not know runs.

Any client shaped like `httpx.AsyncClient` will do. Requests to this machine never go through a proxy of the
environment: it would look for the server on its own machine.
"""

from __future__ import annotations

import ipaddress
import random
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx
import msgspec

from agentstream.client._problems import error_of, may_pass
from agentstream.client._retry import Outage, Retry
from agentstream.errors import AgentStreamError, InvalidInput, ServerUnreachable, UsageError
from agentstream.llm.http import retry_after

__all__ = ("Answer", "Body", "Door", "Dropped", "Refused")

MOST_ANSWERED: Final = 256 << 20
"""Most bytes of an answer that is read whole; servers take files of 64 MiB."""

_MOST_PROBLEM: Final = 64 << 10
_CONNECT_S: Final = 10.0
_WRITE_S: Final = 30.0
_CLOSE_S: Final = 1.0
_MOST_ADVISED_S: Final = 60.0
"""Longest `Retry-After` that is believed."""

# Names, since the classes of another library of this shape are not httpx's. The last are the network's own.
_NETWORK: Final = frozenset(
    {
        "TransportError",
        "StreamError",
        "TooManyRedirects",
        "OSError",
        "EndOfStream",
        "ClosedResourceError",
        "BrokenResourceError",
    }
)


class Dropped(Exception):  # a signal inside the client, never seen outside
    """A try failed in a way that may pass.

    Attributes:
        reason: what to show. at_least: seconds that the server asked to wait. error: what the server said, if it did.
    """

    def __init__(self, reason: str, *, at_least: float = 0.0, error: AgentStreamError | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at_least = at_least
        self.error = error


class Refused(Exception):  # a signal inside the client; what is raised outside is `error`
    """The server said no, and would say it again."""

    def __init__(self, status: int, error: AgentStreamError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Body:
    """A response whose bytes are read as they come. Close it; never longer than a second."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._bytes: AsyncIterator[bytes] = response.aiter_raw()

    async def next(self, silence: float) -> bytes | None:
        """The next bytes; None at a clean end.

        Raises:
            Dropped: the connection broke, or nothing came for `silence` seconds.
        """
        with anyio.move_on_after(silence):
            try:
                return await anext(self._bytes, None)
            except Exception as error:
                raise _dropped(error) from error
        raise Dropped(f"no bytes for {silence:g} s")

    async def read(self, silence: float, limit: int) -> bytes:
        """The whole body; at most about `limit` bytes of it."""
        parts: list[bytes] = []
        size = 0
        while size < limit and (data := await self.next(silence)) is not None:
            parts.append(data)
            size += len(data)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Close the connection unless it is used up."""
        with anyio.move_on_after(_CLOSE_S, shield=True):
            try:
                # The library's generators end in order only from inside: a cancelled read unwinds all of them.
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    while await anext(self._bytes, None) is not None:
                        pass
                await self._response.aclose()
            except Exception as error:
                if not _is_network(error):
                    raise


class Door:
    """The way to one server.

    Args:
        url: where the server's routes are, for instance `http://127.0.0.1:8000`.
        http: who made it closes it; None: one of our own is made at the first request.

    Raises:
        InvalidInput: not an http(s) address, or one with user, query or fragment.
    """

    def __init__(self, url: str, retry: Retry, http: httpx.AsyncClient | None) -> None:
        self.base, self._host = _checked(url)
        self.retry = retry
        self._given = http
        self._own: httpx.AsyncClient | None = None
        self._open = False

    def enter(self) -> None:
        """Allow requests."""
        self._open = True

    async def aclose(self) -> None:
        """Close what it made itself."""
        self._open = False
        own, self._own = self._own, None
        if own is not None:
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await own.aclose()

    def outage(self) -> Outage:
        """A fresh count of failures."""
        return Outage(self.retry, random.random)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """Ask until there is an answer. Only for requests that may be repeated.

        Raises:
            Refused: the answer is no. ServerUnreachable: no answer for as long as `Retry.give_up` says.
        """
        outage = self.outage()
        while True:
            try:
                body = await self.open(method, path, query=query, headers=headers, content=content)
                try:
                    data = await body.read(self.retry.silence, MOST_ANSWERED)
                finally:
                    await body.aclose()
                return Answer(body.status, body.headers, data)
            except Dropped as failure:
                wait = outage.failed(anyio.current_time(), at_least=failure.at_least)
                if wait is None:
                    raise self.unreachable(failure) from failure.error
            await anyio.sleep(wait)

    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Body:
        """One try: the response, when its headers are here and its status is 2xx.

        Raises:
            Dropped, Refused: it is not.
        """
        client = self._client()
        sent = {"accept": "application/json", **(headers or {}), "accept-encoding": "identity"}
        request = client.build_request(
            method,
            self.base + path,
            params=list(query) or None,
            headers=sent,
            content=content,
            # A tuple, because the class of a foreign client's own timeouts is not ours to know. Reading has our own.
            timeout=(_CONNECT_S, None, _WRITE_S, _CONNECT_S),
        )
        body: Body | None = None
        with anyio.move_on_after(self.retry.silence):
            try:
                body = Body(await client.send(request, stream=True, follow_redirects=method == "GET"))
            except Exception as error:
                self._check_certificate(error)
                raise _dropped(error) from error
        if body is None:
            raise Dropped(f"no answer for {self.retry.silence:g} s")
        if 200 <= body.status < 300:
            return body
        try:
            raise await self._refusal(body)
        finally:
            await body.aclose()

    def unreachable(self, failure: Dropped) -> ServerUnreachable:
        """What is raised when it is time to give up."""
        return ServerUnreachable(
            f"{self.base} gave no usable answer for {self.retry.give_up:g} s; last: {failure.reason}",
            details={"url": self.base, "last": failure.reason},
        )

    def _client(self) -> httpx.AsyncClient:
        if not self._open:
            raise UsageError("the client is not open: use `async with connect(…) as client`")
        if self._given is not None:
            return self._given
        if self._own is None:
            limits = httpx.Limits(max_connections=1000, max_keepalive_connections=20)
            self._own = httpx.AsyncClient(limits=limits, trust_env=not _is_loopback(self._host))
        return self._own

    async def _refusal(self, body: Body) -> Dropped | Refused:
        if 300 <= body.status < 400:
            target = body.headers.get("location", "elsewhere")[:200]
            error: AgentStreamError = UsageError(f"{self.base} redirects to {target}: use the address that it names")
            return Refused(body.status, error)
        try:
            said = await body.read(self.retry.silence, _MOST_PROBLEM)
        except Dropped:
            said = b""  # the status is known, and says enough
        error = error_of(body.status, said)
        if not may_pass(body.status, error):
            return Refused(body.status, error)
        advised = min(retry_after(body.headers) or 0.0, _MOST_ADVISED_S)
        return Dropped(f"HTTP {body.status}: {error.detail}", at_least=advised, error=error)

    def _check_certificate(self, error: BaseException) -> None:
        """A certificate that is not accepted will not be so in a minute."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ServerUnreachable(
                    f"the certificate of {self._host} is not accepted ({cause.verify_message})",
                    details={"url": self.base},
                ) from error
            cause = cause.__cause__ or cause.__context__


def _dropped(error: Exception) -> Exception:
    """A failure of the network as `Dropped`; any other error itself: it is a bug, or the caller's."""
    if not _is_network(error):
        return error
    text = " ".join(str(error).split())
    return Dropped(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _is_network(error: Exception) -> bool:
    names = {class_.__name__ for class_ in type(error).__mro__}
    return bool(names & _NETWORK) and not names & {"LocalProtocolError", "UnsupportedProtocol"}


def _checked(url: str) -> tuple[str, str]:
    """The address without its last slash, and its host."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
        fits = parts.scheme in ("http", "https") and host and not (parts.query or parts.fragment or "@" in parts.netloc)
        fits = fits and (parts.port is None or parts.port > 0)
    except ValueError:
        fits, host = False, ""
    if not fits:
        raise InvalidInput(
            "the address of a server looks like http://host:8000: no user, query or fragment "
            "(for authentication hand in `http=httpx.AsyncClient(…)`)"
        )
    return url.strip().rstrip("/"), host


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
