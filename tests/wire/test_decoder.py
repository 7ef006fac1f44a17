"""The decoder at every cut: a table of cases, a reference that reads whole streams, limits, memory.

Comes in: streams as bytes, cut in all ways or at random. Goes out: proof that the cut changes nothing.
It deliberately knows no network; what a client does between two streams is tested with the client.
"""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentstream.errors import FrameTooLarge
from agentstream.wire import Decoder
from agentstream.wire._decoder import _REREAD_BYTES

pytestmark = pytest.mark.promise("W-parse")

BOM = b"\xef\xbb\xbf"


# ---- the reference --------------------------------------------------------------------------------------------------
# Slow, on the whole stream, one rule of the standard after the other: easy to check against its text.
FIELDS = (b"data", b"event", b"id", b"retry")
Seen = tuple[str, str, str]


class Outcome(NamedTuple):
    """What a stream amounts to: messages as (event, data, id), the last id, the reconnection time, a limit broken."""

    messages: list[Seen]
    last_id: str = ""
    retry_ms: int | None = None
    too_large: bool = False


class Reference:
    """The buffers of the standard, filled line by line."""

    def __init__(self, max_line: int, max_event: int, max_id: int) -> None:
        self.limits = max_line, max_event, max_id
        self.messages: list[Seen] = []
        self.data: list[bytes] = []
        self.event = self.id_buffer = self.last_id = b""
        self.retry_ms: int | None = None

    def outcome(self, *, too_large: bool = False) -> Outcome:
        return Outcome(self.messages, text(self.last_id), self.retry_ms, too_large)

    def dispatch(self) -> bool:
        """End a block; False when its id breaks a limit."""
        if len(self.id_buffer) > self.limits[2]:
            return False
        self.last_id = self.id_buffer
        if self.data:
            self.messages.append((text(self.event) or "message", text(b"\n".join(self.data)), text(self.last_id)))
        self.data, self.event = [], b""
        return True

    def take(self, line: bytes) -> bool:
        """Read one line that is not blank; False when it breaks a limit."""
        max_line, max_event, _ = self.limits
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field not in FIELDS:
            return True
        if len(line) > max_line:
            return False
        if field == b"data":
            self.data.append(value)
        elif field == b"event":
            self.event = value
        elif field == b"id" and b"\0" not in value:
            self.id_buffer = value
        elif field == b"retry" and re.fullmatch(rb"[0-9]+", value):
            digits = value.lstrip(b"0")
            self.retry_ms = 60_000 if len(digits) > 6 else min(max(int(digits or b"0"), 100), 60_000)
        return len(b"\n".join(self.data)) <= max_event


def read_all(stream: bytes, *, max_line: int = 1 << 20, max_event: int = 1 << 24, max_id: int = 128) -> Outcome:
    """Read a stream by the rules of the standard and our limits on known fields."""
    *lines, unfinished = re.split(rb"\r\n|\r|\n", stream.removeprefix(BOM))
    reference = Reference(max_line, max_event, max_id)
    for line in lines:
        if not (reference.take(line) if line else reference.dispatch()):
            return reference.outcome(too_large=True)
    return reference.outcome(too_large=len(unfinished) > max_line and may_be_known(unfinished))


def may_be_known(unfinished: bytes) -> bool:
    """Whether an unfinished line can still become a field that counts."""
    name, colon, _ = unfinished.partition(b":")
    return name in FIELDS if colon else any(field.startswith(name) for field in FIELDS)


def text(encoded: bytes) -> str:
    """What a browser shows for these bytes."""
    return encoded.decode("utf-8", "replace")


# ---- running the decoder --------------------------------------------------------------------------------------------
def run(decoder: Decoder, pieces: Iterable[bytes]) -> Outcome:
    """Feed all pieces and one empty one, which shows a limit that was broken behind complete messages."""
    seen: list[Seen] = []
    try:
        for piece in (*pieces, b""):
            seen += [(message.event, message.text, message.id) for message in decoder.feed(piece)]
    except FrameTooLarge:
        return Outcome(seen, decoder.last_event_id, decoder.retry_ms, too_large=True)
    return Outcome(seen, decoder.last_event_id, decoder.retry_ms)


def by_lines(decoder: Decoder) -> Decoder:
    """The same decoder without its way of reading whole blocks at once."""
    decoder._max_quick = -1
    return decoder


