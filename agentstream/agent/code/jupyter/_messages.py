"""Jupyter messages, as far as one who runs code needs them.

What comes in: requests, and frames from a kernel. What goes out: frames, and typed messages; anything else is a
`BrokenPeer`. It does not know connections, and decodes nothing that it was not asked for.

The layout is that of the Jupyter messaging specification, version 5.4: a delimiter, a signature, four JSON objects,
buffers. Nothing is signed: the sockets lie in a folder that only this user may enter, and the code that the kernel runs
could read any key that the kernel has.
"""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Final, Literal, TypeVar

import msgspec

from agentstream.agent.code.jupyter._zmtp import BrokenPeer

__all__ = ("Display", "Files", "Incoming", "Raised", "Reply", "Status", "Streamed", "parse", "request")

_DELIMITER: Final = b"<IDS|MSG>"
T = TypeVar("T")


class _Header(msgspec.Struct):
    msg_type: str = ""
    msg_id: str = ""


class Streamed(msgspec.Struct):
    """Text on one of the standard streams."""

    name: Literal["stdout", "stderr"]
    text: str


class Display(msgspec.Struct):
    """Something shown, in several forms: type → JSON value, text and base64 as strings."""

    data: dict[str, msgspec.Raw]


class Raised(msgspec.Struct):
    """An exception of the code."""

    ename: str = ""
    evalue: str = ""
    traceback: list[str] = []


class Status(msgspec.Struct):
    """Whether the kernel is at work."""

    execution_state: str


class Reply(msgspec.Struct):
    """The answer to a request to run code."""

    status: str


class Files(msgspec.Struct):
    """The names of the files whose bytes are the message's buffers, and of those that were too much."""

    names: list[str]
    left_out: list[str]


class Incoming(msgspec.Struct, frozen=True):
    """A message from the kernel; `parent` is the id of the request that it belongs to."""

    kind: str
    parent: str
    content: bytes
    buffers: tuple[bytes, ...] = ()

    def as_(self, type_: type[T]) -> T:
        """The content, checked.

        Raises:
            BrokenPeer: it is something else.
        """
        try:
            return msgspec.json.decode(self.content, type=type_)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise BrokenPeer(f"the kernel sent a {self.kind[:40]!r} that is none: {error}") from None


def request(kind: str, content: dict[str, object]) -> tuple[str, list[bytes]]:
    """The id and the frames of a request."""
    id_ = secrets.token_hex(16)
    header = {
        "msg_id": id_,
        "msg_type": kind,
        "username": "",
        "session": "agentstream",
        "date": dt.datetime.now(tz=dt.UTC).isoformat(),
        "version": "5.4",
    }
    return id_, [_DELIMITER, b"", msgspec.json.encode(header), b"{}", b"{}", msgspec.json.encode(content)]


def parse(frames: list[bytes]) -> Incoming:
    """The message in `frames`.

    Raises:
        BrokenPeer: there is none.
    """
    try:
        at = frames.index(_DELIMITER)
        _, header, parent, _, content, *buffers = frames[at + 1 :]
        head, of = (msgspec.json.decode(frame, type=_Header) for frame in (header, parent))
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise BrokenPeer(f"the kernel sent what is no message: {error}") from None
    return Incoming(head.msg_type, of.msg_id, content, tuple(buffers))
