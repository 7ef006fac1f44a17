"""Questions in words against answers that are worked out here, and the programs that the rules write for them."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from team_loading import EXAMPLE_DATA, load

pytestmark = pytest.mark.real("pandas")

rules, reading, recompute, pandas_code = (
    load("analyst", name) for name in ("rules", "reading", "recompute", "pandas_code")
)
child, replies = load("analyst", "child"), load("analyst", "replies")

SALES: Final = EXAMPLE_DATA / "sales.csv"
Orders = list[dict[str, str]]


# --- the other way to the answers -------------------------------------------------------------------------------------
def numbers(orders: Iterable[dict[str, str]], name: str) -> list[float]:
    """The numbers of a column, blank cells left out."""
    return [float(order[name]) for order in orders if order[name]]


def by(
    orders: Orders, key: str | Callable[[dict[str, str]], str], value: Callable[[Orders], float]
) -> list[list[Any]]:  # Any: cells
    """One row a group, in the order of the keys."""
    groups: dict[str, Orders] = defaultdict(list)
    for order in orders:
        groups[order[key] if isinstance(key, str) else key(order)].append(order)
    return [[name, value(members)] for name, members in sorted(groups.items())]


def ranked(rows: list[list[Any]], *, low: bool = False) -> list[list[Any]]:
    """Highest first, groups of one value in the order of their keys."""
    return sorted(rows, key=lambda row: row[1], reverse=not low)


def total(name: str) -> Callable[[Orders], float]:
    """A sum of a column."""
    return lambda orders: sum(numbers(orders, name))


def mean(name: str) -> Callable[[Orders], float]:
    """A mean of a column."""
    return lambda orders: statistics.fmean(numbers(orders, name))


def month(order: dict[str, str]) -> str:
    """Year and month of an order."""
    return order["order_date"][:7]


def year(order: dict[str, str]) -> str:
    """The year of an order."""
    return order["order_date"][:4]


def having(**wanted: str) -> Callable[[Orders], Orders]:
    """Keeps orders with certain values."""
    return lambda orders: [order for order in orders if all(order[name] == value for name, value in wanted.items())]


def in_year(number: str) -> Callable[[Orders], Orders]:
    """Keeps the orders of a year."""
    return lambda orders: [order for order in orders if year(order) == number]


italy, west, returned = having(country="Italy"), having(region="West"), having(returned="yes")


QUESTIONS: Final[dict[str, Callable[[Orders], list[list[Any]]]]] = {
    # totals, means and other aggregates
    "What is the total revenue?": lambda o: [[sum(numbers(o, "revenue"))]],
    "total sales": lambda o: [[sum(numbers(o, "revenue"))]],
    "What is the average unit price?": lambda o: [[statistics.fmean(numbers(o, "unit_price"))]],
    "mean of `unit_price`": lambda o: [[statistics.fmean(numbers(o, "unit_price"))]],
    "What's the median revenue per order?": lambda o: [[statistics.median(numbers(o, "revenue"))]],
    "What is the standard deviation of revenue?": lambda o: [[statistics.stdev(numbers(o, "revenue"))]],
    "What is the highest revenue?": lambda o: [[max(numbers(o, "revenue"))]],
    "What is the minimum unit price in Furniture?": lambda o: [
        [min(numbers(having(category="Furniture")(o), "unit_price"))]
    ],
    "avg discount for retail": lambda o: [[statistics.fmean(numbers(having(channel="Retail")(o), "discount"))]],
    "What is the mean rating?": lambda o: [[statistics.fmean(numbers(o, "rating"))]],
    "When was the first order?": lambda o: [[min(order["order_date"] for order in o) + "T00:00:00"]],
    "What is the latest order date?": lambda o: [[max(order["order_date"] for order in o) + "T00:00:00"]],
    # counts
    "How many rows are there?": lambda o: [[len(o)]],
    "How many orders are there?": lambda o: [[len(o)]],
    "How many customers do we have?": lambda o: [[len({order["customer_id"] for order in o})]],
    "How many different products are there?": lambda o: [[10]],
    "How many units were sold in 2023?": lambda o: [[sum(numbers(in_year("2023")(o), "quantity"))]],
    "How many orders were returned?": lambda o: [[len(returned(o))]],
    "How many orders were not returned?": lambda o: [[len(o) - len(returned(o))]],
    "How many orders with revenue over 1000?": lambda o: [[sum(value > 1000 for value in numbers(o, "revenue"))]],
    "orders with rating at least 4": lambda o: [[sum(value >= 4 for value in numbers(o, "rating"))]],
    "How many orders with a discount of 0.1?": lambda o: [[sum(value == 0.1 for value in numbers(o, "discount"))]],
    # groups
    "Which region has the highest total revenue?": lambda o: ranked(by(o, "region", total("revenue"))),
    "Top 5 products by revenue": lambda o: ranked(by(o, "product", total("revenue"))),
    "bottom 3 countries by average rating": lambda o: ranked(by(o, "country", mean("rating")), low=True),
    "How many orders per region?": lambda o: ranked(by(o, "region", len)),
    "number of customers by country": lambda o: ranked(
        by(o, "country", lambda orders: len({order["customer_id"] for order in orders}))
    ),
    "price by region": lambda o: ranked(by(o, "region", mean("unit_price"))),
    "revenue by country in West": lambda o: ranked(by(west(o), "country", total("revenue"))),
    "What are total sales per country in descending order?": lambda o: ranked(by(o, "country", total("revenue"))),
    "Which product is returned most often?": lambda o: ranked(by(returned(o), "product", len)),
    "customer with the most orders": lambda o: ranked(by(o, "customer_id", len))[:200],
    "Which customer spent the most?": lambda o: ranked(by(o, "customer_id", total("revenue")))[:200],
    "What are the top selling products?": lambda o: ranked(by(o, "product", total("quantity"))),
    "revenue by rating": lambda o: [[float(key), value] for key, value in by(o, "rating", total("revenue")) if key],
    "average rating by product and channel": lambda o: [
        [*key.split("|"), value]
        for key, value in by(o, lambda order: f"{order['product']}|{order['channel']}", mean("rating"))
    ],
    # time
    "Revenue by month": lambda o: by(o, month, total("revenue")),
    "revenue over time": lambda o: by(o, month, total("revenue")),
    "Show monthly revenue for 2024": lambda o: by(in_year("2024")(o), month, total("revenue")),
    "In which year was revenue lowest?": lambda o: ranked(by(o, year, total("revenue")), low=True),
    "total sales by quarter": lambda o: by(
        o, lambda order: f"{year(order)}Q{(int(month(order)[5:]) + 2) // 3}", total("revenue")
    ),
    "average revenue in Q1 2023": lambda o: [
        [statistics.fmean(numbers((x for x in o if "2023-01" <= month(x) <= "2023-03"), "revenue"))]
    ],
    "How many orders since March 2024?": lambda o: [[sum(month(order) >= "2024-03" for order in o)]],
    "orders between 2023-01-01 and 2023-06-30": lambda o: [
        [sum("2023-01-01" <= order["order_date"] <= "2023-06-30" for order in o)]
    ],
    "revenue in March": lambda o: [[sum(numbers((x for x in o if month(x).endswith("-03")), "revenue"))]],
    # conditions
    "total revenue of laptops in Italy": lambda o: [[sum(numbers(having(product="Laptop")(italy(o)), "revenue"))]],
    "revenue excluding Online": lambda o: [[sum(numbers((x for x in o if x["channel"] != "Online"), "revenue"))]],
    "total revenue not in North or South": lambda o: [
        [sum(numbers((x for x in o if x["region"] not in {"North", "South"}), "revenue"))]
    ],
    "Which had more revenue, North or South?": lambda o: ranked(
        by([x for x in o if x["region"] in {"North", "South"}], "region", total("revenue"))
    ),
    'What is the total "revenue" for "West"?': lambda o: [[sum(numbers(west(o), "revenue"))]],
    "How many orders not returned in Italy?": lambda o: [[len(italy(o)) - len(returned(italy(o)))]],
    "median rating for returned orders": lambda o: [[statistics.median(numbers(returned(o), "rating"))]],
    "Is revenue higher in North than in South?": lambda o: ranked(
        by([x for x in o if x["region"] in {"North", "South"}], "region", total("revenue"))
    ),
    "what are the categories": lambda o: ranked(by(o, "category", len)),
    "which countries are in the South region": lambda o: ranked(by(having(region="South")(o), "country", len)),
    # shares, changes, relations
    "What percentage of orders were returned?": lambda o: [
        [name, count, count / len(o) * 100] for name, count in ranked(by(o, "returned", len))
    ],
    "What share of revenue comes from the West region?": lambda o: [
        [name, value, value / sum(numbers(o, "revenue")) * 100]
        for name, value in ranked(by(o, "region", total("revenue")))
    ],
    "What is the growth of revenue by year?": lambda o: [
        [name, value, None if before is None else (value - before) / before * 100]
        for (name, value), before in zip(
            by(o, year, total("revenue")), [None, *[row[1] for row in by(o, year, total("revenue"))]], strict=False
        )
    ],
    "Is there a correlation between quantity and discount?": lambda o: [
        [statistics.correlation(numbers(o, "quantity"), numbers(o, "discount")), len(o)]
    ],
    # the state of the data
    "How many missing values are in rating?": lambda o: [
        ["rating", len(numbers(o, "rating")), len(o) - len(numbers(o, "rating")), 0, 5]
    ],
}


@pytest.fixture(scope="module")
def orders() -> Orders:
    """The rows of the example file, by the csv module alone."""
    with SALES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table() -> Any:
    """The example file as the team reads it."""
    return reading.read_table(SALES)


@pytest.fixture(scope="module")
def shape(table: Any) -> Any:
    """What the team knows of the example file."""
    return reading.shape_of(table)


def run_here(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """The program's `result`, and everything it left; in this process, since starting one a question takes a minute."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<code>", "exec"), names)
    if "plt" in names:
        names["plt"].close("all")
    return child.plain(names["result"]), names


