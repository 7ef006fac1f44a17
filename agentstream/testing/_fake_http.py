"""As much of an HTTP/1.1 server as a fake provider needs, on one socket of this machine.

What comes in: bytes of one connection. What goes out: requests, one after the other, and the bytes of answers. It does
not know formats or scripts. A real server is not used, since it would mend what a test wants broken.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketStream

__all__ = ("Connection", "RawRequest")

_MAX_HEAD: Final = 64 << 10
_MAX_BODY: Final = 64 << 20
_RECEIVE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request; names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection: `read` a request, answer it, and so on.

    Raises (from every method): anyio's errors of a broken or closed stream, where the client has gone.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._held = b""
        self._open = True

    @property
    def open(self) -> bool:
        """Whether another request can be read."""
        return self._open

    async def read(self) -> RawRequest | None:
        """The next request; None where the client has gone, or does not speak HTTP as clients do."""
        head = await self._head()
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = f"{first}  ".split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY or "transfer-encoding" in headers:
            return None
        while len(self._held) < int(length):
            self._held += await self._stream.receive(_RECEIVE)
        body, self._held = self._held[: int(length)], self._held[int(length) :]
        return RawRequest(method, path, headers, body)

    async def _head(self) -> bytes | None:
        while b"\r\n\r\n" not in self._held:
            if len(self._held) > _MAX_HEAD:
                return None
            try:
                self._held += await self._stream.receive(_RECEIVE)
            except anyio.EndOfStream:
                return None
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        return head

    # --- answers ------------------------------------------------------------------------------------------------------
    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole answer."""
        await self._stream.send(_head_of(status, {**headers, "content-length": str(len(body))}) + body)

    async def begin(self, headers: Mapping[str, str]) -> None:
        """The head of a stream."""
        await self._stream.send(_head_of(200, {**headers, "transfer-encoding": "chunked"}))

    async def piece(self, data: bytes) -> None:
        """One chunk of a stream."""
        if data:
            await self._stream.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """The end of a stream, in order."""
        await self._stream.send(b"0\r\n\r\n")

    async def cut(self, data: bytes, *, reset: bool) -> None:
        """Half of a chunk, and the end of the connection."""
        self._open = False
        await self._stream.send(b"%x\r\n%b" % (len(data), data[: len(data) // 2]))
        if reset:
            raw: socket.socket = self._stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()

    async def wait_for_leaving(self) -> None:
        """Wait until the client has closed the connection; what it still sends is dropped."""
        self._open = False
        try:
            while True:
                await self._stream.receive(_RECEIVE)
        except anyio.EndOfStream:
            pass


def _head_of(status: int, headers: Mapping[str, str]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
