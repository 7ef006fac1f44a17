"""Turns a question in English into queries, by rules.

What comes in: a question and the `Shape` of the data. What goes out: one to four queries, or `Unclear` with the reason;
every word of the question was understood then, so no part of it is answered by leaving it out. It does not know code
or values beyond those that the shape lists, and it is no language model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from . import words as w
from .asked import asked
from .conditions import Notes, Unclear, number_conditions, time_conditions, value_conditions
from .matching import ColumnMention, find_columns, find_values, is_identifier
from .naming import Naming, additive, listed
from .query import Aggregate, Column, Condition, Group, Order, Query, Shape

__all__ = ("Unclear", "queries_of")

_MOST_PARTS: Final = 4
_PARTS: Final = re.compile(r"[?!;]\s+|\.\s+|,?\s+and\s+(?:also\s+)?|,\s+(?=what|which|how)", re.IGNORECASE)
_ORDERED: Final = re.compile(r"\b(?:in )?(descending|ascending) order\b", re.IGNORECASE)
_LISTED: Final = 10


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
class _Assembly(Naming):
    """Puts the parts of one question together."""

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

    def _change(self) -> Query:
        if not self.marks.unit:
            self.marks.unit = "auto"
        measured, groups = self._mentions()
        if len(groups) != 1 or not groups[0].unit:
            raise Unclear("a change is shown over time only, without further groups")
        column = self._measure(measured) or self._only_measure()
        aggregates = tuple(self.marks.aggregates) or ("sum" if additive(column) else "mean",)
        return Query(
            kind="change", aggregate=aggregates[0], column=column.name, groups=tuple(groups), where=tuple(self.where)
        )

    # --- aggregates ---------------------------------------------------------------------------------------------------
    def _aggregates(self) -> list[Query]:
        measured, groups = self._mentions()
        self._check_than(groups)
        if self.marks.direction and not self.marks.aggregates and (edge := self._edge_of_time()):
            return [edge]
        groups = groups or [Group(column=c.column) for c in self.where if self._sets_side_by_side(c)][:1]
        counted = bool(measured) and all(self._is_counted(mention) for mention in measured)
        lists = counted and not (self.marks.aggregates or self.marks.adjective or self._names_rows(measured[0]))
        if counted and not groups and (self.marks.frequent or lists):
            measured, groups = [], [self._key(measured[0])]  # "most popular product", "list the products"
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
            bounds = [
                c for c in self.where if c.test not in {"in", "not in", "month"} and not isinstance(c.values[0], str)
            ]
            if bounds:
                raise Unclear(
                    f"it is not clear whether {bounds[0].column!r} of single rows or of each group is compared: ask"
                    " how many rows there are with it"
                )
            return ["count"]
        return said

    def _check_than(self, groups: list[Group]) -> None:
        """ "Higher in North than in South" compares two values; any other "than" is beyond these rules."""
        free = any(
            word.lower == "than" and not taken for word, taken in zip(self.notes.words, self.notes.taken, strict=True)
        )
        if free and (groups or not any(self._sets_side_by_side(condition) for condition in self.where)):
            raise Unclear("'than' needs a number behind it, or two values of one column to compare")

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
        unique = [g for g in groups if not g.unit and self._column(g).distinct == self.shape.rows]
        if unique and len(groups) == 1 and direction and not aggregates:
            return [self._rows(column)]
        if unique and aggregates and not direction:
            groups = [group for group in groups if group not in unique]  # "average revenue per order": a row is one
        chosen = aggregates or [self._default(column, bool(groups))]
        return [self._grouped(aggregate, column.name, groups) for aggregate in chosen]

    def _default(self, column: Column, grouped: bool) -> Aggregate:
        """The aggregate that is meant where none is said; the answer names it."""
        if additive(column):
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
            if additive(column) and measured[0].score >= _HEAD and not self._said_as_row(measured[0]):
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
            dates = [column for column in self.shape.columns if column.kind == "date"]
        if not (asked_when or (dates and len(self.notes.columns) == 1)):
            return None
        if len(dates) != 1:
            raise Unclear(f"when by which column? Name one of {listed(dates)}" if dates else "the file has no dates")
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
        limit = self.marks.limit
        if direction and groups and limit is None:
            limit = 1 if self._asks_for_one(groups) else _LISTED
        return Query(
            kind="aggregate", aggregate=aggregate, column=column, groups=tuple(groups), where=tuple(self.where),
            order=order, limit=limit if groups else None,
        )  # fmt: skip

    def _asks_for_one(self, groups: list[Group]) -> bool:
        plural = any(
            self._beside_direction(mention) and self.notes.words[mention.end - 1].lower.endswith("s")
            for mention in self.notes.columns
            if any(column.name == groups[0].column for column in mention.columns)
        )
        return not plural


_HEAD: Final = 90  # the score of a mention that names at least what the column is about
