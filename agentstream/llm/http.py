"""Asking a model over HTTP: the one module that knows the HTTP library.

What comes in: requests, an address, a key and limits of time. What goes out: the answer's deltas as they arrive, or
one `LLMError` that says what failed. It does not know what the bytes mean (that is `openai_chat`), and it never tries
again: who asked knows what was already shown.

Any client shaped like `httpx.AsyncClient` will do (`httpx2` is). Keys, prompts and what a provider wrote never reach an
error or a log line from here.
"""

from __future__ import annotations

import email.utils
import importlib
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Final, Self, cast
from urllib.parse import urlsplit

import anyio
import msgspec

from agentstream.errors import (
    InvalidInput,
    LLMConnectionError,
    LLMError,
    LLMParseError,
    LLMRequestError,
    LLMTimeout,
    StreamBroken,
)
from agentstream.llm import openai_chat
from agentstream.llm.contract import LLMStream
from agentstream.llm.messages import Assembly, Delta, LLMRequest, LLMResult

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)

__all__ = ("MAX_ANSWER_BYTES", "HttpLLM", "Timeouts", "retry_after")

MAX_ANSWER_BYTES: Final = 64 << 20
"""Most bytes of one answer. The longest answers of today's models are below 1 MiB of text, each token in 200 bytes."""

_MAX_REFUSAL_BYTES: Final = 64 << 10
_CLOSE_S: Final = 1.0
_CLOSE_READS: Final = 16
_DRAIN_S: Final = 0.2
# The last three are the network's own, which some versions let through.
_NETWORK_ERRORS: Final = {"TransportError", "StreamError", "OSError", "ClosedResourceError", "BrokenResourceError"}
_OPENAI: Final = "api.openai.com"
_KEY = re.compile(r"[\x21-\x7e]*", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)


class Timeouts(msgspec.Struct, frozen=True):
    """Limits of one request, in seconds; None means no limit.

    Attributes:
        connect: for the connection, TLS included. write: for one piece of the request. pool: for a free connection.
        first_token: from sending the request to the first piece of the answer; comments do not count.
        between_tokens: between one piece of the answer and the next; comments do not count.
    """

    connect: float | None = 5.0
    write: float | None = 30.0
    pool: float | None = 5.0
    first_token: float | None = 60.0
    between_tokens: float | None = 30.0


class HttpLLM:
    """A model behind one address that speaks OpenAI's chat format.

    Args:
        name: what errors call it, for instance `openai`.
        base_url: the address up to and with the version, for instance `https://api.openai.com/v1`.
        model: the provider's name for the model; a request may name another.
        api_key: sent as a bearer token; empty sends none (local servers).
        http: an `httpx.AsyncClient` or one shaped like it; who made it closes it. None: one is made at the first
            request and closed by `aclose`, after which a further request makes a new one.

    Raises:
        InvalidInput: the address is not an http(s) address without user, query and fragment, or the key holds a
            character that a header cannot carry (a line end from a file, for instance).
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        model: str,
        api_key: str = "",
        *,
        http: httpx.AsyncClient | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.timeouts = timeouts or Timeouts()
        self._base_url, host = _checked(base_url)
        # Refused here, since the HTTP library would repeat the header's value in its own error.
        if _KEY.fullmatch(api_key) is None:
            raise InvalidInput(f"the key of model {name!r} holds a blank, a line end or a character outside ASCII")
        self._headers = {
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "content-type": "application/json",
        }
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._limit_field = "max_completion_tokens" if host == _OPENAI else "max_tokens"
        self._given = http
        self._own: httpx.AsyncClient | None = None
        # Not at the top: importing httpx takes longer than all of ours, draws in rich and click where they are
        # installed, and is for nothing where another client was handed in or no model is configured.
        self._library: ModuleType | None = importlib.import_module("httpx") if http is None else None

    def __repr__(self) -> str:
        return f"HttpLLM(name={self.name!r}, base_url={self._base_url!r}, model={self.model!r})"

    def stream(self, request: LLMRequest) -> AbstractAsyncContextManager[LLMStream]:
        """Ask, and read the answer while it comes; leaving the context closes the connection if it is not used up.

        Raises:
            LLMError: on entering or while reading; the class says who can mend it.
        """
        path, body = openai_chat.build(request, self.model, limit_field=self._limit_field)
        address = f"{self._base_url}/{path}"
        return _Exchange(self._client(), address, self._headers, body, self.name, self.timeouts)

    async def complete(self, request: LLMRequest) -> LLMResult:
        """Ask, and wait for the whole answer; the same limits and errors as `stream`."""
        async with self.stream(request) as stream:
            async for _ in stream:
                pass
            return stream.result

    async def aclose(self) -> None:
        """Close the client that it made itself, if there is one."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._given is not None:
            return self._given
        if self._own is None:
            assert self._library is not None
            # Connections are kept for a minute: an agent's next request often comes after a tool that took seconds.
            limits = self._library.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=60.0)
            self._own = cast("httpx.AsyncClient", self._library.AsyncClient(limits=limits, follow_redirects=False))
        return self._own


