"""JSON Pointer (RFC 6901) and JSON Patch (RFC 6902) on plain JSON values.

What comes in: a document of dicts, lists and scalars, and pointers or operations. What goes out: the value pointed at,
or a new document that shares with the old one whatever did not change. It does not know whose document it is, how large
it may grow, or where operations come from, and it changes nothing in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from agentstream.errors import PatchError
from agentstream.events import Json

__all__ = ("apply", "get", "parse")

# `Json` is Any to users; in here each branch says what it knows.
_Container: TypeAlias = "dict[str, _Value] | list[_Value] | tuple[_Value, ...]"
_Value: TypeAlias = "_Container | str | float | bool | None"

_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


def parse(pointer: str) -> tuple[str, ...]:
    """The keys of a pointer: `/a~1b/0` → `("a/b", "0")`; the empty pointer is the whole document.

    Raises:
        PatchError: it neither is empty nor begins with `/`, or a `~` is not followed by `0` or `1`.
    """
    if not pointer:
        return ()
    if pointer[0] != "/":
        raise PatchError(f"{_shown(pointer)} is not a JSON pointer: it must be empty or begin with a slash")
    if "~" not in pointer:
        return tuple(pointer[1:].split("/"))
    if _BAD_ESCAPE.search(pointer) is not None:
        raise PatchError(f"{_shown(pointer)} is not a JSON pointer: write ~ as ~0 and / inside a key as ~1")
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer[1:].split("/"))


def get(document: Json, pointer: str) -> Json:
    """The value that `pointer` points at.

    Raises:
        PatchError: the pointer is malformed, or nothing is there.
    """
    value: _Value = document
    for key in parse(pointer):
        value = _child(_container(value, pointer), key, pointer)
    return value


def apply(document: Json, ops: Iterable[Mapping[str, Json]]) -> Json:
    """The document after all operations (`add`, `remove`, `replace`, `move`, `copy`, `test`), in order.

    All or nothing: `document` itself is never changed, so a patch that fails half way leaves it as it was.
    Values are put in as they are, not copied: a caller who goes on changing one must copy it first.

    Raises:
        PatchError: an operation is unknown or incomplete, or does not apply; `details` holds its `index`.

    Bounds: an operation copies the dicts and lists on its path, one level each.
    """
    for index, op in enumerate(ops):
        try:
            document = _apply_one(document, op)
        except PatchError as error:
            raise PatchError(f"operation {index}: {error.detail}", details={"index": index}) from None
    return document


def _apply_one(document: _Value, op: Mapping[str, _Value]) -> _Value:
    name = op.get("op")
    path = _text_of(op, "path")
    match name:
        case "add":
            return _put(document, path, _value_of(op), insert=True)
        case "replace":
            return _put(document, path, _value_of(op), insert=False)
        case "remove":
            return _remove(document, path)
        case "copy":
            return _put(document, path, get(document, _text_of(op, "from")), insert=True)
        case "move":
            return _move(document, _text_of(op, "from"), path)
        case "test":
            if not _equal(get(document, path), _value_of(op)):
                raise PatchError(f"the value at {_shown(path)} is another one than the test expects")
            return document
        case _:
            raise PatchError("op must be one of add, remove, replace, move, copy, test")


def _text_of(op: Mapping[str, _Value], member: str) -> str:
    value = op.get(member)
    if not isinstance(value, str):
        raise PatchError(f"the member {member} must be a JSON pointer")
    return value


def _value_of(op: Mapping[str, _Value]) -> _Value:
    if "value" not in op:
        raise PatchError("the member value is missing")
    return op["value"]


def _move(document: _Value, source: str, target: str) -> _Value:
    source_keys, target_keys = parse(source), parse(target)
    value = get(document, source)
    if source_keys == target_keys:
        return document
    if target_keys[: len(source_keys)] == source_keys:
        raise PatchError("a value cannot be moved into itself")
    return _put(_remove(document, source), target, value, insert=True)


def _put(document: _Value, pointer: str, value: _Value, *, insert: bool) -> _Value:
    """`document` with `value` at `pointer`: inserted there (lists grow), or instead of what is there."""
    keys = parse(pointer)
    if not keys:
        return value
    parents = _parents(document, keys, pointer)
    parent, key = parents[-1], keys[-1]
    if isinstance(parent, dict):
        if not insert and key not in parent:
            raise PatchError(f"nothing is at {_shown(pointer)}")
        changed: _Value = {**parent, key: value}
    elif insert:
        at = len(parent) if key == "-" else _index(key, len(parent) + 1, pointer)
        changed = [*parent[:at], value, *parent[at:]]
    else:
        at = _index(key, len(parent), pointer)
        changed = [*parent[:at], value, *parent[at + 1 :]]
    return _rebuild(parents, keys, changed)


def _remove(document: _Value, pointer: str) -> _Value:
    keys = parse(pointer)
    if not keys:
        raise PatchError("the whole document cannot be removed; replace it with null")
    parents = _parents(document, keys, pointer)
    parent, key = parents[-1], keys[-1]
    if isinstance(parent, dict):
        if key not in parent:
            raise PatchError(f"nothing is at {_shown(pointer)}")
        changed: _Value = {name: item for name, item in parent.items() if name != key}
    else:
        at = _index(key, len(parent), pointer)
        changed = [*parent[:at], *parent[at + 1 :]]
    return _rebuild(parents, keys, changed)


def _parents(document: _Value, keys: tuple[str, ...], pointer: str) -> list[_Container]:
    """The containers on the way to the last key, from the root."""
    parents = [_container(document, pointer)]
    for key in keys[:-1]:
        parents.append(_container(_child(parents[-1], key, pointer), pointer))
    return parents


def _rebuild(parents: list[_Container], keys: tuple[str, ...], changed: _Value) -> _Value:
    """Copies of the containers above `changed`, each with its new child, up to the root."""
    for parent, key in zip(reversed(parents[:-1]), reversed(keys[:-1]), strict=True):
        if isinstance(parent, dict):
            changed = {**parent, key: changed}
        else:
            at = int(key)
            changed = [*parent[:at], changed, *parent[at + 1 :]]
    return changed


def _container(value: _Value, pointer: str) -> _Container:
    if isinstance(value, (dict, list, tuple)):
        return value
    raise PatchError(f"{_shown(pointer)} leads through a value that is neither an object nor an array")


def _child(container: _Container, key: str, pointer: str) -> _Value:
    if isinstance(container, dict):
        if key not in container:
            raise PatchError(f"nothing is at {_shown(pointer)}")
        return container[key]
    return container[_index(key, len(container), pointer)]


def _index(key: str, length: int, pointer: str) -> int:
    """`key` as an index below `length`."""
    if _INDEX.fullmatch(key) is None:
        raise PatchError(f"{_shown(key)} in {_shown(pointer)} is not an index of an array")
    if int(key) >= length:
        raise PatchError(f"{_shown(pointer)} is outside the array")
    return int(key)


def _equal(a: _Value, b: _Value) -> bool:
    """Equality of JSON values (RFC 6902, 4.6): numbers by value, but true is not 1 as it is in Python."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _shown(text: str) -> str:
    """`text` for a message: quoted, and short whatever a user sent."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
