"""Answers a query a second time, with the standard library alone, and compares.

What comes in: a query, the file's cells, and the result that a program gave. What goes out: the expected result, and
the first difference in words. It does not know the program: no pandas, no code of the executor, so that an error of
theirs is not repeated here. (What both share is the query and how cells are read: see `values`.)
"""

from __future__ import annotations

import math
import operator
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from agentstream.events import Json

from . import values as v
from .query import Column, Condition, Group, Query, Shape
from .reading import Table

__all__ = ("Expected", "difference", "expected")

Cell = str | float | datetime | None

_LISTED: Final = 200
_SHOWN_COLUMNS: Final = 10
_MOST_COLUMNS: Final = 40
_RELATIVE: Final = 1e-9  # sums of floats in another order differ by far less
_ABSOLUTE: Final = 1e-9
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Expected(NamedTuple):
    """What a program must find: `rows` in order, at most 200 of `total`."""

    rows: list[list[Cell]]
    total: int


class _Data(NamedTuple):
    """Typed columns of the rows that the conditions leave; `places` are their numbers in the file, from 0."""

    columns: dict[str, list[Cell]]
    places: list[int]


def expected(query: Query, shape: Shape, table: Table) -> Expected:
    """The result that the query has on this table; time and memory linear in its rows.

    Raises:
        KeyError: the query names a column that the table does not have.
    """
    if query.kind == "quality" or (query.kind == "describe" and not query.column):
        return _quality(query, shape, table)
    data = _data(query, shape, table)
    if query.kind == "aggregate" and not query.groups:
        return Expected([[_scalar(query, data)]], 1)
    if query.kind in {"aggregate", "share", "change"}:
        return _grouped(query, shape, data)
    return {
        "rows": lambda: _rows(query, shape, table, data),
        "correlation": lambda: _correlation(query, data),
        "outliers": lambda: _outliers(query, data),
        "describe": lambda: _describe(query, data),
    }[query.kind]()


# --- cells ------------------------------------------------------------------------------------------------------------
def _cells(column: Column, texts: Iterable[str]) -> list[Cell]:
    known: dict[str, Cell] = {}
    cells: list[Cell] = []
    for text in texts:
        if text not in known:
            known[text] = _cell(column, text)
        cells.append(known[text])
    return cells


def _cell(column: Column, text: str) -> Cell:
    if v.is_missing(text, number=column.kind == "number"):
        return None
    if column.kind == "number":
        return v.read_number(text, column.decimal)
    if column.kind == "date":
        return v.read_date(text, column.date_format, column.date_chars)
    return text


def _data(query: Query, shape: Shape, table: Table) -> _Data:
    columns = {name: _cells(shape.column(name), table.cells(name)) for name in query.used()}
    places = list(range(len(table.rows)))
    for condition in query.where:
        holds = _test(condition)
        cells = columns[condition.column]
        places = [place for place in places if cells[place] is not None and holds(cells[place])]
    return _Data({name: [cells[place] for place in places] for name, cells in columns.items()}, places)


def _test(condition: Condition) -> Callable[[Cell], bool]:
    if condition.test in {"in", "not in"}:
        wanted = {value.casefold() if isinstance(value, str) else value for value in condition.values}
        inside = condition.test == "in"
        return lambda cell: ((cell.casefold() if isinstance(cell, str) else cell) in wanted) == inside
    if condition.test == "month":
        months = set(condition.values)
        return lambda cell: isinstance(cell, datetime) and cell.month in months
    bound = condition.values[0]
    compare = _COMPARE[condition.test]
    if isinstance(bound, str):
        edge = datetime.fromisoformat(bound)
        return lambda cell: isinstance(cell, datetime) and compare(cell, edge)
    return lambda cell: isinstance(cell, float) and compare(cell, bound)


# Any: two numbers, or two moments
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def _numbers(cells: Iterable[Cell]) -> list[float]:
    return [cell for cell in cells if isinstance(cell, float)]


# --- aggregates -------------------------------------------------------------------------------------------------------
def _scalar(query: Query, data: _Data) -> Cell:
    if not query.column:
        return float(len(data.places))
    return _aggregate(query, data.columns[query.column])


def _aggregate(query: Query, cells: Sequence[Cell]) -> Cell:
    """The aggregate of the cells that have a value; None where there is none to take it of."""
    filled = [cell for cell in cells if cell is not None]
    if query.aggregate == "count":
        return float(len(filled))
    if query.aggregate == "distinct":
        return float(len(set(filled)))
    if not filled:
        return None
    if query.aggregate in {"min", "max"}:
        ordered = sorted(filled, key=_rank)
        return ordered[0] if query.aggregate == "min" else ordered[-1]
    numbers = _numbers(filled)
    if query.aggregate == "std":
        return statistics.stdev(numbers) if len(numbers) > 1 else None
    return _OF_NUMBERS[query.aggregate](numbers)


