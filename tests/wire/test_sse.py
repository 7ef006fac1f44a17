"""Framing: what we write is what a reader reads, and no text can break out of its field.

Comes in: every code point there is, and chunks of log lines. Goes out: frames that the decoder gives back whole.
It deliberately reads with our own decoder, which has its own tests against the standard.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import InvalidField
from agentstream.wire import (
    HEARTBEAT,
    MAX_ID_BYTES,
    PREAMBLE,
    Decoder,
    Message,
    clean,
    comment,
    event,
    frame,
    frames,
    frames_at,
    retry_line,
)

SURROGATES = range(0xD800, 0xE000)


def read(stream: bytes) -> list[Message]:
    """The messages of a whole stream."""
    return Decoder().feed(stream)


def code_points(size: int) -> Iterator[str]:
    """All code points, in order, in texts of `size`."""
    for start in range(0, 0x110000, size):
        yield "".join(map(chr, range(start, min(start + size, 0x110000))))


# ---- bytes on the wire ----------------------------------------------------------------------------------------------
@pytest.mark.promise("W-data")
def test_a_frame_is_three_lines() -> None:
    """An event has an id line, one data line and a blank line, LF only, and no name."""
    assert frame(b"r.i.7", b'{"seq":7}') == b'id: r.i.7\ndata: {"seq":7}\n\n'


@pytest.mark.promise("W-first-bytes")
def test_first_bytes_dispatch_nothing() -> None:
    """The first bytes set the retry time and end in no blank line, so that nothing is dispatched."""
    decoder = Decoder()
    assert decoder.feed(PREAMBLE) == []
    assert decoder.retry_ms == 2000
    assert b"\n\n" not in PREAMBLE
    assert retry_line(2000) + comment("ok") == PREAMBLE


@pytest.mark.promise("W-heartbeat")
def test_a_heartbeat_is_one_comment_line() -> None:
    """A heartbeat between frames is one comment with one LF and changes nothing a reader sees."""
    assert comment("hb") == HEARTBEAT == b": hb\n"
    first, second = frame(b"1", b"a"), frame(b"2", b"b")
    assert read(PREAMBLE + first + HEARTBEAT * 3 + second) == read(first + second)


def test_the_order_of_fields() -> None:
    """Id, name, retry, data, blank: readers that stop at the first data line have seen the rest."""
    assert event("a\nb", id="7", event="tick", retry=250) == b"id: 7\nevent: tick\nretry: 250\ndata: a\ndata: b\n\n"
    assert event(b"a") == b"data: a\n\n"
    assert event("") == b"data: \n\n"


# ---- every code point -----------------------------------------------------------------------------------------------
def test_every_code_point_as_data() -> None:
    """Data of any text comes back, with LF for CR and CRLF and U+FFFD for lone surrogates."""
    for text in code_points(4096):
        around = f"{text}|{text[0]}|\r\n{text[-1]}"
        (message,) = read(event(around) + event("next"))[:-1]
        assert message.text == re.sub("\r\n|\r", "\n", clean(around))


def test_every_code_point_in_a_comment() -> None:
    """A comment of any text dispatches nothing and leaves the next event whole."""
    for text in code_points(4096):
        assert [message.data for message in read(comment(text) + event("next"))] == [b"next"]


@pytest.mark.parametrize("field", ["id", "event"])
def test_every_code_point_as_id_and_name(field: str) -> None:
    """An id or name of any text comes back exactly, except CR, LF, NUL and lone surrogates, which are refused."""
    refused = set()
    for text in code_points(MAX_ID_BYTES // 4):
        try:
            (message,) = read(_with_field(field, text))
        except InvalidField:
            refused |= {char for char in text if _is_refused(field, char)}
            kept = "".join(char for char in text if char not in refused)
            if not kept:
                continue
            (message,) = read(_with_field(field, kept))
            assert getattr(message, field) == kept
        else:
            assert getattr(message, field) == text
    assert refused == {"\r", "\n", "\0", *map(chr, SURROGATES)}


def _with_field(field: str, text: str) -> bytes:
    return event("x", id=text) if field == "id" else event("x", event=text)


def _is_refused(field: str, char: str) -> bool:
    try:
        _with_field(field, char)
    except InvalidField:
        return True
    return False


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=32),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1),
    st.integers(100, 60_000),
)
def test_any_event_comes_back(data: str, id_: str, name: str, retry: int) -> None:
    """All fields of an event survive the way through encoder and decoder."""
    decoder = Decoder()
    (message,) = decoder.feed(event(data, id=id_, event=name, retry=retry))
    assert (message.text, message.id, message.event) == (re.sub("\r\n|\r", "\n", data), id_, name)
    assert decoder.retry_ms == retry


# ---- what is refused ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [b"a\nb", b"a\rb", b"\n", b"\r", b"a\0", b"7" * 129])
def test_a_frame_refuses_what_would_break_it(bad: bytes) -> None:
    """Line ends and NUL in an id, line ends in data, and an id that a browser would preflight."""
    with pytest.raises(InvalidField):
        frame(bad, b"x")
    if b"\n" in bad or b"\r" in bad:
        with pytest.raises(InvalidField):
            frame(b"7", bad)
    else:
        assert read(frame(b"7", bad)) == [Message("message", bad, "7")]


@pytest.mark.parametrize("make", [frames, frames_at])
def test_chunks_refuse_what_would_break_them(make: type) -> None:
    """A raw CR in a line, and CR, LF or NUL in the prefix."""
    for prefix, lines in ((b"r.", b'{"a":\r1}'), (b"r\n.", b"1"), (b"r\r.", b"1"), (b"r\0.", b"1")):
        with pytest.raises(InvalidField):
            make(prefix, 1, lines)


def test_event_refuses_long_ids_and_negative_times() -> None:
    """An id above 128 bytes of UTF-8, and a retry below zero."""
    assert read(event("x", id="é" * 64))[0].id == "é" * 64
    for bad in ({"id": "é" * 65}, {"retry": -1}):
        with pytest.raises(InvalidField):
            event("x", **bad)


# ---- chunks of the log ----------------------------------------------------------------------------------------------
@given(
    st.lists(st.binary(min_size=1).map(lambda data: data.translate(None, b"\r\n")).filter(bool), max_size=40),
    st.integers(1, 10**17),
    st.sampled_from([b"r.i.", b"", b"100%.%d.%%", b"r\xc3\xa9."]),
    st.booleans(),
)
def test_a_chunk_is_its_frames(lines: list[bytes], first: int, prefix: bytes, ended: bool) -> None:
    """A chunk is framed as its lines would be one by one, whether or not its last line ends in LF."""
    chunk = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    expected = [frame(b"%b%d" % (prefix, number), line) for number, line in enumerate(lines, first)]
    assert frames(prefix, first, chunk) == b"".join(expected)
    data, offsets = frames_at(prefix, first, chunk)
    assert data == b"".join(expected)
    assert [data[start:end] for start, end in itertools.pairwise(offsets)] == expected
    assert (offsets[0], offsets[-1], len(offsets)) == (0, len(data), len(lines) + 1)


def test_percent_signs_are_text() -> None:
    """Frames are made by formatting: signs of formats in lines and prefix go through as they are."""
    lines = b'"100%"\n"%d %b %% %(x)s"\n"%"'
    assert [message.data for message in read(frames(b"%d.", 1, lines))] == lines.split(b"\n")
    assert frames_at(b"%d.", 1, lines)[0] == frames(b"%d.", 1, lines)
    assert read(frames(b"%d.", 1, lines))[0].id == "%d.1"


@pytest.mark.parametrize("count", [1, 2, 9, 100])
def test_a_chunk_of_any_length_comes_back(count: int) -> None:
    """Numbers go up by one, also where they grow a digit."""
    lines = b"\n".join(b'{"n":%d}' % n for n in range(count))
    seen = read(frames(b"r.i.", 95, lines))
    assert [message.id for message in seen] == [f"r.i.{95 + n}" for n in range(count)]
    assert [message.data for message in seen] == lines.split(b"\n")


def test_an_empty_chunk_has_no_frames() -> None:
    """Nothing in, nothing out."""
    assert frames(b"r.i.", 1, b"") == b""
    assert frames_at(b"r.i.", 1, b"") == (b"", [0])
