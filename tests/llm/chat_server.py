"""A model's server made of raw sockets, whose behaviour is switched while it runs.

Comes in: how it behaves. Goes out: an address, and what was asked there. It speaks OpenAI's chat format, byte by byte,
and knows nothing of the library that asks it.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketStream

__all__ = ("HEAD", "ChatServer", "answer", "cut", "hang", "part", "refuse", "serving", "text")

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
_END: Final = b"0\r\n\r\n"

Behaviour = Callable[[SocketStream], Awaitable[None]]


def part(data: bytes) -> bytes:
    """`data` as one piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def text(words: str, finish: str | None = None) -> bytes:
    """One event with text."""
    body = {"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": finish}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def answer(*words: str, first: float = 0.0, gap: float = 0.0, headers: bytes = b"") -> Behaviour:
    """Give a whole answer: the first word after `first` seconds, the others `gap` apart."""
    said = words or ("Hel", "lo")

    async def behave(stream: SocketStream) -> None:
        await anyio.sleep(first)
        body = HEAD + headers + b"\r\n"
        for word in said:
            await stream.send(body + part(text(word)))
            body = b""
            if gap:
                await anyio.sleep(gap)
        await stream.send(part(text("", "stop") + b"data: [DONE]\n\n") + _END)

    return behave


def refuse(status: str, *headers: str, after: float = 0.0, body: bytes = b"{}") -> Behaviour:
    """Answer with a status."""

    async def behave(stream: SocketStream) -> None:
        await anyio.sleep(after)
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
        await stream.send("\r\n".join(lines).encode() + body)

    return behave


async def hang(stream: SocketStream) -> None:
    """Never say anything, and notice when the other side goes."""
    await stream.receive()


def cut(*words: str, reset: bool = False) -> Behaviour:
    """End the connection in the middle of the answer, with FIN or RST."""

    async def behave(stream: SocketStream) -> None:
        if words:
            await stream.send(HEAD + b"\r\n" + b"".join(part(text(word)) for word in words))
        if reset:
            raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        raise anyio.ClosedResourceError

    return behave


class ChatServer:
    """One port of this machine.

    Attributes:
        behave: what it does with each POST; may be set at any time. Any GET gets an empty list of models.
        asked: POSTs so far. fetched: GETs so far. connections: made so far. open: open now. heads: of all requests.
        body: of the request that `behave` is called with, until it first waits.
    """

    def __init__(self, behave: Behaviour) -> None:
        self.url = ""
        self.behave = behave
        self.fetch: Behaviour = refuse("200 OK", "content-type: application/json", body=b'{"data": []}')
        self.asked = self.fetched = self.connections = self.open = 0
        self.heads: list[bytes] = []
        self.body = b""
        self.keep_heads = True
        self.changed = anyio.Event()

    async def until_open(self, connections: int) -> None:
        """Wait until so many connections are open."""
        while self.open != connections:
            await self.changed.wait()

    async def until_asked(self, requests: int) -> None:
        """Wait until there were so many POSTs."""
        while self.asked < requests:
            await self.changed.wait()

    def _change(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def connection(self, stream: SocketStream) -> None:
        """Serve one connection."""
        self.connections += 1
        self.open += 1
        self._change()
        held = b""
        try:
            async with stream:
                while True:
                    while b"\r\n\r\n" not in held:
                        held += await stream.receive()
                    head, _, held = held.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                    while len(held) < length:
                        held += await stream.receive()
                    self.body, held = held[:length], held[length:]
                    if self.keep_heads:
                        self.heads.append(head)
                    fetching = head.startswith(b"GET ")
                    self.fetched += fetching
                    self.asked += not fetching
                    self._change()
                    await (self.fetch if fetching else self.behave)(stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            self._change()


@asynccontextmanager
async def serving(*behaviours: Behaviour | ChatServer) -> AsyncIterator[list[ChatServer]]:
    """A server for each behaviour, until the block ends; whatever they still do then is stopped."""
    servers = [one if isinstance(one, ChatServer) else ChatServer(one) for one in behaviours]
    async with anyio.create_task_group() as group:
        for server in servers:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            server.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/v1"
            group.start_soon(_serve, listener, server)
        try:
            yield servers
        finally:
            group.cancel_scope.cancel()


async def _serve(listener: anyio.abc.Listener[SocketStream], server: ChatServer) -> None:
    async with listener:
        await listener.serve(server.connection)
