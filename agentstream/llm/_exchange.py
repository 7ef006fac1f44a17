"""One request over HTTP and its answer.

What comes in: a client shaped like `httpx.AsyncClient`, a request, limits of time. What goes out: the answer's deltas
as they arrive, or one `LLMError` that says what failed. It does not know what the bytes mean (a parser does), and it
never asks twice: it only reads on where a provider keeps an answer whose connection was lost.

Keys, prompts and what a provider wrote never reach an error or a log line from here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio
import msgspec

from agentstream.errors import (
    LLMConnectionError,
    LLMError,
    LLMParseError,
    LLMRequestError,
    LLMTimeout,
    StreamBroken,
)
from agentstream.llm._headers import facts, retry_after
from agentstream.llm.failures import refusal
from agentstream.llm.messages import Assembly, Delta, LLMResult
from agentstream.llm.parsing import AnswerParser

if TYPE_CHECKING:
    import httpx

__all__ = ("MAX_ANSWER_BYTES", "Exchange", "Outgoing", "Timeouts")

_log = logging.getLogger("agentstream.llm.http")

MAX_ANSWER_BYTES: Final = 64 << 20
"""Most bytes of one answer. The longest answers of today's models are below 1 MiB of text, each token in 200 bytes."""

_MAX_REFUSAL_BYTES: Final = 64 << 10
_MAX_RESUMPTIONS: Final = 4
_PAUSE_S: Final = 0.25  # before the second resumption; doubled each time
_CLOSE_S: Final = 1.0
_CLOSE_READS: Final = 16
_DRAIN_S: Final = 0.2
_CANCEL_S: Final = 0.8
# The last three are the network's own, which some versions let through.
_NETWORK_ERRORS: Final = {"TransportError", "StreamError", "OSError", "ClosedResourceError", "BrokenResourceError"}


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


class Outgoing(msgspec.Struct, frozen=True):
    """What is sent: `base` is the address that `path` lies below."""

    base: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """One request and its answer: the context that `HttpLLM.stream` returns and the stream that it gives."""

    def __init__(
        self, client: httpx.AsyncClient, outgoing: Outgoing, parser: AnswerParser, provider: str, timeouts: Timeouts
    ) -> None:
        self._client = client
        self._outgoing = outgoing
        self._provider = provider
        self._timeouts = timeouts
        self._parser = parser
        self._assembly = Assembly()
        self._ready: list[Delta] = []  # parsed and not yet given out, the next one last
        self._response: httpx.Response | None = None
        self._bytes: AsyncIterator[bytes] | None = None
        self._received = 0
        self._resumptions = 0
        self._begun = False
        self._over = False
        self._deadline = math.inf

    @property
    def result(self) -> LLMResult:
        """What was read so far, joined."""
        return self._assembly.result(self._parser.model)

    async def __aenter__(self) -> Self:
        self._deadline = _after(self._timeouts.first_token)
        asked, self._outgoing = self._outgoing, msgspec.structs.replace(self._outgoing, body=b"")
        failed: LLMError | None = None  # the prompt is not needed any more, and stays out of tracebacks with locals
        with anyio.CancelScope(deadline=self._deadline) as scope:
            try:
                await self._send("POST", asked.path, asked.body)
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
            await self._cancel_kept()

    def __aiter__(self) -> Exchange:
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

    # --- reading ------------------------------------------------------------------------------------------------------
    async def _receive(self) -> None:
        """Read the next piece of the answer, within the time that is left for the next delta."""
        if self._response is None:
            raise StreamBroken("the answer was read outside its `async with`", provider=self._provider)
        deltas: list[Delta] = []
        self._over = True  # unless this ends well
        with anyio.CancelScope(deadline=self._deadline) as scope:
            deltas = await self._read()
        # A server that sends comments without a pause can keep asyncio from delivering the cancellation.
        late = not deltas and self._parser.error is None and anyio.current_time() > self._deadline
        if scope.cancelled_caught or late:
            limit = "between two pieces" if self._begun else "for the first token"
            raise LLMTimeout(f"no answer within the limit {limit}", provider=self._provider)
        if self._received > MAX_ANSWER_BYTES:
            raise LLMParseError("the answer is longer than any answer should be", provider=self._provider)
        if deltas:
            self._begun = True
            self._deadline = _after(self._timeouts.between_tokens)
        self._over = self._parser.finished
        self._ready = deltas[::-1]

    async def _read(self) -> list[Delta]:
        """The deltas of the next piece; none where a lost connection was replaced by one to the rest of the answer."""
        failed: LLMError
        try:
            data = await self._next_piece()
            self._received += len(data or b"")
            deltas = self._parser.end() if data is None else self._parser.feed(data)
            if deltas or not isinstance(self._parser.error, StreamBroken):
                return deltas
            failed = self._parser.error
        except StreamBroken as error:
            failed = error
        if await self._resumed():
            return []
        raise failed

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

    async def _resumed(self) -> bool:
        """Whether the rest of the answer is being read over another connection."""
        while self._resumptions < _MAX_RESUMPTIONS:
            rest = self._parser.resumption
            if rest is None:
                return False
            if self._resumptions:
                await anyio.sleep(_PAUSE_S * 2.0 ** (self._resumptions - 1))
            self._resumptions += 1
            await self._close()
            try:
                await self._send("GET", rest.path, b"")
            except Exception as error:
                failed = self._translated(error)
                if failed is None:
                    raise
                if not failed.retryable:
                    return False
            else:
                self._parser.resume()
                return True
        return False

    # --- asking -------------------------------------------------------------------------------------------------------
    async def _send(self, method: str, path: str, body: bytes) -> None:
        """Ask, and raise unless a stream of events follows."""
        # A tuple, because the class of a foreign client's own timeouts is not ours to know. Reading has our deadlines.
        limits = (self._timeouts.connect, None, self._timeouts.write, self._timeouts.pool)
        address, headers = f"{self._outgoing.base}/{path}", self._outgoing.headers
        content = body if method == "POST" else None
        request = self._client.build_request(method, address, headers=headers, content=content, timeout=limits)
        self._response = await self._client.send(request, stream=True, follow_redirects=False)
        self._bytes = self._response.aiter_raw()
        await self._check(self._response)

    async def _check(self, response: httpx.Response) -> None:
        headers = response.headers
        if response.status_code != 200:
            body = await self._beginning()
            error = refusal(response.status_code, body, self._provider, retry_after=retry_after(headers))
            error.details = {**error.details, **facts(headers)}
            raise error
        if headers.get("content-encoding", "identity") != "identity":
            raise LLMParseError("the answer is compressed, though that was not accepted", provider=self._provider)
        kind = headers.get("content-type", "")
        if kind.startswith("application/json"):
            raise refusal(200, await self._beginning(), self._provider)
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

    # --- closing ------------------------------------------------------------------------------------------------------
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

    async def _cancel_kept(self) -> None:
        """End an answer that its provider would go on writing, and charging for, after everybody left."""
        rest = self._parser.resumption
        if rest is None:
            return
        with anyio.move_on_after(_CANCEL_S, shield=True):
            try:
                await self._send("POST", rest.cancel, b"{}")
            except Exception as error:
                if self._translated(error) is None:
                    raise
            await self._close()


def _after(seconds: float | None) -> float:
    return math.inf if seconds is None else anyio.current_time() + seconds
