"""What is asked of the data, and what the data is like: the words that the three roles share.

What comes in: what a planner (a model or the rules) writes down. What goes out: checked models, small enough to travel
in a plan. It does not know questions in words, code or files.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ("AGGREGATES", "Aggregate", "Column", "Condition", "Group", "Kind", "Order", "Query", "Shape", "Test", "Unit")

Kind = Literal["aggregate", "share", "change", "rows", "correlation", "outliers", "describe", "quality"]
Aggregate = Literal["count", "distinct", "sum", "mean", "median", "min", "max", "std"]
Unit = Literal["", "hour", "day", "weekday", "week", "month", "quarter", "year"]
Order = Literal["key", "high", "low"]
Test = Literal["in", "not in", ">", ">=", "<", "<=", "month"]

AGGREGATES: Final[dict[Aggregate, str]] = {
    "count": "number",
    "distinct": "number of different values",
    "sum": "total",
    "mean": "mean",
    "median": "median",
    "min": "minimum",
    "max": "maximum",
    "std": "standard deviation",
}
"""Each aggregate as it is called in titles and answers."""


class Group(BaseModel):
    """One key to group by: a column, or a calendar unit of a date column."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    unit: Unit = ""


class Condition(BaseModel):
    """Which rows count. Rows without a value in `column` never do.

    `in` and `not in` compare text without regard to case; the others take one number or ISO date; `month` takes the
    numbers 1 to 12.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    test: Test
    values: tuple[str | float, ...] = Field(min_length=1, max_length=50)


class Query(BaseModel):
    """One question to the data, without words.

    Attributes:
        kind: `aggregate` of a column; `share` of it that falls to each group, in percent; `change` of it from period to
            period, in percent; whole `rows` by the size of a column; Pearson `correlation` of `column` and `other`;
            `outliers` of a column (outside 1.5 interquartile ranges, Tukey); `describe` a column, or all; `quality`:
            missing and unreadable values of the columns in `columns`, or of all.
        column: what is aggregated; empty counts rows.
        groups: at most two keys; rows without a value in one of them are left out.
        where: all must hold.
        order: of groups by their value (`high`, `low` first), or by `key`.
        limit: how many groups or rows the answer names; None for all (at most 200 are listed).
        focus: with `share`, the one group that is asked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    aggregate: Aggregate = "sum"
    column: str = ""
    other: str = ""
    columns: tuple[str, ...] = ()
    groups: tuple[Group, ...] = Field(default=(), max_length=2)
    where: tuple[Condition, ...] = Field(default=(), max_length=8)
    order: Order = "key"
    limit: int | None = Field(default=None, ge=1, le=200)
    focus: str = ""

    def used(self) -> tuple[str, ...]:
        """Every column that the answer rests on, each once, in the order of mention."""
        groups = (group.column for group in self.groups)
        where = (condition.column for condition in self.where)
        return tuple(dict.fromkeys(name for name in (self.column, self.other, *self.columns, *groups, *where) if name))


class Column(BaseModel):
    """What is known of one column after the whole file was read once.

    Attributes:
        kind: `number`, `date`, `text`, or `empty` without any value.
        missing, unreadable: rows without a value, and rows whose value is not of the column's kind (at most 2 %).
        distinct: number of different values.
        values: the different values of a text column, most frequent first; empty where there are more than 200.
        minimum, maximum: of numbers, and of dates in ISO form.
        whole: whether every number is an integer.
        decimal: the mark before the fraction in this column's numbers.
        decorated: whether numbers carry thousands marks, currency or percent signs.
        date_format: of dates, in the notation of `strptime`; it holds for the first `date_chars` characters.
        ambiguous: whether the dates could be read as day/month and as month/day alike.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["number", "date", "text", "empty"]
    missing: int = 0
    unreadable: int = 0
    distinct: int = 0
    values: tuple[str, ...] = ()
    minimum: float | str | None = None
    maximum: float | str | None = None
    whole: bool = False
    decimal: Literal[".", ","] = "."
    decorated: bool = False
    date_format: str = ""
    date_chars: int | None = None
    ambiguous: bool = False


class Shape(BaseModel):
    """What a data file is like.

    Attributes:
        file: its name, also under which the code finds it.
        rows: without the header.
        renamed: whether the names of the columns differ from the header (blank, doubled or padded there).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    rows: int
    encoding: str
    delimiter: str
    columns: tuple[Column, ...]
    renamed: bool = False

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def brief(self, values: int = 0) -> Shape:
        """The same with at most `values` listed values a column: what a prompt or an event can carry."""
        columns = tuple(column.model_copy(update={"values": column.values[:values]}) for column in self.columns)
        return self.model_copy(update={"columns": columns})
