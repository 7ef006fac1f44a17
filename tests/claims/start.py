"""Claims about the first minutes: what a fresh machine needs.

Comes in: this checkout's last commit. Goes out: figures of a clone that was set up from nothing.
It deliberately does not know how the Makefile works, only what the two commands promise.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Final

from claims import ROOT, Figure, at_most, claim, real

# What may reach a package index or proxy of the user's; everything else of the environment stays behind.
_KEPT: Final = re.compile(r"PATH|LANG|LC_.*|TMPDIR|(PIP|UV|SSL|REQUESTS)_.*|(https?|no|all)_proxy", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\d[\d,_\u202f]*(?:\.\d+)?")


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of a user who has just logged in for the first time."""
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    # Not this checkout's own environment, should it be activated.
    own = str(ROOT / ".venv")
    kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if not part.startswith(own))
    return kept | {"HOME": str(home)}


def _make(target: str, checkout: Path, home: Path, limit: float) -> tuple[int, str]:
    """Run one make target; return its exit status and what it printed. One that takes too long is killed as a group."""
    with subprocess.Popen(
        [real("make"), target],
        cwd=checkout,
        env=_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=limit)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    print(printed[-4_000:], file=sys.stderr, flush=True)
    return process.returncode, printed


def _best_region(table: Path) -> tuple[str, Decimal, int]:
    """Return the region with the highest total revenue, the total, and the number of rows, by other means."""
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    rows = 0
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows += 1
            if row["revenue"]:
                totals[row["region"]] += Decimal(row["revenue"])
    region = max(totals, key=totals.__getitem__)
    return region, totals[region], rows


def _nearest(wanted: Decimal, printed: str) -> Decimal:
    """Return the number in the text that comes nearest."""
    numbers = [Decimal(re.sub(r"[,_\u202f]", "", found)) for found in _NUMBER.findall(printed)]
    return min(numbers, key=lambda number: abs(number - wanted), default=Decimal("Infinity"))


@claim(
    "start.two-commands",
    "`make demo` and `make test` run in a fresh clone with an empty home, and the demo's answer is the file's",
    unit="difference between the demo's total and the file's",
    quick=False,
    limit=5_000.0,
)
def two_commands() -> Figure:
    """Clone the last commit, run both commands as a new user would, and compute the demo's answer from its file."""
    with tempfile.TemporaryDirectory(prefix="agentstream-start-") as folder:
        home, checkout = Path(folder, "home"), Path(folder, "checkout")
        home.mkdir()
        subprocess.run(
            [real("git"), "clone", "--quiet", "--no-hardlinks", str(ROOT), str(checkout)], check=True, timeout=120
        )
        demo, shown = _make("demo", checkout, home, limit=1_200.0)
        region, total, rows = _best_region(checkout / "examples" / "data" / "sales.csv")
        test, report = _make("test", checkout, home, limit=3_600.0)
        answer = _nearest(total, shown)
        return Figure(
            float(abs(answer - total)),
            n=rows,
            bound=at_most(0.005),  # a total is printed to the cent
            ok=demo == 0 and test == 0 and region in shown,
            detail={
                "make demo": f"exit status {demo}",
                "make test": f"exit status {test}: {(report.strip().splitlines() or [''])[-1]}",
                "from the file": f"{region}, {total}, {rows} rows",
                "the demo says": f"{region if region in shown else 'another region'}, {answer}",
            },
        )
