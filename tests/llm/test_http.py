"""Asking over HTTP, against a server made of a raw socket.

Comes in: what a server does, byte by byte: refuse, hang, cut, lie. Goes out: a failure where the error's class, the
bounds of time, the closing of connections or the silence about secrets is not as said.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import socket
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream

from agentstream.errors import (
    AgentStreamError,
    InvalidInput,
    LLMAuthError,
    LLMConnectionError,
    LLMError,
    LLMParseError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMRequestError,
    LLMServerError,
    LLMTimeout,
    StreamBroken,
)
from agentstream.llm import LLM, Finish, LLMRequest, Message, TextPart
from agentstream.llm import _exchange as exchange_module
from agentstream.llm.http import HttpLLM, Timeouts, retry_after

pytestmark = pytest.mark.anyio

KEY: Final = "sk-canary-key"
PROMPT: Final = "canary prompt"
ASK: Final = LLMRequest((Message("user", PROMPT),))
STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END: Final = b"0\r\n\r\n"


def part(data: bytes) -> bytes:
    """`data` as one piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def text(words: str, finish: str | None = None) -> bytes:
    """One event with text."""
    body = {"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": finish}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


WHOLE: Final = STREAM + part(text("Hel")) + part(text("lo", "stop") + b"data: [DONE]\n\n") + END


class Server:
    """One port of this machine; `handle` is called with each request's head and body."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.closed = anyio.Event()


Handle = Callable[[SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[Server]:
    """Serve until the block ends; whatever a handler still does then is stopped."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
        server = Server(f"http://127.0.0.1:{port}/v1")

        async def connection(stream: SocketStream) -> None:
            server.connections += 1
            held = b""
            async with stream:
                try:
                    while True:
                        while b"\r\n\r\n" not in held:
                            held += await stream.receive()
                        head, _, held = held.partition(b"\r\n\r\n")
                        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                        while len(held) < length:
                            held += await stream.receive()
                        server.requests.append((head, held[:length]))
                        held = held[length:]
                        await handle(stream)
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    server.closed.set()

        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, connection)
            with anyio.fail_after(10):
                yield server
            group.cancel_scope.cancel()


def answering(*pieces: bytes) -> Handle:
    """A handler that sends these pieces and waits for the next request."""

    async def handle(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)

    return handle


async def hang(stream: SocketStream) -> None:
    """A handler that never says anything, and notices when the other side goes."""
    await stream.receive()


def hanging_after(*pieces: bytes) -> Handle:
    """A handler that sends these pieces and then nothing."""

    async def handle(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)
        await hang(stream)

    return handle


def cutting_after(*pieces: bytes, reset: bool) -> Handle:
    """A handler that ends the connection behind these pieces, with FIN or RST."""

    async def handle(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)
        if reset:
            raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        raise anyio.ClosedResourceError

    return handle


