"""Finds in a question the columns that it names, and the values of columns.

What comes in: the words of a question and a `Shape`. What goes out: mentions: from which word to which, what they
name, and every candidate where they name several alike. It does not know what is asked, and leaves choosing to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from . import words as w
from .query import Column, Shape
from .words import Word

__all__ = ("ColumnMention", "ValueMention", "find_columns", "find_values", "is_identifier", "topic")

_LONGEST_NAME: Final = 5  # words
_MEASURE: Final = re.compile(r"\s*[(\[]|[\s_]in[\s_]|[\s_]in$", re.IGNORECASE)
_EXACT: Final = 150  # from this score on a name may consist of a word that usually means something else


@dataclass(frozen=True, slots=True)
class ColumnMention:
    """Words `start` to `end` (exclusive) name one of `columns`, all equally well."""

    start: int
    end: int
    columns: tuple[Column, ...]
    score: int


@dataclass(frozen=True, slots=True)
class ValueMention:
    """Words `start` to `end` (exclusive) are `value`; `columns` hold it."""

    start: int
    end: int
    value: str
    columns: tuple[Column, ...]


def topic(column: Column) -> tuple[str, ...]:
    """What a column is about: the stems of its name without endings such as `id`, `name`, `usd`."""
    # "amount in EUR", "income (k$)": the measure is no part of the topic.
    parts = list(w.stems(_MEASURE.split(column.name)[0]) or w.stems(column.name))
    while len(parts) > 1 and (parts[-1] in w.TAILS or parts[-1] in w.MEASURES or parts[-1].isdigit()):
        parts.pop()
    return tuple(parts)


def is_identifier(column: Column) -> bool:
    """Whether the column numbers or codes things, so that its numbers are not amounts."""
    parts = w.stems(column.name)
    return bool(parts) and parts[-1] in w.IDENTIFIERS


# --- columns ----------------------------------------------------------------------------------------------------------
def find_columns(words: Sequence[Word], shape: Shape) -> list[ColumnMention]:
    """The columns that the words name, the best names first taken, in the order of the words."""
    names = [(column, w.stems(column.name), topic(column)) for column in shape.columns]
    found: list[ColumnMention] = []
    for start in range(len(words)):
        for end in range(start + 1, min(len(words), start + _LONGEST_NAME) + 1):
            part = words[start:end]
            scores = [(_score(part, column, name, about), column) for column, name, about in names]
            best = max(score for score, _ in scores)
            if best >= (_EXACT if end - start == 1 and _means_else(part[0]) else 1):
                columns = tuple(column for score, column in scores if score == best)
                found.append(ColumnMention(start, end, columns, best))
    return _without_overlaps(found, lambda mention: (mention.score, mention.end - mention.start))


def _score(part: Sequence[Word], column: Column, name: tuple[str, ...], about: tuple[str, ...]) -> int:
    if any(word.quoted for word in part):
        same = len(part) == 1 and part[0].lower == column.name.casefold()
        return 300 if same else 0
    said = tuple(word.stem for word in part)
    if said == name:
        return 200 + len(said)
    if "".join(said) == "".join(name):
        return 190
    if said == about:
        return _EXACT + len(said)
    if len(said) == len(about) and all(a == b or w.same_meaning(a, b) for a, b in zip(said, about, strict=True)):
        return 120
    if said == about[-len(said) :] or said == name[-len(said) :]:
        return 100 + len(said) if said[0] not in w.TAILS else 0
    if len(said) == 1 and w.same_meaning(said[0], about[-1]):
        return 90
    return 0


def _means_else(word: Word) -> bool:
    """Whether the rules know the word as one that asks, so that only a column of just this name may claim it."""
    single = (word.lower,)
    return (
        word.lower in w.FILLERS
        or single in w.AGGREGATE_WORDS
        or single in w.UNITS
        or single in w.GROUP_WORDS
        or word.stem in w.ROW_NOUNS - {"sale"}
        or any(word.lower in table for table in _ASKING_TABLES)
    )


_ASKING_TABLES: Final = (
    w.HIGH, w.LOW, w.SHARE, w.CORRELATION, w.OUTLIERS, w.DESCRIBE, w.QUALITY, w.CHANGE, w.COMPARE, w.EXCLUDE, w.ASKING,
    w.REFUSED, w.MONTHS, w.SMALL_NUMBERS, w.ADJECTIVES, w.YES, w.NO,
)  # fmt: skip


# --- values -----------------------------------------------------------------------------------------------------------
def find_values(words: Sequence[Word], shape: Shape, taken: Sequence[bool]) -> list[ValueMention]:
    """The values of text columns that stand in the words that are not `taken`, longest first taken."""
    holders: dict[tuple[str, ...], dict[str, list[Column]]] = {}
    for column in shape.columns:
        for value in column.values:
            key = tuple(word.lower for word in w.words_of(value.replace('"', "").replace("'", ""))) or (value,)
            holders.setdefault(key, {}).setdefault(value, []).append(column)
            singular = (*key[:-1], w.stem(key[-1]))
            if singular != key:
                holders.setdefault(singular, {}).setdefault(value, []).append(column)
    longest = max((len(key) for key in holders), default=0)
    found: list[ValueMention] = []
    for start in range(len(words)):
        for end in range(start + 1, min(len(words), start + longest) + 1):
            if any(taken[start:end]) or not _may_be_value(words, start, end):
                continue
            for value, columns in _held(words[start:end], holders).items():
                found.append(ValueMention(start, end, value, tuple(columns)))
                break
    return _without_overlaps(found, lambda mention: (mention.end - mention.start, 0))


def _held(part: Sequence[Word], holders: dict[tuple[str, ...], dict[str, list[Column]]]) -> dict[str, list[Column]]:
    if part[0].quoted:
        key = tuple(word.lower for word in w.words_of(part[0].text)) if len(part) == 1 else ()
        return holders.get(key, {})
    said = tuple(word.lower for word in part)
    return holders.get(said) or holders.get((*said[:-1], part[-1].stem)) or {}


def _may_be_value(words: Sequence[Word], start: int, end: int) -> bool:
    """A single word that also asks for something is a value only where it is written as a name: `May`, `A`."""
    word = words[start]
    if end - start > 1 or word.quoted or not (_means_else(word) or len(word.text) == 1):
        return True
    return start > 0 and word.text[0].isupper() and word.lower not in w.MONTHS


# --- both -------------------------------------------------------------------------------------------------------------
_M = TypeVar("_M", ColumnMention, ValueMention)


def _without_overlaps(found: Iterable[_M], rank: Callable[[_M], tuple[int, int]]) -> list[_M]:
    """Of mentions that share words only the best ranked, the later one of two alike left out."""
    kept: list[_M] = []
    for mention in sorted(found, key=lambda mention: (rank(mention), -mention.start), reverse=True):
        if all(mention.end <= other.start or other.end <= mention.start for other in kept):
            kept.append(mention)
    return sorted(kept, key=lambda mention: mention.start)
