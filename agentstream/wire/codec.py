"""Events as JSON lines.

What comes in: events, or single lines of a log or stream. What goes out: compact JSON without newlines, typed events,
or only the head of one. It does not know numbering, frames, stores, or what any event means.

Relays never come here: they pass the bytes they got, so that every field of every type reaches every reader. Typed
decoding is for the user's edge. It leaves out fields that a known type does not have, and gives an `UnknownEvent` that
keeps the whole object where the type is unknown or its payload has another shape than this version's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Final, TypeAlias, TypeVar

import msgspec

from agentstream.errors import NotSerializable, WireError
from agentstream.events import EVENT_TYPES, AnyEvent, Event, Json, Reset, UnknownEvent, UpToDate

__all__ = ("Head", "SentEvent", "decode_event", "decode_sent", "encode_event", "peek")

SentEvent: TypeAlias = AnyEvent | Reset | UpToDate
"""What a reader is sent: the log's events and the two notices about its position."""

T = TypeVar("T")
V = TypeVar("V", int, str)

_ENVELOPE: Final = ("seq", "at", "agent", "inv", "agent_seq", "first_seq")


class Head(msgspec.Struct, frozen=True, gc=False):
    """As much of an event as filters and coalescing need; `block` and `call` are empty on types without them."""

    type: str
    seq: int = 0
    agent: str = ""
    inv: str = ""
    block: str = ""
    call: str = ""


_encode = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_object = msgspec.json.Decoder(dict[str, Json]).decode


def _union(first: type[msgspec.Struct], *others: type[msgspec.Struct]) -> type[msgspec.Struct] | UnionType:
    union: type[msgspec.Struct] | UnionType = first
    for other in others:
        union |= other
    return union


# The unions are made at run time, so the types of what comes out are given by hand.
_decode_known: Callable[[bytes], Event] = msgspec.json.Decoder(_union(*EVENT_TYPES)).decode
_decode_sent: Callable[[bytes], Event | Reset | UpToDate] = msgspec.json.Decoder(
    _union(*EVENT_TYPES, Reset, UpToDate)
).decode


def encode_event(event: SentEvent) -> bytes:
    """One line of compact JSON, without a newline at its end.

    An `UnknownEvent` gives its whole object back; where its envelope says something else (it got its number later),
    the envelope holds. NaN and infinities become null, as JavaScript writes them.

    Raises:
        NotSerializable: it holds a value that JSON cannot hold, or text with a lone surrogate (see `clean_json`).
    """
    try:
        return _encode(_whole(event) if isinstance(event, UnknownEvent) else event)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializable(f"a value in this {type(event).__name__} cannot be written as JSON") from error


def decode_event(line: bytes) -> AnyEvent:
    """The typed event of a line, or an `UnknownEvent`.

    Raises:
        WireError: the line is not a JSON object with a text as its `type`.
    """
    return _decode(_decode_known, line)


def decode_sent(line: bytes) -> SentEvent:
    """As `decode_event`, for what a reader is sent: `reset` and `up-to-date` become `Reset` and `UpToDate`.

    Raises:
        WireError: the line is not a JSON object with a text as its `type`.
    """
    return _decode(_decode_sent, line)


def peek(line: bytes) -> Head:
    """The head of a line, without building its payload.

    Raises:
        WireError: the line is not a JSON object with a text as its `type`.
    """
    head = _decode(_decode_head, line)
    if isinstance(head, Head):
        return head
    # A type from elsewhere may use these names for other things, for instance a number as its `block`.
    block, call = _field(head.fields, "block", ""), _field(head.fields, "call", "")
    return Head(head.type, head.seq, head.agent, head.inv, block, call)


def _decode(decoder: Callable[[bytes], T], line: bytes) -> T | UnknownEvent:
    try:
        return decoder(line)
    except msgspec.ValidationError:
        return _unknown(line)
    except (ValueError, RecursionError) as error:  # DecodeError and UnicodeDecodeError have only this parent in common
        raise WireError("not an event: the line is not valid JSON in UTF-8") from error


def _unknown(line: bytes) -> UnknownEvent:
    try:
        fields = _decode_object(line)
    except (ValueError, RecursionError) as error:
        raise WireError("not an event: the line is not a JSON object") from error
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise WireError("not an event: its `type` is not a text")
    return UnknownEvent(
        type=kind,
        fields=fields,
        seq=_field(fields, "seq", 0),
        at=_field(fields, "at", 0),
        agent=_field(fields, "agent", ""),
        inv=_field(fields, "inv", ""),
        agent_seq=_field(fields, "agent_seq", 0),
        first_seq=_field(fields, "first_seq", 0),
    )


def _whole(event: UnknownEvent) -> dict[str, Json]:
    """The object of an unknown event, with what its envelope says beyond the defaults."""
    whole = {**event.fields, "type": event.type}
    for name in _ENVELOPE:
        value = getattr(event, name)
        if value:
            whole[name] = value
    return whole


def _field(fields: dict[str, Json], name: str, default: V) -> V:
    """The field if it has the default's very type (a bool is no number), else the default."""
    value: V | None = fields.get(name)
    return default if value is None or type(value) is not type(default) else value
