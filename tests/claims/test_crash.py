"""The claims about crashes, once at each place: what their hundreds measure must hold for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from claims._crash_team import PLACES
from claims.crash import continued, zombies


@pytest.mark.promise("P10", "P11")
def test_a_killed_run_goes_on_at_every_place(tmp_path: Path) -> None:
    """In a model call, a tool, a step, a map and a commit: five runs end, and nothing recorded is done again."""
    tally = continued(tmp_path, list(PLACES), 7)
    assert tally.runs == len(PLACES)
    assert not +tally.wrong


@pytest.mark.promise("P10")
def test_a_zombie_writes_nothing(tmp_path: Path) -> None:
    """SIGSTOP, takeover, SIGCONT: its append is refused, and its process ends by itself."""
    tally = zombies(tmp_path, 1, 7)
    assert tally.counts["refused appends"] >= 1
    assert not +tally.wrong
