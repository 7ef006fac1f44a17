"""One connection to a listening ZeroMQ socket, over a Unix socket: ZMTP 3.0 without security.

What comes in: a path, and messages as lists of frames. What goes out: their bytes, and whole messages of bounded size.
It does not know what frames mean, and trusts nothing that it reads.

Reason for not using libzmq here: the other end is a process that runs code of strangers. libzmq bounds a frame, but
not how many frames make a message, and reads ahead in a thread of its own; this reads one message at a time, refuses
what is too large, and works on every event loop. The protocol is RFC 23 of the ZeroMQ project; a peer of a newer
version steps down to 3.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio
import anyio.abc

__all__ = ("BrokenPeer", "Connection")

_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_GREETING: Final = _SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\x00" + bytes(31)
_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_READ: Final = 64 << 10
_MAX_FRAMES: Final = 256


class BrokenPeer(Exception):
    """The other end closed, or said what is no message, or too large a one."""


class Connection:
    """A connected peer. `receive` may be cancelled and called again; one caller at a time.

    Args:
        most_bytes: of one message; a larger one breaks the connection.
    """

    def __init__(self, stream: anyio.abc.ByteStream, most_bytes: int) -> None:
        self._stream = stream
        self._most = most_bytes
        self._buffer = bytearray()

    @classmethod
    async def open(cls, path: str, kind: str, most_bytes: int) -> Connection:
        """Connect as a socket of this kind (`DEALER`, `SUB`), and shake hands.

        Raises:
            BrokenPeer: nobody listens, or who does speaks something else.
        """
        try:
            stream = await anyio.connect_unix(path)
        except OSError as error:
            raise BrokenPeer(f"nobody listens ({error})") from None
        connection = cls(stream, most_bytes)
        try:
            await connection._shake_hands(kind)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return connection

    async def _shake_hands(self, kind: str) -> None:
        ready = b"\x05READY" + _property(b"Socket-Type", kind.encode()) + _property(b"Identity", b"")
        await self._write(_GREETING + bytes((_COMMAND, len(ready))) + ready)
        while len(self._buffer) < len(_GREETING):
            await self._more()
        greeting = bytes(self._buffer[: len(_GREETING)])
        if greeting[0] != 0xFF or greeting[9] != 0x7F or greeting[10] < 3 or greeting[12:16] != b"NULL":
            raise BrokenPeer("the peer does not speak ZMTP 3")
        del self._buffer[: len(_GREETING)]
        while (first := self._take()) is None:
            await self._more()
        if not first[0] or not first[1][0].startswith(b"\x05READY"):
            raise BrokenPeer("the peer is not ready")

    async def send(self, frames: Sequence[bytes]) -> None:
        """Send one message."""
        parts: list[bytes] = []
        for number, frame in enumerate(frames, 1):
            flags = (_MORE if number < len(frames) else 0) | (_LONG if len(frame) > 255 else 0)
            parts += [bytes((flags,)), len(frame).to_bytes(8 if flags & _LONG else 1, "big"), frame]
        await self._write(b"".join(parts))

    async def receive(self) -> list[bytes]:
        """The next message.

        Raises:
            BrokenPeer: there is none, and never will be.
        """
        while True:
            taken = self._take()
            if taken is None:
                await self._more()
            elif not taken[0]:  # commands of later versions are none of ours
                return taken[1]

    async def aclose(self) -> None:
        """Close without ceremony."""
        await anyio.aclose_forcefully(self._stream)

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise BrokenPeer("the peer has gone") from None

    async def _more(self) -> None:
        try:
            self._buffer += await self._stream.receive(_READ)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise BrokenPeer("the peer has gone") from None

    def _take(self) -> tuple[bool, list[bytes]] | None:
        """Whether it is a command, and its frames, of the next message; None where it has not arrived whole."""
        buffer, at, total = self._buffer, 0, 0
        spans: list[tuple[int, int]] = []
        while True:
            if len(buffer) < at + 2:
                return None
            flags = buffer[at]
            width = 8 if flags & _LONG else 1
            start = at + 1 + width
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[at + 1 : start], "big")
            total += size
            if total > self._most or len(spans) >= _MAX_FRAMES or flags > _MORE | _LONG | _COMMAND:
                raise BrokenPeer("the peer sent what is no message, or too large a one")
            at = start + size
            if len(buffer) < at:
                return None
            spans.append((start, at))
            if not flags & _MORE:
                frames = [bytes(buffer[begin:end]) for begin, end in spans]
                del buffer[:at]
                return bool(flags & _COMMAND), frames


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value
