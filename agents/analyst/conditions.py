"""Finds in a question which rows it is about: values, numbers and stretches of time.

What comes in: a question's words and what they name. What goes out: conditions, and which words they used. It does not
know what is asked of those rows; where it cannot tell which column a condition is about it raises `Unclear`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple

from . import words as w
from .matching import ColumnMention, ValueMention, is_identifier
from .query import Column, Condition, Shape, Test
from .words import Word, phrase

__all__ = ("Notes", "Unclear", "number_conditions", "time_conditions", "value_conditions")


class Unclear(Exception):
    """The rules cannot tell what is meant; the text is a sentence for people."""


class Notes:
    """A question's words with what is known of each: taken by something understood, or still free."""

    __slots__ = ("columns", "shape", "taken", "words")

    def __init__(self, words: Sequence[Word], shape: Shape, columns: Sequence[ColumnMention]) -> None:
        self.words = words
        self.shape = shape
        self.columns = list(columns)
        self.taken = [False] * len(words)
        for mention in columns:
            self.take(mention.start, mention.end)

    def take(self, start: int, end: int) -> None:
        """Words `start` to `end` (exclusive) are understood."""
        self.taken[start:end] = [True] * (end - start)

    def lower(self, start: int, length: int) -> tuple[str, ...]:
        """`length` words from `start`, in lower case; shorter at the end. Quoted ones stand for nothing."""
        return tuple("" if word.quoted else word.lower for word in self.words[start : start + length])

    def find(self, start: int, phrases: Sequence[tuple[str, ...]]) -> int:
        """Length of the longest of `phrases` that stands at `start`; 0 for none."""
        return max((len(said) for said in phrases if self.lower(start, len(said)) == said), default=0)


# --- values -----------------------------------------------------------------------------------------------------------
def value_conditions(notes: Notes, mentions: Sequence[ValueMention]) -> list[Condition]:
    """One condition for each column of which values are named; a column of yes and no is named by itself."""
    chosen: dict[tuple[str, bool], list[str]] = {}
    excluded_before: dict[str, int] = {}
    for mention in mentions:
        column = _column_of(notes, mention)
        # "not North or South": the exclusion goes on to the next value of the same column.
        goes_on = mention.start - excluded_before.get(column.name, -9) <= 2
        exclude = _take_exclusion(notes, mention.start, column) or goes_on
        if exclude:
            excluded_before[column.name] = mention.end
        chosen.setdefault((column.name, exclude), []).append(mention.value)
        notes.take(mention.start, mention.end)
    for named in notes.columns:
        truth = _truth(named.columns[0])
        if truth is not None and len(named.columns) == 1 and _is_adjective(notes, named):
            negated = _take_exclusion(notes, named.start, named.columns[0])
            chosen[named.columns[0].name, False] = [truth[negated]]
    return [
        Condition(column=name, test="not in" if exclude else "in", values=tuple(dict.fromkeys(values)))
        for (name, exclude), values in chosen.items()
    ]


def _take_exclusion(notes: Notes, start: int, column: Column) -> bool:
    """Whether "excluding", "not" … stands before word `start`; takes it. Small words and the column may be between."""
    at = start - 1
    while at >= 0 and (notes.words[at].lower in _SMALL or _names(notes, at, column)):
        at -= 1
    if at < 0 or notes.words[at].quoted or notes.words[at].lower not in w.EXCLUDE:
        return False
    notes.take(at, at + 1)
    return True


def _names(notes: Notes, at: int, column: Column) -> bool:
    return any(mention.start <= at < mention.end and column in mention.columns for mention in notes.columns)


_SMALL: Final = frozenset(("in", "the", "from", "for", "of", "a", "an", "been", "being", "any", "all"))


def _column_of(notes: Notes, mention: ValueMention) -> Column:
    if len(mention.columns) == 1:
        return mention.columns[0]
    near = [
        column
        for named in notes.columns
        for column in named.columns
        if column in mention.columns and min(abs(named.end - mention.start), abs(named.start - mention.end)) <= 2
    ]
    if near:
        return near[0]
    names = " and ".join(repr(column.name) for column in mention.columns)
    raise Unclear(f"{mention.value!r} is a value of {names}: name the column beside it")


