"""A server that does what a test wrote down, on a real socket.

Comes in: a function from request to answer. Goes out: an address, the requests that came, and connections that end as
the test asks: by FIN, by RST, or not at all. It deliberately knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

import pytest

End = Literal["fin", "rst", "hang", "keep"]


class Request(NamedTuple):
    """What a client sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Reply(NamedTuple):
    """What is sent, byte by byte as it is, and how the connection ends: `hang` waits for the client to leave."""

    data: bytes
    end: End = "fin"


Script = Callable[[int, Request], Reply]
_LINGER_0: Final = struct.pack("ii", 1, 0)


class RawServer:
    """Answers request number n (from 0) with `script(n, request)`."""

    def __init__(self, script: Script) -> None:
        self.requests: list[Request] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="raw-server")
        self._accepting.start()

    def close(self) -> None:
        """End every thread and connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(5)
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="raw-connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while (request := _read(connection)) is not None:
                self.requests.append(request)
                reply = self._script(len(self.requests) - 1, request)
                connection.sendall(reply.data)
                if reply.end == "hang":
                    connection.recv(1)
                if reply.end == "rst":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
                if reply.end != "keep":
                    break
        self._open.discard(connection)


def _read(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Request(method, target, headers, body)


@pytest.fixture
def serve() -> Iterator[Callable[[Script], RawServer]]:
    """Start servers that are gone after the test."""
    servers: list[RawServer] = []

    def start(script: Script) -> RawServer:
        servers.append(RawServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Wire:
    """Answers as bytes, and the stream of one run with three agents and text of several bytes a character."""

    RUN = "Rrrrrrrrrrrrrrrrrrrrr1"
    INC = "abc123"
    EVENTS = (
        f'{{"seq":1,"at":1,"type":"run.started","run":"{RUN}","team":"t","input":"?"}}',
        '{"seq":2,"at":2,"type":"text.delta","agent":"one","inv":"one.1","agent_seq":1,"block":"b","text":"Grüße"}',
        '{"seq":3,"at":3,"type":"text.delta","agent":"two","inv":"two.1","agent_seq":1,"block":"c","text":"数 🦉"}',
        '{"seq":4,"at":4,"type":"run.finished","output":{"n":1}}',
    )
    Reply = Reply

    def id(self, seq: int) -> str:
        """The id of event `seq`."""
        return f"{self.RUN}.{self.INC}.{seq}"

    def frame(self, seq: int, data: str = "") -> bytes:
        """The frame of event `seq`."""
        return f"id: {self.id(seq)}\ndata: {data or self.EVENTS[seq - 1]}\n\n".encode()

    def frames(self, after: int = 0) -> bytes:
        """Everything behind event `after`."""
        return b"".join(self.frame(seq) for seq in range(after + 1, len(self.EVENTS) + 1))

    def after(self, request: Request) -> int:
        """The position that a request goes on from."""
        cursor = request.headers.get("last-event-id", "")
        return int(cursor.rpartition(".")[2]) if cursor else 0

    def stream(self, body: bytes, *, chunked: bool = False) -> bytes:
        """A 200 whose body is this stream; without chunks it lasts until the connection closes."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        body = b"retry: 100\n: ok\n" + body
        if chunked:
            return head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return head + b"connection: close\r\n\r\n" + body

    def whole(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
        """A response with a length; `headers` with `_` for `-`."""
        lines = [f"content-type: {kind}", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return (
            f"HTTP/1.1 {status} Any\r\n{chr(13) + chr(10)}".replace("\r\n\r\n", "\r\n").encode()
            + ("\r\n".join(lines) + "\r\n\r\n").encode()
            + body
        )

    def problem(self, status: int, code: str, detail: str = "said why", **headers: str) -> bytes:
        """A problem document."""
        body = f'{{"type":"x","title":"T","status":{status},"code":"{code}","detail":"{detail}"}}'.encode()
        return self.whole(status, body, "application/problem+json", **headers)


@pytest.fixture
def wire() -> Wire:
    """Make answers."""
    return Wire()
