"""The second count: it agrees with right results and notices every kind of wrong one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from team_loading import EXAMPLE_DATA, load

rules, reading, recompute = load("analyst", "rules"), load("analyst", "reading"), load("analyst", "recompute")
fitting, query_module = load("analyst", "fitting"), load("analyst", "query")


@pytest.fixture(scope="module")
def table() -> Any:
    """The example file as the team reads it."""
    return reading.read_table(EXAMPLE_DATA / "sales.csv")


@pytest.fixture(scope="module")
def shape(table: Any) -> Any:
    """What the team knows of the example file."""
    return reading.shape_of(table)


@pytest.fixture
def checked(table: Any, shape: Any) -> tuple[dict[str, Any], Any]:
    """A right result of a question with groups, and what is expected."""
    (query,) = rules.queries_of("Which region has the highest total revenue?", shape)
    wanted = recompute.expected(query, shape, table)
    return {"rows": [list(row) for row in wanted.rows], "total": wanted.total}, wanted


def test_right_result_is_accepted(checked: tuple[dict[str, Any], Any]) -> None:
    """A result that is the expected one has no difference; nor has one with the noise of another order of adding."""
    result, wanted = checked
    assert recompute.difference(result, wanted) == ""
    result["rows"][0][1] *= 1 + 1e-12
    assert recompute.difference(result, wanted) == ""


def _swap(result: dict[str, Any]) -> None:
    result["rows"][0], result["rows"][1] = result["rows"][1], result["rows"][0]


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "a cent more": lambda result: result["rows"][0].__setitem__(1, result["rows"][0][1] + 0.01),
    "another name": lambda result: result["rows"][0].__setitem__(0, "North"),
    "a name in other letters": lambda result: result["rows"][0].__setitem__(0, "west"),
    "another order": _swap,
    "a row less": lambda result: result["rows"].pop(),
    "a row more": lambda result: result["rows"].append(["x", 1.0]),
    "another total": lambda result: result.__setitem__("total", 5),
    "no value": lambda result: result["rows"][0].__setitem__(1, None),
    "text for a number": lambda result: result["rows"][0].__setitem__(1, str(result["rows"][0][1])),
    "true for a number": lambda result: result["rows"][0].__setitem__(1, True),
    "a column more": lambda result: result["rows"][0].append(1),
    "no rows": lambda result: result.pop("rows"),
}


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_result_is_noticed(wrong: str, checked: tuple[dict[str, Any], Any]) -> None:
    """Each kind of error in a result is a difference in words."""
    result, wanted = copy.deepcopy(checked[0]), checked[1]
    WRONG[wrong](result)
    assert recompute.difference(result, wanted)


@pytest.mark.parametrize("result", [None, [], "West", 3, {"rows": "West"}, {"rows": [1, 2], "total": 2}])
def test_result_of_another_form_is_noticed(result: object, checked: tuple[dict[str, Any], Any]) -> None:
    """Whatever a program leaves behind is judged, not trusted to have a form."""
    assert recompute.difference(result, checked[1])


def test_rows_of_equal_value_may_change_places(tmp_path: Any) -> None:
    """Two groups with the same sum may stand in either order, since sums of floats are noisy."""
    (tmp_path / "x.csv").write_text("k,v\na,0.1\na,0.2\nb,0.3\n")
    table = reading.read_table(tmp_path / "x.csv")
    (query,) = rules.queries_of("total v by k", reading.shape_of(table))
    wanted = recompute.expected(query, reading.shape_of(table), table)
    assert recompute.difference({"rows": [["a", 0.3], ["b", 0.3]], "total": 2}, wanted) == ""
    assert recompute.difference({"rows": [["b", 0.3], ["a", 0.3]], "total": 2}, wanted) == ""
    assert recompute.difference({"rows": [["a", 0.3], ["a", 0.3]], "total": 2}, wanted)


MISFITS = [
    ({"kind": "aggregate", "column": "profit"}, "no column 'profit'"),
    ({"kind": "aggregate", "aggregate": "mean", "column": "region"}, "column of numbers"),
    ({"kind": "aggregate", "aggregate": "mean"}, "needs a column"),
    ({"kind": "aggregate", "column": "revenue", "groups": [{"column": "order_date"}]}, "unit of time"),
    (
        {"kind": "aggregate", "column": "revenue", "groups": [{"column": "region", "unit": "month"}]},
        "no column of dates",
    ),
    ({"kind": "share", "column": "revenue"}, "needs one group"),
    ({"kind": "change", "column": "revenue", "groups": [{"column": "region"}]}, "period of time"),
    ({"kind": "correlation", "column": "revenue"}, "second column"),
    ({"kind": "rows", "column": "region"}, "column of numbers"),
    ({"kind": "outliers", "column": "revenue", "groups": [{"column": "region"}]}, "cannot be grouped"),
    ({"kind": "quality", "where": [{"column": "region", "test": "in", "values": ["West"]}]}, "whole file"),
    (
        {"kind": "rows", "column": "revenue", "where": [{"column": "order_date", "test": ">", "values": ["soon"]}]},
        "no ISO date",
    ),
    (
        {"kind": "rows", "column": "revenue", "where": [{"column": "revenue", "test": ">", "values": ["much"]}]},
        "with a number",
    ),
    (
        {"kind": "rows", "column": "revenue", "where": [{"column": "order_date", "test": "month", "values": [13]}]},
        "1 to 12",
    ),
    ({"kind": "rows", "column": "revenue", "where": [{"column": "region", "test": "in", "values": [1]}]}, "its kind"),
]


@pytest.mark.parametrize(("fields", "words"), MISFITS)
def test_query_that_cannot_be_asked_is_told(fields: dict[str, Any], words: str, shape: Any) -> None:
    """What a model writes is checked against the file before anybody computes."""
    assert words in fitting.misfit(query_module.Query.model_validate(fields), shape)


def test_queries_of_the_rules_fit(shape: Any) -> None:
    """What the rules write passes the check that models' queries pass."""
    for question in (
        "revenue by month and region",
        "share of orders by channel",
        "growth of revenue",
        "top 3 orders by revenue",
    ):
        for query in rules.queries_of(question, shape):
            assert fitting.misfit(query, shape) == ""