def _truth(column: Column) -> tuple[str, str] | None:
    """How the column writes yes and no, None where it is not of that kind."""
    written = {value.lower(): value for value in column.values}
    yes, no = (next((written[word] for word in table if word in written), None) for table in (w.YES, w.NO))
    return (yes, no) if yes is not None and no is not None and len(written) == 2 else None


def _is_adjective(notes: Notes, mention: ColumnMention) -> bool:
    """Whether a yes-or-no column says which rows are meant ("were returned") and is not what to group by."""
    before = notes.lower(max(0, mention.start - 2), min(2, mention.start))
    grouped = {said[-1] for said in w.GROUP_WORDS} | w.ASKING
    return not grouped.intersection(before)


# --- numbers ----------------------------------------------------------------------------------------------------------
# `=` is no test of a query: it stands for both of its sides.
_COMPARISONS: Final[tuple[tuple[Test | Literal["="], str], ...]] = (
    (
        ">",
        "over|above|more than|greater than|higher than|larger than|bigger than|exceeding|exceeds|exceed|>|older than",
    ),
    (">=", "at least|no less than|not less than|>=|or more than|minimum of"),
    (
        "<",
        "under|below|less than|lower than|smaller than|fewer than|<|cheaper than|younger than|shorter than",
    ),
    ("<=", "at most|up to|no more than|not more than|<=|maximum of"),
    ("=", "equal to|equals|=|of exactly|exactly|is|of"),
)
_COMPARE: Final = {phrase(text): test for test, texts in _COMPARISONS for text in texts.split("|")}
_PLAIN: Final = frozenset(
    ("is", "are", "was", "were", "of", "a", "an", "the", "than", "be", "being", "that", "had", "has")
)
_NUMBER: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\d+,\d+")


def _number(word: Word) -> float | None:
    if not word.quoted and word.lower in w.SMALL_NUMBERS:
        return float(w.SMALL_NUMBERS[word.lower])
    if word.quoted or not _NUMBER.fullmatch(word.text):
        return None
    text = word.text
    return float(text.replace(",", "") if re.fullmatch(r"\d+(,\d{3})+(\.\d+)?", text) else text.replace(",", "."))


def number_conditions(notes: Notes) -> list[Condition]:
    """Comparisons of a column with numbers: "price over 100", "more than 5 units", "age between 20 and 30"."""
    found: list[Condition] = []
    at = 0
    while at < len(notes.words):
        length, tests, numbers = _comparison(notes, at)
        if not length or any(notes.taken[at : at + length]):
            at += 1
            continue
        if tests == ("=",) and _is_year(notes, at + length - 1):
            at += 1  # "revenue of 2023" is about the year
            continue
        mention = _compared(notes, at, at + length)
        if mention is None:
            if tests != ("=",) and not _is_year(notes, at + length - 1):  # "over 2023" may be a time
                said = " ".join(word.text for word in notes.words[at : at + length])
                raise Unclear(f"it is not clear which column {said!r} is about: name it just before")
            at += 1
            continue
        notes.columns.remove(mention)
        notes.take(at, at + length)
        sides = tuple(test for test in tests if test != "=") or (">=", "<=")
        values = numbers * 2 if tests == ("=",) else numbers
        name = mention.columns[0].name
        found += [Condition(column=name, test=test, values=(value,)) for test, value in zip(sides, values, strict=True)]
        at += length
    return found


def _comparison(notes: Notes, at: int) -> tuple[int, tuple[Test | Literal["="], ...], tuple[float, ...]]:
    """Length, tests and numbers of the comparison that begins at word `at`; length 0 for none."""
    words = notes.words
    if notes.lower(at, 1) == ("between",) and at + 3 < len(words) and words[at + 2].lower == "and":
        low, high = _number(words[at + 1]), _number(words[at + 3])
        if low is not None and high is not None:
            return 4, (">=", "<="), (low, high)
    length = notes.find(at, tuple(_COMPARE))
    if not length or at + length >= len(words):
        return 0, (), ()
    number = _number(words[at + length])
    if number is None:
        return 0, (), ()
    return length + 1, (_COMPARE[notes.lower(at, length)],), (number,)


