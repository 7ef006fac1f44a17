"""Says a checked result in a sentence, by rules.

What comes in: a query, the result that was accepted, what is known of the columns. What goes out: plain English with
the figures of the result and no others. It does not compute, and it does not know the file.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentstream.events import Json

from .query import Group, Query, Shape
from .titles import condition_text, key_label, value_label

__all__ = ("number_text", "reply_for")

_LISTED = 12


def reply_for(query: Query, result: Json, shape: Shape) -> str:
    """The answer to `query` in one or a few sentences."""
    rows = result["rows"]
    if query.kind == "describe" and not query.column:
        return _overview(rows, shape)
    say = {
        "aggregate": _groups if query.groups else _scalar,
        "share": _share,
        "change": _change,
        "rows": _rows,
        "correlation": _correlation,
        "outliers": _outliers,
        "describe": _describe,
        "quality": _quality,
    }[query.kind]
    answer = say(query, rows, result) if rows else f"No row of {shape.file} fits{_where(query)}."
    return " ".join([answer, *_notes(query, shape)])


def number_text(value: Json) -> str:
    """A figure for people: thousands apart, two decimals, four digits below one. Text stays."""
    if value is None:
        return "none"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value).removesuffix("T00:00:00")
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.4g}"


def _where(query: Query) -> str:
    return f" where {' and '.join(map(condition_text, query.where))}" if query.where else ""


def _notes(query: Query, shape: Shape) -> list[str]:
    """What a reader must know to trust the figure."""
    notes: list[str] = []
    used = [shape.column(name) for name in query.used()]
    if query.kind not in {"quality", "describe"}:
        lacking = [(column.name, left_out) for column in used if (left_out := column.missing + column.unreadable)]
        notes += [
            f"({number_text(left_out)} rows have no usable {name} and are left out of it.)"
            for name, left_out in lacking
        ]
    notes += [f"(Dates in {column.name} are read as month/day/year.)" for column in used if column.ambiguous]
    return notes


def _name(row: Sequence[Json], groups: Sequence[Group]) -> str:
    return " / ".join(number_text(cell) if isinstance(cell, float) else str(cell) for cell in row[: len(groups)])


def _subject(query: Query) -> str:
    return "number of rows" if not query.column else value_label(query)


# --- kinds ------------------------------------------------------------------------------------------------------------
def _scalar(query: Query, rows: list[list[Json]], _result: Json) -> str:
    value = rows[0][0]
    if value is None:
        return f"No row has a value of {query.column}{_where(query)}."
    if not query.column:
        return f"{number_text(value)} rows{_where(query)}."
    return f"The {_subject(query)}{_where(query)} is {number_text(value)}."


def _groups(query: Query, rows: list[list[Json]], result: Json) -> str:
    width = len(query.groups)
    subject, keys = f"{_subject(query)}{_where(query)}", " and ".join(map(key_label, query.groups))
    if query.limit == 1:
        first, *others = rows
        most = "lowest" if query.order == "low" else "highest"
        text = f"{_name(first, query.groups)} has the {most} {subject}: {number_text(first[width])}."
        tied = [_name(row, query.groups) for row in others if row[width] == first[width]]
        if tied:
            text += f" {', '.join(tied[:_LISTED])} {'has' if len(tied) == 1 else 'have'} the same."
        elif others:
            text += f" Next: {_list(others[:3], query)}."
        return f"{text} ({number_text(result['total'])} values of {keys} were compared.)"
    limit = min(query.limit or _LISTED, len(rows))
    text = f"{subject[:1].upper()}{subject[1:]} by {keys}: {_list(rows[:limit], query)}"
    more = result["total"] - limit
    return f"{text}." if more <= 0 or query.limit else f"{text} … and {number_text(more)} more in the table."


def _list(rows: Sequence[Sequence[Json]], query: Query) -> str:
    width = len(query.groups)
    return "; ".join(f"{_name(row, query.groups)} {number_text(row[width])}" for row in rows)


def _share(query: Query, rows: list[list[Json]], _result: Json) -> str:
    of = f"the {_subject(query)}{_where(query)}"
    if query.focus:
        found = next((row for row in rows if str(row[0]).casefold() == query.focus.casefold()), None)
        if found is None:
            return f"No row with {query.groups[0].column} {query.focus} counts towards {of}."
        return f"{found[0]} makes up {_percent(found[2])} of {of}: {number_text(found[1])}."
    shown = rows[: query.limit or _LISTED]
    return f"Of {of}: " + "; ".join(f"{_name(row, query.groups)} {_percent(row[2])}" for row in shown) + "."


def _percent(value: Json) -> str:
    return "no share" if value is None else f"{value:.2f} %"


def _change(query: Query, rows: list[list[Json]], _result: Json) -> str:
    parts = [
        f"{row[0]} {number_text(row[1])}" + (f" ({row[2]:+.2f} %)" if row[2] is not None else "")
        for row in rows[-_LISTED:]
    ]
    return f"The {_subject(query)}{_where(query)} by {key_label(query.groups[0])}: {'; '.join(parts)}."


def _rows(query: Query, rows: list[list[Json]], result: Json) -> str:
    place = result["columns"].index(query.column)
    most = "lowest" if query.order == "low" else "highest"
    if len(rows) == 1:
        cells = zip(result["columns"], rows[0], strict=True)
        told = ", ".join(f"{name} {cell}" for name, cell in cells if name != query.column and cell != "")
        return f"The {most} {query.column}{_where(query)} is {rows[0][place]} ({told})."
    told = "; ".join(f"{row[0]} {row[place]}" if place else str(row[0]) for row in rows[:_LISTED])
    return f"The rows with the {most} {query.column}{_where(query)}: {told}."


def _correlation(query: Query, rows: list[list[Json]], _result: Json) -> str:
    value, count = rows[0]
    if value is None:
        return f"{query.column} and {query.other} have no correlation to compute: too few rows, or one never changes."
    size = abs(value)
    strength = "no" if size < 0.1 else "a weak" if size < 0.3 else "a moderate" if size < 0.5 else "a strong"
    sign = "" if size < 0.1 else "positive " if value > 0 else "negative "
    return (
        f"{query.column} and {query.other} have {strength} {sign}correlation{_where(query)}: r = {value:.3f} (Pearson)"
        f" over {number_text(count)} rows. That says nothing about causes."
    )


def _outliers(query: Query, rows: list[list[Json]], _result: Json) -> str:
    count, low, high, far, least, most = rows[0]
    if low is None:
        return f"No row has a value of {query.column}{_where(query)}."
    fences = f"{number_text(low)} to {number_text(high)} (1.5 interquartile ranges around the quartiles)"
    if not far:
        return f"None of the {number_text(count)} values of {query.column}{_where(query)} lies outside {fences}."
    return (
        f"{number_text(far)} of {number_text(count)} values of {query.column}{_where(query)} lie outside {fences};"
        f" the values reach from {number_text(least)} to {number_text(most)}."
    )


def _describe(query: Query, rows: list[list[Json]], _result: Json) -> str:
    told = ", ".join(f"{name} {number_text(value)}" for name, value in rows)
    return f"{query.column}{_where(query)}: {told}."


def _quality(query: Query, rows: list[list[Json]], _result: Json) -> str:
    lacking = [row for row in rows if row[2] or row[3]]
    if not lacking:
        names = ", ".join(query.columns) or f"the {len(rows)} columns that were looked at"
        return f"No value is missing or unreadable in {names}."
    told = "; ".join(
        f"{row[0]}: {number_text(row[2])} missing" + (f", {number_text(row[3])} unreadable" if row[3] else "")
        for row in lacking[:_LISTED]
    )
    return f"{told}."


def _overview(rows: list[list[Json]], shape: Shape) -> str:
    told = "; ".join(f"{row[0]} ({number_text(row[4])} different)" for row in rows[:_LISTED])
    more = " …" if len(shape.columns) > _LISTED else ""
    return f"{number_text(shape.rows)} rows in {number_text(len(shape.columns))} columns: {told}{more}."
