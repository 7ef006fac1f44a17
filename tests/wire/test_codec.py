"""The codec: every type there and back, and what this version does not know.

Comes in: events of all types, and lines from versions that do not exist yet. Goes out: proof that nothing is lost.
It deliberately knows neither numbering nor frames.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import NotSerializable, WireError
from agentstream.events import (
    EVENT_TYPES,
    Custom,
    Event,
    Reset,
    RunFinished,
    StateDelta,
    TextDelta,
    UnknownEvent,
    UpToDate,
)
from agentstream.wire import Head, decode_event, decode_sent, encode_event, peek

DELTA = TextDelta(
    seq=7, at=1_760_000_000_000, agent="writer", inv="writer.1", agent_seq=3, block="writer.1.1", text="é\n"
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def _events(type_: type[Event]) -> st.SearchStrategy[Event]:
    fields = {field.name: _values(field.type) for field in msgspec.structs.fields(type_)}
    return st.fixed_dictionaries(fields).map(lambda values: type_(**values))


def _values(type_: Any) -> st.SearchStrategy[Any]:
    if type_ is Any:
        return json_values
    if type_ is int:
        return st.integers(0, 2**62)
    if type_ is float:
        return FLOATS
    if type_ is str:
        return texts
    if type_ == float | None:
        return st.none() | FLOATS
    if type_ == dict[str, float]:
        return st.dictionaries(texts, FLOATS, max_size=3)
    if type_ == dict[str, Any]:
        return st.dictionaries(texts, json_values, max_size=3)
    if type_ == tuple[dict[str, Any], ...]:
        return st.lists(st.dictionaries(texts, json_values, max_size=3), max_size=3).map(tuple)
    return st.from_type(type_)


# ---- known types ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("type_", EVENT_TYPES, ids=lambda type_: type_.__name__)
@given(data=st.data())
def test_every_type_there_and_back(type_: type[Event], data: st.DataObject) -> None:
    """An event of any type and any values is one line, and that line is the same event."""
    event = data.draw(_events(type_))
    line = encode_event(event)
    assert b"\n" not in line
    assert b"\r" not in line
    assert decode_event(line) == event
    assert type(decode_event(line)) is type_
    assert decode_sent(line) == event
    head = peek(line)
    assert (head.type, head.seq, head.agent, head.inv) == (event.type, event.seq, event.agent, event.inv)
    assert (head.block, head.call) == (getattr(event, "block", ""), getattr(event, "call", ""))


def test_the_line() -> None:
    """Compact JSON, type first, defaults left out, text as UTF-8."""
    line = encode_event(DELTA)
    assert line.startswith(b'{"type":"text.delta",')
    assert "é\\n".encode() in line
    assert json.loads(line) == {
        "type": "text.delta",
        "seq": 7,
        "at": 1_760_000_000_000,
        "agent": "writer",
        "inv": "writer.1",
        "agent_seq": 3,
        "block": "writer.1.1",
        "text": "é\n",
    }
    assert b" " not in line
    assert encode_event(RunFinished(seq=2)) == b'{"type":"run.finished","seq":2}'


def test_json_has_no_infinity() -> None:
    """NaN and infinities become null, as JavaScript writes them: the one value that does not come back."""
    assert decode_event(encode_event(Custom(name="n", value=[float("nan"), float("inf")]))) == Custom(
        name="n", value=[None, None]
    )


def test_raw_values_are_spliced_in() -> None:
    """What was encoded at the emitter goes into the line as it is."""
    event = Custom(name="n", value=msgspec.Raw(b'{"kept": [1,  2]}'))
    assert encode_event(event) == b'{"type":"custom","name":"n","value":{"kept": [1,  2]}}'


def test_notices_about_the_position() -> None:
    """`reset` and `up-to-date` are typed for readers; a log never holds them, so there they are unknown events."""
    for notice in (Reset(reason="trimmed", first=5, tail=9), UpToDate(seq=9)):
        line = encode_event(notice)
        assert decode_sent(line) == notice
        assert isinstance(decode_event(line), UnknownEvent)


# ---- what this version does not know --------------------------------------------------------------------------------
@pytest.mark.promise("W-unknown-types")
@given(st.dictionaries(texts, json_values, max_size=5), st.sampled_from(["future.thing", "", "TEXT.DELTA", "reset"]))
def test_unknown_types_come_back_whole(fields: dict[str, Any], type_: str) -> None:
    """An object of an unknown type survives decoding and encoding with all its fields."""
    whole = {**fields, "type": type_}
    event = decode_event(json.dumps(whole).encode())
    assert isinstance(event, UnknownEvent)
    assert (event.type, event.fields) == (type_, whole)
    assert json.loads(encode_event(event)) == whole


@pytest.mark.promise("W-unknown-types")
@pytest.mark.parametrize(
    "changes",
    [{"text": 5}, {"text": None}, {"block": ["a"]}, {"seq": "7"}, {"seq": True}, {"agent": None}, {"at": 1.5}],
    ids=str,
)
def test_known_types_of_another_shape_come_back_whole(changes: dict[str, Any]) -> None:
    """A payload or envelope that does not fit is no error: the reader gets the whole object."""
    whole = {**json.loads(encode_event(DELTA)), **changes}
    line = json.dumps(whole).encode()
    event = decode_event(line)
    assert isinstance(event, UnknownEvent)
    assert event.fields == whole
    assert json.loads(encode_event(event)) == whole
    head = peek(line)
    expected = {**whole, **{name: type(getattr(DELTA, name))() for name in changes}}
    assert head == Head("text.delta", expected["seq"], expected["agent"], "writer.1", expected["block"])


def test_unknown_fields_of_known_types() -> None:
    """Typed decoding leaves out a field that this version does not have: relays therefore pass the bytes."""
    line = encode_event(DELTA)[:-1] + b',"mood":"fine"}'
    assert decode_event(line) == DELTA
    assert peek(line).type == "text.delta"


def test_the_envelope_of_an_unknown_event() -> None:
    """Its envelope is read like any other, and what it is given later goes into the line."""
    event = decode_event(b'{"type":"x.y","seq":4,"at":5,"agent":"a","inv":"a.1","agent_seq":6,"first_seq":3,"z":[1]}')
    assert isinstance(event, UnknownEvent)
    assert (event.seq, event.at, event.agent, event.inv, event.agent_seq, event.first_seq) == (4, 5, "a", "a.1", 6, 3)
    later = msgspec.structs.replace(event, seq=8, at=9)
    assert decode_event(encode_event(later)) == msgspec.structs.replace(
        later, fields={**event.fields, "seq": 8, "at": 9}
    )


def test_peek_at_foreign_uses_of_our_names() -> None:
    """A type from elsewhere may use `block` for a number and has no call."""
    assert peek(b'{"type":"city","seq":3,"block":12,"call":{}}') == Head("city", 3)


# ---- what is no event -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{", b"[1]", b"null", b'"type"', b"{}", b"\xff", b"{'type':1}"),
        *(b'{"type":5}', b'{"type":null}', b'{"type":"x"} x', b'{"type":"custom","name":"\xff"}'),
        *(b'{"type":"x","a":"\xff"}', b'{"type":"x","a":"\\ud800"}', b'{"type":"x","a":1e999}'),
        b'{"type":"x","a":' + b"[" * 100_000,
        b'{"type":"custom","name":"n","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda line: line[:24].decode("latin-1"),
)
def test_no_event(line: bytes) -> None:
    """Broken JSON, other values than objects, no type, broken UTF-8, endless nesting: always the same typed error."""
    for decode in (decode_event, decode_sent):
        with pytest.raises(WireError, match="not an event"):
            decode(line)


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"{}", b'{"type":5}', b"\xff", b'{"type":"\xff"}'], ids=repr)
def test_peek_at_no_event(line: bytes) -> None:
    """The same error for what the head alone shows."""
    with pytest.raises(WireError, match="not an event"):
        peek(line)


def _endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize(
    "value", [object(), {(1, 2): 3}, "\ud800", {"k\udfff": 1}, _endless(), 1j], ids=lambda value: type(value).__name__
)
def test_what_json_cannot_hold(value: Any) -> None:
    """A typed error that does not print the value."""
    for event in (
        Custom(name="n", value=value),
        UnknownEvent(type="x", fields={"v": value}),
        StateDelta(ops=({"value": value},)),
    ):
        with pytest.raises(NotSerializable) as caught:
            encode_event(event)
        assert type(event).__name__ in caught.value.detail
