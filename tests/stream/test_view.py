"""What a reader is sent of a page."""

from __future__ import annotations

from typing import Any

import pytest

from agentstream.errors import InvalidInput
from agentstream.stream import Page, View
from stream.logs import RUN, Script

SCRIPT = (
    Script()
    .add("run.started", run=RUN, team="t")
    .add("agent.started", "planner.1")
    .text("planner.1", "a", "b")
    .add("agent.started", "executor.1")
    .add("agent.started", "executor.2")
    .text("executor.2", "c")
    .add("tool.started", "executor.1", call="executor.1.1", name="x")
    .add("text.strange", "executor.1", block=7)
    .add("attempt.superseded", of="executor.1", attempt=1)
    .add("run.finished")
)
PAGE = Page(1, len(SCRIPT.lines), tuple(line + b"\n" for line in SCRIPT.lines))
RUN_LEVEL = [1, 10, 11]


@pytest.mark.promise("W-filter")
@pytest.mark.parametrize(
    ("filters", "more"),
    [
        ({"agents": ["planner"]}, [2, 3, 4]),
        ({"agents": ["executor"]}, [5, 6, 7, 8, 9]),
        ({"agents": ["executor.2"]}, [6, 7]),
        ({"agents": ["exec*"], "types": ["agent.*"]}, [5, 6]),
        ({"agents": ["planner", "executor.1"]}, [2, 3, 4, 5, 8, 9]),
        ({"types": ["text.*"]}, [3, 4, 7, 9]),
        ({"types": ["text.delta", "tool.*"]}, [3, 4, 7, 8]),
        ({"types": ["text"]}, []),
        ({"agents": ["nobody"]}, []),
        ({"types": ["*"]}, [2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_filters(filters: dict[str, Any], more: list[int]) -> None:
    """A filter hides numbers and never reorders; run-level events always pass."""
    rows = View(**filters, coalesce=False).rows(PAGE)
    assert [seq for seq, _ in rows] == sorted(RUN_LEVEL + more)
    assert all(line == SCRIPT.lines[seq - 1] for seq, line in rows)


def test_filter_then_coalesce() -> None:
    """Neighbours are those that the reader sees; a view without filters joins what the log holds side by side."""
    assert [seq for seq, _ in View(types=["text.delta"]).rows(PAGE)] == [1, 4, 7, 10, 11]
    assert [seq for seq, _ in View().rows(PAGE)] == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("patterns", ["text.*", ["x" * 65], ["x"] * 33])
def test_bad_filters(patterns: Any) -> None:
    """A bare text, too many patterns and too long ones are refused with what to do."""
    with pytest.raises(InvalidInput, match="types"):
        View(types=patterns)


def test_many_types_are_not_remembered_for_ever() -> None:
    """A log with ever new types does not make a reader grow."""
    script = Script()
    for n in range(2000):
        script.add(f"x.{n}", "a.1")
    view = View(types=["x.*"], coalesce=False)
    rows = view.rows(Page(1, 2000, tuple(line + b"\n" for line in script.lines)))
    assert len(rows) == 2000
    assert len(view._seen) <= 1024