def refusing(status: str, body: bytes = b"", *headers: str) -> Handle:
    """A handler that answers with a status."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return answering("\r\n".join(lines).encode() + body)


@asynccontextmanager
async def model(server: Server, **limits: float | None) -> AsyncIterator[HttpLLM]:
    """A client for the server, closed afterwards."""
    made = HttpLLM("prov", server.url, "m-1", KEY, timeouts=Timeouts(**limits))
    try:
        yield made
    finally:
        await made.aclose()


async def read(llm: LLM, words: list[str]) -> None:
    """Ask, and keep the text as it comes."""
    async with llm.stream(ASK) as stream:
        async for delta in stream:
            words.append(delta.text if isinstance(delta, TextPart) else "")  # noqa: PERF401  (kept when it breaks off)


async def fails(handle: Handle, **limits: float | None) -> tuple[LLMError, str]:
    """The error that asking such a server ends in, and the text that came before it."""
    words: list[str] = []
    async with serving(handle) as server, model(server, **limits) as llm:
        with pytest.raises(LLMError) as caught:
            await read(llm, words)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error.details)
    assert KEY not in shown
    assert PROMPT not in shown
    assert error.provider == "prov"
    return error, "".join(words)


# --- what works -------------------------------------------------------------------------------------------------------
async def test_streams() -> None:
    """Deltas come while the answer is written; the request is what the format asks for."""
    go_on = anyio.Event()

    async def handle(stream: SocketStream) -> None:
        await stream.send(STREAM + part(text("Hel")))
        await go_on.wait()
        await stream.send(part(text("lo", "stop") + b"data: [DONE]\n\n") + END)

    async with serving(handle) as server, model(server) as llm:
        assert isinstance(llm, LLM)
        async with llm.stream(ASK) as stream:
            assert await anext(stream) == TextPart("Hel")
            go_on.set()
            assert (await anext(stream)) == TextPart("lo")
            assert [type(delta) async for delta in stream] == [Finish]
            assert (stream.result.text, stream.result.finish_reason) == ("Hello", "stop")
        head, body = server.requests[0]
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        lines = head.lower().split(b"\r\n")
        assert b"authorization: bearer " + KEY.encode() in lines
        assert b"accept-encoding: identity" in lines
        assert json.loads(body)["model"] == "m-1"
        assert KEY not in repr(llm)


async def test_complete_and_one_connection_for_many() -> None:
    """`complete` joins the answer; a connection whose answer was read to its end serves the next request."""
    async with serving(answering(WHOLE)) as server, model(server) as llm:
        for _ in range(3):
            assert (await llm.complete(ASK)).text == "Hello"
        assert server.connections == 1
        assert len(server.requests) == 3


async def test_no_key_sends_none() -> None:
    """Servers of one's own need no key."""
    async with serving(answering(WHOLE)) as server:
        llm = HttpLLM("local", server.url + "/", "m")
        await llm.complete(ASK)
        await llm.aclose()
        assert b"authorization" not in server.requests[0][0].lower()


async def test_every_cut_into_pieces() -> None:
    """The answer is the same however the network cuts it."""
    body = WHOLE.removeprefix(STREAM)
    for size in (1, 5, 50):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        async with serving(answering(STREAM, *pieces)) as server, model(server) as llm:
            assert (await llm.complete(ASK)).text == "Hello"


# --- refusals ---------------------------------------------------------------------------------------------------------
SAID: Final = json.dumps({"error": {"message": f"{KEY} {PROMPT}", "code": "why"}}).encode()


@pytest.mark.parametrize(
    ("status", "class_"),
    [
        ("400 Bad", LLMRequestError),
        ("401 No", LLMAuthError),
        ("402 Pay", LLMQuotaExceeded),
        ("404 Not Found", LLMRequestError),
        ("429 Slow", LLMRateLimited),
        ("500 Oops", LLMServerError),
        ("503 Busy", LLMServerError),
    ],
)
async def test_statuses(status: str, class_: type[LLMError]) -> None:
    """A refusal becomes the error of its class, with the facts that help and nothing that the provider wrote."""
    error, _ = await fails(refusing(status, SAID, "retry-after: 7", "x-request-id: req-1", "x-should-retry: false"))
    assert type(error) is class_
    assert (error.http_status, error.retry_after) == (int(status[:3]), 7.0)
    assert error.details == {"provider_code": "why", "request_id": "req-1", "should_retry": False}


async def test_redirects_are_not_followed() -> None:
    """A redirect could carry the key elsewhere."""
    error, _ = await fails(refusing("307 Elsewhere", b"", "location: http://127.0.0.1:9/"))
    assert type(error) is LLMRequestError
    assert error.http_status == 307


@pytest.mark.parametrize(
    ("headers", "body", "class_"),
    [
        ("content-type: text/event-stream\r\ncontent-encoding: gzip", gzip.compress(text("x")), LLMParseError),
        ("content-type: text/html", b"<html>", LLMRequestError),
        ("content-type: application/json", b'{"choices": []}', LLMParseError),
        ("content-type: application/json", b'{"error": {"code": 503}}', LLMServerError),
        ("content-type: text/event-stream", b"", StreamBroken),
    ],
)
async def test_answers_that_are_no_stream(headers: str, body: bytes, class_: type[LLMError]) -> None:
    """A status of 200 is not enough."""
    error, _ = await fails(refusing("200 OK", body, headers))
    assert type(error) is class_