def cut_at(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The pieces between the cuts."""
    edges = [0, *sorted(cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


SHORT = 64  # bytes; up to here every pair of cuts is tried, above it every single cut


def all_cuts(stream: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, in two pieces everywhere, and, where it is short, in three pieces everywhere."""
    yield [stream]
    yield [stream[at : at + 1] for at in range(len(stream))]
    inside = range(len(stream) + 1)
    yield from (cut_at(stream, (at,)) for at in inside)
    if len(stream) <= SHORT:
        yield from (cut_at(stream, pair) for pair in itertools.combinations(inside, 2))


# ---- the table ------------------------------------------------------------------------------------------------------
class Case(NamedTuple):
    """A stream, the messages in it as data or (event, data, id), and what holds at its end."""

    name: str
    stream: bytes
    messages: list[str | Seen]
    last_id: str = ""
    retry_ms: int | None = None

    @property
    def outcome(self) -> Outcome:
        """The messages written out in full."""
        full = [("message", one, self.last_id) if isinstance(one, str) else one for one in self.messages]
        return Outcome(full, self.last_id, self.retry_ms)


LONG = b"x" * 2048

# Names after the groups of the web platform's tests (format-…, event-…), of LaunchDarkly's contract tests (basic, bom,
# comments, linefeeds, reconnection) and of eventsource-parser (parser-…). The streams are our own.
WEB_PLATFORM = [
    Case(
        "event-data",
        b"data: up\ndata:up\n\n:\nother:up\n\nother:up\nDATA:up\n\ndata\n\ndata:last\n\n",
        ["up\nup", "", "last"],
    ),
    Case("format-bom", BOM + b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n", ["a", "c"]),
    Case("format-bom-2", BOM + BOM + b"data: a\n\ndata: b\n\n", ["b"]),
    Case("format-bom-only", BOM, []),
    Case("format-bom-cut-short", BOM[:2], []),
    Case("format-bom-broken", BOM[:2] + b"data: a\n\ndata: b\n\n", ["b"]),
    Case(
        "format-comments",
        b"data:1\r:\0\n:\r\ndata:2\n:" + LONG + b"\rdata:3\n:data:no\r:" + LONG + b"\ndata:4\n\n",
        ["1\n2\n3\n4"],
    ),
    Case("format-data-before-final-empty-line", b"retry:1000\ndata:a\n\nid:7\ndata:b", ["a"], retry_ms=1000),
    Case("format-data-before-final-empty-line-lf", b"data:a\n\nid:7\ndata:b\n", ["a"]),
    Case("format-field-data", b"data:\n\ndata\ndata\n\ndata:a\n\n", ["", "\n", "a"]),
    Case("format-field-event", b"event:tick\ndata:a\n\ndata:b\n\n", [("tick", "a", ""), "b"]),
    Case(
        "format-field-event-space",
        b"event: tick\ndata: a\n\nevent: tock\ndata: b\n\n",
        [("tick", "a", ""), ("tock", "b", "")],
    ),
    Case("format-field-event-empty", b"event: \ndata:a\n\nevent\ndata:b\n\n", ["a", "b"]),
    Case(
        "format-field-event-last-wins",
        b"event:a\nevent:b\ndata:x\n\nevent:a\nevent:\ndata:y\n\n",
        [("b", "x", ""), "y"],
    ),
    Case("format-field-event-without-data", b"event:tick\n\ndata:a\n\n", ["a"]),
    Case("format-field-id", b"id: 7\ndata: a\n\n", ["a"], "7"),
    Case("format-field-id-2", b"id:7\ndata:a\n\ndata:b\n\ndata:c\n\n", ["a", "b", "c"], "7"),
    Case(
        "format-field-id-3",
        b"id:7\ndata:a\n\ndata:b\n\nid:8\ndata:c\n\nid\ndata:d\n\ndata:e\n\n",
        [("message", "a", "7"), ("message", "b", "7"), ("message", "c", "8"), "d", "e"],
    ),
    Case("format-field-id-null", b"id:7\ndata:a\n\nid:8\0\ndata:b\n\nid:\0\ndata:c\n\n", ["a", "b", "c"], "7"),
    Case("format-field-id-spaces", b"id:  7 \ndata:a\n\n", ["a"], " 7 "),
    Case("format-field-id-utf-8", "id: é\u2028\ndata: a\n\n".encode(), ["a"], "é\u2028"),
    Case("format-field-id-bad-utf-8", b"id: \xff\ndata: a\n\n", ["a"], "\ufffd"),
    Case("format-field-id-unfinished", b"id:7\ndata:a\n\nid:8\n", ["a"], "7"),
    Case(
        "format-field-parsing",
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n"
        b"\n",
        ["\0\n 2\n1\n3\n\n4"],
    ),
    Case("format-field-parsing-prefixes", b"dat:1\ndatas:2\nda\nd\ne:1\nid2:7\nretry5\nretr:9\ndata:a\n\n", ["a"]),
    Case("format-field-parsing-colons", b"data::a:b\n\n:::\ndata: :c\n\n", [":a:b", ":c"]),
    Case("format-field-retry", b"retry:3000\ndata:a\n\n", ["a"], retry_ms=3000),
    Case("format-field-retry-bogus", b"retry:3000\nretry:1000x\ndata:a\n\n", ["a"], retry_ms=3000),
    Case("format-field-retry-empty", b"retry\ndata:a\n\nretry:\n", ["a"]),
    Case("format-field-retry-sign", b"retry:-5\nretry:+5\nretry:5.0\nretry:1_000\nretry: 5 \n", []),
    Case("format-field-retry-other-digits", "retry:\u0663\u0663\u0663\nretry:\u00b2\n".encode(), []),
    Case("format-field-retry-without-block", b"retry: 2000\n: ok\n", [], retry_ms=2000),
    Case("format-field-retry-cr", b"retry: 2000\r", [], retry_ms=2000),
    Case("format-field-retry-inside-block", b"data: a\nretry: 700", []),
    Case("format-field-retry-inside-unfinished-block", b"id: 7\nretry: 700\ndata: a\n", [], retry_ms=700),
    Case("format-field-retry-least", b"retry: 0\n", [], retry_ms=100),
    Case("format-field-retry-most", b"retry: 60001\n", [], retry_ms=60_000),
    Case("format-field-retry-huge", b"retry: " + b"9" * 5000 + b"\n", [], retry_ms=60_000),
    Case("format-field-retry-zeros", b"retry: " + b"0" * 5000 + b"250\n", [], retry_ms=250),
    Case("format-field-unknown", b"data:a\n data\ndata\nnews:x\nplain\n:note\ndata:b\n\n", ["a\n\nb"]),
    Case("format-leading-space", b"data:\ta\rdata: \ndata:  b\n\n", ["\ta\n\n b"]),
    Case("format-newlines", b"data:a\r\ndata\ndata:b\r\n\r", ["a\n\nb"]),
    Case("format-null-character", b"data:\0\n\n\n\n", ["\0"]),
    Case("format-utf-8", "data:o\u2026k \u4f60\u597d \U0001f600\n\n".encode(), ["o\u2026k \u4f60\u597d \U0001f600"]),
    Case("format-utf-8-broken", b"data:\xff a\xe2\x80\ndata:\xf0\x9f\n\n", ["\ufffd a\ufffd\n\ufffd"]),
    Case("format-utf-8-field-name", b"d\xc3\xa4ta:x\ndata\xff:y\ndata:z\n\n", ["z"]),
]
LAUNCHDARKLY = [
    Case("basic-one", b"data: hello\n\n", ["hello"]),
    Case("basic-no-space", b"data:hello\n\n", ["hello"]),
    Case("basic-spaces-mixed", b"data:a\n\ndata: b\n\ndata:  c\n\ndata:d\n\n", ["a", "b", " c", "d"]),
    Case("basic-empty-lines", b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", ["a", "b"]),
    Case("basic-many-lines", b"data: a\ndata: b\ndata:\ndata: c\n\n", ["a\nb\n\nc"]),
    Case("basic-name-and-id", b"event: tick\nid: 7\ndata: a\n\n", [("tick", "a", "7")], "7"),
    Case("basic-order-of-fields", b"data: a\nid: 7\nevent: tick\n\n", [("tick", "a", "7")], "7"),
    Case("basic-id-in-the-middle", b"data: a\nid: 7\ndata: b\n\n", ["a\nb"], "7"),
    Case("basic-json", b'data: {"a": [1, 2]}\n\ndata: [DONE]\n\n', ['{"a": [1, 2]}', "[DONE]"]),
    Case("basic-100-rapid", b"".join(b"data: %d\n\n" % n for n in range(100)), [str(n) for n in range(100)]),
    Case("basic-nothing", b"", []),
    Case(
        "basic-separators-are-data",
        "data: a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg\n\n".encode(),
        ["a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg"],
    ),
    Case("bom-later-is-data", b"data: a" + BOM + b"\n\n", ["a\ufeff"]),
    Case("bom-before-comment", BOM + b": hi\ndata: a\n\n", ["a"]),
    Case("bom-before-blank", BOM + b"\r\n\r\ndata: a\n\n", ["a"]),
    Case("comments-alone", b": a\n\n:\n\n: b\n", []),
    Case("comments-inside", b"data: a\n: b\ndata: c\n\n", ["a\nc"]),
    Case("comments-keep-alive", b"data: a\n\n: hb\n: hb\n: hb\ndata: b\n\n", ["a", "b"]),
    *(
        Case(f"linefeeds-{label}-{name}", stream.replace(b"\n", end), messages)
        for label, end in (("lf", b"\n"), ("cr", b"\r"), ("crlf", b"\r\n"))
        for name, stream, messages in (
            ("one", b"data: a\n\n", [("message", "a", "")]),
            ("two", b"data: a\n\ndata: b\n\n", ["a", "b"]),
            ("lines", b"data: a\ndata: b\n\n", ["a\nb"]),
            ("blanks", b"data: a\n\n\n\ndata: b\n\n", ["a", "b"]),
            ("names", b"event: e\ndata: a\n\n: c\ndata: b\n\n", [("e", "a", ""), "b"]),
            ("unfinished", b"data: a\n\ndata: b\n", ["a"]),
        )
    ),
    Case("linefeeds-mixed", b"data: a\r\n\ndata: b\n\rdata: c\r\rdata: d\n\r\n", ["a", "b", "c", "d"]),
    Case("linefeeds-cr-cr-lf", b"data: a\r\r\ndata: b\r\r\n", ["a", "b"]),
    Case("reconnection-partial-dropped", b"id: 7\ndata: a\n\nid: 8\ndata: b", ["a"], "7"),
    Case("reconnection-id-kept", b"id: 7\ndata: a\n\ndata: b\n\n", ["a", "b"], "7"),
    Case("reconnection-id-cleared", b"id: 7\ndata: a\n\nid:\ndata: b\n\n", [("message", "a", "7"), "b"]),
]
PARSER = [
    Case("parser-id-without-data", b"id: 7\n\n", [], "7"),
    Case("parser-id-without-data-then-data", b"id: 7\n\ndata: a\n\n", ["a"], "7"),
    Case("parser-cr-at-end", b"data: a\r\r", ["a"]),
    Case("parser-long-data", b"data: " + LONG + b"\n\ndata: b\n\n", [LONG.decode(), "b"]),
    Case("parser-unterminated-comment", b"data: a\n\n:" + LONG, ["a"]),
    Case("parser-unterminated-unknown", b"data: a\n\nnews: " + LONG + b"\ndata: b\n\n", ["a", "b"]),
]
OWN = [
    Case(
        "own-frames",
        b"retry: 2000\n: ok\nid: r.i.1\ndata: {}\n\nid: r.i.2\ndata: []\n\n: hb\nid: r.i.3\ndata: 3\n\n",
        [("message", "{}", "r.i.1"), ("message", "[]", "r.i.2"), ("message", "3", "r.i.3")],
        "r.i.3",
        2000,
    ),
    Case(
        "own-frames-mixed-lengths",
        b"id: 1\ndata: a\n\nid: 2\ndata: b\ndata: c\n\nid: 3\n\n",
        [("message", "a", "1"), ("message", "b\nc", "2")],
        "3",
    ),
    Case("own-pairs-uneven", b"id: 1\n\nid: 2\ndata: a\ndata: b\n\n", ["a\nb"], "2"),
    Case("own-pairs-other-line", b"id: 1\nnews: a\n\nid: 2\ndata: b\n\n", ["b"], "2"),
    Case("own-pairs-tight", b"event: a\ndata:x\n\nevent: b\ndata: y\n\n", [("a", "x", ""), ("b", "y", "")]),
    Case("own-id-looks-like-data", b"id: data: x\ndata: id: y\n\n", ["id: y"], "data: x"),
    Case("own-retry-inside-data", b'data: {"retry": 5}\n\ndata: retry', ['{"retry": 5}']),
]
CASES = [*WEB_PLATFORM, *LAUNCHDARKLY, *PARSER, *OWN]


def test_the_table_names_each_case_once() -> None:
    """A case that hides another of the same name would go unnoticed."""
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 90


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_case_at_every_cut(case: Case) -> None:
    """A stream gives the same wherever it is cut, read in whole blocks and line by line."""
    assert read_all(case.stream) == case.outcome
    for pieces in all_cuts(case.stream):
        assert run(Decoder(), pieces) == case.outcome, pieces
        assert run(by_lines(Decoder()), pieces) == case.outcome, pieces


def test_a_cr_ends_its_line_at_once() -> None:
    """An event is delivered with the CR that completes it, once, and the LF behind that is no further line end."""
    decoder = Decoder()
    assert [message.data for message in decoder.feed(b"data: a\r\n\r")] == [b"a"]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert [message.data for message in decoder.feed(b"data: b\r\r")] == [b"b"]
    assert [message.data for message in decoder.feed(b"\ndata: c\n\n")] == [b"c"]


def test_data_is_bytes_and_text_replaces() -> None:
    """JSON decoders get the bytes as they came; `text` shows what a browser would."""
    (message,) = Decoder().feed(b"data: \xff\n\n")
    assert (message.data, message.text) == (b"\xff", "\ufffd")


# ---- any stream, any cut --------------------------------------------------------------------------------------------
FRAGMENTS = [
    *(
        b"data",
        b"event",
        b"id",
        b"retry",
        b"data: ",
        b"id: ",
        b"event: ",
        b"retry: ",
        b"data:",
        b"\ndata: ",
        b"\n\ndata: ",
    ),
    *(
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\0",
        b"5",
        b"1234567",
        b"x",
        b"da",
        b"longer text",
        b"\n\nid: ",
        b"\n\nevent: ",
    ),
    *(BOM, BOM[:1], BOM[1:], b"\xff", b"\xe2\x80", "\u2028".encode(), "\u0085".encode(), "\U0001f600".encode()),
]
streams = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream and its pieces, empty ones among them."""
    stream = draw(streams)
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=6))
    return stream, cut_at(stream, cuts)


@given(cut_streams())
@example((b"data: \n\n\ndata: ", [b"data: \n\n\ndata: "]))
def test_any_stream_at_any_cut(cut_stream: tuple[bytes, list[bytes]]) -> None:
    """Whatever the bytes and the cuts, the decoder sees what the reference sees in the whole."""
    stream, pieces = cut_stream
    expected = read_all(stream)
    assert run(Decoder(), pieces) == expected
    assert run(by_lines(Decoder()), pieces) == expected
    assert run(Decoder(), [stream[at : at + 1] for at in range(len(stream))]) == expected


@given(cut_streams(), st.integers(6, 20), st.integers(0, 20), st.integers(0, 6))
def test_any_limit_at_any_cut(
    cut_stream: tuple[bytes, list[bytes]], max_line: int, max_event: int, max_id: int
) -> None:
    """A limit is broken, or not, after the same messages wherever the stream is cut."""
    stream, pieces = cut_stream
    expected = read_all(stream, max_line=max_line, max_event=max_event, max_id=max_id)
    for cut in (pieces, [stream], [stream[at : at + 1] for at in range(len(stream))]):
        assert run(Decoder(max_line=max_line, max_event=max_event, max_id=max_id), cut) == expected


# ---- limits ---------------------------------------------------------------------------------------------------------
TOO_LARGE = {
    "line": b"data: " + b"x" * 60,
    "line, complete": b"data: " + b"x" * 60 + b"\n\n",
    "event": b"data: xxxxxxxxxxxxxxxxxxxxxxxxx\n" * 5,
    "event of empty lines": b"data\n" * 102,
    "event, complete": b"data: xxxxxxxxxxxxxxxxxxxxxxxxx\n" * 5 + b"\n",
    "id": b"id: " + b"7" * 17 + b"\n\n",
    "id with data": b"id: " + b"7" * 17 + b"\ndata: a\n\n",
    "name": b"event: " + b"e" * 60,
    "retry": b"retry: " + b"9" * 60,
}


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name) for name, bad in TOO_LARGE.items()])
def test_a_limit_poisons_until_reset(bad: bytes) -> None:
    """Messages before the limit arrive, then every feed is refused and nothing is kept, until a new stream begins."""
    stream = b"id: 7\nretry: 500\ndata: a\n\n" + bad
    for pieces in all_cuts(stream):
        decoder = Decoder(max_line=64, max_event=100, max_id=16)
        assert run(decoder, pieces) == Outcome([("message", "a", "7")], "7", 500, too_large=True)
        with pytest.raises(FrameTooLarge):
            decoder.feed(b"data: b\n\n")
        assert (decoder._held, bytes(decoder._line), decoder._data, decoder._id) == (b"", b"", None, None)
        decoder.reset()
        assert [(message.text, message.id) for message in decoder.feed(BOM + b"data: b\n\n")] == [("b", "7")]
        assert (decoder.last_event_id, decoder.retry_ms) == ("7", 500)


def test_just_within_the_limits() -> None:
    """A line, an event and an id of exactly the limit are fine, at every cut."""
    line, id_ = b"data: " + b"x" * 26, b"7" * 28
    stream = b"id: " + id_ + b"\n" + line + b"\n" + line + b"\n\n"
    expected = Outcome([("message", f"{'x' * 26}\n{'x' * 26}", id_.decode())], id_.decode())
    for pieces in all_cuts(stream):
        assert run(Decoder(max_line=32, max_event=53, max_id=28), pieces) == expected
    assert run(Decoder(max_line=32, max_event=52, max_id=28), [stream]).too_large
    assert run(Decoder(max_line=31, max_event=53, max_id=28), [stream]).too_large


def test_default_limits() -> None:
    """A line of 1 MiB passes and a byte more does not; 10 MB in one line pass where the limit is set higher."""
    fits = b"data: " + b"x" * ((1 << 20) - 6)
    assert not run(Decoder(), [fits, b"\n\n"]).too_large
    assert run(Decoder(), [fits, b"x"]).too_large
    large = b"y" * 10_000_000
    for size in (1 << 16, 10_000, len(large)):
        stream = b"data: %b\n\n" % large
        decoder = Decoder(max_line=1 << 24)
        messages = [one for at in range(0, len(stream), size) for one in decoder.feed(stream[at : at + size])]
        assert [one.data for one in messages] == [large]


@pytest.mark.parametrize("start", [b":", b"news: ", b"news", b"database: ", b" data: "])
def test_what_nobody_needs_is_not_kept(start: bytes) -> None:
    """Comments and unknown fields of any length pass a small limit and cost no memory."""
    decoder = Decoder(max_line=64)
    piece = b"z" * 65_536
    decoder.feed(b"data: a\n" + start)
    tracemalloc.start()
    try:
        for _ in range(200):
            assert decoder.feed(piece) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(piece)
    assert [message.data for message in decoder.feed(b"\ndata: b\n\n")] == [b"a\nb"]


def test_an_unfinished_block_is_read_again_only_while_it_is_small() -> None:
    """A large event in small pieces costs linear time: what is read anew with each piece stays below a constant."""
    decoder = Decoder()
    for _ in range(1_000):
        assert decoder.feed(b"data: " + b"x" * 250 + b"\n") == []
        assert len(decoder._held) <= _REREAD_BYTES
    for _ in range(1_000):
        assert decoder.feed(b"y" * 256) == []
        assert len(decoder._held) <= _REREAD_BYTES
    decoder.feed(b"\n\n")
    for _ in range(5_000):
        assert decoder.feed(b": hb\n") == []
        assert len(decoder._held) <= _REREAD_BYTES
    assert [message.data for message in decoder.feed(b"data: a\n\n")] == [b"a"]


# ---- from one stream to the next ------------------------------------------------------------------------------------
def test_a_new_stream_starts_clean_and_keeps_its_place() -> None:
    """After a cut the unfinished block and its id are gone; the last complete id and the retry time stay."""
    decoder = Decoder(last_event_id="3")
    assert [(one.text, one.id) for one in decoder.feed(b"data: a\n\n")] == [("a", "3")]
    decoder.feed(b"retry: 700\nid: 7\ndata: b\n\nid: 8\nevent: e\ndata: c\n")
    decoder.reset()
    assert (decoder.last_event_id, decoder.retry_ms) == ("7", 700)
    seen = decoder.feed(BOM + b"data: d\n\n")
    assert [(one.event, one.text, one.id) for one in seen] == [("message", "d", "7")]


def test_an_lf_after_a_cut_is_not_swallowed() -> None:
    """A CR at the end of one stream does not reach into the next."""
    decoder = Decoder()
    decoder.feed(b"data: a\r")
    decoder.reset()
    assert decoder.feed(b"\ndata: b\n\n")[0].data == b"b"
