"""Whether a JSON value fits a JSON schema: what an edge can say of an answer without knowing the type behind it.

What comes in: a schema as pydantic and msgspec write them, and a value. What goes out: what does not fit, in words for
people, or nothing. It does not know the type, its own validators or formats: who asked checks the value again.

Keywords of JSON Schema 2020-12 that are not listed here are passed over, so that nothing that fits is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeGuard

from agentstream.events import Json

__all__ = ("misfit",)

_DEEPEST: Final = 64
_MOST: Final = 10
_LONGEST_MATCHED: Final = 4096
"""Characters of a text that a `pattern` is tried on here: a longer one could keep a bad pattern busy for ever."""


def misfit(schema: Json, value: Json) -> str:
    """What of `value` does not fit, a line each and at most ten; empty where nothing is known to be wrong.

    Values are not repeated: only where they stand and what is asked for there.
    """
    lines: list[str] = []
    for line in _Check(schema).wrong(schema, value, "", 0):
        if len(lines) == _MOST:
            lines.append("…")
            break
        lines.append(line)
    return "\n".join(lines)


class _Check:
    def __init__(self, root: Json) -> None:
        self._root = root

    def wrong(self, schema: Json, value: Json, at: str, deep: int) -> Iterator[str]:
        """What does not fit, each with its place."""
        if schema is False:
            yield _told(at, "nothing fits here")
        if not _is_object(schema) or deep > _DEEPEST:
            return
        if "$ref" in schema:
            yield from self.wrong(self._resolve(schema["$ref"]), value, at, deep + 1)
        for part in _list(schema.get("allOf")):
            yield from self.wrong(part, value, at, deep + 1)
        choices = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
        if choices:
            yield from self._choice(choices, value, at, deep)
        yield from _listed_only(schema, value, at)
        kinds = schema.get("type")
        names = [kinds] if isinstance(kinds, str) else _list(kinds)
        if names and not any(_KINDS.get(str(name), _anything)(value) for name in names):
            yield _told(at, f"must be {' or '.join(_WORDS.get(str(name), str(name)) for name in names)}")
        else:
            yield from self._bounded(schema, value, at, deep)

    def _bounded(self, schema: Mapping[str, Json], value: Json, at: str, deep: int) -> Iterator[str]:
        if isinstance(value, str):
            yield from _text(schema, value, at)
        elif _is_number(value):
            yield from _number(schema, value, at)
        elif _is_list(value):
            yield from self._array(schema, value, at, deep)
        elif _is_object(value):
            yield from self._object(schema, value, at, deep)

    def _choice(self, choices: list[Json], value: Json, at: str, deep: int) -> Iterator[str]:
        found = [list(self.wrong(choice, value, at, deep + 1)) for choice in choices]
        if all(found):  # every choice has something against it: the one with the least is likely meant
            best = min(found, key=len)
            yield from best if len(best) > 1 or len(choices) == 1 else [" or ".join(dict.fromkeys(f[0] for f in found))]

    def _array(self, schema: Mapping[str, Json], value: list[Json], at: str, deep: int) -> Iterator[str]:
        yield from _bounds(schema, len(value), at, ("minItems", "maxItems"), "items")
        if schema.get("uniqueItems") is True and any(_same(a, b) for n, a in enumerate(value) for b in value[:n]):
            yield _told(at, "must hold nothing twice")
        first = _list(schema.get("prefixItems"))
        rest = schema.get("items", True)
        for place, item in enumerate(value):
            yield from self.wrong(first[place] if place < len(first) else rest, item, f"{at}[{place}]", deep + 1)

    def _object(self, schema: Mapping[str, Json], value: Mapping[str, Json], at: str, deep: int) -> Iterator[str]:
        yield from _bounds(schema, len(value), at, ("minProperties", "maxProperties"), "fields")
        known = schema.get("properties")
        fields: Mapping[str, Json] = known if _is_object(known) else {}
        for name in _list(schema.get("required")):
            if name not in value:
                yield _told(_below(at, str(name)), "is missing")
        others = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in fields:
                yield from self.wrong(fields[name], item, _below(at, name), deep + 1)
            elif others is False and "patternProperties" not in schema:
                yield _told(_below(at, name[:64]), "is not asked for")
            else:
                yield from self.wrong(others, item, _below(at, name[:64]), deep + 1)

    def _resolve(self, reference: Json) -> Json:
        """What `#/$defs/Name` names; a reference to elsewhere fits everything."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        found = self._root
        for part in filter(None, reference[1:].split("/")):
            name = part.replace("~1", "/").replace("~0", "~")
            if not _is_object(found) or name not in found:
                return True
            found = found[name]
        return found


# --- single values ----------------------------------------------------------------------------------------------------
def _listed_only(schema: Mapping[str, Json], value: Json, at: str) -> Iterator[str]:
    if "enum" in schema and not any(_same(value, one) for one in _list(schema["enum"])):
        yield _told(at, f"must be one of {_listed(_list(schema['enum']))}")
    if "const" in schema and not _same(value, schema["const"]):
        yield _told(at, f"must be {_listed([schema['const']])}")


def _text(schema: Mapping[str, Json], value: str, at: str) -> Iterator[str]:
    yield from _bounds(schema, len(value), at, ("minLength", "maxLength"), "characters")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and len(value) <= _LONGEST_MATCHED:
        try:
            fits = re.search(pattern, value) is not None
        except re.error:  # of another dialect of expressions
            fits = True
        if not fits:
            yield _told(at, f"must match {pattern}")


def _number(schema: Mapping[str, Json], value: float, at: str) -> Iterator[str]:
    tests: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
        ("minimum", "at least", lambda bound: value >= bound),
        ("maximum", "at most", lambda bound: value <= bound),
        ("exclusiveMinimum", "above", lambda bound: value > bound),
        ("exclusiveMaximum", "below", lambda bound: value < bound),
    )
    for name, words, fits in tests:
        bound = schema.get(name)
        if _is_number(bound) and not fits(bound):
            yield _told(at, f"must be {words} {bound:g}")


def _bounds(schema: Mapping[str, Json], count: int, at: str, names: tuple[str, str], what: str) -> Iterator[str]:
    least, most = schema.get(names[0]), schema.get(names[1])
    if _is_number(least) and count < least:
        yield _told(at, f"must have at least {least:g} {what}")
    if _is_number(most) and count > most:
        yield _told(at, f"must have at most {most:g} {what}")


def _told(at: str, words: str) -> str:
    return f"{at or 'the value'} {words}"


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _listed(values: list[Json]) -> str:
    return ", ".join(str(value) if isinstance(value, str) else repr(value) for value in values[:_MOST])


def _same(one: Json, other: Json) -> bool:
    # True is 1 in Python and is not in JSON.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _list(value: Json) -> list[Json]:
    return value if _is_list(value) else []


def _is_list(value: Json) -> TypeGuard[list[Json]]:
    return isinstance(value, list)


def _is_object(value: Json) -> TypeGuard[dict[str, Json]]:
    return isinstance(value, dict)


def _is_number(value: Json) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _anything(_value: Json) -> bool:
    return True


_KINDS: Final[Mapping[str, Callable[[Json], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_finite(value) and value == int(value),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": _is_list,
    "object": _is_object,
}
_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def _is_finite(value: Json) -> TypeGuard[float]:
    return _is_number(value) and math.isfinite(value)
