"""The ledger: what a log says was done, whatever came in which order."""

from __future__ import annotations

import msgspec
import pytest

from agentstream.ports import Chunk
from agentstream.runtime.replay import Ledger


def _ledger(*events: dict[str, object], chunk: int = 3) -> Ledger:
    """The ledger of these events, `chunk` of them at a time; `"beside"` is what was recorded with one."""
    ledger = Ledger()
    numbered = [{"seq": seq, "at": 1, **event} for seq, event in enumerate(events, 1)]
    for start in range(0, len(numbered), chunk):
        part = numbered[start : start + chunk]
        beside = {str(event["seq"]): {"value": event.pop("beside")} for event in part if "beside" in event}
        lines = b"".join(msgspec.json.encode(event) + b"\n" for event in part)
        private = msgspec.json.encode(beside) if beside else b""
        ledger.take(Chunk(start + 1, start + len(part), lines, private))
    return ledger


def _event(type_: str, inv: str = "", **fields: object) -> dict[str, object]:
    tagged = {"agent": inv.partition(".")[0], "inv": inv, "agent_seq": 1} if inv else {}
    return {"type": type_, **tagged, **fields}


_START = _event("run.started", run="r", team="t", beside={"version": "1"})
_BOSS = _event("agent.started", "boss.1", key="B", version="v")


def test_results_are_found_by_key_and_not_by_order() -> None:
    """Two workers begun in one order and finished in the other: each result belongs to its own key."""
    ledger = _ledger(
        _START,
        _BOSS,
        _event("agent.started", "worker.1", parent="boss.1", key="K1", version="w"),
        _event("agent.started", "worker.2", parent="boss.1", key="K2", version="w"),
        _event("step.started", "worker.2", step="worker.2.1", name="s", key="S2", version="x"),
        _event("step.finished", "worker.2", step="worker.2.1", beside=22),
        _event("agent.finished", "worker.2", result=2, beside=2),
        _event("agent.finished", "worker.1", result=1, beside=1),
    )
    first, second = ledger.past("agent", "B", "K1"), ledger.past("agent", "B", "K2")
    assert first is not None
    assert second is not None
    assert (list(first.results), list(second.results)) == ([b"1"], [b"2"])
    step = ledger.past("step", "K2", "S2")
    assert step is not None
    assert list(step.results) == [b"22"]
    assert ledger.past("step", "K1", "S2") is None
    assert ledger.counts == {"boss": 1, "worker": 2}
    assert ledger.origin == b'{"version":"1"}'


def test_what_was_made_inside_finished_units_is_kept() -> None:
    """Of an invocation that is open: blocks, calls and artifacts outside of finished steps and tools are superseded."""
    ledger = _ledger(
        _START,
        _BOSS,
        _event("step.started", "boss.1", step="boss.1.1", name="done", key="S1", version="x"),
        _event("text.started", "boss.1", block="boss.1.2"),
        _event("text.finished", "boss.1", block="boss.1.2"),
        _event("step.finished", "boss.1", step="boss.1.1", beside=None),
        _event("tool.started", "boss.1", call="boss.1.3", name="x"),
        _event("tool.called", "boss.1", call="boss.1.3", key="T", version="t"),
        _event("tool.finished", "boss.1", call="boss.1.3", beside={"result": 1}),
        _event("step.started", "boss.1", step="boss.1.4", name="open", key="S2", version="x"),
        _event("text.started", "boss.1", block="boss.1.5"),
        _event("artifact.created", "boss.1", id="a1", mime="text/plain"),
        _event("tool.started", "boss.1", call="boss.1.6", name="x"),
        _event("agent.started", "worker.1", parent="boss.1", key="K", version="w"),
        _event("text.started", "worker.1", block="worker.1.1"),
        _event("text.finished", "worker.1", block="worker.1.1"),
        _event("agent.finished", "worker.1", beside="x"),
    )
    assert ledger.superseded == [("boss.1", 1, ("boss.1.5", "a1", "boss.1.6"))]


