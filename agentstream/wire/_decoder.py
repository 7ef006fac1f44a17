"""The reading half of server-sent events.

What comes in: pieces of a stream, cut anywhere. What goes out: the messages each piece completes, the last id, the
reconnection time, or `FrameTooLarge`. It does not know connections, JSON or what a message means.

The rules are those of `agentstream.wire.sse`. Whole blocks of one shape, which is what streams consist of, are read by
a few calls in C for all of them; everything else is read line by line. Both give the same.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream.errors import FrameTooLarge

__all__ = (
    "MAX_EVENT_BYTES",
    "MAX_ID_BYTES",
    "MAX_LINE_BYTES",
    "MAX_RETRY_MS",
    "MIN_RETRY_MS",
    "Decoder",
    "Message",
)

MAX_LINE_BYTES: Final = 1 << 20
MAX_EVENT_BYTES: Final = 16 << 20
MAX_ID_BYTES: Final = 128
"""Browsers preflight a `Last-Event-ID` above 128 bytes (Fetch standard, CORS-safelisted request headers)."""

MIN_RETRY_MS: Final = 100
MAX_RETRY_MS: Final = 60_000
"""A server may neither make its clients spin nor send them away."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One dispatched message.

    Attributes:
        event: the event's name, `message` where the stream gives none.
        data: the data lines joined by LF, as the bytes that came (JSON decoders want bytes).
        id: the last id the stream had given when this message was dispatched; empty where it gave none.
    """

    event: str
    data: bytes
    id: str

    @property
    def text(self) -> str:
        """The data as text; invalid UTF-8 becomes U+FFFD as in a browser."""
        return self.data.decode("utf-8", "replace")


_BOM: Final = b"\xef\xbb\xbf"
_FIELDS: Final = (b"data", b"event", b"id", b"retry")
_LONGEST_FIELD: Final = 5

# An unfinished block up to this size is read again from its start with the next piece, which is cheapest. Above it the
# block is read line by line, so that a large event in small pieces costs linear time.
_REREAD_BYTES: Final = 8192


class Decoder:
    """An incremental parser of one event stream after another.

    What it returns does not depend on where the stream is cut. Above a limit it frees its buffers and raises
    `FrameTooLarge`, then and at each further `feed` until `reset`; messages that were complete before are returned
    first, and the error is raised by the next call. A limit is an error, not a skip: a reader that lost an event or an
    id without knowing would resume in the wrong place. Comments and unknown fields of any length are skipped, and never
    kept.

    Args:
        last_event_id: the id to begin with, where the stream continues an earlier one.
        max_line: longest `data`, `event`, `id` or `retry` line, in bytes.
        max_event: most data of one message, in bytes.
        max_id: longest id of a complete block, in bytes.

    Attributes:
        last_event_id: the id a client reconnects with: the last one whose block was complete. Kept by `reset`.
        retry_ms: the last reconnection time the server asked for, within 100 ms and 60 s, or None. Kept by `reset`.

    Bounds: `max_line + max_event` bytes and one piece; time linear in the bytes fed.
    """

    __slots__ = (
        "_after_cr",
        "_data",
        "_event",
        "_failure",
        "_held",
        "_id",
        "_in_block",
        "_line",
        "_max_event",
        "_max_id",
        "_max_line",
        "_max_quick",
        "_skipping",
        "_starting",
        "last_event_id",
        "retry_ms",
    )

    def __init__(
        self,
        *,
        last_event_id: str = "",
        max_line: int = MAX_LINE_BYTES,
        max_event: int = MAX_EVENT_BYTES,
        max_id: int = MAX_ID_BYTES,
    ) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._max_line = max_line
        self._max_event = max_event
        self._max_id = max_id
        self._max_quick = min(max_line, max_event)  # so few bytes cannot hold a line or an event above its limit
        self.reset()

    def reset(self) -> None:
        """Begin a new stream: the unfinished block and a failure are forgotten, `last_event_id` and `retry_ms` stay."""
        self._failure = ""
        self._starting = True  # the BOM may still come
        self._after_cr = False  # an LF would belong to the CR before it
        self._free()

    def _free(self) -> None:
        self._held = b""  # read again with the next piece: the start of the stream, or an unfinished block
        self._in_block = False  # whether the current block is being read line by line
        self._line = bytearray()  # the unfinished line of that block
        self._skipping = False  # the unfinished line is one that nobody needs
        self._data: bytes | bytearray | None = None
        self._event = b""
        self._id: bytes | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes.

        Raises:
            FrameTooLarge: a line, message or id is above its limit.
        """
        if self._failure:
            raise FrameTooLarge(self._failure)
        if self._starting:
            data = self._without_bom(data)
            if self._starting:
                return []
        if self._after_cr or b"\r" in data:
            data = self._with_lf_only(data)
        messages: list[Message] = []
        try:
            self._read(data, messages)
        except FrameTooLarge as error:
            self._free()
            self._failure = error.detail
            if not messages:
                raise
        return messages

    def _without_bom(self, data: bytes) -> bytes:
        data = self._held + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._held = data
            return b""
        self._held = b""
        self._starting = False
        return data.removeprefix(_BOM)

    def _with_lf_only(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _read(self, data: bytes, messages: list[Message]) -> None:
        """Read `data`, whose lines all end in LF: whole blocks at once where nothing in them can be above a limit."""
        if not self._in_block:
            if self._held:
                data = self._held + data
                self._held = b""
            if len(data) <= self._max_quick:
                end = data.rfind(b"\n\n")
                if end >= 0:
                    self._read_blocks(data[:end], messages)
                    data = data[end + 2 :]
                # A `retry` counts as soon as its line is complete, even if its block never will be.
                if len(data) <= _REREAD_BYTES and b"retry" not in data:
                    self._held = data
                    return
        self._read_lines(data, messages)

    def _read_blocks(self, blocks: bytes, messages: list[Message]) -> None:
        """Read complete blocks, the last without its blank line.

        Streams repeat one shape of block. Where one split shows that all blocks here have it (no LF is left over inside
        them), nothing is looked at line by line.
        """
        newlines = blocks.count(b"\n")
        last_id = self.last_event_id
        if blocks.startswith(b"data: "):
            bodies = blocks[6:].split(b"\n\ndata: ")
            if newlines == 2 * len(bodies) - 2:
                messages += [Message("message", body, last_id) for body in bodies]
                return
        elif blocks.startswith(b"data:"):
            bodies = blocks[5:].split(b"\n\ndata:")
            if newlines == 2 * len(bodies) - 2:
                messages += [Message("message", body.removeprefix(b" "), last_id) for body in bodies]
                return
        elif blocks.startswith((b"id: ", b"event: ")):
            mark = blocks[: blocks.index(b" ") + 1]
            pairs = blocks[len(mark) :].split(b"\n\n" + mark)
            if newlines == 3 * len(pairs) - 2 and b"\0" not in blocks and self._read_pairs(mark, pairs, messages):
                return
        for block in blocks.split(b"\n\n"):
            for line in block.split(b"\n"):
                self._take_line(line, messages)
            self._take_line(b"", messages)

    def _read_pairs(self, mark: bytes, pairs: list[bytes], messages: list[Message]) -> bool:
        """Read blocks of two lines, the first without its `mark`; nothing, if the second is not `data` everywhere."""
        parts = [pair.partition(b"\ndata: ") for pair in pairs]
        try:
            if mark == b"id: ":
                longest = self._max_id
                found = [Message("message", body, it.decode()) for it, lf, body in parts if lf and len(it) <= longest]
            else:
                last_id = self.last_event_id
                found = [Message(name.decode() or "message", body, last_id) for name, lf, body in parts if lf]
        except UnicodeDecodeError:
            return False
        if len(found) != len(pairs):
            return False
        self.last_event_id = found[-1].id  # unchanged where the mark is another
        messages += found
        return True

    def _read_lines(self, data: bytes, messages: list[Message]) -> None:
        lines = data.split(b"\n")
        unfinished = lines.pop()
        for line in lines:
            if self._skipping:
                self._skipping = False
                continue
            if self._line:
                line = bytes(self._line + line)  # noqa: PLW2901
                self._line.clear()
            if len(line) > self._max_line and not _is_ignored(line):
                raise self._too_long_line()
            self._take_line(line, messages)
        if unfinished and not self._skipping:
            if _is_ignored(self._line[: _LONGEST_FIELD + 1] + unfinished[: _LONGEST_FIELD + 1]):
                self._skipping = True
                self._line.clear()
            elif len(self._line) + len(unfinished) > self._max_line:
                raise self._too_long_line()
            else:
                self._line += unfinished
        between_blocks = self._data is None and self._id is None and not self._event and not self._skipping
        self._in_block = not between_blocks or len(self._line) > _REREAD_BYTES
        if not self._in_block:
            self._held = bytes(self._line)
            self._line.clear()

    def _take_line(self, line: bytes, messages: list[Message]) -> None:
        if line.startswith(b"data: "):
            self._take_data(line[6:])
            return
        if not line:
            self._dispatch(messages)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._take_data(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value
        elif name == b"retry" and value.isdigit():
            # The number may have a million digits; converting more than a few thousand raises in Python.
            digits = value.lstrip(b"0")
            ms = MAX_RETRY_MS if len(digits) > _LONGEST_FIELD else int(digits or b"0")
            self.retry_ms = min(max(ms, MIN_RETRY_MS), MAX_RETRY_MS)

    def _take_data(self, value: bytes) -> None:
        if self._data is None:
            self._data = value
        else:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += b"\n"
            self._data += value
        if len(self._data) > self._max_event:
            raise FrameTooLarge(f"an event has more than {self._max_event} bytes of data")

    def _dispatch(self, messages: list[Message]) -> None:
        if self._id is not None:
            if len(self._id) > self._max_id:
                raise FrameTooLarge(f"an id has more than {self._max_id} bytes")
            self.last_event_id = self._id.decode("utf-8", "replace")
            self._id = None
        if self._data is not None:
            name = self._event.decode("utf-8", "replace") if self._event else "message"
            messages.append(Message(name, bytes(self._data), self.last_event_id))
            self._data = None
        self._event = b""

    def _too_long_line(self) -> FrameTooLarge:
        return FrameTooLarge(f"a line has more than {self._max_line} bytes")


def _is_ignored(line: bytes | bytearray) -> bool:
    """Whether a line with this beginning can only be a comment or an unknown field."""
    name, colon, _ = line[: _LONGEST_FIELD + 1].partition(b":")
    if colon:
        return name not in _FIELDS
    return len(name) > _LONGEST_FIELD or not any(field.startswith(name) for field in _FIELDS)
