"""Writes `sales.csv` beside this file: orders of a shop that does not exist, the same bytes each time.

What comes in: nothing but a fixed seed. What goes out: 6,000 orders of three years with a few missing values, as in
real files, and a README whose figures are counted from exactly these orders. It does not know who reads them.

    python examples/data/generate.py          # writes sales.csv and README.md
    python examples/data/generate.py --check  # exit status 1 where the files differ from what would be written
"""

from __future__ import annotations

import csv
import io
import random
import statistics
import sys
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

SEED = 20240229
ROWS = 6_000
FIRST_DAY = date(2022, 1, 1)
DAYS = 3 * 365 + 1  # to 2024-12-31; 2024 is a leap year
HEADER = (
    "order_id", "order_date", "region", "country", "product", "category", "channel", "customer_id", "quantity",
    "unit_price", "discount", "revenue", "rating", "returned",
)  # fmt: skip

COUNTRIES = {
    "North": (("Norway", 2), ("Sweden", 3), ("Finland", 2)),
    "South": (("Italy", 4), ("Spain", 4), ("Portugal", 1)),
    "East": (("Poland", 4), ("Czechia", 2), ("Hungary", 2)),
    "West": (("France", 5), ("Belgium", 2), ("Netherlands", 3)),
}
REGIONS = (("North", 20), ("South", 27), ("East", 21), ("West", 32))
PRODUCTS = {
    "Laptop": ("Computers", 980.00, 6), "Tablet": ("Computers", 420.00, 8), "Monitor": ("Computers", 260.00, 9),
    "Keyboard": ("Accessories", 49.00, 16), "Mouse": ("Accessories", 24.50, 18), "Headset": ("Accessories", 79.00, 13),
    "Webcam": ("Accessories", 64.00, 8), "Desk": ("Furniture", 340.00, 6), "Chair": ("Furniture", 210.00, 9),
    "Lamp": ("Furniture", 38.00, 7),
}  # fmt: skip
CHANNELS = (("Online", 58), ("Retail", 27), ("Partner", 15))


def _pick(random_: random.Random, weighted: tuple[tuple[str, int], ...]) -> str:
    names, weights = zip(*weighted, strict=True)
    return random_.choices(names, weights)[0]


def _day(random_: random.Random) -> date:
    """A day of the three years; November and December are busier, and each year than the one before."""
    while True:
        day = FIRST_DAY + timedelta(days=random_.randrange(DAYS))
        weight = (1.35 if day.month >= 11 else 1.0) * (1 + 0.12 * (day.year - FIRST_DAY.year))
        if random_.random() < weight / 1.7:
            return day


def orders() -> list[tuple[str, ...]]:
    """All rows below the header, as text."""
    random_ = random.Random(SEED)
    products = tuple((name, weight) for name, (_, _, weight) in PRODUCTS.items())
    rows: list[tuple[str, ...]] = []
    days = sorted(_day(random_) for _ in range(ROWS))
    for number, day in enumerate(days, 1):
        region = _pick(random_, REGIONS)
        country = _pick(random_, COUNTRIES[region])
        product = _pick(random_, products)
        category, list_price, _ = PRODUCTS[product]
        channel = _pick(random_, CHANNELS)
        quantity = 1 + min(int(random_.expovariate(0.55)), 11) * (1 if list_price > 200 else 2)
        # Prices rise by 3 % a year; a bulk order gets a discount.
        price = round(list_price * 1.03 ** (day.year - FIRST_DAY.year) * random_.uniform(0.95, 1.05), 2)
        discount = random_.choice((0.05, 0.10, 0.15)) if quantity >= 5 and random_.random() < 0.6 else 0.0
        if number % 750 == 0:  # eight orders of a wholesaler: what an outlier looks like
            quantity *= 40
        revenue = round(quantity * price * (1 - discount), 2)
        rating = random_.choices(("5", "4", "3", "2", "1", ""), (34, 30, 14, 6, 4, 12))[0]  # one in eight rates nothing
        returned = "yes" if random_.random() < (0.11 if category == "Furniture" else 0.05) else "no"
        rows.append((
            f"A{number:05d}", day.isoformat(), region, country, product, category, channel,
            f"C{random_.randrange(1, 901):04d}", str(quantity), f"{price:.2f}", f"{discount:.2f}", f"{revenue:.2f}",
            rating, returned,
        ))  # fmt: skip
    return rows


