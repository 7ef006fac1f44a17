"""Claims about the developer page: a reload in the middle of a run changes nothing of what it shows in the end.

Comes in: a headless Chromium, and a real server. Goes out: how many parts of the page differ from those of a page that
was never interrupted; and screenshots in `test-artifacts/`.
It deliberately does not know how the page is made, only the marks that it carries for tests.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from claims import ROOT, Figure, claim, exactly, real
from claims._browser import Driver, Page
from claims._server import Server

_SHOTS: Final = ROOT / "test-artifacts"
_ANALYST: Final = ROOT / "agents" / "analyst"
_SALES: Final = ROOT / "examples" / "data" / "sales.csv"
_RELOADS: Final = (0.25, 0.4, 0.6)  # where at the earliest, as a share of the run's last seq
_WITHIN: Final = (0.2, 0.8)
_RUN_S: Final = 60.0
_ENDED: Final = ("finished", "failed", "stopped", "lost")
_LANES: Final = ("planner", "executor", "verifier")
_QUESTION: Final = "What is the mean of the eight values, and which is the largest?"
_DURATION: Final = re.compile(r"\d+(\.\d+)? m?s")

_SEQ: Final = "return +document.documentElement.dataset.seq"

# Everything that a person reads of a run, by where it stands; times pass and are left out.
_SEEN: Final = """
const all = (id, root = document) => [...root.querySelectorAll(`[data-testid="${id}"]`)];
const seen = { status: document.documentElement.dataset.status, seq: document.documentElement.dataset.seq };
for (const lane of all("lane")) {
  seen[`lane ${lane.dataset.inv}`] = all("lane-text", lane).map((part) => part.textContent).join("");
  const sized = (picture) => `${picture.naturalWidth}×${picture.naturalHeight} ${picture.alt}`;
  seen[`pictures ${lane.dataset.inv}`] = all("picture", lane).map(sized).join();
}
seen.output = all("output").map((part) => part.textContent).join();
seen.plan = all("plan-step").map((step) => `${step.title} ${step.dataset.status}`).join();
seen.verdicts = all("verdict").map((part) => part.textContent).join();
return seen;
"""
_PICTURES: Final = """
const pictures = [...document.querySelectorAll('[data-testid="picture"]')];
return pictures.length > 0 && pictures.every((picture) => picture.complete && picture.naturalWidth > 0);
"""


@dataclass(frozen=True)
class Reloads:
    """What came of one run that two pages followed.

    Attributes:
        whole, reloaded: what the two pages showed in the end.
        at: at which share of the run's last seq it was reloaded, each time.
    """

    whole: dict[str, Any]  # Any: JSON
    reloaded: dict[str, Any]
    at: list[float]

    @property
    def different(self) -> list[str]:
        """The parts that are not the same."""
        return sorted(
            key for key in self.whole.keys() | self.reloaded.keys() if self.whole.get(key) != self.reloaded.get(key)
        )

    @property
    def characters(self) -> int:
        """How many characters were compared."""
        return sum(len(str(value)) for value in self.whole.values())


def follow(whole: Page, other: Page, address: str, reload_at: Sequence[float]) -> Reloads:
    """Follow a run with two pages, and reload one of them on the way.

    Args:
        other: shows the run already.
        reload_at: the seqs that are waited for, each before a reload.
    """
    whole.open(address)
    seqs: list[int] = []
    for seq in reload_at:
        other.wait(f"return +document.documentElement.dataset.seq >= {seq:.0f}", _RUN_S)
        seqs.append(other.run(_SEQ))
        other.reload()
    seen = _to_the_end(whole)
    return Reloads(seen, _to_the_end(other), [seq / int(seen["seq"]) for seq in seqs])


def _to_the_end(page: Page) -> dict[str, Any]:  # Any: JSON
    """Leave the page alone until its run has ended; return what it shows then."""
    page.wait(f"return {list(_ENDED)!r}.includes(document.documentElement.dataset.status)", _RUN_S)
    page.wait(_PICTURES, 10)
    seen: dict[str, Any] = page.run(_SEEN)
    return seen


def _start_by_hand(page: Page, server: Server) -> str:
    """Type the question into the page and start it; return the run's address."""
    page.open(f"http://127.0.0.1:{server.port}/#/teams/roles")
    page.wait("return document.querySelector('[data-testid=\"prompt\"]').placeholder.includes('roles')", 10)
    page.write('[data-testid="prompt"]', _QUESTION)
    return str(page.wait("return location.hash.startsWith('#/runs/') && location.href", 10))


