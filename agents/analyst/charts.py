"""Writes the part of a program that draws: one matplotlib picture, and the same as a plotly figure.

What comes in: the names of what is drawn. What goes out: lines of code that use the variables of the program they end.
It does not know the data; plotly itself is not needed, since a figure of its is plain JSON.
"""

from __future__ import annotations

import json
from typing import Final

from .query import Query
from .titles import key_label

__all__ = ("bars", "box", "histogram", "of_groups", "scatter")

_COLOUR: Final = "#0d8a7a"
_FIGURE: Final = 'figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")'
_BARS: Final = 20  # more bars than this cannot be read
_LINES: Final = 8


def _q(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plotly(traces: str, title: str, x: str, y: str) -> list[str]:
    return [
        "plotly_figure = {",
        f'    "data": {traces},',
        '    "layout": {',
        f'        "title": {{"text": {_q(title)}}},',
        f'        "xaxis": {{"title": {{"text": {_q(x)}}}}},',
        f'        "yaxis": {{"title": {{"text": {_q(y)}}}}},',
        "    },",
        "}",
    ]


def of_groups(query: Query, label: str, title: str) -> list[str]:
    """A value for each group: bars, or a line over time; one set for each second key."""
    first = query.groups[0]
    time = next((group for group in query.groups if group.unit not in {"", "weekday", "hour"}), None)
    if len(query.groups) == 2:
        second = query.groups[1]
        index, columns = (time, second if time is first else first) if time else (first, second)
        return _sets(key_label(index), key_label(columns), label, title, line=time is not None)
    key = key_label(first)
    if time is not None and query.order == "key":
        return _line(key, label, title)
    return [
        "",
        f"top = table.head({_BARS})",
        *bars(f"top[{_q(key)}].astype(str).tolist()", f"top[{_q(label)}]", key, label, title)[1:],
    ]


def bars(names: str, values: str, x: str, y: str, title: str) -> list[str]:
    """Lying bars, the first on top: long names stay readable."""
    return [
        "",
        f"names, heights = {names}, {values}.tolist()",
        _FIGURE,
        f'axes.barh(names, heights, color="{_COLOUR}")',
        "axes.invert_yaxis()",
        f"axes.set(title={_q(title)}, xlabel={_q(y)}, ylabel={_q(x)})",
        *_plotly('[{"type": "bar", "x": names, "y": heights}]', title, x, y),
    ]


def _line(key: str, label: str, title: str) -> list[str]:
    return [
        "",
        f"names, heights = table[{_q(key)}].astype(str).tolist(), table[{_q(label)}].tolist()",
        _FIGURE,
        f'axes.plot(names, heights, marker="o", markersize=3, color="{_COLOUR}")',
        "axes.set_xticks(range(0, len(names), max(1, len(names) // 8)))",
        f"axes.set(title={_q(title)}, xlabel={_q(key)}, ylabel={_q(label)})",
        *_plotly('[{"type": "scatter", "mode": "lines+markers", "x": names, "y": heights}]', title, key, label),
    ]


def _sets(index: str, columns: str, label: str, title: str, *, line: bool) -> list[str]:
    kind = 'kind="line", marker="o", markersize=3' if line else 'kind="bar"'
    trace = '"type": "scatter", "mode": "lines+markers"' if line else '"type": "bar"'
    return [
        "",
        f"wide = table.pivot(index={_q(index)}, columns={_q(columns)}, values={_q(label)}).sort_index()",
        "wide.index, wide.columns = wide.index.astype(str), wide.columns.astype(str)",
        f"wide = wide[wide.sum().sort_values(ascending=False).index[:{_LINES}]]" + ("" if line else f".head({_BARS})"),
        _FIGURE,
        f"wide.plot({kind}, ax=axes)",
        f"axes.set(title={_q(title)}, xlabel={_q(index)}, ylabel={_q(label)})",
        f'sets = [{{{trace}, "name": name, "y": wide[name].tolist()}} for name in wide.columns]',
        *_plotly('[{**one, "x": wide.index.tolist()} for one in sets]', title, index, label),
    ]


def histogram(values: str, column: str, title: str) -> list[str]:
    """How often numbers of each size occur."""
    return [
        "",
        f"heights, edges = np.histogram({values}.to_numpy(), bins=30)",
        _FIGURE,
        f'axes.stairs(heights, edges, fill=True, color="{_COLOUR}")',
        f'axes.set(title={_q(title)}, xlabel={_q(column)}, ylabel="rows")',
        *_plotly(
            '[{"type": "bar", "x": ((edges[:-1] + edges[1:]) / 2).tolist(), "y": heights.tolist()}]',
            title,
            column,
            "rows",
        ),
    ]


def scatter(x: str, y: str, title: str) -> list[str]:
    """A point for each row, at most 2,000 of them."""
    return [
        "",
        "points = pairs.sample(min(len(pairs), 2000), random_state=0)",
        f"across, up = points[{_q(x)}].tolist(), points[{_q(y)}].tolist()",
        _FIGURE,
        f'axes.scatter(across, up, s=10, alpha=0.4, color="{_COLOUR}")',
        f"axes.set(title={_q(title)}, xlabel={_q(x)}, ylabel={_q(y)})",
        *_plotly('[{"type": "scatter", "mode": "markers", "x": across, "y": up}]', title, x, y),
    ]


def box(column: str, title: str) -> list[str]:
    """Quartiles, fences and what lies outside."""
    return [
        "",
        _FIGURE,
        "axes.boxplot(values.to_numpy(), whis=1.5)",
        f"axes.set(title={_q(title)}, xticks=[], ylabel={_q(column)})",
        *_plotly(
            '[{"type": "box", "q1": [low_quarter], "median": [middle], "q3": [high_quarter], "lowerfence": [low],'
            ' "upperfence": [high], "y": [far.tolist()[:500]]}]',
            title,
            "",
            column,
        ),
    ]
