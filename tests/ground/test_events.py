"""Every event type: frozen, tagged, and the same after a journey as bytes; what is unknown survives as well."""

from __future__ import annotations

import dataclasses
import math
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream import events
from agentstream.events import EVENT_TYPES, Custom, Event, TextDelta, UnknownEvent, Usage
from agentstream.wire import decode_event, encode_event

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_ENVELOPE = {"seq", "at", "agent", "inv", "agent_seq", "first_seq"}


def _values(annotation: object) -> st.SearchStrategy[object]:
    """Values of a field's type; `Any` is JSON."""
    if annotation is typing.Any:
        return _JSON
    if annotation == tuple[events.PlanItem, ...]:
        item = st.builds(events.PlanItem, _TEXT, _TEXT, st.sampled_from(["pending", "active", "done"]))
        return st.lists(item, max_size=3).map(tuple)
    if annotation == tuple[dict[str, typing.Any], ...]:
        return st.lists(st.dictionaries(_TEXT, _JSON, max_size=2), max_size=2).map(tuple)
    if annotation is Usage:
        return st.builds(Usage, st.integers(0, 9), st.integers(0, 9))
    if annotation is str:
        return _TEXT
    if annotation == dict[str, float]:
        return st.dictionaries(_TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=3)
    return st.from_type(typing.cast("type[object]", annotation)).filter(
        lambda value: not isinstance(value, float) or math.isfinite(value)  # JSON has no others
    )


@st.composite
def _events(draw: st.DrawFn) -> Event:
    cls = draw(st.sampled_from(EVENT_TYPES))
    hints = typing.get_type_hints(cls)
    fields = {
        field.name: draw(_values(hints[field.name]))
        for field in msgspec.structs.fields(cls)
        if field.name not in _ENVELOPE
    }
    return cls(**fields, seq=draw(st.integers(1, 2**40)), at=1, agent="a", inv="a.1", agent_seq=3)


@given(_events())
def test_every_event_survives_the_wire(event: Event) -> None:
    """Encoded and decoded again, an event of any type is equal to what it was, floats and nested JSON included."""
    line = encode_event(event)
    assert b"\n" not in line.rstrip(b"\n")
    assert decode_event(line) == event


@pytest.mark.parametrize("cls", EVENT_TYPES, ids=lambda cls: cls.__name__)
def test_each_type_is_frozen_tagged_and_documented(cls: type[Event]) -> None:
    """One class a type: immutable, with the wire's name as its tag, exported, and with words of its own."""
    config = cls.__struct_config__
    assert config.frozen
    assert config.tag_field == "type"
    assert "." in str(config.tag) or config.tag == "custom"
    assert cls.__name__ in events.__all__
    assert cls.__doc__
    assert cls.__doc__ != Event.__doc__


def test_names_of_types_are_unique() -> None:
    """No two classes share a tag, and the terminal types are three of them."""
    tags = [str(cls.__struct_config__.tag) for cls in EVENT_TYPES]
    assert len(set(tags)) == len(tags)
    assert set(tags) >= events.TERMINAL_TYPES
    assert len(events.TERMINAL_TYPES) == 3


def test_an_event_cannot_be_changed() -> None:
    """Assigning to a field raises."""
    event = TextDelta("a.1.1", "x")
    with pytest.raises(AttributeError):
        event.text = "y"  # type: ignore[misc]


def test_defaults_stay_at_home() -> None:
    """A field that has its default is not sent; the type comes first."""
    assert encode_event(TextDelta("b", "x")).rstrip(b"\n") == b'{"type":"text.delta","block":"b","text":"x"}'


_MORE = st.dictionaries(st.sampled_from(["x", "yes", "later"]), _JSON, max_size=3)


@given(extra=_MORE)
@pytest.mark.promise("W-unknown-types")
def test_unknown_types_and_fields_survive(extra: dict[str, object]) -> None:
    """A later version's type is an `UnknownEvent` with everything in it; unknown fields of a known type do no harm."""
    body = {"seq": 7, "at": 1, "type": "later.thing", "agent": "a", "inv": "a.1", "agent_seq": 2, **extra}
    event = decode_event(msgspec.json.encode(body))
    assert isinstance(event, UnknownEvent)
    assert event.fields == body
    assert (event.type, event.seq, event.agent, event.inv, event.agent_seq) == ("later.thing", 7, "a", "a.1", 2)
    known = decode_event(msgspec.json.encode({"type": "text.delta", "block": "b", "text": "t", **extra}))
    assert known == TextDelta("b", "t")


def test_a_known_type_with_a_strange_payload_is_unknown() -> None:
    """A payload that does not fit the class is kept whole instead of being refused."""
    event = decode_event(b'{"seq":1,"type":"text.delta","block":5,"text":["t"]}')
    assert isinstance(event, UnknownEvent)
    assert event.fields["block"] == 5


@dataclasses.dataclass
class _Point:
    x: int
    y: int


def test_value_as_gives_the_users_type() -> None:
    """A custom event's value is converted, or refused with msgspec's own error."""
    assert Custom("point", value={"x": 1, "y": 2}).value_as(_Point) == _Point(1, 2)
    with pytest.raises(msgspec.ValidationError):
        Custom("point", value={"x": "one"}).value_as(_Point)


def test_usage_adds_up() -> None:
    """Field by field."""
    assert Usage(1, 2, 3, 4, 5) + Usage(10, 20, 30, 40, 50) == Usage(11, 22, 33, 44, 55)


def test_only_terminal_events_are_terminal() -> None:
    """Exactly the three that end a run, and no unknown one."""
    ends = [events.RunFinished(), events.RunFailed("x"), events.RunStopped("y")]
    assert all(map(events.is_terminal, ends))
    assert not events.is_terminal(TextDelta("b", "t"))
    assert not events.is_terminal(UnknownEvent("run.paused", {}))