def _compared(notes: Notes, start: int, end: int) -> ColumnMention | None:
    """The number column that stands just before a comparison, or just behind its number."""
    for mention in reversed(notes.columns):
        between = notes.words[mention.end : start]
        if mention.end <= start and len(between) <= 3 and all(_is_plain(word) for word in between):
            return mention if _is_number(mention) else None
    for mention in notes.columns:
        if mention.start == end and _is_number(mention):
            return mention
    return None


def _is_plain(word: Word) -> bool:
    return word.lower in _PLAIN


def _is_number(mention: ColumnMention) -> bool:
    return len(mention.columns) == 1 and mention.columns[0].kind == "number"


# --- time -------------------------------------------------------------------------------------------------------------
class _Moment(NamedTuple):
    """A stretch of time that `length` words name: from `start` to before `end`; or a month of every year."""

    length: int
    start: date | None = None
    end: date | None = None
    month: int = 0


_YEAR: Final = re.compile(r"1[5-9]\d\d|2\d\d\d")
_ISO: Final = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d))?")
_QUARTER: Final = re.compile(r"q([1-4])")
_ORDER: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": 4, "1": 1, "2": 2, "3": 3, "4": 4}
_FROM: Final = frozenset(("since", "from"))
_AFTER: Final = frozenset(("after",))
_BEFORE: Final = frozenset(("before",))
_UNTIL: Final = frozenset(("until", "till", "through", "to", "and"))
_PREPOSITIONS: Final = _FROM | _AFTER | _BEFORE | _UNTIL | {"during", "between", "in", "of", "for", "on"}


def _is_year(notes: Notes, at: int) -> bool:
    return _YEAR.fullmatch(notes.words[at].text) is not None


def time_conditions(notes: Notes) -> list[Condition]:
    """Stretches of time: "in 2023", "since March 2024", "between 2023-01-01 and 2023-06-30", "in May"."""
    found: list[Condition] = []
    months: list[int] = []
    opened = False  # by "from" or "between": then the next stretch may close it
    at = 0
    while at < len(notes.words):
        moment = None if notes.taken[at] or notes.words[at].quoted else _moment(notes, at)
        if moment is None:
            at += 1
            continue
        before = notes.lower(at - 1, 1) if at else ()
        if moment.month:
            if not before or before[0] not in {"in", "during", "of", "for", "every", "each", "and", "or"}:
                at += 1
                continue
            months.append(moment.month)
        else:
            if found and not opened:
                raise Unclear("it names several stretches of time: ask about one at a time, or by year or month")
            found += _stretch(notes, moment, before, closes=opened)
            opened = not opened and bool(before) and (before[0] in _FROM or before[0] == "between")
        notes.take(at - bool(before and before[0] in _PREPOSITIONS), at + moment.length)
        at += moment.length
    if months:
        found.append(Condition(column=_date_column(notes).name, test="month", values=tuple(map(float, months))))
    return found


def _stretch(notes: Notes, moment: _Moment, before: tuple[str, ...], *, closes: bool) -> list[Condition]:
    word = before[0] if before else ""
    whole_years = moment.start is not None and (moment.start.month, moment.start.day) == (1, 1) and moment.length == 1
    column = _date_column(notes, years=whole_years)
    assert moment.start is not None and moment.end is not None  # noqa: PT018  # only a bare month has none
    start: str | float = moment.start.isoformat()
    end: str | float = moment.end.isoformat()
    if column.kind == "number":  # a column of years
        start, end = float(moment.start.year), float(moment.end.year)
    first = Condition(column=column.name, test=">=", values=(start,))
    last = Condition(column=column.name, test="<", values=(end,))
    if closes and word in _UNTIL:
        return [last]
    if closes:
        raise Unclear("it is not clear how its stretches of time go together: say from when to when")
    if word in _FROM or word == "between":
        return [first]
    if word in _AFTER:
        return [Condition(column=column.name, test=">=", values=(end,))]
    if word in _BEFORE:
        return [Condition(column=column.name, test="<", values=(start,))]
    if word in _UNTIL - {"to", "and"}:
        return [last]
    return [first, last]


