"""What adapters share when they build a request: JSON, pictures, and schemas that a provider cannot hold to.

What comes in: parts of an `LLMRequest`. What goes out: JSON values and bytes. It does not know any provider.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple, TypeGuard

import msgspec

from agentstream.events import Json
from agentstream.llm.messages import LLMRequest, Message
from agentstream.wire.text import clean_json

__all__ = (
    "Picture",
    "arguments",
    "closed_schema",
    "encode",
    "fitting_id",
    "instruction",
    "picture",
    "system_text",
    "told",
)

_DATA_URL = re.compile(r"data:(image/[A-Za-z0-9.+-]+);base64,(.*)", re.DOTALL)

_OPEN: Final = frozenset(
    {"patternProperties", "if", "then", "else", "not", "dependentSchemas", "unevaluatedProperties"}
)
# What some providers' grammars refuse; the answer is checked against the whole schema by whoever asked.
_CHECKED_LATER: Final = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "examples",
        "default",
        "title",
        "discriminator",
        "$defs",  # written out where they are used
    }
)
_CHOICES: Final = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf", "prefixItems": "prefixItems"}


class Picture(NamedTuple):
    """A picture of a message: either an address, or its type and its base64 text."""

    url: str = ""
    mime: str = ""
    data: str = ""


def picture(address: str) -> Picture:
    """What an entry of `Message.images` is."""
    found = _DATA_URL.fullmatch(address)
    return Picture(mime=found[1], data=found[2]) if found else Picture(url=address)


def encode(body: dict[str, Json]) -> bytes:
    """Compact JSON; halves of characters, which UTF-8 cannot hold, become U+FFFD."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return msgspec.json.encode(clean_json(body))


def arguments(text: str) -> dict[str, Json]:
    """The arguments of a call for providers that want an object; what is none is kept under one name."""
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.MsgspecError, RecursionError):
        return {"arguments": text}
    return value if _is_object(value) else {"arguments": text}


def fitting_id(id: str, pattern: re.Pattern[str], *, length: int = 32) -> str:
    """A call's id in the form that a provider takes: its own stay as they are, another's become a digest."""
    if pattern.fullmatch(id):
        return id
    return hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=32).hexdigest()[:length]


def system_text(request: LLMRequest) -> str:
    """The system messages as one text, for providers that take them outside the conversation."""
    return "\n\n".join(message.content for message in request.messages if message.role == "system" and message.content)


def told(request: LLMRequest) -> tuple[Message, ...]:
    """The messages, with the schema in words: for servers that take no schema."""
    words = instruction(request)
    return (*request.messages, Message("system", words)) if words else request.messages


def instruction(request: LLMRequest) -> str:
    """The schema of an answer in words; empty where none is asked for."""
    if request.schema is None:
        return ""
    schema = msgspec.json.encode(request.schema).decode()
    return f"When you give your final answer, write JSON of this schema and nothing else:\n{schema}"


def closed_schema(schema: dict[str, Json]) -> dict[str, Json] | None:
    """The schema for a provider whose objects have fixed properties; None where it cannot be said that way.

    Constraints on values are dropped: who asked checks the answer. Objects with free keys and schemas that contain
    themselves cannot be said.
    """
    try:
        closed = _closed(schema, _definitions(schema), ())
    except (_CannotBeSaidError, RecursionError):
        return None
    return closed if _is_object(closed) else None


class _CannotBeSaidError(Exception):
    pass


def _definitions(schema: dict[str, Json]) -> dict[str, Json]:
    found = schema.get("$defs")
    return found if _is_object(found) else {}


def _closed(value: Json, definitions: dict[str, Json], within: tuple[str, ...]) -> Json:
    if not _is_object(value):
        return value
    if value.keys() & _OPEN:
        raise _CannotBeSaidError
    target = value.get("$ref")
    if isinstance(target, str):
        name = target.removeprefix("#/$defs/")
        if name in within or name not in definitions:
            raise _CannotBeSaidError
        return _closed(definitions[name], definitions, (*within, name))

    def part(key: str, one: Json) -> Json:
        if key == "properties" and _is_object(one):
            return {name: _closed(inner, definitions, within) for name, inner in one.items()}
        if key in _CHOICES and _is_array(one):
            return [_closed(inner, definitions, within) for inner in one]
        return _closed(one, definitions, within) if key == "items" else one

    made = {_CHOICES.get(key, key): part(key, one) for key, one in value.items() if key not in _CHECKED_LATER}
    if value.get("type") == "object":
        if value.get("additionalProperties") not in (None, False) or "properties" not in value:
            raise _CannotBeSaidError
        made["additionalProperties"] = False
    return made


def _is_array(value: Json) -> TypeGuard[list[Json]]:
    return isinstance(value, list)


def _is_object(value: Json) -> TypeGuard[dict[str, Json]]:
    return isinstance(value, dict)
