"""Writes the Python code that answers a query: readable pandas and matplotlib, as a person would write it.

What comes in: a `Query` and the `Shape` of the file. What goes out: a whole program as text; it leaves `result`,
`table` and `plotly_figure` behind for whoever runs it, and a matplotlib figure. It does not run anything, and whatever
it takes from a file or a question stands in the code as a quoted literal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from . import charts
from .query import Aggregate, Column, Condition, Group, Query, Shape
from .titles import key_label, title, value_label
from .values import MISSING

__all__ = ("code_for",)

_LISTED: Final = 200
_SHOWN_COLUMNS: Final = 10
_MOST_COLUMNS: Final = 40

_AGGREGATES: Final[dict[Aggregate, str]] = {
    "count": "count()",
    "distinct": "nunique()",
    "sum": "sum(min_count=1)",
    "mean": "mean()",
    "median": "median()",
    "min": "min()",
    "max": "max()",
    "std": "std()",
}

_DECORATION: Final = r"[$€£¥%\s\u00a0\u202f']|\b(?:EUR|USD|GBP|CHF|JPY)\b"
_POINT: Final = r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?)"
_COMMA: Final = r"[+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]+)?"


def code_for(query: Query, shape: Shape) -> str:
    """The program that answers `query` on the file of this shape.

    Raises:
        KeyError: the query names a column that the file does not have.
    """
    for name in query.used():
        shape.column(name)
    body = {
        "aggregate": _aggregate,
        "share": _share,
        "change": _change,
        "rows": _rows,
        "correlation": _correlation,
        "outliers": _outliers,
        "describe": _describe if query.column else _quality,
        "quality": _quality,
    }[query.kind](query, shape)
    lines = [*_imports(body), "", *body, ""]
    return "\n".join(lines)


def quote(value: object) -> str:
    """A literal that Python and JSON read alike: text, a number, or a list of them."""
    return json.dumps(value, ensure_ascii=False)


def _imports(body: Iterable[str]) -> list[str]:
    text = "\n".join(body)
    lines = ["import matplotlib.pyplot as plt"] if "plt." in text else []
    lines += ["import numpy as np"] if "np." in text else []
    return [*lines, "import pandas as pd"]


# --- reading ----------------------------------------------------------------------------------------------------------
def _read(shape: Shape, names: Iterable[str] | None) -> list[str]:
    """Read the columns `names`, all without: as text, so that nothing is guessed."""
    options = [quote(shape.file)]
    if shape.delimiter != ",":
        options.append(f"sep={quote(shape.delimiter)}")
    if shape.encoding != "utf-8":
        options.append(f"encoding={quote(shape.encoding)}")
    if shape.renamed:
        options.append(f"header=0, names={quote([column.name for column in shape.columns])}")
    if names is not None:
        options.append(f"usecols={quote(list(names))}")
    return [f"data = pd.read_csv({', '.join(options)}, dtype=str, keep_default_na=False)"]


def _typed(column: Column) -> list[str]:
    """Turn a column of text into values of its kind."""
    name = f"data[{quote(column.name)}]"
    if column.kind == "number":
        return _number(column, name)
    if column.kind == "date":
        cut = f".str[:{column.date_chars}]" if column.date_chars else ""
        return [
            f'{name} = pd.to_datetime({name}.str.strip(){cut}, format={quote(column.date_format)}, errors="coerce")'
        ]
    lines = [f"{name} = {name}.str.strip()"]
    if column.missing:
        lines.append(f"{name} = {name}.mask({name}.isin({quote(list(MISSING))}))")
    return lines


def _number(column: Column, name: str) -> list[str]:
    if not (column.decorated or column.unreadable or column.decimal == ","):
        return [f'{name} = pd.to_numeric({name}, errors="coerce")']
    lines = [f'text = {name}.str.strip().str.replace(r"{_DECORATION}", "", regex=True)']
    if column.unreadable:
        pattern = _COMMA if column.decimal == "," else _POINT
        lines.append(f'text = text.where(text.str.fullmatch(r"{pattern}"))  # what is no number is left out')
    if column.decimal == ",":
        lines.append('text = text.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)')
    else:
        lines.append('text = text.str.replace(",", "", regex=False)')
    return [*lines, f'{name} = pd.to_numeric(text, errors="coerce")']


def _filter(condition: Condition, column: Column) -> str:
    name = f"data[{quote(column.name)}]"
    if condition.test == "month":
        return f"data = data[{name}.dt.month.isin({quote([int(value) for value in condition.values])})]"
    if condition.test not in {"in", "not in"}:
        return f"data = data[{name} {condition.test} {quote(condition.values[0])}]"
    if column.kind == "text":
        found = f"{name}.str.casefold().isin({quote([str(value).casefold() for value in condition.values])})"
    else:
        found = f"{name}.isin({quote(list(condition.values))})"
    return f"data = data[{found}]" if condition.test == "in" else f"data = data[{name}.notna() & ~{found}]"


def _data(query: Query, shape: Shape, *, everything: bool = False) -> list[str]:
    """Read, give types, filter. With `everything` the untouched rows stay in `shown`."""
    used = [shape.column(name) for name in query.used()]
    lines = _read(shape, None if everything or not used else [column.name for column in used])
    if everything:
        lines.append("shown = data.copy()")
    for column in used:
        lines += _typed(column)
    return lines + [_filter(condition, shape.column(condition.column)) for condition in query.where]


# --- groups -----------------------------------------------------------------------------------------------------------
_UNITS: Final = {
    "hour": 'strftime("%H:00")',
    "day": 'strftime("%Y-%m-%d")',
    "week": 'strftime("%G-W%V")',
    "month": 'strftime("%Y-%m")',
    "quarter": 'to_period("Q").astype(str)',
    "year": 'strftime("%Y")',
}
_WEEKDAYS: Final = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def _keys(groups: Iterable[Group], shape: Shape) -> list[str]:
    """Make the keys that are no columns yet."""
    lines: list[str] = []
    for group in groups:
        column, key = f"data[{quote(group.column)}]", f"data[{quote(key_label(group))}]"
        if group.unit:
            lines.append(f"data = data.dropna(subset=[{quote(group.column)}])")
        if group.unit == "weekday":
            lines.append(f"days = {quote(_WEEKDAYS)}")
            lines.append(f"{key} = pd.Categorical({column}.dt.day_name(), categories=days, ordered=True)")
        elif group.unit:
            lines.append(f"{key} = {column}.dt.{_UNITS[group.unit]}")
        elif shape.column(group.column).whole:
            lines.append(f'{key} = {column}.astype("Int64")')
    return lines


def _grouped(query: Query, label: str) -> list[str]:
    """The table of one value for each group, in order."""
    keys = [key_label(group) for group in query.groups]
    grouped = f"data.groupby({quote(keys if len(keys) > 1 else keys[0])}, observed=True)"
    chosen = f"[{quote(query.column)}].{_AGGREGATES[query.aggregate]}" if query.column else ".size()"
    lines = [
        f"table = {grouped}{chosen}.reset_index(name={quote(label)})",
        f"table = table.dropna(subset=[{quote(label)}])",
    ]
    if query.order != "key":
        ascending = [query.order == "low", *[True] * len(keys)]
        lines.append(f"table = table.sort_values({quote([label, *keys])}, ascending={ascending})")
    return lines


def _listing(rows: str = "table", *, extra: str = "") -> list[str]:
    return [
        "",
        f"print({rows}.head(20).to_string(index=False))",
        "result = {",
        f'    "columns": list({rows}.columns),',
        f'    "rows": {rows}.head({_LISTED}).values.tolist(),',
        f'    "total": len({rows}){extra},',
        "}",
    ]


def _value_name(query: Query) -> str:
    label = value_label(query)
    return f"{label} (value)" if label in {key_label(group) for group in query.groups} else label


# --- kinds of queries -------------------------------------------------------------------------------------------------
def _aggregate(query: Query, shape: Shape) -> list[str]:
    label = _value_name(query)
    if query.groups:
        return [
            *_data(query, shape),
            *_keys(query.groups, shape),
            *_grouped(query, label),
            *_listing(),
            *charts.of_groups(query, label, title(query)),
        ]
    value = f"data[{quote(query.column)}].{_AGGREGATES[query.aggregate]}" if query.column else "len(data)"
    lines = [*_data(query, shape), f"value = {value}", f"print({quote(title(query))}, value)"]
    lines.append(f"table = pd.DataFrame({{{quote(label)}: [value]}})")
    lines.append(f'result = {{"columns": [{quote(label)}], "rows": [[value]], "total": 1, "of": len(data)}}')
    if query.column and shape.column(query.column).kind == "number" and query.aggregate not in {"count", "distinct"}:
        lines += charts.histogram(
            f"data[{quote(query.column)}].dropna()", query.column, f"Distribution of {query.column}"
        )
    return lines


def _share(query: Query, shape: Shape) -> list[str]:
    label = _value_name(query)
    return [
        *_data(query, shape),
        *_keys(query.groups, shape),
        *_grouped(query, label),
        f'table["share in %"] = table[{quote(label)}] / table[{quote(label)}].sum() * 100',
        *_listing(),
        *charts.of_groups(query, "share in %", title(query)),
    ]


def _change(query: Query, shape: Shape) -> list[str]:
    label = _value_name(query)
    return [
        *_data(query, shape),
        *_keys(query.groups, shape),
        *_grouped(query, label),
        f'table["change in %"] = table[{quote(label)}].pct_change() * 100',
        *_listing(),
        *charts.of_groups(query, label, title(query)),
    ]


def _rows(query: Query, shape: Shape) -> list[str]:
    names = [column.name for column in shape.columns]
    shown = list(dict.fromkeys([*names[: _SHOWN_COLUMNS - 1], query.column]))
    return [
        *_data(query, shape, everything=True),
        f"sizes = data[{quote(query.column)}].dropna()",
        f'sizes = sizes.sort_values(ascending={query.order == "low"}, kind="stable")',
        f"order = sizes.index[:{query.limit or _LISTED}]",
        f'table = shown.loc[order, {quote(shown)}].fillna("").apply(lambda text: text.str.strip())',
        *_listing(extra=f', "of": int(data[{quote(query.column)}].count())'),
        *charts.bars("[str(place) for place in range(1, len(order) + 1)]", f"data.loc[order, {quote(query.column)}]",
                     "place", query.column, title(query)),
    ]  # fmt: skip


def _correlation(query: Query, shape: Shape) -> list[str]:
    one, other = quote(query.column), quote(query.other)
    return [
        *_data(query, shape),
        f"pairs = data[[{one}, {other}]].dropna()",
        f'value = pairs[{one}].corr(pairs[{other}]) if len(pairs) > 1 else float("nan")  # Pearson',
        'print("correlation:", value, "of", len(pairs), "rows with both values")',
        'table = pd.DataFrame({"correlation": [value], "rows": [len(pairs)]})',
        'result = {"columns": list(table.columns), "rows": [[value, len(pairs)]], "total": 1}',
        *charts.scatter(query.column, query.other, title(query)),
    ]


def _outliers(query: Query, shape: Shape) -> list[str]:
    names = [column.name for column in shape.columns]
    shown = list(dict.fromkeys([*names[: _SHOWN_COLUMNS - 1], query.column]))
    return [
        *_data(query, shape, everything=True),
        f"values = data[{quote(query.column)}].dropna()",
        "low_quarter, middle, high_quarter = values.quantile([0.25, 0.5, 0.75])",
        "reach = 1.5 * (high_quarter - low_quarter)  # Tukey's fences",
        "low, high = low_quarter - reach, high_quarter + reach",
        "far = values[(values < low) | (values > high)]",
        'order = (far - middle).abs().sort_values(ascending=False, kind="stable").index',
        f"table = shown.loc[order, {quote(shown)}]",
        'print(len(far), "of", len(values), "values are below", low, "or above", high)',
        "print(table.head(20).to_string(index=False))",
        "result = {",
        '    "columns": ["values", "low fence", "high fence", "outliers", "lowest", "highest"],',
        '    "rows": [[len(values), low, high, len(far), values.min(), values.max()]],',
        '    "total": len(far),',
        "}",
        *charts.box(query.column, title(query)),
    ]


def _describe(query: Query, shape: Shape) -> list[str]:
    return [
        *_data(query, shape),
        f"values = data[{quote(query.column)}].dropna()",
        "rows = [",
        '    ["values", len(values)], ["missing", len(data) - len(values)], ["mean", values.mean()],',
        '    ["standard deviation", values.std()], ["minimum", values.min()],',
        '    ["first quartile", values.quantile(0.25)], ["median", values.median()],',
        '    ["third quartile", values.quantile(0.75)], ["maximum", values.max()],',
        "]",
        'table = pd.DataFrame(rows, columns=["statistic", "value"])',
        *_listing(),
        *charts.histogram("values", query.column, title(query)),
    ]


def _quality(query: Query, shape: Shape) -> list[str]:
    columns = [shape.column(name) for name in query.columns] or list(shape.columns[:_MOST_COLUMNS])
    lines = _read(shape, [column.name for column in columns])
    lines += [
        f"missing_texts = {quote(list(MISSING))}",
        f"missing_numbers = missing_texts + {quote(['-', '--', 'NA', 'None', 'none', '?', '.'])}",
        "rows = []",
        "",
        "def count(name, missing):",
        "    filled = data[name].notna() & ~missing",
        "    readable = filled & data[name].notna()",
        "    unreadable = int((~missing & data[name].isna()).sum())",
        "    rows.append([name, int(readable.sum()), int(missing.sum()), unreadable, data[name].nunique()])",
        "",
    ]
    for column in columns:
        name = f"data[{quote(column.name)}]"
        texts = "missing_numbers" if column.kind == "number" else "missing_texts"
        lines.append(f'missing = {name}.fillna("").str.strip().isin({texts})')
        lines += _typed(column)
        lines.append(f"count({quote(column.name)}, missing)")
    lines.append('table = pd.DataFrame(rows, columns=["column", "values", "missing", "unreadable", "different"])')
    return [*lines, *_listing(), "plotly_figure = None"]