def _analyst(whole: Page, other: Page, server: Server) -> Reloads:
    """The real team: too fast to say where it is reloaded, so that is done as soon as the page shows anything."""
    run = server.start_run("analyst", "Which region has the highest total revenue?", [server.upload(_SALES)])
    address = f"http://127.0.0.1:{server.port}/#/runs/{run}"
    other.open(address)
    return follow(whole, other, address, [1])


def _keep(name: str, page: Page) -> None:
    """Keep a screenshot for people."""
    _SHOTS.mkdir(exist_ok=True)
    (_SHOTS / name).write_bytes(page.screenshot())


def _timeless(text: object) -> str:
    """A text without the durations in it."""
    return _DURATION.sub("…", str(text))


@claim(
    "page.reload",
    "A page that is reloaded in the middle of a run ends with the same lanes, picture and text as one that was not",
    unit="parts of the page that differ",
    limit=180.0,
    promises=("P5", "P8"),
)
def reload() -> Figure:
    """Run a team of three roles twice: once untouched, once with three reloads beside a page that is left alone."""
    real("pandas")
    with (
        tempfile.TemporaryDirectory(prefix="agentstream-page-") as folder,
        Server(f"sqlite:{Path(folder, 'runs.db')}", teams=[str(_ANALYST)]) as server,
        Driver() as driver,
    ):
        whole, other = driver.page(), driver.page()
        _start_by_hand(whole, server)
        first = _to_the_end(whole)
        address = _start_by_hand(other, server)
        reloads = follow(whole, other, address, [share * int(first["seq"]) for share in _RELOADS])
        _keep("page-reload.png", other)
        analyst = _analyst(whole, other, server)
        _keep("page-reload-analyst.png", other)
    lanes = {key.split()[1].partition(".")[0]: text for key, text in reloads.whole.items() if key.startswith("lane ")}
    pictures = [value for key, value in reloads.whole.items() if key.startswith("pictures ") and value]
    # The two runs say the same words, but each took its own time.
    again = [key for key in first if _timeless(first[key]) != _timeless(reloads.reloaded.get(key))]
    shown = set(lanes) == set(_LANES) and all(lanes.values()) and len(pictures) == 1 and bool(reloads.whole["output"])
    in_the_middle = all(_WITHIN[0] <= at <= _WITHIN[1] for at in reloads.at)
    return Figure(
        len(reloads.different) + len(again) + len(analyst.different),
        n=reloads.characters + analyst.characters,
        bound=exactly(0),
        ok=shown and in_the_middle and all(one.whole["status"] == "finished" for one in (reloads, analyst)),
        detail={
            "different from a page that was left alone": reloads.different or "nothing",
            "different from another run": again or "nothing",
            "lanes": {name: f"{len(text)} characters" for name, text in lanes.items()},
            "pictures": pictures,
            "reloaded at": " ".join(f"{at:.0%}" for at in reloads.at) + f" of seq {reloads.whole['seq']}",
            "different of the analyst": analyst.different or "nothing",
            "the analyst was reloaded at": f"{analyst.at[0]:.0%} of seq {analyst.whole['seq']}",
            "screenshots": "test-artifacts/page-reload.png, page-reload-analyst.png",
        },
    )
