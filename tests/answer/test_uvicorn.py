"""Answers on a real server and real sockets: cuts by FIN and RST, abortive ends, clients that stall or vanish."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from agentstream.answer import AnswerOptions, ASGIApp, DrainSwitch, EventStreamAnswer, FrameCache, Message
from agentstream.store import MemoryStore
from agentstream.wire import Decoder
from stream.logs import RUN, Script, Writer, chunks_of

uvicorn = pytest.importorskip("uvicorn")

LINES = (
    Script()
    .add("run.started", run=RUN, team="t")
    .text("planner.1", "Größe ", "日本")
    .text("executor.1", "🙂\n")
    .text("planner.1", "語")
    .text("verifier.1", "\u2028", '"ok"')
    .add("agent.finished", "planner.1", result=None)
    .add("agent.finished", "executor.1", result={"a": [1, "é"]})
    .add("run.finished", output="Ergebnis: 日本語 " * 3)
    .lines
)
LAST = len(LINES)

pytestmark = [pytest.mark.anyio, pytest.mark.real("uvicorn")]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The two loops that uvicorn runs on."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
    """Leaves the signals of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield


@asynccontextmanager
async def serving(app: ASGIApp, http: str = "httptools", rcvbuf: int = 0) -> AsyncIterator[int]:
    """Serve `app` on a loopback port; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    if rcvbuf:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, rcvbuf)
    config = uvicorn.Config(app, http=http, lifespan="off", log_level="error", access_log=False, log_config=None)
    server = Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            server.force_exit = True
    listener.close()


def request(query: str = "", cursor: str = "") -> bytes:
    """The bytes of a GET."""
    last = f"Last-Event-ID: {cursor}\r\n" if cursor else ""
    return f"GET /?{query} HTTP/1.1\r\nHost: x\r\n{last}\r\n".encode()


async def read(stream: SocketStream, most: int | None = None) -> bytes:
    """Up to `most` bytes; without it, everything to the last chunk or the end of the connection."""
    got = b""
    while most is None or len(got) < most:
        try:
            got += await stream.receive(65536 if most is None else most - len(got))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return got
        if most is None and (got.endswith(b"0\r\n\r\n") or b" 204 " in got[:20]):
            return got
    return got


def body_of(raw: bytes) -> tuple[bytes, bool]:
    """The body's bytes so far, and whether its last chunk came."""
    _, found, rest = raw.partition(b"\r\n\r\n")
    body = b""
    while found and rest:
        size, complete, rest = rest.partition(b"\r\n")
        if not complete:
            break
        if size == b"0":
            return body, True
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body, False


def seqs_of(decoder: Decoder, body: bytes) -> list[int]:
    """The numbers of the events that the frames stand for."""
    events = [json.loads(frame.data) for frame in decoder.feed(body)]
    return [seq for event in events for seq in range(event.get("first_seq", event["seq"]), event["seq"] + 1)]


def reset_connection(stream: SocketStream) -> None:
    """Closing it now sends RST."""
    raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.promise("P5")
