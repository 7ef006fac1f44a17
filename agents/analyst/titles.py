"""What a query is called in a title, a label and a sentence.

What comes in: a query. What goes out: short English. It does not know results; those are put into words in `replies`.
"""

from __future__ import annotations

from .query import AGGREGATES, Condition, Group, Query

__all__ = ("condition_text", "key_label", "title", "value_label")


def key_label(group: Group) -> str:
    """The name of a key: the column's, or the unit's with the column where one is meant."""
    return f"{group.unit} of {group.column}" if group.unit else group.column


def value_label(query: Query) -> str:
    """The name of what is aggregated: `total revenue`, `rows`."""
    if not query.column:
        return "rows"
    word = AGGREGATES[query.aggregate]
    return f"{word} of {query.column}" if query.aggregate in {"distinct", "count", "std"} else f"{word} {query.column}"


def title(query: Query) -> str:
    """A heading for the picture, the plan and the table."""
    where = f" where {' and '.join(map(condition_text, query.where))}" if query.where else ""
    keys = " and ".join(map(key_label, query.groups))
    named: dict[str, str] = {
        "aggregate": value_label(query) + (f" by {keys}" if keys else ""),
        "share": f"share of {value_label(query)} by {keys}",
        "change": f"change of {value_label(query)} by {keys}",
        "rows": f"rows with the {'lowest' if query.order == 'low' else 'highest'} {query.column}",
        "correlation": f"correlation of {query.column} and {query.other}",
        "outliers": f"outliers in {query.column}",
        "describe": f"description of {query.column or 'all columns'}",
        "quality": f"missing values in {', '.join(query.columns) or 'all columns'}",
    }
    text = named[query.kind] + where
    return text[:1].upper() + text[1:]


_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip


def condition_text(condition: Condition) -> str:
    """A condition as people write it: `region is North or South`."""
    if condition.test == "month":
        return f"{condition.column} is in {' or '.join(_MONTHS[int(value) - 1] for value in condition.values)}"
    if condition.test in {"in", "not in"}:
        values = " or ".join(map(_plain, condition.values))
        return f"{condition.column} is {'not ' if condition.test == 'not in' else ''}{values}"
    return f"{condition.column} {condition.test} {_plain(condition.values[0])}"


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
