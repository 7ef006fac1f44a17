"""The fold from events to what is printed: a pure function, so it is held against made-up runs."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest

from agentstream import events as ev
from agentstream.cli._board import Board, Item, answer_of, rows_of
from agentstream.cli._printer import PlainPrinter


def _run(*events: ev.Event, by_line: bool = False) -> tuple[list[Item], Board]:
    """Fold events of `boss.1`, or of the invocation that they name; the items and the board."""
    board, items = Board(by_line=by_line), []
    for seq, event in enumerate(events, 1):
        inv = event.inv or ("" if event.type.startswith("run.") else "boss.1")
        placed = msgspec.structs.replace(event, seq=seq, inv=inv, agent=inv.partition(".")[0])
        items += board.take(placed)
    return items, board


def _text(text: str, block: str = "b", **more: Any) -> list[ev.Event]:
    return [
        ev.TextStarted(block, **more),
        *(ev.TextDelta(block, text=char, **more) for char in text),
        ev.TextFinished(block, **more),
    ]


START = ev.RunStarted("R" * 22, "t", input="q")
WORKER = "worker.1"


def _said(items: list[Item]) -> list[tuple[str, str]]:
    return [(item.kind, item.text) for item in items if item.kind not in ("start", "end")]


def test_the_answer_is_not_printed_twice() -> None:
    """The entry agent's last words are held back; where they are the output they come once, at the end."""
    same, _ = _run(START, ev.AgentStarted(), *_text("the answer"), ev.AgentFinished(), ev.RunFinished("the answer"))
    assert _said(same) == []
    other, _ = _run(START, ev.AgentStarted(), *_text("one", "b1"), *_text("two", "b2"), ev.RunFinished("other"))
    assert _said(other) == [("text", "one"), ("text", "two")]


def test_blocks_of_parallel_agents_stay_whole() -> None:
    """Deltas of two agents that come in turns are printed block by block."""
    items, board = _run(
        START,
        ev.AgentStarted(inv="a.1"),
        ev.AgentStarted(inv="b.1"),
        ev.TextStarted("x", inv="a.1"),
        ev.TextStarted("y", inv="b.1"),
        ev.TextDelta("x", "A1\n", inv="a.1"),
        ev.TextDelta("y", "B1", inv="b.1"),
        ev.TextDelta("x", "A2", inv="a.1"),
        ev.TextFinished("y", inv="b.1"),
    )
    assert _said(items) == [("text", "B1")]
    assert (board.lanes["a.1"].tail, board.lanes["a.1"].doing) == ("A1\nA2", "writing")


def test_lines_come_as_they_are_complete() -> None:
    """Where nobody redraws, each line is given out with its end, the rest with the block's."""
    items, _ = _run(START, ev.AgentStarted(), *_text("one\ntwo\nrest", inv=WORKER), by_line=True)
    assert _said(items) == [("text", "one"), ("text", "two"), ("text", "rest")]


def test_what_was_open_on_a_stop_is_shown() -> None:
    """A stopped run shows its partial text."""
    items, board = _run(START, ev.AgentStarted(), ev.TextStarted("b"), ev.TextDelta("b", "half"), ev.RunStopped("idle"))
    assert _said(items) == [("text", "half")]
    assert board.lanes == {}


