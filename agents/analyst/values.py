"""Reads what stands in a cell: missing values, numbers, dates.

What comes in: the text of cells. What goes out: floats, datetimes, and the notation that a whole column is written in.
It does not know files, columns' names or pandas: the verifier counts on this being a second way to the same values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

__all__ = (
    "MISSING",
    "DateStyle",
    "NumberStyle",
    "date_style",
    "is_missing",
    "number_style",
    "read_date",
    "read_number",
)

MISSING: Final = ("", "#N/A", "<NA>", "N/A", "NULL", "NaN", "n/a", "nan", "null")
"""Texts that stand for no value. `NA` is not among them: it is Namibia, and North America."""

# In a column of numbers these stand for no value too; in a column of text they are words like others.
_MISSING_NUMBERS: Final = frozenset((*MISSING, "-", "--", "NA", "None", "none", "?", "."))
_MISSING: Final = frozenset(MISSING)

READABLE: Final = 0.98
"""Share of a column's values that must read as numbers (or dates) before it counts as one of them."""

_DECORATION: Final = re.compile(r"[$€£¥%\s\u00a0\u202f']|\b(?:EUR|USD|GBP|CHF|JPY)\b")
_POINT: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_POINT_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_COMMA: Final = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?", re.ASCII)
# A comma that can only be a decimal mark, and the code that would be broken by reading it as a number.
_SURELY_COMMA: Final = re.compile(r"[+-]?\d+(?:\.\d{3})*,(?:\d{1,2}|\d{4,})", re.ASCII)
_CODE: Final = re.compile(r"0\d+", re.ASCII)

_ISO_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?", re.ASCII)
_ISO_TIME_CHARS: Final = 19

# Unambiguous ones first. Month before day where both fit a whole column: the note `ambiguous` says so.
_FORMATS: Final = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d-%m-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%Y-%m",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d.%m.%y",
)
_TWINS: Final = {
    month_first: month_first.replace("%m/%d", "%d/%m") for month_first in _FORMATS if month_first.startswith("%m/%d")
}


class NumberStyle(NamedTuple):
    """How a column writes numbers; `unreadable` counts the values that are not."""

    decimal: Literal[".", ","]
    decorated: bool
    unreadable: int


class DateStyle(NamedTuple):
    """How a column writes dates: a `strptime` format for the first `chars` characters."""

    format: str
    chars: int | None
    ambiguous: bool
    unreadable: int


def is_missing(text: str, *, number: bool = False) -> bool:
    """Whether the stripped text stands for no value."""
    return text in (_MISSING_NUMBERS if number else _MISSING)


# --- numbers ----------------------------------------------------------------------------------------------------------
def read_number(text: str, decimal: str) -> float | None:
    """The number that `text` writes with this decimal mark, None where it is none."""
    if decimal == "." and _POINT.fullmatch(text):
        return float(text)
    bare = _DECORATION.sub("", text)
    if decimal == ",":
        return float(bare.replace(".", "").replace(",", ".")) if _COMMA.fullmatch(bare) else None
    if _POINT.fullmatch(bare):
        return float(bare)
    return float(bare.replace(",", "")) if _POINT_GROUPED.fullmatch(bare) else None


def surely_comma(values: Iterable[str]) -> bool:
    """Whether some value can only be read with a decimal comma."""
    return any(_SURELY_COMMA.fullmatch(_DECORATION.sub("", text)) for text in values)


def number_style(values: Sequence[str], prefer: Literal[".", ","]) -> NumberStyle | None:
    """How these values write numbers, None where fewer than 98 % of them are numbers.

    Args:
        values: not missing, stripped.
        prefer: the decimal mark of the file's other columns, for values such as `1.234` that read both ways.
    """
    if not values or any(_CODE.fullmatch(text) for text in values):
        return None  # leading zeros: a code (post code, telephone number), whatever its digits
    for decimal in dict.fromkeys((prefer, ".", ",")):
        unreadable = sum(read_number(text, decimal) is None for text in values)
        if unreadable <= (1 - READABLE) * len(values):
            plain = decimal == "." and all(_POINT.fullmatch(text) for text in values)
            return NumberStyle(decimal, not plain, unreadable)
    return None


# --- dates ------------------------------------------------------------------------------------------------------------
def read_date(text: str, format: str, chars: int | None) -> datetime | None:
    """The moment that `text` writes, as it stands there: an offset from UTC is left out."""
    try:
        return datetime.strptime(text[:chars], format)  # noqa: DTZ007  # columns mostly have no zone; wall time is meant
    except ValueError:
        return None


def date_style(values: Sequence[str]) -> DateStyle | None:
    """How these values write dates, None where fewer than 98 % of them are dates in one notation."""
    # Most columns are no dates: a few values tell that, before all of them are read in two dozen notations.
    probe = values[:: max(1, len(values) // 50)][:60]
    if not any(character.isdigit() for text in probe[:3] for character in text):
        return None
    if sum(_ISO_TIME.fullmatch(text) is not None for text in values) >= READABLE * len(values):
        separator = "T" if sum("T" in text for text in values) * 2 > len(values) else " "
        return _fits(values, f"%Y-%m-%d{separator}%H:%M:%S", _ISO_TIME_CHARS)
    for known in _FORMATS:
        if _fits(probe, known, None) is None:
            continue
        if (style := _fits(values, known, None)) is not None:
            twin = _TWINS.get(known)
            return style._replace(ambiguous=twin is not None and _fits(values, twin, None) is not None)
    return None


def _fits(values: Sequence[str], format: str, chars: int | None) -> DateStyle | None:
    known: dict[str, bool] = {}
    unreadable = 0
    for text in values:
        if (readable := known.get(text)) is None:
            readable = known[text] = read_date(text, format, chars) is not None
        unreadable += not readable
    return DateStyle(format, chars, False, unreadable) if unreadable <= (1 - READABLE) * len(values) else None
