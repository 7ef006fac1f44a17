"""Text that UTF-8 can carry, in pieces that fit.

What comes in: any Python text, or JSON-like values with such text inside. What goes out: the same without lone
surrogates, or parts of a bounded number of bytes. It does not know events, blocks or why a bound is what it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from operator import is_
from typing import Final, cast

from agentstream.events import Json

__all__ = ("clean", "clean_json", "pieces")

_LONGEST_CODE_POINT: Final = 4
# How many code points a cut may move back to keep marks on their letter. Text of nothing but marks is cut anyway.
_MOST_MARKS: Final = 16
_MARKS: Final = ("Mn", "Mc", "Me")  # Unicode's categories of them; variation selectors are among the first
_JOINER: Final = "\u200d"
_CR: Final = 0x0D
_LF: Final = 0x0A
_FIRST_NOT_ASCII: Final = 0x80


def clean(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD.

    Two halves of a pair that stand side by side (the parts of text cut between them) become the character they mean.
    Text without surrogates, which is nearly all, comes back as it is.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def clean_json(value: Json) -> Json:
    """`value` with `clean` done to each text in it: in dict keys and values, lists and tuples.

    What holds no lone surrogate comes back as it is, not as a copy; nothing is changed in place. Values of other types
    are left alone. Where two keys become equal the later value stays. Encoding first and cleaning only what
    `UnicodeEncodeError` refused is cheaper than cleaning everything.

    Raises:
        RecursionError: nested deeper than Python's stack, as JSON encoders raise on such values.
    """
    return _clean(value)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return _clean_dict(cast("dict[object, object]", value))
    if isinstance(value, list):
        items = cast("list[object]", value)
        cleaned = [_clean(item) for item in items]
        return items if _same(cleaned, items) else cleaned
    if isinstance(value, tuple):
        members = cast("tuple[object, ...]", value)
        cleaned = [_clean(item) for item in members]
        return members if _same(cleaned, members) else tuple(cleaned)
    return value


def _clean_dict(value: dict[object, object]) -> dict[object, object]:
    keys = [_clean(key) for key in value]
    items = [_clean(item) for item in value.values()]
    if _same(keys, value) and _same(items, value.values()):
        return value
    return dict(zip(keys, items, strict=True))


def _same(new: Iterable[object], old: Iterable[object]) -> bool:
    return all(map(is_, new, old))


def pieces(text: str, max_bytes: int) -> Iterator[str]:
    """Parts of `text`, in order, each of at most `max_bytes` bytes of UTF-8; joined they are `clean(text)`.

    Never inside a code point. Not between CR and LF, nor between a letter and its combining marks, where a part can
    be shorter instead. Empty text has no parts.

    Raises:
        ValueError: `max_bytes` is below 4, the longest code point.
    """
    if max_bytes < _LONGEST_CODE_POINT:
        raise ValueError("max_bytes must be 4 or more: a code point takes up to four bytes")
    return _pieces(clean(text), max_bytes)


def _pieces(text: str, max_bytes: int) -> Iterator[str]:
    encoded = text.encode()
    start = 0
    while len(encoded) - start > max_bytes:
        end = _cut(encoded, start, start + max_bytes)
        yield encoded[start:end].decode()
        start = end
    if start < len(encoded):
        yield encoded[start:].decode()


def _cut(encoded: bytes, start: int, end: int) -> int:
    """The best place to cut after `start`, at `end` or a little before; `end` lies inside `encoded`."""
    end = better = _boundary(encoded, end)
    for _ in range(_MOST_MARKS):
        if not _joins(encoded, better):
            return better
        better = _boundary(encoded, better - 1)
        if better <= start:
            break
    return end


def _boundary(encoded: bytes, at: int) -> int:
    """The start of the code point that the byte `at` belongs to."""
    while encoded[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _joins(encoded: bytes, at: int) -> bool:
    """Whether what begins at `at` belongs to what stands before: LF to CR, a mark or joiner to its letter."""
    if encoded[at] < _FIRST_NOT_ASCII:
        return encoded[at] == _LF and encoded[at - 1] == _CR
    character = encoded[at : at + _LONGEST_CODE_POINT].decode("utf-8", "ignore")[0]
    return character == _JOINER or unicodedata.category(character) in _MARKS
