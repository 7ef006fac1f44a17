"""Values made final at the emit.

What comes in: events and values as users hand them in. What goes out: JSON bytes, so that size and content are known at
the emitter and later mutation changes nothing. It does not know numbers, lanes or stores.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentstream.errors import EventTooLarge, NotSerializable
from agentstream.events import Event
from agentstream.wire import clean, clean_json

__all__ = (
    "MAX_EVENT_BYTES",
    "MAX_TEXT_CHARS",
    "check_size",
    "encode_event",
    "encode_fast",
    "encode_text",
    "encode_value",
    "plain_text",
)

MAX_EVENT_BYTES: Final = 256 * 1024
"""DESIGN §3: one event, so that a chunk, a page and a reader's buffer have a bound."""

MAX_TEXT_CHARS: Final = 32 * 1024
"""A longer text is written as several deltas. A character takes at most 6 bytes in JSON (\\u0000): 192 KiB."""

_ENVELOPE: Final = {"seq": 0, "at": 0, "agent": "", "inv": "", "agent_seq": 0, "first_seq": 0}


def _hook(value: Any) -> Any:  # Any: msgspec's own signature
    """Models of pydantic travel as their JSON form; everything else that msgspec does not know is refused."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise NotSerializable(
        f"a {type(value).__name__} cannot be sent: use JSON values, dataclasses, Structs or pydantic models"
    )


_encode = msgspec.json.Encoder(enc_hook=_hook).encode
encode_fast: Final = msgspec.json.Encoder().encode
"""For text that is nearly always clean: the caller falls back to `encode_text` on UnicodeEncodeError."""


def encode_value(value: object) -> bytes:
    """`value` as JSON; lone surrogates become U+FFFD.

    Raises:
        NotSerializable: JSON cannot hold it.
    """
    return _final(value, "a value")


def encode_event(event: Event) -> bytes:
    """The event as `{"type":…, payload}`; envelope fields that somebody set are left out: the bus gives them.

    Raises:
        NotSerializable: a payload value that JSON cannot hold.
    """
    if event.seq or event.at or event.agent or event.inv or event.agent_seq or event.first_seq:
        event = msgspec.structs.replace(event, **_ENVELOPE)
    return _final(event, f"a value of {event.type}")


def _final(value: object, what: str) -> bytes:
    try:
        try:
            return _encode(value)
        except UnicodeEncodeError:
            # Not for values of their own that are encoded already (`Raw`): those are clean.
            return _encode(clean_json(msgspec.to_builtins(value, enc_hook=_hook, builtin_types=(msgspec.Raw,))))
    except NotSerializable:
        raise
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise NotSerializable(f"{what} cannot be sent as JSON: {error}") from error


def encode_text(text: str) -> bytes:
    """`text` as a JSON string; lone surrogates become U+FFFD."""
    return _encode(clean(text))


def plain_text(text: object) -> str:
    """`text` itself, of no subclass.

    Raises:
        NotSerializable: it is no text.
    """
    if not isinstance(text, str):
        raise NotSerializable(f"text is expected, not {type(text).__name__}")
    return str.__str__(text)


def check_size(body: bytes, what: str) -> None:
    """Refuse an event above its bound, before it has a number.

    Raises:
        EventTooLarge: with what to do instead.
    """
    if len(body) > MAX_EVENT_BYTES:
        raise EventTooLarge(
            f"{what} is {len(body):,} bytes; an event holds at most {MAX_EVENT_BYTES:,}. "
            "Send large data with `artifact(…)`, long text with `say` or a block",
            details={"size": len(body), "limit": MAX_EVENT_BYTES},
        )