_OF_NUMBERS: Final[dict[str, Callable[[list[float]], float]]] = {
    "sum": math.fsum,
    "mean": statistics.fmean,
    "median": statistics.median,
}


def _key(group: Group, column: Column) -> Callable[[Cell], Cell]:
    """From a cell to its group."""
    if not group.unit:
        return lambda cell: cell.date().isoformat() if isinstance(cell, datetime) and column.kind == "date" else cell

    def of(cell: Cell) -> Cell:
        if not isinstance(cell, datetime):
            return None
        year, week, weekday = cell.isocalendar()
        return {
            "hour": f"{cell.hour:02d}:00",
            "day": cell.date().isoformat(),
            "weekday": _WEEKDAYS[weekday - 1],
            "week": f"{year:04d}-W{week:02d}",
            "month": f"{cell.year:04d}-{cell.month:02d}",
            "quarter": f"{cell.year:04d}Q{(cell.month + 2) // 3}",
            "year": f"{cell.year:04d}",
        }[group.unit]

    return of


def _grouped(query: Query, shape: Shape, data: _Data) -> Expected:
    makers = [(_key(group, shape.column(group.column)), data.columns[group.column]) for group in query.groups]
    keys = [tuple(make(cells[at]) for make, cells in makers) for at in range(len(data.places))]
    members: dict[tuple[Cell, ...], list[Cell]] = defaultdict(list)
    measured = data.columns[query.column] if query.column else None
    for at, key in enumerate(keys):
        if None not in key:
            members[key].append(measured[at] if measured else 0.0)
    counted = query.model_copy(update={"aggregate": "count"}) if measured is None else query
    found = [(key, _aggregate(counted, cells)) for key, cells in members.items()]
    rows = [(key, value) for key, value in found if value is not None]
    rows.sort(key=lambda row: tuple(_rank(part) for part in row[0]))
    if query.order != "key":
        # Sorting is stable, also in reverse: groups of one value stay in the order of their keys.
        rows.sort(key=lambda row: _rank(row[1]), reverse=query.order == "high")
    listed: list[list[Cell]] = [[*key, value] for key, value in rows]
    if query.kind == "share":
        whole = math.fsum(_numbers(value for _, value in rows))
        listed = [[*row, _ratio(row[-1], whole)] for row in listed]
    if query.kind == "change":
        before = [None, *[row[-1] for row in listed[:-1]]]
        listed = [[*row, _growth(row[-1], last)] for row, last in zip(listed, before, strict=True)]
    return Expected(listed[:_LISTED], len(listed))


def _rank(cell: Cell) -> tuple[int, Any]:  # Any: cells of one column are of one kind, which can be compared
    if isinstance(cell, str) and cell in _WEEKDAYS:
        return _WEEKDAYS.index(cell), ""
    return 0, cell


def _ratio(value: Cell, whole: float) -> Cell:
    return value / whole * 100 if isinstance(value, float) and whole else None


def _growth(value: Cell, before: Cell) -> Cell:
    if not isinstance(value, float) or not isinstance(before, float) or not before:
        return None
    return (value / before - 1) * 100


# --- other kinds ------------------------------------------------------------------------------------------------------
def _rows(query: Query, shape: Shape, table: Table, data: _Data) -> Expected:
    both = zip(data.columns[query.column], data.places, strict=True)
    sized = [(cell, place) for cell, place in both if isinstance(cell, float)]
    sized.sort(key=lambda item: (item[0] if query.order == "low" else -item[0], item[1]))
    names = [column.name for column in shape.columns]
    shown = [names.index(name) for name in dict.fromkeys([*names[: _SHOWN_COLUMNS - 1], query.column])]
    picked = sized[: query.limit or _LISTED]
    rows: list[list[Cell]] = [[table.rows[place][at].strip() for at in shown] for _, place in picked]
    return Expected(rows[:_LISTED], len(picked))


