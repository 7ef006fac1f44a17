"""A client of event streams on a bare socket: it takes what comes, and comes back with the last complete id.

Comes in: a port and a path. Goes out: every complete frame it was given, in order, none dropped and none repaired.
It deliberately does not know the package's own client and decoder, which would hide what a server sends twice.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import h11

from claims._frames import split_frames

__all__ = ["Answer", "Resuming", "ask", "last_id", "open_stream"]

_PIECE: Final = 64 * 1024
_SILENCE_S: Final = 30.0


@dataclass
class Answer:
    """What came of one request.

    Attributes:
        connected: somebody listened.
        status: 0 if the connection ended before there was one.
        body: as much as came.
        complete: the body's end was said; else the connection was cut.
    """

    connected: bool = False
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def frames(self) -> list[bytes]:
        """The complete frames."""
        end = self.body.rfind(b"\n\n")
        return split_frames(bytes(self.body[: end + 2])) if end >= 0 else []


def open_stream(port: int, path: str, cursor: str = "", *, receive_buffer: int = 0) -> socket.socket:
    """Connect and ask for a stream; what comes is still to be read.

    Args:
        cursor: the last complete id.
        receive_buffer: bytes that the kernel may keep for us, instead of its own choice.
    """
    sock = socket.socket()
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(_SILENCE_S)
        sock.connect(("127.0.0.1", port))
        again = f"Last-Event-ID: {cursor}\r\n" if cursor else ""
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/event-stream\r\n"
        sock.sendall(f"{head}{again}\r\n".encode())
    except BaseException:
        sock.close()
        raise
    return sock


def ask(port: int, path: str, cursor: str = "", *, took: Callable[[Answer], None] | None = None) -> Answer:
    """One request, read to the end of its answer or of its connection.

    Args:
        took: called after each piece of the body.
    """
    answer = Answer()
    try:
        with open_stream(port, path, cursor) as sock:
            answer.connected = True
            _read(sock, answer, took)
    except ConnectionRefusedError:
        time.sleep(0.01)  # nobody listens: the server is being started again
    except (ConnectionError, h11.RemoteProtocolError):
        pass  # cut: what came before it counts
    return answer


def _read(sock: socket.socket, answer: Answer, took: Callable[[Answer], None] | None) -> None:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "localhost")]))
    http.send(h11.EndOfMessage())
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(sock.recv(_PIECE))
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
        elif isinstance(event, h11.Data):
            answer.body += event.data
            if took is not None:
                took(answer)
        elif isinstance(event, h11.EndOfMessage):
            answer.complete = True
            return
        else:
            return


def last_id(frames: list[bytes]) -> str:
    """The id of the last frame; empty if there is none."""
    return frames[-1][4 : frames[-1].index(b"\n")].decode() if frames else ""


@dataclass
class Resuming:
    """Reads a run's events to the end, however often it is cut.

    Attributes:
        frames: everything that it was given.
        connections: how many it took.
        refused: answers that are neither a stream nor 204.
    """

    path: str
    frames: list[bytes] = field(default_factory=list)
    connections: int = 0
    refused: list[int] = field(default_factory=list)

    def read(self, port: int, *, seconds: float, took: Callable[[int], None] | None = None) -> None:
        """Return when the server said that this is all.

        Args:
            took: called with the number of complete frames so far, after each piece.

        Raises:
            TimeoutError: that took too long.
        """
        before = len(self.frames)

        def tell(answer: Answer) -> None:
            if took is not None:
                took(before + answer.body.count(b"\n\n"))

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            before = len(self.frames)
            answer = ask(port, self.path, last_id(self.frames), took=tell)
            self.connections += answer.connected
            self.frames += answer.frames()
            if answer.status not in (0, 200, 204):
                self.refused.append(answer.status)
            if answer.complete and answer.status in (200, 204):
                return
        raise TimeoutError(f"{self.path} was not read to its end within {seconds:g} s")
