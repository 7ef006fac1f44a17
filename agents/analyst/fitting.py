"""Checks that a query can be asked of a file.

What comes in: a query, perhaps written by a language model, and the shape of the file. What goes out: what is wrong
with it in a sentence, or nothing. It does not mend anything.
"""

from __future__ import annotations

from datetime import datetime

from .query import Column, Condition, Query, Shape

__all__ = ("misfit",)

_ANY_KIND = frozenset(("count", "distinct"))
_PERIODS = frozenset(("day", "week", "month", "quarter", "year"))


def misfit(query: Query, shape: Shape) -> str:
    """What keeps `query` from being asked of this file; empty where nothing does."""
    known = {column.name: column for column in shape.columns}
    unknown = [name for name in query.used() if name not in known]
    if unknown:
        return f"the file has no column {unknown[0]!r}"
    return (
        _wrong_groups(query, known)
        or _wrong_measure(query, known)
        or next((wrong for condition in query.where if (wrong := _wrong_condition(condition, known))), "")
    )


def _wrong_measure(query: Query, known: dict[str, Column]) -> str:
    if query.kind == "quality":
        return "" if not query.where else "quality is counted in the whole file only"
    kind = known[query.column].kind if query.column else ""
    if query.kind in {"aggregate", "share"}:
        if not query.column:
            return "" if query.aggregate == "count" else f"{query.aggregate} needs a column"
        dates = kind == "date" and query.aggregate in {"min", "max"} and not query.groups
        if query.aggregate in _ANY_KIND or dates or kind == "number":
            return ""
        return f"{query.aggregate} needs a column of numbers, and {query.column!r} is none"
    if query.kind == "describe" and not query.column:
        return ""
    if kind != "number":
        return f"{query.kind} needs a column of numbers"
    if query.kind == "correlation" and (not query.other or known[query.other].kind != "number"):
        return "correlation needs a second column of numbers in `other`"
    return ""


def _wrong_groups(query: Query, known: dict[str, Column]) -> str:
    for group in query.groups:
        kind = known[group.column].kind
        if kind == "date" and not group.unit:
            return f"group {group.column!r} by a unit of time"
        if group.unit and kind != "date":
            return f"{group.column!r} is no column of dates, so it has no {group.unit}"
    if query.kind == "share" and len(query.groups) != 1:
        return "share needs one group"
    if query.kind == "change" and (len(query.groups) != 1 or query.groups[0].unit not in _PERIODS):
        return "change needs one group by a period of time"
    if query.groups and query.kind not in {"aggregate", "share", "change"}:
        return f"{query.kind} cannot be grouped"
    return ""


def _wrong_condition(condition: Condition, known: dict[str, Column]) -> str:
    name, kind = condition.column, known[condition.column].kind
    numbers = all(not isinstance(value, str) for value in condition.values)
    if condition.test in {"in", "not in"}:
        if kind == "date":
            return f"compare the dates in {name!r} with >= and <"
        return "" if numbers == (kind == "number") else f"the values for {name!r} are not of its kind"
    if condition.test == "month":
        fits = numbers and all(value in range(1, 13) for value in condition.values)
        return (
            "" if kind == "date" and fits else f"month needs a column of dates and numbers from 1 to 12, not {name!r}"
        )
    if len(condition.values) != 1:
        return f"{condition.test} takes one value"
    if kind == "number":
        return "" if numbers else f"compare {name!r} with a number"
    if kind != "date" or numbers:
        return f"{condition.test} needs a column of numbers with a number, or of dates with a date: not {name!r}"
    try:
        datetime.fromisoformat(str(condition.values[0]))
    except ValueError:
        return f"{condition.values[0]!r} is no ISO date"
    return ""
