"""Finds in a question what is asked: totals or shares, highest or lowest, how many, in which order of time.

What comes in: a question's words with what they name. What goes out: the marks of each kind of question, with their
places. It does not know how they fit together; that is the business of `rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, Literal, TypeVar

from . import words as w
from .conditions import Notes, Unclear
from .query import Aggregate, Unit
from .words import phrase

__all__ = ("Asked", "asked")

_FREQUENT: Final = frozenset(("often", "popular", "common", "frequent", "frequently"))
_RANKED: Final = frozenset(("rank", "ranked", "ranking", "descending", "ascending", "sort", "sorted"))
_RELATIVE: Final = frozenset(("last", "next", "this", "previous", "past", "coming"))
_UNFINISHED: Final = frozenset((("at", "least"), ("at", "most"), ("up", "to"), ("less", "than"), ("fewer", "than")))
_MOST_ASKED: Final = 200

_TIMES: Final[Mapping[tuple[str, ...], Unit | Literal["auto"]]] = {**w.UNITS, **dict.fromkeys(w.OVER_TIME, "auto")}

_Mark = TypeVar("_Mark")


@dataclass(slots=True)
class Asked:
    """The marks of a question. Places count words from 0; -1 where the mark is absent."""

    aggregates: dict[Aggregate, int] = field(default_factory=dict)  # → place behind the mark
    direction: Literal["", "high", "low"] = ""
    direction_at: int = -1
    limit: int | None = None
    unit: Unit | Literal["auto"] = ""
    unit_at: int = -1
    adjective: tuple[str, ...] = ()
    kinds: set[str] = field(default_factory=set)  # the keys of _KINDS
    asking: set[str] = field(default_factory=set)
    frequent: bool = False
    ranked: Literal["", "high", "low"] = ""
    row_noun: bool = False


_KINDS: Final[Mapping[str, Collection[str]]] = {
    "share": w.SHARE,
    "correlation": w.CORRELATION,
    "outliers": w.OUTLIERS,
    "describe": w.DESCRIBE,
    "quality": w.QUALITY,
    "change": w.CHANGE,
    "columns": w.COLUMNS,
    "compare": w.COMPARE,
}


def asked(notes: Notes) -> Asked:
    """Every mark in the words that are still free; takes them.

    Raises:
        Unclear: a word asks for what the rules cannot do, or no table knows it.
    """
    marks = Asked()
    _refuse(notes)
    for at, found, length in _places(notes, w.AGGREGATE_WORDS):
        marks.aggregates.setdefault(found, at + length)
        notes.take(at, at + length)
    _directions(notes, marks)
    for at, unit, length in _places(notes, _TIMES):
        if not marks.unit or marks.unit == "auto":
            marks.unit, marks.unit_at = unit, at
            notes.take(at, at + length)
    file = _file_words(notes)
    for at, word in enumerate(notes.words):
        if notes.taken[at] or word.quoted:
            continue
        marks.kinds |= {kind for kind, table in _KINDS.items() if word.lower in table}
        marks.asking |= {word.lower} & w.ASKING
        marks.frequent |= word.lower in _FREQUENT
        if word.lower in _RANKED:
            marks.ranked = "low" if word.lower == "ascending" or marks.ranked == "low" else "high"
        marks.row_noun |= word.stem in w.ROW_NOUNS or word.stem in file
    _refuse_unknown(notes)
    return marks


def _places(notes: Notes, table: Mapping[tuple[str, ...], _Mark]) -> list[tuple[int, _Mark, int]]:
    """Where a phrase of the table stands in free words: place, mark and length; the longest at each place."""
    phrases = tuple(table)
    found: list[tuple[int, _Mark, int]] = []
    for at in range(len(notes.words)):
        length = notes.find(at, phrases)
        if length and not any(notes.taken[at : at + length]):
            found.append((at, table[notes.lower(at, length)], length))
    return found


# --- highest, lowest, top five ----------------------------------------------------------------------------------------
def _directions(notes: Notes, marks: Asked) -> None:
    for at, word in enumerate(notes.words):
        if notes.taken[at] or word.quoted:
            continue
        high, low = word.lower in w.HIGH, word.lower in w.LOW
        if (high or low) and not marks.direction:
            marks.direction, marks.direction_at = ("high" if high else "low"), at
            marks.limit = _limit(notes, at)
            notes.take(at, at + 1)
        elif (high or low) and marks.limit is None:  # "top products with the most sales": one direction is meant
            marks.limit = _limit(notes, at)
            notes.take(at, at + 1)
        if word.lower in w.ADJECTIVES and not marks.adjective:
            marks.adjective = w.ADJECTIVES[word.lower]
            notes.take(at, at + 1)
            if word.lower == "cheap" and marks.direction:
                marks.direction = "low" if marks.direction == "high" else "high"

    if marks.direction and marks.limit is None:
        marks.limit = _limit_of_noun(notes)


def _limit(notes: Notes, at: int) -> int | None:
    """The number beside a superlative: "top 5", "five largest"; takes it."""
    return next((number for place in (at + 1, at - 1) if (number := _take_number(notes, place))), None)


def _limit_of_noun(notes: Notes) -> int | None:
    """The number before what is ranked: "which 3 products have …", "10 rows with the highest …"; takes it."""
    nouns = {mention.start for mention in notes.columns}
    nouns |= {at for at, word in enumerate(notes.words) if word.stem in w.ROW_NOUNS | _file_words(notes)}
    return next((number for noun in sorted(nouns) if (number := _take_number(notes, noun - 1))), None)


def _take_number(notes: Notes, place: int) -> int | None:
    if not 0 <= place < len(notes.words) or notes.taken[place]:
        return None
    text = notes.words[place].lower
    number = int(text) if text.isdigit() else w.SMALL_NUMBERS.get(text, 0)
    if number > _MOST_ASKED:
        raise Unclear(f"it asks for {number} of them, and at most {_MOST_ASKED} are listed")
    if number:
        notes.take(place, place + 1)
    return number or None


# --- what is not understood -------------------------------------------------------------------------------------------
def _refuse(notes: Notes) -> None:
    units = {said[0] for said in w.UNITS if len(said) == 1}
    for at, word in enumerate(notes.words):
        if notes.taken[at] or word.quoted:
            continue
        if word.lower in w.REFUSED:
            raise Unclear(f"it asks for {w.REFUSED[word.lower]} ({word.text!r}), which these rules cannot do")
        following = [said for said in notes.lower(at + 1, 2) if not (said.isdigit() or said in w.SMALL_NUMBERS)][:1]
        if word.lower in _RELATIVE and set(following) & units:
            raise Unclear(f"{word.text!r} depends on today's date: name the year, month or day")
        if notes.lower(at, 2) in _UNFINISHED:
            raise Unclear(f"'{' '.join(notes.lower(at, 2))}' needs a number behind it")


_KNOWN_ALONE: Final = frozenset(
    word
    for table in (*_KINDS.values(), w.ASKING, _FREQUENT, _RANKED, w.FILLERS, w.ADJECTIVES)
    for word in table
) | {word for said in (*w.GROUP_WORDS, *w.OVER_TIME, phrase("on the whole")) for word in said}  # fmt: skip


def _refuse_unknown(notes: Notes) -> None:
    file = _file_words(notes)
    unknown = [
        word.text
        for word, taken in zip(notes.words, notes.taken, strict=True)
        if not taken
        and (word.quoted or word.lower not in _KNOWN_ALONE)
        and not (word.stem in w.ROW_NOUNS or word.stem in file)
    ]
    if unknown:
        said = ", ".join(repr(word) for word in dict.fromkeys(unknown))
        raise Unclear(f"{said}: neither a column, nor a value in one, nor a word that these rules know")


def _file_words(notes: Notes) -> set[str]:
    """The stems of the file's name: of `employees.csv` a row is an employee."""
    return {part.stem for part in w.words_of(PurePath(notes.shape.file).stem)}
