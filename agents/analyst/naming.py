"""What the columns in a question are there for: to be measured, to group by, or to say what a row is.

What comes in: a question's words with the columns that they name, and the marks of what is asked. What goes out: the
measured columns and the keys; where a column could be several things, `Unclear`. It does not know which kind of
question it is: that is the business of `rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from . import words as w
from .asked import Asked
from .conditions import Notes, Unclear
from .matching import ColumnMention, is_identifier, topic
from .query import Column, Condition, Group, Shape, Unit

__all__ = ("Naming", "additive", "listed")

_FEW: Final = 60  # different whole numbers that may be keys to group by, such as a rating or a year
_NAMED: Final = 150  # the score of a mention that says the column's own name
_ASKING: Final = frozenset((word,) for word in w.ASKING)
_WITH: Final = frozenset((word,) for word in ("with", "having", "has", "that", "whose", "who"))
_AMOUNTS: Final = frozenset(("most", "more", "fewest", "fewer", "least", "less"))
_BESIDE: Final = frozenset((*w.SMALL_NUMBERS, *w.ADJECTIVES, *w.HIGH, *w.LOW, "popular", "common", "frequent"))
_BEFORE_KEYS: Final = frozenset(("the", "different", "individual", "single", "our", "of", "all", "a", *w.SMALL_NUMBERS))


@dataclass(slots=True)
class Naming:
    """The columns of one question; every one that it names must find its use."""

    notes: Notes
    marks: Asked
    where: list[Condition]

    @property
    def shape(self) -> Shape:
        """What the file is like."""
        return self.notes.shape

    def _mentions(self) -> tuple[list[ColumnMention], list[Group]]:
        """Columns that are measured, and keys to group by."""
        in_where = {condition.column for condition in self.where}
        measured: list[ColumnMention] = []
        groups: list[Group] = []
        for mention in self.notes.columns:
            if self._is_key(mention):
                groups.append(self._key(mention))
            elif not (len(mention.columns) == 1 and mention.columns[0].name in in_where):
                measured.append(mention)
        if len(measured) > 1:  # "the median rating for returned orders": orders are what the rows are
            measured = [mention for mention in measured if not self._names_rows(mention)]
        unit = self._unit()
        if unit is not None and all(group.column != unit.column for group in groups):
            groups.append(unit)
        elif unit is not None:
            groups = [unit if group.column == unit.column else group for group in groups]
        groups = list(dict.fromkeys(groups))
        groups.sort(key=lambda group: not group.unit)  # time first
        if len(groups) > 2:
            raise Unclear("it groups by more than two columns: two at most work here")
        return measured, groups

    def _names_rows(self, mention: ColumnMention) -> bool:
        """Whether it names what a row is: a column that is different in every row."""
        different = all(column.distinct == self.shape.rows for column in mention.columns)
        return different and self._is_counted(mention)

    def _is_key(self, mention: ColumnMention) -> bool:
        kinds = {column.kind for column in mention.columns if not self._many(column)}
        if not kinds:
            return False
        before = self._before(mention)
        grouped = any(said == before[-len(said) :] for said in w.GROUP_WORDS) or before[-1:] in _ASKING
        if kinds & {"text", "date"}:
            return grouped or self._beside_direction(mention) or self._compares(mention) or self._joins_key(mention)
        if mention.score < _NAMED and any(additive(column) for column in mention.columns):
            return False  # "revenue per unit" asks for a ratio, not for groups of equal quantity
        others = [m for m in self.notes.columns if m is not mention and self._is_measure(m)]
        return grouped and ("count" in self.marks.aggregates or bool(others))

    def _joins_key(self, mention: ColumnMention) -> bool:
        """Whether it stands as the second of two keys: "by region and channel"."""
        if mention.start < 2 or self.notes.lower(mention.start - 1, 1) != ("and",):
            return False
        after_unit = self.marks.unit_at >= 0 and self.notes.lower(mention.start - 2, 1) in w.UNITS
        return after_unit or any(other.end == mention.start - 1 and self._is_key(other) for other in self.notes.columns)

    def _many(self, column: Column) -> bool:
        """Whether a number column has too many values, or fractions, to be a key."""
        return column.kind == "empty" or (
            column.kind == "number" and not is_identifier(column) and (not column.whole or column.distinct > _FEW)
        )

    def _is_measure(self, mention: ColumnMention) -> bool:
        return any(column.kind == "number" and not is_identifier(column) for column in mention.columns)

    def _before(self, mention: ColumnMention) -> tuple[str, ...]:
        """The words before a mention, small ones between left out."""
        said = [word.lower for word in self.notes.words[max(0, mention.start - 5) : mention.start]]
        while len(said) > 1 and (said[-1] in _BEFORE_KEYS or said[-1].isdigit()):
            said.pop()
        return tuple(said)

    def _beside_direction(self, mention: ColumnMention) -> bool:
        """Whether it is what is ranked: "top 5 products", "the best region", "the customer with the most orders"."""
        at = self.marks.direction_at
        if at < 0 or "count" in self.marks.aggregates:
            return False
        if mention.end <= at:
            return self.notes.lower(mention.end, 1) in _WITH
        between = self.notes.words[at + 1 : mention.start]
        if not between and self.notes.words[at].lower in _AMOUNTS:
            return False  # "the most orders": they are counted
        if any(other.end <= at and self._is_key_column(other) for other in self.notes.columns) or (
            "which" in self.marks.asking and self.marks.unit
        ):
            return False
        return all(word.lower.isdigit() or word.lower in _BESIDE for word in between)

    def _is_key_column(self, mention: ColumnMention) -> bool:
        return any(column.kind in {"text", "date"} or is_identifier(column) for column in mention.columns)

    def _compares(self, mention: ColumnMention) -> bool:
        names = {column.name for column in mention.columns}
        return "compare" in self.marks.kinds and any(
            condition.column in names and len(condition.values) > 1 for condition in self.where
        )

    def _key(self, mention: ColumnMention) -> Group:
        columns = [column for column in mention.columns if not self._many(column)]
        plain = [column for column in columns if not is_identifier(column)] or columns
        column = plain[0]
        if len({topic(one) for one in plain}) > 1:
            raise Unclear(_ambiguous(self.notes, mention, plain))
        if column.kind != "date":
            return Group(column=column.name)
        return Group(column=column.name, unit=self._calendar_unit(column) if self.marks.unit else "day")

    def _unit(self) -> Group | None:
        if not self.marks.unit:
            return None
        dates = [column for column in self.shape.columns if column.kind == "date"]
        named = [column for m in self.notes.columns for column in m.columns if column.kind == "date"] or dates
        if len(named) != 1:
            raise Unclear(
                f"it asks by time: name one of the columns {listed(dates)}" if dates else "the file has no dates"
            )
        return Group(column=named[0].name, unit=self._calendar_unit(named[0]))

    def _calendar_unit(self, column: Column) -> Unit:
        if self.marks.unit != "auto":
            return self.marks.unit
        first, last = (datetime.fromisoformat(str(edge)) for edge in (column.minimum, column.maximum))
        days = (last - first).days
        return "day" if days <= 62 else "month" if days <= 5 * 366 else "year"

    def _measure(self, mentions: Sequence[ColumnMention]) -> Column | None:
        """The one number column that is asked about; None where none is named.

        Raises:
            Unclear: several are, or one that is no number.
        """
        if self.marks.adjective and all(self._is_counted(mention) for mention in mentions):
            return self._adjective()
        if not mentions:
            return None
        if len(mentions) > 1:
            said = " and ".join(repr(mention.columns[0].name) for mention in mentions)
            raise Unclear(f"it is not clear how {said} go together: ask for one at a time, or say by which to group")
        numbers = [column for column in mentions[0].columns if column.kind == "number"]
        if not numbers:
            name = mentions[0].columns[0].name
            raise Unclear(f"{name!r} holds no numbers: it can be counted, or be what to group by")
        if len(numbers) > 1:
            raise Unclear(_ambiguous(self.notes, mentions[0], numbers))
        return numbers[0]

    def _adjective(self) -> Column:
        for about in self.marks.adjective:
            for column in self.shape.columns:
                if column.kind == "number" and topic(column)[-1] == about:
                    return column
        raise Unclear(f"the file has no column of numbers about {' or '.join(self.marks.adjective)}")

    def _only_measure(self) -> Column:
        """The file's one column of amounts, where the question names none."""
        numbers = [c for c in self.shape.columns if c.kind == "number" and not is_identifier(c)]
        amounts = [column for column in numbers if additive(column)]
        if len(amounts) == 1:
            return amounts[0]
        raise Unclear(f"it does not say of what: name one of the columns {listed(numbers)}")

    def _is_counted(self, mention: ColumnMention) -> bool:
        """Whether it names what a row is ("share of orders"), so that rows are counted."""
        return all(is_identifier(column) or column.kind == "text" for column in mention.columns)

    def _column(self, group: Group) -> Column:
        return self.shape.column(group.column)


def additive(column: Column) -> bool:
    """Whether adding the column's numbers up means something, as far as its name tells."""
    return not is_identifier(column) and not w.NOT_ADDITIVE.intersection(w.stems(column.name))


def listed(columns: Sequence[Column]) -> str:
    """The names, for a sentence."""
    return ", ".join(repr(column.name) for column in columns)


def _ambiguous(notes: Notes, mention: ColumnMention, columns: Sequence[Column]) -> str:
    said = " ".join(word.text for word in notes.words[mention.start : mention.end])
    return f"{said!r} could be any of the columns {listed(columns)}: name one of them"