def test_a_tool_shows_its_program_and_output_once() -> None:
    """Code with its output; of a table that it made, the table in place of its print-out."""
    call: list[ev.Event] = [
        ev.ToolStarted("c", "python", inv=WORKER),
        ev.ToolDelta("c", "print(", inv=WORKER),
        ev.ToolCalled("c", {"code": "print(1)\nprint(2)"}, inv=WORKER),
        ev.ToolOutput("c", "stdout", "1\n2\n", inv=WORKER),
    ]
    end = ev.ToolFinished("c", {"big": 1}, inv=WORKER)
    items, _ = _run(START, ev.AgentStarted(inv=WORKER), *call, end)
    assert _said(items) == [("code", "print(1)\nprint(2)"), ("output", "1\n2")]
    made = ev.ArtifactCreated("a", "text/csv", "t.csv", data="x\n1\n", inv=WORKER)
    items, _ = _run(START, ev.AgentStarted(inv=WORKER), *call, made, end)
    assert [item.kind for item in items[1:]] == ["code", "table"]
    short = ev.ToolCalled("c", {"q": "wea\x1b[2Jther", "n": 3}, inv=WORKER)
    items, _ = _run(START, ev.ToolStarted("c", "search", inv=WORKER), short, ev.ToolFinished("c", ["x"], inv=WORKER))
    assert _said(items) == [("call", 'q="wea\\u001b[2Jther", n=3'), ("output", '["x"]')]


def test_plans_verdicts_failures_and_notices() -> None:
    """A plan is given once and then its changes; verdicts name the step's title; failures are safe text."""
    steps = (ev.PlanItem("a", "First"), ev.PlanItem("b", "Second"))
    done = (ev.PlanItem("a", "First", "done"), ev.PlanItem("b", "Second", "active"))
    items, board = _run(
        START,
        ev.AgentStarted(),
        ev.PlanUpdated(steps),
        ev.PlanUpdated(done),
        ev.VerdictGiven(False, feedback="off\x1b[31m by one", step="b"),
        ev.AgentFailed("stopped", "quiet", inv="x.1"),
        ev.AgentFailed("broke", "loud", inv="y.1"),
        ev.RunWaiting("slot", position=2),
    )
    assert [(item.kind, item.title, item.text) for item in items[1:]] == [
        ("plan", "", ""),
        ("step", "First", "done"),
        ("verdict", "Second", "off by one"),
        ("failure", "", "broke: loud"),
        ("notice", "", "waiting for slot, 2 before it"),
    ]
    assert (board.plan, board.verdicts) == (done, [0, 1])


def test_a_reset_begins_anew_and_unknown_types_are_passed_over() -> None:
    """After a reset nothing of before is open; types of later versions do no harm."""
    board = Board()
    board.take(ev.TextStarted("b", seq=1, inv="a.1", agent="a"))
    assert [item.kind for item in board.take(ev.Reset("rollback", 1, 5))] == ["notice"]
    assert board.take(ev.TextDelta("b", "late", seq=1, inv="a.1", agent="a")) == []
    assert board.take(ev.UnknownEvent("future.thing", {}, seq=2)) == []
    assert board.events == 2


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("text\x07", "text"),
        ({"x": 1, "reply": "said"}, "said"),
        ({"n": 1}, '{\n  "n": 1\n}'),
        (None, "null"),
        ([1], "[\n  1\n]"),
    ],
)
def test_answers(output: object, answer: str) -> None:
    """An answer is the output's text, or its JSON."""
    assert answer_of(output) == answer


def test_rows_of_a_table() -> None:
    """Cells are one line each and safe; what is no table is none."""
    assert rows_of('a,"b\nc"\n\x1b[31m1,2\n3,4\n', 2) == ([["a", "b c"], ["1", "2"]], 3)
    assert rows_of("x" * 200_000, 5) == ([], 0)


def test_plain_lines_of_a_failed_run() -> None:
    """The end of a failed run names its code; every line has its name in front."""
    out, errors = io.StringIO(), io.StringIO()
    with PlainPrinter(out, errors, clock=lambda: 1.0) as printer:
        for event in (START, ev.RunFailed("store", "the store\x1b[2J is down", seq=2)):
            for item in printer.board.take(event):
                printer.show(item)
        printer.notice("beside it")
        printer.finish([("table", "x.csv")], [("next", "do this")])
    assert out.getvalue() == (
        "t · q\n\n\nThe run failed\nthe store is down (store)\n\n"
        f"table       x.csv\nrun         {'R' * 22} · failed after 0.0 s · 2 events\nnext        do this\n"
    )
    assert errors.getvalue() == "beside it\n"
