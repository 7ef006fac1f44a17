"""What makes one recorded unit of work the same unit after a crash: its key and the version of its code.

What comes in: names, arguments and functions. What goes out: short digests that are alike in every process. It does not
know what is recorded under a key, nor whether a record is used again.

A key never holds an arrival number: of two calls that run at once, either may come first next time. It is made of the
enclosing unit's key, the name, the arguments, and which repeat of exactly these it is, so equal calls are
interchangeable and others never meet.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType
from typing import Final, cast

import msgspec

from agentstream.agent.schema import jsonable

__all__ = ("KeyScope", "Keys", "code_version")

_KEY_DIGITS: Final = 32
_VERSION_DIGITS: Final = 16


class KeyScope:
    """Gives out the keys of what happens inside one unit: an invocation, a step, a call.

    Attributes:
        key: the unit's own key.

    Bounds: 100 bytes for each different (name, arguments) seen.
    """

    __slots__ = ("_repeats", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self._repeats: Counter[str] = Counter()

    def next(self, name: str, args: object = None) -> str:
        """The key of the next unit of this name with these arguments.

        Raises:
            NotSerializable: JSON cannot hold an argument.
        """
        encoded = msgspec.json.encode([self.key, name, jsonable(args)], order="deterministic")
        same = hashlib.sha256(encoded).hexdigest()[:_KEY_DIGITS]
        repeat = self._repeats[same]
        self._repeats[same] += 1
        return f"{same}-{repeat}" if repeat else same


_within: ContextVar[tuple[object, KeyScope] | None] = ContextVar("agentstream_key_scope", default=None)


class Keys:
    """The scopes of one invocation: its own, and those of the steps that the running task is in.

    Args:
        key: the invocation's key.
    """

    __slots__ = ("_root",)

    def __init__(self, key: str) -> None:
        self._root = KeyScope(key)

    @property
    def current(self) -> KeyScope:
        """The innermost scope that the running task (or the worker thread that it waits for) is in."""
        entry = _within.get()
        # A task that began inside another invocation's step inherits that scope, which is none of ours.
        return entry[1] if entry is not None and entry[0] is self else self._root

    @contextmanager
    def within(self, key: str) -> Generator[KeyScope]:
        """Everything inside, and every task started inside, belongs to the unit with this key."""
        scope = KeyScope(key)
        token = _within.set((self, scope))
        try:
            yield scope
        finally:
            _within.reset(token)


# --- versions ---------------------------------------------------------------------------------------------------------
def code_version(fn: Callable[..., object]) -> str:
    """A digest of the function's own bytecode, names and constants, nested functions included.

    What it calls is not seen. Line numbers and comments do not count; a docstring does. A decorated function counts
    with what it wraps. Another minor version of Python compiles to other bytecode and counts as changed.
    """
    digest = hashlib.sha256()
    for layer in _layers(fn):
        code = getattr(layer, "__code__", None)
        if isinstance(code, CodeType):
            digest.update(_code_digest(code))
        else:  # written in C, or a class: its name is all there is
            digest.update(f"{getattr(layer, '__module__', '')}.{getattr(layer, '__qualname__', type(layer))}".encode())
    return digest.hexdigest()[:_VERSION_DIGITS]


def _layers(fn: Callable[..., object]) -> Iterator[object]:
    """The function and what it wraps, outermost first."""
    layer: object = fn
    seen: set[int] = set()
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        if isinstance(layer, functools.partial):
            layer = layer.func
            continue
        if not hasattr(layer, "__code__") and not inspect.isroutine(layer) and not isinstance(layer, type):
            layer = type(layer).__call__  # an object that can be called
        yield layer
        layer = getattr(layer, "__wrapped__", None)


def _code_digest(code: CodeType) -> bytes:
    digest = hashlib.sha256(code.co_code)
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        digest.update("\0".join((*names, "")).encode("utf-8", "surrogatepass"))
    digest.update(_constant_digest(code.co_consts))
    return digest.digest()


def _constant_digest(value: object) -> bytes:
    """Alike in every process: the order of a frozenset of strings is not, so its items are sorted by their digests."""
    if isinstance(value, CodeType):
        return _code_digest(value)
    digest = hashlib.sha256(type(value).__name__.encode())
    if isinstance(value, tuple):
        for item in cast("tuple[object, ...]", value):
            digest.update(_constant_digest(item))
    elif isinstance(value, frozenset):
        for item_digest in sorted(map(_constant_digest, cast("frozenset[object]", value))):
            digest.update(item_digest)
    else:  # None, Ellipsis, numbers, text, bytes: their repr is exact
        digest.update(repr(value).encode("utf-8", "surrogatepass"))
    return digest.digest()