def csv_text(rows: list[tuple[str, ...]]) -> str:
    """The file's text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows)
    return text.getvalue()


def figures(rows: list[tuple[str, ...]]) -> dict[str, str]:
    """The known statistics, each with two places where it is no count."""
    orders_ = [dict(zip(HEADER, row, strict=True)) for row in rows]
    by_region: dict[str, list[float]] = defaultdict(list)
    by_product: dict[str, list[float]] = defaultdict(list)
    by_year: dict[str, list[float]] = defaultdict(list)
    for order in orders_:
        revenue = float(order["revenue"])
        by_region[order["region"]].append(revenue)
        by_product[order["product"]].append(revenue)
        by_year[order["order_date"][:4]].append(revenue)
    revenues = [float(order["revenue"]) for order in orders_]
    ratings = [float(order["rating"]) for order in orders_ if order["rating"]]

    def ranked(groups: dict[str, list[float]], limit: int) -> str:
        totals = sorted(((sum_(values), name) for name, values in groups.items()), reverse=True)
        return "; ".join(f"{name} {total:,.2f}" for total, name in totals[:limit])

    def sum_(values: list[float]) -> float:
        return round(sum(round(value * 100) for value in values) / 100, 2)  # in cents: exact

    return {
        "orders": f"{len(rows):,}",
        "customers": f"{len({order['customer_id'] for order in orders_}):,}",
        "first and last day": f"{orders_[0]['order_date']}, {orders_[-1]['order_date']}",
        "total revenue": f"{sum_(revenues):,.2f}",
        "mean revenue of an order": f"{statistics.fmean(revenues):,.2f}",
        "median revenue of an order": f"{statistics.median(revenues):,.2f}",
        "largest revenue of an order": f"{max(revenues):,.2f}",
        "units sold": f"{sum(int(order['quantity']) for order in orders_):,}",
        "revenue by region": ranked(by_region, 4),
        "five best products by revenue": ranked(by_product, 5),
        "revenue by year": "; ".join(f"{year} {sum_(values):,.2f}" for year, values in sorted(by_year.items())),
        "orders returned": f"{sum(order['returned'] == 'yes' for order in orders_):,}",
        "orders without a rating": f"{len(rows) - len(ratings):,}",
        "mean rating": f"{statistics.fmean(ratings):,.2f}",
    }


def readme_text(rows: list[tuple[str, ...]]) -> str:
    """The README, its table counted from the rows."""
    lines = [
        "# Example data",
        "",
        "`sales.csv` is **generated**: the shop, its customers and its orders do not exist. `generate.py` writes the file",
        f"and this page from the fixed seed {SEED}; a test checks that both are still what the script writes.",
        "",
        f"It has {ROWS:,} orders in {len(HEADER)} columns: {', '.join(f'`{name}`' for name in HEADER)}. As in real files,",
        "some values are missing (`rating`), and a few orders of a wholesaler stand far out (`quantity`, `revenue`).",
        "`revenue` is `quantity` × `unit_price` × (1 − `discount`), rounded to cents.",
        "",
        "What is known of it, counted by the script without the library:",
        "",
        "| statistic | figure |",
        "|---|---|",
        *(f"| {name} | {figure} |" for name, figure in figures(rows).items()),
        "",
        "So the question of the demo, *Which region has the highest total revenue?*, has a known answer.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write both files, or with `--check` compare them."""
    here = Path(__file__).resolve().parent
    rows = orders()
    texts = {"sales.csv": csv_text(rows), "README.md": readme_text(rows)}
    if arguments == ["--check"]:
        differing = [name for name, text in texts.items() if (here / name).read_bytes() != text.encode()]
        print("as generated" if not differing else f"differs: {', '.join(differing)}")
        return bool(differing)
    for name, text in texts.items():
        (here / name).write_bytes(text.encode())
    print(f"wrote {', '.join(texts)}: {len(rows):,} orders")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
