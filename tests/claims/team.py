"""What the ready-made teams do, run as a person runs them: by the command.

Comes in: a team's folder, a real file, and a local server that plays a model's answers. Goes out: what the run showed
and kept, compared with what is known. It deliberately does not look into the team.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import sys
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from agentstream.testing import FakeProvider
from claims import ROOT, Figure, claim, exactly, real

_QUESTION: Final = "Which region has the highest total revenue?"
_TABLE: Final = ROOT / "examples" / "data" / "sales.csv"
_PLAN: Final = {
    "steps": [
        {
            "id": "totals",
            "title": "Total revenue by region",
            "query": {
                "kind": "aggregate",
                "column": "revenue",
                "groups": [{"column": "region"}],
                "order": "high",
                "limit": 1,
            },
        }
    ]
}
# What the code makes is told apart from everything else by what only it can know: a colour, a file of its own sandbox.
_RIGHT: Final = """import os
import matplotlib.pyplot as plt
import pandas as pd

assert not os.path.exists("/etc/passwd"), "this is no sandbox"
table = pd.read_csv("sales.csv").groupby("region")["revenue"].sum().sort_values(ascending=False).reset_index()
result = {"columns": list(table.columns), "rows": table.values.tolist(), "total": len(table)}
plt.figure(figsize=(2, 1), facecolor="#123456")
plt.bar(table["region"], table["revenue"])
plotly_figure = {"data": [{"type": "bar", "x": list(table["region"]), "y": list(table["revenue"])}], "layout": {}}
print("in the sandbox as", os.getuid())
"""
_WRONG: Final = _RIGHT.replace(".sum()", ".mean()")
_REPLY: Final = "West leads."
_BACKGROUND: Final = (0x12, 0x34, 0x56)


@claim(
    "team.analyst",
    "A model's code runs in the sandbox; its wrong answer is caught and corrected, its picture and figure are kept",
    unit="differences between what the run kept and what the file holds",
    quick=False,
    limit=240.0,
)
async def analyst() -> Figure:
    """Run the command on a real file, with a model that is wrong at first, and look at what it kept."""
    real("bwrap")
    real("pandas")
    with tempfile.TemporaryDirectory(prefix="agentstream-claim-") as folder:
        answers = (json.dumps(_PLAN), _WRONG, _RIGHT, _REPLY)
        async with FakeProvider(*answers, *answers) as model:
            # Twice: as a program reads it, and as a person sees it, with files for what was kept.
            status, printed, complaints = await _run(Path(folder), model.url("openai"), "--json")
            shown, *_ = await _run(Path(folder), model.url("openai"), "--out", "out")
        kept = await anyio.to_thread.run_sync(_artifacts, Path(folder) / "out")
    events: list[dict[str, Any]] = [json.loads(line) for line in printed.splitlines()]  # Any: events of every type
    totals = await anyio.to_thread.run_sync(_totals)
    last = events[-1] if events else {}
    output: dict[str, Any] = last.get("output") or {}
    figure = output.get("plotly_json") or {"data": [{}]}
    verdicts = [event["ok"] for event in events if event["type"] == "verdict.given"]
    said = "".join(event["text"] for event in events if event["type"] == "tool.output")
    checks = {
        "the command ended well": status == shown == 0 and last.get("type") == "run.finished",
        "the first answer was caught, the second accepted": verdicts == [False, True] and output.get("rounds") == 2,
        "the answer is the file's": _pairs(output.get("execution_result", {}).get("rows", [])) == totals,
        "the figure holds the file's totals": _pairs(zip(*_axes(figure), strict=False)) == totals,
        "the figure was kept": any(name.endswith(".plotly.json") for name in kept),
        "the picture is the one that the code drew": any(_BACKGROUND in _corner(data) for data in kept.values()),
        "the code ran as nobody, in the sandbox": "in the sandbox as 65534" in said,
        "the model was asked four times a run": len(model.requests) == 8,
    }
    wrong = [name for name, holds in checks.items() if not holds]
    return Figure(
        len(wrong),
        n=len(checks),
        bound=exactly(0),
        detail={"kept": sorted(kept), **checks, **({"it complained": complaints[-2_000:]} if wrong else {})},
    )


async def _run(folder: Path, address: str, *options: str) -> tuple[int, bytes, str]:
    """Run the command; its status, and what it wrote to standard output and error."""
    command = [sys.executable, "-m", "agentstream.cli", "run", str(ROOT / "agents" / "analyst"), _QUESTION]
    with anyio.fail_after(100):
        done = await anyio.run_process(
            [*command, "--file", str(_TABLE), *options],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "AGENTSTREAM_BASE_URL": address,
                "AGENTSTREAM_API_KEY": "key",
                "AGENTSTREAM_MODEL": "played",
            },
            check=False,
        )
    return done.returncode, done.stdout, done.stderr.decode()


def _artifacts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _totals() -> dict[str, Decimal]:
    """Revenue by region, by other means than the team's."""
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    with _TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["revenue"]:
                totals[row["region"]] += Decimal(row["revenue"])
    return dict(totals)


def _pairs(rows: Any) -> dict[str, Decimal]:
    return {region: Decimal(str(round(total, 2))) for region, total in rows}


def _axes(figure: dict[str, Any]) -> tuple[list[str], list[float]]:
    trace = figure["data"][0]
    return trace.get("x", []), trace.get("y", [])


def _corner(data: bytes) -> set[tuple[int, ...]]:
    """The colour of the upper left pixel, where the bytes are a picture."""
    if not data.startswith(b"\x89PNG"):
        return set()
    image = importlib.import_module("PIL.Image").open(io.BytesIO(data)).convert("RGB")
    return {tuple(image.getpixel((0, 0)))}