def _checked(base_url: str) -> tuple[str, str]:
    """The address without its last slash, and its host."""
    try:
        parts = urlsplit(base_url.strip())
        host = parts.hostname or ""
        fits = parts.scheme in ("http", "https") and host and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        fits, host = False, ""
    if not fits:
        raise InvalidInput("the base address of a model looks like https://host/v1: no user, query or fragment")
    return base_url.strip().rstrip("/"), host


class _Exchange:
    """One request and its answer: the context that `HttpLLM.stream` returns and the stream that it gives."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
        provider: str,
        timeouts: Timeouts,
    ) -> None:
        self._client = client
        self._request: tuple[str, Mapping[str, str], bytes] = (address, headers, body)
        self._provider = provider
        self._timeouts = timeouts
        self._parser = openai_chat.Parser(provider)
        self._assembly = Assembly()
        self._ready: list[Delta] = []  # parsed and not yet given out, the next one last
        self._response: httpx.Response | None = None
        self._bytes: AsyncIterator[bytes] | None = None
        self._received = 0
        self._begun = False
        self._over = False
        self._deadline = math.inf

    @property
    def result(self) -> LLMResult:
        """What was read so far, joined."""
        return self._assembly.result(self._parser.model)

    async def __aenter__(self) -> Self:
        self._deadline = _after(self._timeouts.first_token)
        address, headers, body = self._request
        self._request = ("", {}, b"")  # the prompt is not needed any more, and stays out of tracebacks with locals
        # A tuple, because the class of a foreign client's own timeouts is not ours to know. Reading has our deadlines.
        limits = (self._timeouts.connect, None, self._timeouts.write, self._timeouts.pool)
        failed: LLMError | None = None
        with anyio.CancelScope(deadline=self._deadline) as scope:
            try:
                request = self._client.build_request("POST", address, headers=headers, content=body, timeout=limits)
                self._response = await self._client.send(request, stream=True, follow_redirects=False)
                self._bytes = self._response.aiter_raw()
                await self._check(self._response)
            except BaseException as error:
                await self._close()
                failed = self._translated(error)
                if failed is None:
                    raise
        if scope.cancelled_caught:
            failed = LLMTimeout("no answer within the limit for the first token", provider=self._provider)
        if failed is not None:
            raise failed
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._parser.finished and error is None:
                # The body's end is nearly always here already; with it read, the connection serves the next request.
                with anyio.move_on_after(_DRAIN_S):
                    await self._next_piece()
        except LLMError:
            pass  # the answer was whole: what came after it is nobody's
        finally:
            await self._close()

    def __aiter__(self) -> _Exchange:
        return self

    async def __anext__(self) -> Delta:
        while not self._ready:
            if self._parser.error is not None:
                self._over = True
                raise self._parser.error
            if self._over:
                raise StopAsyncIteration
            await self._receive()
        delta = self._ready.pop()
        self._assembly.add(delta)
        return delta

    async def _receive(self) -> None:
        """Read the next piece of the answer, within the time that is left for the next delta."""
        if self._response is None:
            raise StreamBroken("the answer was read outside its `async with`", provider=self._provider)
        data: bytes | None = None
        self._over = True  # unless this ends well
        with anyio.CancelScope(deadline=self._deadline) as scope:
            data = await self._next_piece()
        deltas: list[Delta] = []
        if not scope.cancelled_caught:
            deltas = self._parser.end() if data is None else self._parser.feed(data)
        # A server that sends comments without a pause can keep asyncio from delivering the cancellation.
        late = not deltas and self._parser.error is None and anyio.current_time() > self._deadline
        if scope.cancelled_caught or late:
            limit = "between two pieces" if self._begun else "for the first token"
            raise LLMTimeout(f"no answer within the limit {limit}", provider=self._provider)
        self._received += len(data or b"")
        if self._received > MAX_ANSWER_BYTES:
            raise LLMParseError("the answer is longer than any answer should be", provider=self._provider)
        if deltas:
            self._begun = True
            self._deadline = _after(self._timeouts.between_tokens)
        self._over = data is None or self._parser.finished
        self._ready = deltas[::-1]

    async def _next_piece(self) -> bytes | None:
        """The next bytes of the body, None at its end."""
        try:
            return await anext(self._bytes, None) if self._bytes is not None else None
        except Exception as error:
            failed = self._translated(error)
            if failed is None:
                raise
        # Outside of `except`: the library's error holds the whole request, key and prompt, and must not ride along.
        raise failed

    async def _check(self, response: httpx.Response) -> None:
        """Raise unless a stream of events follows."""
        headers = response.headers
        if response.status_code != 200:
            body = await self._beginning()
            error = openai_chat.refusal(response.status_code, body, self._provider, retry_after=retry_after(headers))
            error.details = {**error.details, **_facts(headers)}
            raise error
        if headers.get("content-encoding", "identity") != "identity":
            raise LLMParseError("the answer is compressed, though that was not accepted", provider=self._provider)
        kind = headers.get("content-type", "")
        if kind.startswith("application/json"):
            raise openai_chat.refusal(200, await self._beginning(), self._provider)
        if kind.startswith("text/html"):
            raise LLMRequestError(
                "the address answers with a web page: check the base address", provider=self._provider
            )

    async def _beginning(self) -> bytes:
        """The body's beginning, at most 64 KiB."""
        body = b""
        while len(body) < _MAX_REFUSAL_BYTES and (piece := await self._next_piece()) is not None:
            body += piece
        return body[:_MAX_REFUSAL_BYTES]

    def _translated(self, error: BaseException) -> LLMError | None:
        """The error of ours for one of the HTTP library's; None for others, which are bugs or a cancellation.

        Told by name: the classes of another library of this shape are not httpx's.
        """
        names = {class_.__name__ for class_ in type(error).__mro__}
        if isinstance(error, LLMError):
            return error
        if names & {"LocalProtocolError", "InvalidURL", "UnsupportedProtocol"}:  # its text may repeat a header
            return LLMRequestError("the request cannot be sent as HTTP: check the address", provider=self._provider)
        kind = type(error).__name__
        if names & {"ConnectTimeout", "PoolTimeout", "WriteTimeout"}:
            return LLMTimeout(f"no connection within the limit ({kind})", provider=self._provider)
        if not names & _NETWORK_ERRORS:
            return None
        if self._response is not None:
            return StreamBroken(f"the connection ended inside the answer ({kind})", provider=self._provider)
        _log.info("model %s: no connection: %s: %s", self._provider, kind, error)
        return LLMConnectionError(f"no connection to the provider ({kind})", provider=self._provider)

    async def _close(self) -> None:
        """Close the connection unless it is used up; also when cancelled, and never longer than a second."""
        response, self._response = self._response, None
        self._over = True
        if response is None:
            return
        with anyio.move_on_after(_CLOSE_S, shield=True):
            try:
                # The library's generators end in order only from inside: a cancelled read unwinds all of them. A server
                # that writes without a pause can keep asyncio from delivering the cancellation, hence the bound.
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    for _ in range(_CLOSE_READS):
                        if await self._next_piece() is None:
                            break
                await response.aclose()
            except Exception as error:
                if self._translated(error) is None:  # else: how a connection breaks that is being closed is nobody's
                    raise


def _after(seconds: float | None) -> float:
    return math.inf if seconds is None else anyio.current_time() + seconds


def _facts(headers: Mapping[str, str]) -> dict[str, object]:
    """What helps the provider's support, and what the provider itself says about trying again."""
    facts: dict[str, object] = {}
    request_id = headers.get("x-request-id", "")
    if _REQUEST_ID.fullmatch(request_id):
        facts["request_id"] = request_id
    advice = headers.get("x-should-retry", "").lower()
    if advice in ("true", "false"):
        facts["should_retry"] = advice == "true"
    return facts


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date); None where they say nothing.

    Args:
        now: seconds since the epoch that a date is compared with; None for this machine's clock.

    Source: RFC 9110 §10.2.3; the header in milliseconds is OpenAI's own.
    """
    for text, unit in ((headers.get("retry-after-ms", ""), 1000.0), (headers.get("retry-after", ""), 1.0)):
        try:
            seconds = float(text) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        until = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, until - (time.time() if now is None else now))