async def test_a_refusal_is_read_up_to_a_bound() -> None:
    """A refusal without an end is not read to its end."""

    async def handle(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send(part(b"x" * 8192))

    error, _ = await fails(handle)
    assert type(error) is LLMServerError


# --- what breaks ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_cut_inside_a_frame(reset: bool) -> None:
    """A connection that ends inside the answer gives what came, then `StreamBroken`; never a whole answer."""
    seen = anyio.Event()
    cut = cutting_after(b"400\r\ndata: {", reset=reset)

    async def handle(stream: SocketStream) -> None:
        await stream.send(STREAM + part(text("Hel")))
        await seen.wait()
        await cut(stream)

    async with serving(handle) as server, model(server) as llm, llm.stream(ASK) as stream:
        assert await anext(stream) == TextPart("Hel")
        seen.set()
        with pytest.raises(StreamBroken):
            await anext(stream)
        assert stream.result.text == "Hel"


async def test_cut_before_the_answer() -> None:
    """A connection that ends before the answer begins was no connection; nothing is lost with it."""
    error, _ = await fails(cutting_after(reset=False))
    assert type(error) is LLMConnectionError


async def test_an_end_in_order_without_the_end_of_the_answer() -> None:
    """A body that ends properly, but whose answer does not, is broken."""
    error, words = await fails(answering(STREAM + part(text("Hel")) + END))
    assert type(error) is StreamBroken
    assert words == "Hel"


async def test_an_error_inside_the_stream() -> None:
    """What came before the error is given out first."""
    event = b"event: error\ndata: " + json.dumps({"error": {"message": PROMPT, "code": 429}}).encode() + b"\n\n"
    error, words = await fails(hanging_after(STREAM, part(text("Hel") + event)))
    assert type(error) is LLMRateLimited
    assert words == "Hel"


async def test_nobody_listens() -> None:
    """A refused connection is told as such, with the class of the network's error and no address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    llm = HttpLLM("prov", f"http://127.0.0.1:{port}/v1", "m", KEY)
    with anyio.fail_after(10), pytest.raises(LLMConnectionError) as caught:
        await llm.complete(ASK)
    await llm.aclose()
    assert str(caught.value) == "prov: no connection to the provider (ConnectError)"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    "handle",
    [
        pytest.param(hang, id="no head"),
        pytest.param(hanging_after(STREAM), id="no body"),
        pytest.param(hanging_after(STREAM, part(b": wait\n\n"), part(text(""))), id="comments only"),
    ],
)
async def test_no_first_token(handle: Handle) -> None:
    """Without a token within the limit the request ends, whatever else the server sent."""
    error, words = await fails(handle, first_token=0.2)
    assert type(error) is LLMTimeout
    assert isinstance(error, TimeoutError)
    assert "first token" in error.detail
    assert words == ""


async def test_no_further_token() -> None:
    """Comments do not count as a sign of life of the answer."""

    async def handle(stream: SocketStream) -> None:
        await stream.send(STREAM + part(text("Hel")))
        while True:
            await stream.send(part(b": wait\n\n"))
            await anyio.lowlevel.checkpoint()

    error, words = await fails(handle, between_tokens=0.2)
    assert type(error) is LLMTimeout
    assert "between" in error.detail
    assert words == "Hel"


async def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer above its bound ends in an error."""
    monkeypatch.setattr(exchange_module, "MAX_ANSWER_BYTES", 10_000)

    async def handle(stream: SocketStream) -> None:
        await stream.send(STREAM)
        while True:
            await stream.send(part(text("word")))

    error, words = await fails(handle)
    assert type(error) is LLMParseError
    assert 0 < len(words) < 10_000


# --- closing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pieces", [(), (STREAM,), (STREAM, part(text("Hel")))], ids=["head", "body", "text"])
async def test_cancelling_closes_the_connection(pieces: tuple[bytes, ...]) -> None:
    """A cancelled request has closed its connection within a second, wherever it waited."""
    asked = anyio.Event()

    async def handle(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)
        asked.set()
        await hang(stream)

    async with serving(handle) as server, model(server) as llm:
        async with anyio.create_task_group() as group:
            group.start_soon(llm.complete, ASK)
            await asked.wait()
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        with anyio.fail_after(1):
            await server.closed.wait()


async def test_leaving_early_closes_the_connection() -> None:
    """Whoever has read enough leaves the block, and the provider stops writing."""
    async with serving(hanging_after(STREAM, part(text("Hel")))) as server, model(server) as llm:
        async with llm.stream(ASK) as stream:
            assert await anext(stream) == TextPart("Hel")
        with anyio.fail_after(1):
            await server.closed.wait()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert stream.result.text == "Hel"


async def test_clients_are_closed_by_who_made_them() -> None:
    """A client that was handed in stays open; one of our own is closed, and made again when it is needed again."""
    async with serving(answering(WHOLE)) as server, httpx.AsyncClient() as given:
        llm = HttpLLM("prov", server.url, "m", http=given)
        await llm.complete(ASK)
        await llm.aclose()
        assert not given.is_closed
        own = HttpLLM("prov", server.url, "m")
        for _ in range(2):
            assert (await own.complete(ASK)).text == "Hello"
            await own.aclose()
            await own.aclose()
        assert server.connections == 3


class TransportError(Exception):
    """What another library of httpx's shape calls its own error."""


class ReadError(TransportError):
    """One of its kinds; its text repeats the header, as some do."""


class ForeignResponse:
    """As much of a response as is used."""

    status_code = 200
    headers: Final = {"content-type": "text/event-stream"}

    def __init__(self) -> None:
        self.closed = False

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """One piece, then the library's own error."""
        yield text("Hel")
        raise ReadError(f"Authorization: Bearer {KEY}")

    async def aclose(self) -> None:
        """Remember it."""
        self.closed = True


class ForeignClient:
    """As much of a client as is used."""

    def __init__(self) -> None:
        self.response = ForeignResponse()

    def build_request(self, method: str, url: str, **more: Any) -> Any:
        """A request that only `send` looks at."""
        return method, url, more["timeout"]

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> ForeignResponse:
        """The one response."""
        assert (stream, follow_redirects) == (True, False)
        return self.response


async def test_a_client_of_another_library() -> None:
    """Anything of this shape will do, and its own errors are understood by their names, not shown."""
    client = ForeignClient()
    llm = HttpLLM("prov", "http://host/v1", "m", KEY, http=client)  # type: ignore[arg-type]
    with pytest.raises(StreamBroken) as caught:
        await llm.complete(ASK)
    assert client.response.closed
    assert KEY not in "".join(traceback.format_exception(caught.value))


# --- configuration ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address",
    [
        "",
        "host/v1",
        "ftp://host",
        "http://",
        "http://user:pass@host/v1",
        "http://host/v1?key=1",
        "http://host/#x",
        "http://[",
    ],
)
async def test_addresses_that_are_none(address: str) -> None:
    """An address that cannot be meant, or holds a secret, is refused at once and not repeated."""
    with pytest.raises(InvalidInput) as caught:
        HttpLLM("prov", address, "m")
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-x\n", "sk x", "schlüssel", "sk-x\0"])
async def test_keys_that_no_header_carries(key: str) -> None:
    """A key with a line end or the like is refused before the HTTP library would repeat it in an error."""
    with pytest.raises(InvalidInput) as caught:
        HttpLLM("prov", "http://host/v1", "m", key)
    assert key not in str(caught.value)


async def test_secrets_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """With every logger switched on, neither key nor prompt nor answer is written down by us."""
    caplog.set_level(logging.DEBUG)
    for handle in (answering(WHOLE), refusing("500 No", SAID), cutting_after(STREAM, reset=False)):
        async with serving(handle) as server, model(server) as llm:
            try:
                await llm.complete(ASK)
            except AgentStreamError as error:
                logging.getLogger("agentstream").warning("asking failed", exc_info=error)
    ours = "\n".join(
        f"{record.getMessage()} {record.exc_text}" for record in caplog.records if record.name.startswith("agentstream")
    )
    for secret in (KEY, PROMPT, "Hello"):
        assert secret not in ours


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "later"}, None),
    ],
)
async def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, fractions, milliseconds and dates are understood; nonsense is no wait."""
    assert retry_after(headers, now=60.0) == seconds
    assert seconds is None or math.isfinite(seconds)
