"""Server-sent events, both ways, on bytes: framing here, reading in `_decoder`.

What comes in: JSON lines and positions to be framed, or pieces of a stream cut anywhere. What goes out: frames, or
whole messages in order. It does not know sockets, HTTP, JSON, time or what a message means.

Rules (WHATWG HTML, "Server-sent events"): a stream is UTF-8 with at most one BOM in front; lines end in LF, CR or CRLF;
a field name ends at the first colon and one space after it is dropped; a blank line dispatches; what is unfinished at
the end of the stream never happened, its id included. U+0085, U+2028, U+2029, VT and FF are data, so nothing in here
may use `splitlines`. A CR ends its line at once: holding it back until the next byte would delay an event by a whole
silence.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

from agentstream.errors import InvalidField
from agentstream.wire._decoder import (
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    MAX_LINE_BYTES,
    MAX_RETRY_MS,
    MIN_RETRY_MS,
    Decoder,
    Message,
)
from agentstream.wire.text import clean

__all__ = (
    "HEARTBEAT",
    "MAX_EVENT_BYTES",
    "MAX_ID_BYTES",
    "MAX_LINE_BYTES",
    "MAX_RETRY_MS",
    "MIN_RETRY_MS",
    "PREAMBLE",
    "Decoder",
    "Message",
    "comment",
    "event",
    "frame",
    "frames",
    "frames_at",
    "retry_line",
)

PREAMBLE: Final = b"retry: 2000\n: ok\n"
"""First bytes of a stream: they open it through proxies. No blank line: some clients dispatch an event on one."""

HEARTBEAT: Final = b": hb\n"
"""Sent between frames only. One LF: a comment is complete with its line."""


def frame(id: bytes, data: bytes) -> bytes:
    """One frame: an `id` line, one `data` line, a blank line.

    Raises:
        InvalidField: `id` is longer than `MAX_ID_BYTES` or holds CR, LF or NUL, or `data` holds CR or LF (compact JSON
            holds neither).
    """
    _check_id(id)
    if b"\n" in data or b"\r" in data:
        raise InvalidField("the data of a frame is one line; use event() for text of several lines")
    return b"id: %b\ndata: %b\n\n" % (id, data)


def frames(prefix: bytes, first: int, lines: bytes) -> bytes:
    """Frames for a chunk of the log.

    Args:
        prefix: what stands before the number in each id, for instance `<run>.<incarnation>.`.
        first: the number of the first line; each further line has the next one.
        lines: compact JSON, one event a line, separated by LF; one LF at the end is allowed. Empty bytes give none.

    Raises:
        InvalidField: `prefix` holds CR, LF or NUL, or a line holds CR.

    Bounds: a few passes in C; at its peak about three times the bytes of the result.
    """
    _check_lines(lines)
    head = _head(prefix)
    if lines.endswith(b"\n"):
        lines = lines[:-1]
    if not lines:
        return b""
    if b"%" in lines:
        lines = lines.replace(b"%", b"%%")
    # The chunk itself becomes the format string: one call numbers all frames, and no object is made for a single line.
    # Formatting line by line costs 70 % more, joining pieces 80 % (64 lines of 144 bytes, CPython 3.11).
    numbers = range(first, first + lines.count(b"\n") + 1)
    return (head + lines.replace(b"\n", b"\n\n" + head) + b"\n\n") % tuple(numbers)


def frames_at(prefix: bytes, first: int, lines: bytes) -> tuple[bytes, list[int]]:
    """As `frames`, with the offset of each frame and, last, the length of the whole.

    The frames of numbers `a` to `b` are `data[offsets[a - first] : offsets[b - first + 1]]`.
    """
    _check_lines(lines)
    template = _head(prefix) + b"%b\n\n"
    rows = lines.split(b"\n")
    if not rows[-1]:
        rows.pop()
    parts = [template % numbered for numbered in enumerate(rows, first)]
    return b"".join(parts), list(accumulate(map(len, parts), initial=0))


def event(
    data: str | bytes,
    *,
    id: str | None = None,
    event: str | None = None,
    retry: int | None = None,
) -> bytes:
    """One event of any text, for protocols that need names or several lines.

    Text of several lines goes out as several `data` lines, and a reader gets LF where CR or CRLF stood: only JSON is
    carried byte by byte. Lone surrogates in `data` become U+FFFD.

    Args:
        retry: milliseconds.

    Raises:
        InvalidField: `id` or `event` holds CR, LF, NUL or a lone surrogate, `id` is longer than `MAX_ID_BYTES`, or
            `retry` is negative.
    """
    head = b""
    if id is not None:
        head += b"id: %b\n" % _check_id(_encode_field("id", id))
    if event is not None:
        head += b"event: %b\n" % _encode_field("event", event)
    if retry is not None:
        head += retry_line(retry)
    return head + b"".join([b"data: %b\n" % line for line in _text_lines(data)]) + b"\n"


def comment(text: str) -> bytes:
    """Comment lines, which readers drop. Text of several lines becomes several comments."""
    return b"".join([b": %b\n" % line for line in _text_lines(text)])


def retry_line(ms: int) -> bytes:
    """The line that tells a client how many milliseconds to wait before it reconnects.

    Raises:
        InvalidField: `ms` is negative.
    """
    if ms < 0:
        raise InvalidField("retry is a number of milliseconds, 0 or more")
    return b"retry: %d\n" % ms


_BREAKS = re.compile(rb"[\r\n\0]")


def _check_lines(lines: bytes) -> None:
    if b"\r" in lines:
        raise InvalidField("a line of the log holds a raw CR: JSON escapes it")


def _head(prefix: bytes) -> bytes:
    """What stands before each line, as a format with a place for the number."""
    if _BREAKS.search(prefix) is not None:
        raise InvalidField("the prefix of an id may not hold CR, LF or NUL")
    return b"id: " + prefix.replace(b"%", b"%%") + b"%d\ndata: "


def _check_id(id: bytes) -> bytes:
    if len(id) > MAX_ID_BYTES:
        raise InvalidField(f"an id has at most {MAX_ID_BYTES} bytes")
    if _BREAKS.search(id) is not None:
        raise InvalidField("an id may not hold CR, LF or NUL")
    return id


def _encode_field(name: str, value: str) -> bytes:
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise InvalidField(f"{name} may not hold a lone surrogate") from None
    if _BREAKS.search(encoded) is not None:
        raise InvalidField(f"{name} may not hold CR, LF or NUL")
    return encoded


def _text_lines(text: str | bytes) -> list[bytes]:
    encoded = clean(text).encode() if isinstance(text, str) else text
    return encoded.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