def _correlation(query: Query, data: _Data) -> Expected:
    pairs = [
        (one, other)
        for one, other in zip(data.columns[query.column], data.columns[query.other], strict=True)
        if isinstance(one, float) and isinstance(other, float)
    ]
    try:
        value: Cell = statistics.correlation([one for one, _ in pairs], [other for _, other in pairs])
    except statistics.StatisticsError:  # fewer than two pairs, or a column that never changes
        value = None
    return Expected([[value, float(len(pairs))]], 1)


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Between the two neighbours in proportion (method 7 of Hyndman and Fan, the default of most programs)."""
    place = (len(ordered) - 1) * part
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _outliers(query: Query, data: _Data) -> Expected:
    ordered = sorted(_numbers(data.columns[query.column]))
    if not ordered:
        return Expected([[0.0, None, None, 0.0, None, None]], 0)
    first, third = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
    low, high = first - 1.5 * (third - first), third + 1.5 * (third - first)
    far = sum(number < low or number > high for number in ordered)
    return Expected([[float(len(ordered)), low, high, float(far), ordered[0], ordered[-1]]], far)


def _describe(query: Query, data: _Data) -> Expected:
    ordered = sorted(_numbers(data.columns[query.column]))
    statistic: list[tuple[str, Cell]] = [
        ("values", float(len(ordered))),
        ("missing", float(len(data.places) - len(ordered))),
        ("mean", statistics.fmean(ordered) if ordered else None),
        ("standard deviation", statistics.stdev(ordered) if len(ordered) > 1 else None),
        ("minimum", ordered[0] if ordered else None),
        ("first quartile", _quantile(ordered, 0.25) if ordered else None),
        ("median", statistics.median(ordered) if ordered else None),
        ("third quartile", _quantile(ordered, 0.75) if ordered else None),
        ("maximum", ordered[-1] if ordered else None),
    ]
    return Expected([list(row) for row in statistic], len(statistic))


def _quality(query: Query, shape: Shape, table: Table) -> Expected:
    columns = [shape.column(name) for name in query.columns] or list(shape.columns[:_MOST_COLUMNS])
    rows: list[list[Cell]] = []
    for column in columns:
        texts = table.cells(column.name)
        missing = sum(v.is_missing(text, number=column.kind == "number") for text in texts)
        counts = Counter(cell for cell in _cells(column, texts) if cell is not None)
        filled = counts.total()
        rows.append(
            [column.name, float(filled), float(missing), float(len(texts) - missing - filled), float(len(counts))]
        )
    return Expected(rows[:_LISTED], len(rows))


# --- comparing --------------------------------------------------------------------------------------------------------
def difference(result: Json, wanted: Expected) -> str:
    """The first difference between a program's result and the expected one, in words; empty where they agree."""
    if not isinstance(result, dict) or not isinstance(result.get("rows"), list):
        return "the code left no `result` with `rows`"
    rows = result["rows"]
    if len(rows) != len(wanted.rows):
        return f"the result has {len(rows)} rows, {len(wanted.rows)} are expected"
    if result.get("total") != wanted.total:
        return f"`total` is {result.get('total')}, {wanted.total} is expected"
    moved: list[list[Cell]] = []  # expected rows whose place another one of the same figures took
    strangers: list[tuple[int, list[Json]]] = []
    for place, (row, want) in enumerate(zip(rows, wanted.rows, strict=True), 1):
        if not isinstance(row, list) or len(row) != len(want):
            return f"row {place} has other columns than expected: {row}"
        if not _agree(row, want):
            if not _same_figures(row, want):
                return f"row {place} is {_said(row)}, but counted independently it is {_said(want)}"
            moved.append(want)
            strangers.append((place, row))
    for place, row in strangers:
        match = next((want for want in moved if _agree(row, want)), None)
        if match is None:
            return f"row {place} is {_said(row)}, but counted independently it is {_said(wanted.rows[place - 1])}"
        moved.remove(match)
    return ""


def _agree(row: Sequence[Json], want: Sequence[Cell]) -> bool:
    return all(_same(cell, other) for cell, other in zip(row, want, strict=True))


def _same_figures(row: Sequence[Json], want: Sequence[Cell]) -> bool:
    """Groups of one value may stand in either order: sums of floats are noisy."""
    figures = [(cell, other) for cell, other in zip(row, want, strict=True) if isinstance(other, float)]
    return bool(figures) and all(_same(cell, other) for cell, other in figures)


def _same(cell: Json, want: Cell) -> bool:
    if isinstance(want, datetime):
        try:
            return isinstance(cell, str) and datetime.fromisoformat(cell) == want
        except ValueError:
            return False
    if isinstance(want, float):
        number = isinstance(cell, int | float) and not isinstance(cell, bool)
        return number and math.isclose(cell, want, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return bool(cell == want)


def _said(row: Sequence[Json]) -> str:
    return ", ".join(cell.isoformat() if isinstance(cell, datetime) else str(cell) for cell in row)
