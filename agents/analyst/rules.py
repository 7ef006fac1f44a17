"""Turns a question in English into queries, by rules.

What comes in: a question and the `Shape` of the data. What goes out: one to four queries, or `Unclear` with the reason;
every word of the question was understood then, so no part of it is answered by leaving it out. It does not know code
or values beyond those that the shape lists, and it is no language model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from . import words as w
from .asked import Asked, asked
from .conditions import Notes, Unclear, number_conditions, time_conditions, value_conditions
from .matching import ColumnMention, find_columns, find_values, is_identifier, topic
from .query import Aggregate, Column, Condition, Group, Order, Query, Shape, Unit

__all__ = ("Unclear", "queries_of")

_MOST_PARTS: Final = 4
_PARTS: Final = re.compile(r"[?!;]\s+|\.\s+|,?\s+and\s+(?:also\s+)?|,\s+(?=what|which|how)", re.IGNORECASE)
_ORDERED: Final = re.compile(r"\b(?:in )?(descending|ascending) order\b", re.IGNORECASE)
_LISTED: Final = 10
_FEW: Final = 60  # different whole numbers that may be keys to group by, such as a rating or a year


def queries_of(question: str, shape: Shape) -> list[Query]:
    """What the question asks; several where it asks several things.

    Raises:
        Unclear: it cannot be answered by these rules, with a sentence that says why.
    """
    try:
        return _one(question, shape)
    except Unclear as unclear:
        parts = [part for part in _PARTS.split(question.strip()) if part.strip(" ?.!,")]
        if not 1 < len(parts) <= _MOST_PARTS:
            raise
        try:
            found = [query for part in parts for query in _one(part, shape, whole=False)]
        except Unclear:
            raise unclear from None
    # "average price and total quantity by region in 2023": what stands only at the end holds for all.
    shared: dict[str, object] = {}
    if not any(query.groups for query in found[:-1]):
        shared |= {"groups": found[-1].groups, "order": found[-1].order}
    if not any(query.where for query in found[:-1]):
        shared |= {"where": found[-1].where}
    return [query.model_copy(update=shared) if query.kind == "aggregate" else query for query in found[:_MOST_PARTS]]


def _one(question: str, shape: Shape, *, whole: bool = True) -> list[Query]:
    words = w.words_of(_ORDERED.sub(r" \1 ", question))
    notes = Notes(words, shape, find_columns(words, shape))
    values = find_values(words, shape, notes.taken)
    where = [*number_conditions(notes), *value_conditions(notes, values), *time_conditions(notes)]
    marks = asked(notes)
    if not whole and not (marks.aggregates or marks.direction or marks.kinds):
        raise Unclear("a part of it asks for nothing by itself")
    return _Assembly(notes, marks, where).queries()


@dataclass(slots=True)
class _Assembly:
    """Puts the parts of one question together; every column that it names must find its use."""

    notes: Notes
    marks: Asked
    where: list[Condition]

    def queries(self) -> list[Query]:
        kinds = self.marks.kinds
        for kind, assemble in (
            ("correlation", self._correlation),
            ("outliers", self._outliers),
            ("quality", self._quality),
            ("share", self._share),
            ("change", self._change),
        ):
            if kind in kinds:
                return [assemble()]
        if "columns" in kinds and not self.notes.columns:
            return [Query(kind="describe", where=tuple(self.where))]
        if "describe" in kinds and not self.marks.aggregates and not self.marks.direction:
            return self._describe()
        return self._aggregates()

    # --- what is named ------------------------------------------------------------------------------------------------
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

    def _is_key(self, mention: ColumnMention) -> bool:
        kinds = {column.kind for column in mention.columns if not self._many(column)}
        if not kinds:
            return False
        before = self._before(mention)
        grouped = any(said == before[-len(said) :] for said in w.GROUP_WORDS) or before[-1:] in _ASKING
        if kinds & {"text", "date"}:
            return grouped or self._beside_direction(mention) or self._compares(mention) or self._joins_key(mention)
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
        dates = [column for column in self.notes.shape.columns if column.kind == "date"]
        named = [column for m in self.notes.columns for column in m.columns if column.kind == "date"] or dates
        if len(named) != 1:
            raise Unclear(
                f"it asks by time: name one of the columns {_listed(dates)}" if dates else "the file has no dates"
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
            for column in self.notes.shape.columns:
                if column.kind == "number" and topic(column)[-1] == about:
                    return column
        raise Unclear(f"the file has no column of numbers about {' or '.join(self.marks.adjective)}")

    def _only_measure(self) -> Column:
        """The file's one column of amounts, where the question names none."""
        numbers = [c for c in self.notes.shape.columns if c.kind == "number" and not is_identifier(c)]
        amounts = [column for column in numbers if _additive(column)]
        if len(amounts) == 1:
            return amounts[0]
        raise Unclear(f"it does not say of what: name one of the columns {_listed(numbers)}")

    # --- kinds of questions -------------------------------------------------------------------------------------------
    def _correlation(self) -> Query:
        numbers = [mention for mention in self.notes.columns if self._is_measure(mention)]
        if len(numbers) != 2 or len(self.notes.columns) != 2:
            raise Unclear("a correlation needs exactly two columns of numbers: name both")
        first, second = (self._measure([mention]) for mention in numbers)
        assert first is not None and second is not None  # noqa: PT018  # `_measure` of a mention is a column
        return Query(kind="correlation", column=first.name, other=second.name, where=tuple(self.where))

    def _outliers(self) -> Query:
        measured, groups = self._mentions()
        if groups:
            raise Unclear("outliers are looked for in a whole column, not by group")
        column = self._measure(measured) or self._only_measure()
        return Query(kind="outliers", column=column.name, where=tuple(self.where))

    def _quality(self) -> Query:
        if self.where:
            raise Unclear("missing values are counted in the whole file only")
        named = [column.name for mention in self.notes.columns for column in mention.columns]
        return Query(kind="quality", columns=tuple(named), where=tuple(self.where))

    def _describe(self) -> list[Query]:
        measured, groups = self._mentions()
        if groups:
            return self._aggregates()
        if len(measured) == 1 and all(column.kind != "number" for column in measured[0].columns):
            return [self._grouped("count", "", [self._key(measured[0])])]
        column = self._measure(measured)
        return [Query(kind="describe", column=column.name if column else "", where=tuple(self.where))]

    def _share(self) -> Query:
        measured, groups = self._mentions()
        measured = [mention for mention in measured if not self._is_counted(mention)]
        column = self._measure(measured)
        focus, where = "", list(self.where)
        if not groups:
            named = [c for c in where if c.test == "in" and len(c.values) == 1]
            if len(named) != 1:
                raise Unclear("a share of what? Say by which column, or name one value")
            where.remove(named[0])
            focus, groups = str(named[0].values[0]), [Group(column=named[0].column)]
        if len(groups) != 1:
            raise Unclear("a share is possible by one column only")
        order: Order = self.marks.direction or ("key" if groups[0].unit else "high")
        limit = self.marks.limit or (1 if self.marks.direction else None)
        aggregate: Aggregate = "sum" if column else "count"
        return Query(
            kind="share", aggregate=aggregate, column=column.name if column else "", groups=tuple(groups),
            where=tuple(where), order=order, limit=limit, focus=focus,
        )  # fmt: skip

    def _is_counted(self, mention: ColumnMention) -> bool:
        """Whether it names what a row is ("share of orders"), so that rows are counted."""
        return all(is_identifier(column) or column.kind == "text" for column in mention.columns)

    def _change(self) -> Query:
        if not self.marks.unit:
            self.marks.unit = "auto"
        measured, groups = self._mentions()
        if len(groups) != 1 or not groups[0].unit:
            raise Unclear("a change is shown over time only, without further groups")
        column = self._measure(measured) or self._only_measure()
        aggregates = tuple(self.marks.aggregates) or ("sum" if _additive(column) else "mean",)
        return Query(
            kind="change", aggregate=aggregates[0], column=column.name, groups=tuple(groups), where=tuple(self.where)
        )

    # --- aggregates ---------------------------------------------------------------------------------------------------
    def _aggregates(self) -> list[Query]:
        measured, groups = self._mentions()
        if self.marks.direction and not self.marks.aggregates and (edge := self._edge_of_time()):
            return [edge]
        groups = groups or [Group(column=c.column) for c in self.where if self._sets_side_by_side(c)][:1]
        counted = bool(measured) and all(self._is_counted(mention) for mention in measured)
        if self.marks.frequent and counted and not groups:
            measured, groups = [], [self._key(measured[0])]
        aggregates = self._aggregates_of(measured, groups, counted=counted)
        if "count" in aggregates or "distinct" in aggregates:
            return [self._count(measured, groups)]
        return self._numbers(measured, groups, aggregates)

    def _aggregates_of(self, measured: list[ColumnMention], groups: list[Group], *, counted: bool) -> list[Aggregate]:
        """The aggregates that are said, or `count` where the words can mean nothing else."""
        said = list(self.marks.aggregates)
        counts: list[Aggregate] = [aggregate for aggregate in said if aggregate in {"count", "distinct"}]
        others: list[Aggregate] = [aggregate for aggregate in said if aggregate not in {"count", "distinct", "sum"}]
        if counts and others:  # "average number of units": the units are counted in a column already
            if counted or not measured:
                raise Unclear("an average or extreme of a count is not possible here: ask for the count by group")
            return others
        if counts:
            return counts
        if (counted and said in ([], ["sum"]) and not self.marks.adjective) or (self.marks.frequent and not said):
            return ["count"]
        plain = not (said or measured or self.marks.adjective)
        if plain and groups and (self.marks.row_noun or not self.marks.direction):
            return ["count"]
        return said

    def _sets_side_by_side(self, condition: Condition) -> bool:
        both = condition.test == "in" and len(condition.values) > 1
        return both and ("compare" in self.marks.kinds or bool(self.marks.direction))

    def _numbers(self, measured: list[ColumnMention], groups: list[Group], aggregates: list[Aggregate]) -> list[Query]:
        column = self._measure(measured)
        if column is None and not (aggregates or self.marks.direction or groups):
            raise Unclear("it names no column and asks for no number")
        rows_meant = self.marks.row_noun or "who" in self.marks.asking
        if self.marks.adjective and not (measured or groups or rows_meant):
            raise Unclear("it does not say of what: name the column to group by")
        column = column or self._only_measure()
        if is_identifier(column) and not aggregates:
            raise Unclear(f"{column.name!r} numbers things: ask how many there are")
        direction = self.marks.direction
        if not groups and direction and not aggregates:
            if self.marks.row_noun or self.marks.limit or self.marks.asking & {"which", "who"}:
                return [self._rows(column)]
            return [self._extreme(column)]
        if not groups and direction:
            raise Unclear("highest or lowest of what? Say which column to group by")
        unique = [g for g in groups if not g.unit and self._column(g).distinct == self.notes.shape.rows]
        if unique and len(groups) == 1 and direction and not aggregates:
            return [self._rows(column)]
        if unique and aggregates and not direction:
            groups = [group for group in groups if group not in unique]  # "average revenue per order": a row is one
        chosen = aggregates or [self._default(column, bool(groups))]
        return [self._grouped(aggregate, column.name, groups) for aggregate in chosen]

    def _default(self, column: Column, grouped: bool) -> Aggregate:
        """The aggregate that is meant where none is said; the answer names it."""
        if _additive(column):
            return "sum"
        if grouped and self.marks.direction:
            return "max" if self.marks.direction == "high" else "min"
        return "mean"

    def _count(self, measured: list[ColumnMention], groups: list[Group]) -> Query:
        if not measured:
            if "distinct" in self.marks.aggregates:
                return self._distinct_key(groups)
            return self._grouped("count", "", groups)
        if len(measured) > 1:
            self._measure(measured)  # says what is unclear
        columns = measured[0].columns
        ids = [column for column in columns if is_identifier(column)]
        column = (ids or list(columns))[0]
        if column.kind == "number" and not ids and "distinct" not in self.marks.aggregates:
            if _additive(column) and measured[0].score >= _HEAD and not self._said_as_row(measured[0]):
                return self._grouped("sum", column.name, groups)  # "how many units": they are counted in the column
            return self._grouped("count", "", groups)
        return self._grouped("distinct", column.name, groups)

    def _distinct_key(self, groups: list[Group]) -> Query:
        """ "How many different products per region": the last key groups, the one before is counted."""
        if not groups:
            raise Unclear("different what? Name a column")
        counted, *rest = groups
        return self._grouped("distinct", counted.column, rest)

    def _said_as_row(self, mention: ColumnMention) -> bool:
        return self.notes.words[mention.start].stem in w.ROW_NOUNS and mention.score < 150

    def _extreme(self, column: Column) -> Query:
        aggregate: Aggregate = "max" if self.marks.direction == "high" else "min"
        return Query(kind="aggregate", aggregate=aggregate, column=column.name, where=tuple(self.where))

    def _edge_of_time(self) -> Query | None:
        """ "When was the first order", "the latest order date"; None where the direction is about something else."""
        if any(self._is_measure(mention) for mention in self.notes.columns) or self.marks.unit:
            return None
        asked_when = "when" in self.marks.asking
        dates = [column for mention in self.notes.columns for column in mention.columns if column.kind == "date"]
        if not dates and asked_when:
            dates = [column for column in self.notes.shape.columns if column.kind == "date"]
        if not (asked_when or (dates and len(self.notes.columns) == 1)):
            return None
        if len(dates) != 1:
            raise Unclear(f"when by which column? Name one of {_listed(dates)}" if dates else "the file has no dates")
        return self._extreme(dates[0])

    def _rows(self, column: Column) -> Query:
        order: Order = "low" if self.marks.direction == "low" else "high"
        limit = self.marks.limit or (1 if self.marks.asking else _LISTED)
        return Query(kind="rows", column=column.name, where=tuple(self.where), order=order, limit=limit)

    def _grouped(self, aggregate: Aggregate, column: str, groups: list[Group]) -> Query:
        direction = self.marks.direction
        by_key = bool(groups) and (bool(groups[0].unit) or self._column(groups[0]).kind == "number")
        natural: Order = "high" if len(groups) == 1 and not by_key else "key"
        order: Order = direction or self.marks.ranked or natural
        limit = self.marks.limit or self._number_of_keys()
        if direction and groups and limit is None:
            limit = 1 if self._asks_for_one(groups) else _LISTED
        return Query(
            kind="aggregate", aggregate=aggregate, column=column, groups=tuple(groups), where=tuple(self.where),
            order=order, limit=limit if groups else None,
        )  # fmt: skip

    def _number_of_keys(self) -> int | None:
        """ "Which 3 products": the number between the question word and what is ranked."""
        for at, word in enumerate(self.notes.words[1:-1], 1):
            if self.notes.words[at - 1].lower in w.ASKING and any(m.start == at + 1 for m in self.notes.columns):
                number = int(word.lower) if word.lower.isdigit() else w.SMALL_NUMBERS.get(word.lower, 0)
                return number if 0 < number <= 200 else None
        return None

    def _asks_for_one(self, groups: list[Group]) -> bool:
        plural = any(
            self._beside_direction(mention) and self.notes.words[mention.end - 1].lower.endswith("s")
            for mention in self.notes.columns
            if any(column.name == groups[0].column for column in mention.columns)
        )
        return not plural

    def _column(self, group: Group) -> Column:
        return self.notes.shape.column(group.column)


_HEAD: Final = 90
_ASKING: Final = frozenset((word,) for word in w.ASKING)
_WITH: Final = frozenset((word,) for word in ("with", "having", "has", "that", "whose", "who"))
_AMOUNTS: Final = frozenset(("most", "more", "fewest", "fewer", "least", "less"))
_BESIDE: Final = frozenset((*w.SMALL_NUMBERS, *w.ADJECTIVES, *w.HIGH, *w.LOW, "popular", "common", "frequent"))
_BEFORE_KEYS: Final = frozenset(("the", "different", "individual", "single", "our", "of", "all", "a", *w.SMALL_NUMBERS))


def _additive(column: Column) -> bool:
    """Whether adding the column's numbers up means something, as far as its name tells."""
    return not is_identifier(column) and not w.NOT_ADDITIVE.intersection(w.stems(column.name))


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(repr(column.name) for column in columns)


def _ambiguous(notes: Notes, mention: ColumnMention, columns: Sequence[Column]) -> str:
    said = " ".join(word.text for word in notes.words[mention.start : mention.end])
    return f"{said!r} could be any of the columns {_listed(columns)}: name one of them"
