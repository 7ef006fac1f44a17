"""The example data is what its script writes, and its README tells the truth about it."""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
from collections import defaultdict

from team_loading import EXAMPLE_DATA


def test_files_are_what_the_script_writes() -> None:
    """The CSV and the README are byte for byte what the script makes from its seed."""
    command = [sys.executable, str(EXAMPLE_DATA / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "as generated\n")


def test_readme_is_true() -> None:
    """Figures of the README, counted here from the CSV by other means than the script's."""
    readme = (EXAMPLE_DATA / "README.md").read_text()
    told = dict(line.strip("|").split("|") for line in readme.splitlines() if line.startswith("|"))
    told = {name.strip(): figure.strip() for name, figure in told.items()}
    with (EXAMPLE_DATA / "sales.csv").open(newline="") as file:
        orders = list(csv.DictReader(file))
    revenue = [float(order["revenue"]) for order in orders]
    regions: dict[str, float] = defaultdict(float)
    for order in orders:
        regions[order["region"]] += float(order["revenue"])
    ranked = sorted(regions.items(), key=lambda item: -item[1])
    assert "**generated**" in readme
    assert told["orders"] == f"{len(orders):,}" == "6,000"
    assert told["total revenue"] == f"{sum(revenue):,.2f}"
    assert told["median revenue of an order"] == f"{statistics.median(revenue):,.2f}"
    assert told["revenue by region"] == "; ".join(f"{name} {total:,.2f}" for name, total in ranked)
    assert told["orders returned"] == f"{sum(order['returned'] == 'yes' for order in orders):,}"
    assert told["orders without a rating"] == f"{sum(not order['rating'] for order in orders):,}"


def test_rows_are_consistent() -> None:
    """Each revenue follows from its order's other columns, to the cent."""
    with (EXAMPLE_DATA / "sales.csv").open(newline="") as file:
        for order in csv.DictReader(file):
            wanted = float(order["quantity"]) * float(order["unit_price"]) * (1 - float(order["discount"]))
            assert abs(float(order["revenue"]) - wanted) < 0.0051, order["order_id"]