def test_the_document_is_folded_without_what_is_superseded() -> None:
    """Operations of finished calls and of finished steps stay, also those of an invocation that is replaced."""
    ledger = _ledger(
        _START,
        _BOSS,
        _event("state.delta", "boss.1", ops=[{"op": "add", "path": "/lost", "value": 1}]),
        _event("step.started", "boss.1", step="boss.1.1", name="s", key="S", version="x"),
        _event("state.delta", "boss.1", ops=[{"op": "add", "path": "/step", "value": 2}]),
        _event("step.finished", "boss.1", step="boss.1.1", beside=None),
        _event("agent.started", "worker.1", parent="boss.1", key="K", version="w"),
        _event("state.delta", "worker.1", ops=[{"op": "add", "path": "/call", "value": 3}]),
        _event("state.delta", "worker.1", ops=[{"op": "add", "path": "/lost/inside", "value": 3}]),
        _event("agent.finished", "worker.1", beside=3),
    )
    assert ledger.document() == ({"step": 2, "call": 3}, True)


def test_a_takeover_that_was_cut_off_is_finished_by_the_next() -> None:
    """Closed as `worker_lost` and not marked: still to be superseded, and never a failure of its own."""
    events = [_START, _BOSS, _event("run.attempt", attempt=2, reason="worker_lost")]
    closed = _event("agent.failed", "boss.1", code="worker_lost", message="")
    marked = _event("attempt.superseded", of="boss.1", attempt=1)
    cut = _ledger(*events, closed)
    assert cut.superseded == [("boss.1", 1, ())]
    assert not cut.open.invocations
    past = cut.past("agent", "", "B")
    assert past is not None
    assert (past.failure, past.starts, past.id) == (("", ""), 1, "boss.1")
    assert _ledger(*events, closed, marked).superseded == []
    assert (cut.attempt, cut.losses) == (2, 1)


def test_a_call_that_failed_by_itself_is_remembered() -> None:
    """Its caller has seen the failure: the next attempt sees the same."""
    ledger = _ledger(
        _START,
        _BOSS,
        _event("agent.started", "worker.1", parent="boss.1", key="K", version="w"),
        _event("agent.failed", "worker.1", code="stopped", message="by a user"),
    )
    past = ledger.past("agent", "B", "K")
    assert past is not None
    assert past.failure == ("stopped", "by a user")


def test_a_hand_over_is_no_loss() -> None:
    """The last run-level word decides whether the writer left of its own accord."""
    left = [_START, _BOSS, _event("run.waiting", on="worker")]
    assert _ledger(*left).handed_over
    again = _ledger(*left, _event("run.attempt", attempt=2, reason="shutdown"))
    assert (again.handed_over, again.attempt, again.losses) == (False, 2, 0)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_log_is_folded_in_any_parts(chunk: int) -> None:
    """Chunks of any size, and chunks that come twice, give the same ledger."""
    events = [
        _START,
        _BOSS,
        _event("step.started", "boss.1", step="boss.1.1", name="generate", key="S", version="1"),
        _event("step.finished", "boss.1", step="boss.1.1", beside={"messages": [], "usage": {"input_tokens": 5}}),
        _event("step.started", "boss.1", step="boss.1.2", name="s", key="own", version="1"),
        _event("step.finished", "boss.1", step="boss.1.2", beside="one"),
        _event("step.started", "boss.1", step="boss.1.3", name="s", key="own", version="1"),
        _event("step.finished", "boss.1", step="boss.1.3", beside="two"),
    ]
    ledger = _ledger(*[dict(event) for event in events], chunk=chunk)
    own = ledger.past("step", "B", "own")
    assert own is not None
    assert list(own.results) == [b'"one"', b'"two"']
    assert ledger.usage.input_tokens == 5
    assert ledger.last == len(events)