def _date_column(notes: Notes, *, years: bool = False) -> Column:
    named = [column for mention in notes.columns for column in mention.columns if column.kind == "date"]
    dates = named or [column for column in notes.shape.columns if column.kind == "date"]
    if len(set(dates)) == 1:
        return dates[0]
    if not dates and years:
        numbers = [c for c in notes.shape.columns if c.kind == "number" and "year" in w.stems(c.name)]
        if len(numbers) == 1 and not is_identifier(numbers[0]):
            return numbers[0]
    if not dates:
        raise Unclear("it is about a time, and the file has no column of dates")
    raise Unclear(f"it is about a time: name one of the columns {', '.join(repr(column.name) for column in dates)}")


def _moment(notes: Notes, at: int) -> _Moment | None:
    words = notes.words
    text = words[at].lower
    if match := _ISO.fullmatch(text):
        return _iso(match)
    if _YEAR.fullmatch(text):
        return _years(int(text), 1)
    if match := _QUARTER.fullmatch(text):
        year_at = at + 1 + (notes.lower(at + 1, 1) == ("of",))
        return _quarter(int(match[1]), notes, at, year_at)
    if text in _ORDER and notes.lower(at + 1, 1) == ("quarter",):
        skipped = sum(word in {"of", "in"} for word in notes.lower(at + 2, 1))
        return _quarter(_ORDER[text], notes, at, at + 2 + skipped)
    if text in w.MONTHS:
        return _month(w.MONTHS[text], notes, at)
    if text.isdigit() and 1 <= int(text) <= 31 and notes.lower(at + 1, 1) and notes.lower(at + 1, 1)[0] in w.MONTHS:
        month = _month(w.MONTHS[notes.lower(at + 1, 1)[0]], notes, at + 1)
        return _day(month, int(text)) if month.start is not None else None
    return None


def _iso(match: re.Match[str]) -> _Moment:
    year, month = int(match[1]), int(match[2])
    try:
        if match[3] is not None:
            day = date(year, month, int(match[3]))
            return _Moment(1, day, day + timedelta(days=1))
        return _Moment(1, date(year, month, 1), _after_months(year, month, 1))
    except ValueError:
        raise Unclear(f"{match[0]} is no date") from None


def _years(year: int, length: int) -> _Moment:
    return _Moment(length, date(year, 1, 1), date(year + 1, 1, 1))


def _quarter(quarter: int, notes: Notes, at: int, year_at: int) -> _Moment | None:
    if year_at >= len(notes.words) or not _is_year(notes, year_at):
        raise Unclear(f"quarter {quarter} of which year? Say, for instance, Q{quarter} 2023")
    year, month = int(notes.words[year_at].text), 3 * quarter - 2
    return _Moment(year_at + 1 - at, date(year, month, 1), _after_months(year, month, 3))


def _month(month: int, notes: Notes, at: int) -> _Moment:
    following = [word.lower for word in notes.words[at + 1 : at + 3]]
    if following and _YEAR.fullmatch(following[0]):
        year = int(following[0])
        return _Moment(2, date(year, month, 1), _after_months(year, month, 1))
    if len(following) == 2 and following[0].isdigit() and _YEAR.fullmatch(following[1]):
        year = int(following[1])
        day = _day(_Moment(2, date(year, month, 1)), int(following[0]))
        return day._replace(length=3)
    if len(following) == 2 and following[0] == "of" and _YEAR.fullmatch(following[1]):
        year = int(following[1])
        return _Moment(3, date(year, month, 1), _after_months(year, month, 1))
    return _Moment(1, month=month)


def _day(month: _Moment, day: int) -> _Moment:
    assert month.start is not None
    try:
        start = month.start.replace(day=day)
    except ValueError:
        raise Unclear(f"there is no day {day} in that month") from None
    return _Moment(month.length + 1, start, start + timedelta(days=1))


def _after_months(year: int, month: int, months: int) -> date:
    place = month - 1 + months
    return date(year + place // 12, place % 12 + 1, 1)