@pytest.mark.parametrize("kind", ["FIN", "RST"])
@pytest.mark.timeout(60)
async def test_cut_behind_every_byte(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Cut behind any byte of the response, head included, and resumed with the last whole id: all events, each once."""
    caplog.set_level(logging.ERROR)
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4, 3]))
        await writer.write()
        async with serving(EventStreamAnswer(store, RUN, frames=FrameCache())) as port:

            async def get(cursor: str = "", most: int | None = None) -> bytes:
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(request("", cursor))
                    got = await read(stream, most)
                    if kind == "RST":
                        reset_connection(stream)
                return got

            whole = await get()
            body, clean = body_of(whole)
            assert clean
            assert len(body) >= 1400
            rests: dict[str, list[int]] = {}
            for offset in range(len(whole)):
                decoder = Decoder()
                before = seqs_of(decoder, body_of(await get(most=offset))[0])
                cursor = decoder.last_event_id
                if cursor not in rests:
                    rests[cursor] = seqs_of(Decoder(), body_of(await get(cursor))[0])
                assert before + rests[cursor] == list(range(1, LAST + 1))
            assert len(rests) == LAST + 1 - 2  # two pairs of deltas are joined
            assert body_of(await get()) == (body, True)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.promise("P7", "W-abort", "W-drain")
@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_last_chunk_only_behind_the_terminal(http: str) -> None:
    """A stream that is cut has no last chunk; one that ends behind the terminal event has."""
    drain = DrainSwitch()
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4]))
        await writer.write(1)
        answer = EventStreamAnswer(store, RUN, drain=drain)
        with anyio.fail_after(10):
            async with serving(answer, http) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(request())
                got = b""
                while b'"seq":4' not in got:
                    got += await stream.receive()
                drain.drain()
                got += await read(stream)
                cut = body_of(got)
                await writer.write()
        async with (
            serving(EventStreamAnswer(store, RUN), http) as port,
            await anyio.connect_tcp("127.0.0.1", port) as stream,
        ):
            await stream.send(request("coalesce=0"))
            whole = body_of(await read(stream))
    assert not cut[1]
    assert cut[0].count(b"retry: ") == 2
    assert whole[1]
    assert seqs_of(Decoder(), whole[0]) == list(range(1, LAST + 1))


class Counting:
    """Counts what an application sends, and says when it has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.pieces = 0
        self.ended = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count bodies."""

        async def count(message: Message) -> None:
            self.pieces += message["type"] == "http.response.body"
            await send(message)

        try:
            await self.app(scope, receive, count)
        finally:
            self.ended.set()


def long_run(count: int) -> list[bytes]:
    """`count` KiB of text."""
    return Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 900] * count).add("run.finished").lines


@pytest.mark.promise("P8", "P9")
@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_reset_during_a_replay(http: str) -> None:
    """A client that resets during the replay of 20 MB is noticed: the rest is not sent into nowhere."""
    async with MemoryStore() as store:
        await Writer(store, chunks_of(long_run(20_000), [16] * 1250)).write()
        counting = Counting(EventStreamAnswer(store, RUN))
        with anyio.fail_after(20):
            async with serving(counting, http) as port:
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(request("coalesce=0"))
                    await read(stream, 100_000)
                    reset_connection(stream)
                await counting.ended.wait()
    assert counting.pieces < 800


@pytest.mark.promise("P9", "W-pieces")
async def test_a_stalled_client_is_closed_and_resumes() -> None:
    """A client that stops reading is closed after the send timeout; the others go on; it resumes with nothing lost."""
    lines = long_run(3000)
    async with MemoryStore() as store:
        await Writer(store, chunks_of(lines, [16] * 190)).write()
        counting = Counting(EventStreamAnswer(store, RUN, options=AnswerOptions(send_timeout=0.3)))
        with anyio.fail_after(20):
            async with serving(counting, rcvbuf=32768) as port:
                async with await anyio.connect_tcp("127.0.0.1", port) as stalled:
                    raw: socket.socket = stalled.extra(SocketAttribute.raw_socket)
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
                    await stalled.send(request("coalesce=0"))
                    got = await read(stalled, 2000)
                    await counting.ended.wait()
                    counting.ended = anyio.Event()
                    async with await anyio.connect_tcp("127.0.0.1", port) as other:
                        await other.send(request("coalesce=0"))
                        assert body_of(await read(other))[1]
                    got += await read(stalled)
                body, clean = body_of(got)
                assert not clean
                decoder = Decoder()
                before = seqs_of(decoder, body)
                assert 0 < len(before) < len(lines)
                async with await anyio.connect_tcp("127.0.0.1", port) as again:
                    await again.send(request("coalesce=0", decoder.last_event_id))
                    after = seqs_of(Decoder(), body_of(await read(again))[0])
    assert before + after == list(range(1, len(lines) + 1))
