"""A TCP proxy that cuts connections after a number of bytes.

Comes in: connections, and for each where and how it is to be cut. Goes out: the server's bytes up to there, then FIN or
RST to the client, and the server's side is cut with it.
It deliberately does not know HTTP.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

__all__ = ["Cut", "CuttingProxy", "reset"]

_PIECE: Final = 64 * 1024
_JOIN_S: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # linger on, for no time: the kernel sends RST instead of FIN


@dataclass(frozen=True, slots=True)
class Cut:
    """Where and how a connection ends: after `at` bytes from the server, by `how`."""

    at: int
    how: Literal["FIN", "RST"]


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


class CuttingProxy:
    """Listens on a port of its own and passes connections on to `port`.

    Args:
        next_cut: asked for each new connection; None lets it live.

    Attributes:
        port: where it listens.
        cuts: connections that were cut where they should be.
        bytes: bytes that the server sent on the last connection.
    """

    def __init__(self, port: int, next_cut: Callable[[], Cut | None]) -> None:
        self._target = port
        self._next_cut = next_cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="cutting proxy", daemon=True)
        self._serving: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._thread, *self._serving):
            thread.join(_JOIN_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: that is the end
                return
            self._serving = [thread for thread in self._serving if thread.is_alive()]
            thread = threading.Thread(
                target=self._serve, args=(client, self._next_cut()), name="cut connection", daemon=True
            )
            self._serving.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, cut: Cut | None) -> None:
        client.settimeout(_JOIN_S)
        try:
            with socket.create_connection(("127.0.0.1", self._target), timeout=_JOIN_S) as server:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.sendall(_request(client))
                if self._pass_on(server, client, cut):
                    self.cuts += 1
                if cut is not None and cut.how == "RST":
                    reset(server)
                    reset(client)
        except OSError:
            pass  # one side left; the other sees it by the close below
        client.close()

    def _pass_on(self, server: socket.socket, client: socket.socket, cut: Cut | None) -> bool:
        """Pass bytes on until the cut (True) or the server's end."""
        passed = 0
        while cut is None or passed < cut.at:
            piece = server.recv(_PIECE if cut is None else min(_PIECE, cut.at - passed))
            if not piece:
                return False
            passed += len(piece)
            self.bytes = passed  # before the client has them: whoever saw the end of its answer may ask at once
            client.sendall(piece)
        return True


def _request(client: socket.socket) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        piece = client.recv(_PIECE)
        if not piece:
            break
        request += piece
    return request