def assert_alike(rows: list[list[Any]], wanted: list[list[Any]]) -> None:
    """The same cells; figures within a billionth, since sums may be taken in another order."""
    assert [[cell for cell in row if not is_figure(cell)] for row in rows] == [
        [cell for cell in row if not is_figure(cell)] for row in wanted
    ]
    figures = [cell for row in rows for cell in row if is_figure(cell)]
    assert figures == pytest.approx([cell for row in wanted for cell in row if is_figure(cell)], rel=1e-9)


def is_figure(cell: object) -> bool:
    """Whether a cell is a number."""
    return isinstance(cell, int | float)


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_question_is_answered_from_the_file(
    question: str, orders: Orders, table: Any, shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules read the question, their program's result and the verifier's are the answer worked out here."""
    (query,) = rules.queries_of(question, shape)
    wanted = QUESTIONS[question](orders)
    again = recompute.expected(query, shape, table)
    result, names = run_here(pandas_code.code_for(query, shape), SALES.parent, monkeypatch)
    assert_alike(result["rows"], wanted)
    assert recompute.difference(result, again) == ""
    assert len(names["table"]) >= min(len(wanted), 1)
    assert replies.reply_for(query, result, shape)


SEVERAL: Final = {
    "What is the total revenue and the average rating?": [("sum", "revenue", []), ("mean", "rating", [])],
    "average rating and total revenue by region": [("mean", "rating", ["region"]), ("sum", "revenue", ["region"])],
    "maximum and minimum unit price": [("max", "unit_price", []), ("min", "unit_price", [])],
}


@pytest.mark.parametrize("question", SEVERAL, ids=str)
def test_several_questions_become_several_queries(question: str, shape: Any) -> None:
    """A question that asks several things is answered by one query for each."""
    found = [(q.aggregate, q.column, [g.column for g in q.groups]) for q in rules.queries_of(question, shape)]
    assert found == SEVERAL[question]


KINDS: Final = {
    "Are there outliers in revenue?": ("outliers", "revenue"),
    "unusual values in quantity": ("outliers", "quantity"),
    "Summarize revenue": ("describe", "revenue"),
    "distribution of unit price": ("describe", "unit_price"),
    "Describe the data": ("describe", ""),
    "How many columns are there?": ("describe", ""),
    "Which columns have missing values?": ("quality", ""),
    "Top 10 orders by revenue": ("rows", "revenue"),
    "10 rows with the highest revenue": ("rows", "revenue"),
    "Does the discount affect the rating?": ("correlation", "discount"),
}


@pytest.mark.parametrize("question", KINDS, ids=str)
def test_other_kinds_agree_with_the_verifier(
    question: str, table: Any, shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions of the other kinds are recognised, and pandas and the verifier come to the same."""
    (query,) = rules.queries_of(question, shape)
    assert (query.kind, query.column) == KINDS[question]
    result, _ = run_here(pandas_code.code_for(query, shape), SALES.parent, monkeypatch)
    assert recompute.difference(result, recompute.expected(query, shape, table)) == ""
    assert replies.reply_for(query, result, shape)


# --- other files ------------------------------------------------------------------------------------------------------
FILES: Final[dict[str, tuple[bytes, dict[str, list[list[Any]]]]]] = {
    "german.csv": (
        "Datum;Stadt;Umsatz in €;Menge\r\n"
        "01.02.2023;München;1.234,50;2\r\n"
        "15.02.2023;Köln;-10,25;1\r\n"
        "03.03.2023; Köln ;2.000,00;\r\n"
        "04.03.2023;;5,75;4\r\n".encode("cp1252"),
        {
            "total Umsatz": [[3230.0]],
            "Umsatz by Stadt": [["Köln", 1989.75], ["München", 1234.5]],
            "Umsatz by month": [["2023-02", 1224.25], ["2023-03", 2005.75]],
            "mean Menge": [[7 / 3]],
            "total Umsatz not in München": [[1989.75]],
        },
    ),
    "staff.tsv": (
        (
            b"Full Name\tDept\tannualSalary\tJoined\tActive\n"
            b"Ada\tIT\t$52,000\t3/14/2020\tYes\n"
            b"Bo\tIT\t$48,000\t11/30/2021\tNo\n"
            b"Cy\tHR\t$61,500\t7/4/2020\tYes\n"
        ),
        {
            "average salary by department": [["HR", 61500], ["IT", 50000]],
            "Who has the highest salary?": [["Cy", "HR", "$61,500", "7/4/2020", "Yes"]],
            "How many people joined in 2020?": [[2]],
            "how many are active": [[2]],
            "Which department has the most employees?": [["IT", 2], ["HR", 1]],
        },
    ),
    "log.csv": (
        "timestamp|sensor|value\n"
        "2024-01-01T06:15:00Z|S1|1.5e2\n"
        "2024-01-01T18:15:00.250Z|S1|-50\n"
        "2024-01-02T06:45:00+02:00|S2|n/a\n".encode("utf-8-sig"),
        {
            "total value by sensor": [["S1", 100]],
            "value by hour": [["06:00", 150], ["18:00", -50]],
            "number of rows by weekday": [["Monday", 2], ["Tuesday", 1]],
            "largest value": [[150]],
        },
    ),
    "odd.csv": (
        b' city ,"price, net",price,,city\nRome,1.5,2,,"x ""q"""\n\nOslo,2.5,4,,y\nOslo,,6,,y\n',
        {
            'mean of "price, net"': [[2]],
            "total price by city": [["Oslo", 10], ["Rome", 2]],
            'how many rows with "x q"': [[1]],
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "question"), [(name, question) for name, (_, asked) in FILES.items() for question in asked], ids=str
)
def test_any_table_works(name: str, question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other delimiters, decimal marks, encodings, dates, currencies and odd headers give the answers written here."""
    data, asked = FILES[name]
    (tmp_path / name).write_bytes(data)
    table = reading.read_table(tmp_path / name)
    shape = reading.shape_of(table)
    (query,) = rules.queries_of(question, shape)
    result, _ = run_here(pandas_code.code_for(query, shape), tmp_path, monkeypatch)
    assert_alike(result["rows"], asked[question])
    assert recompute.difference(result, recompute.expected(query, shape, table)) == ""
