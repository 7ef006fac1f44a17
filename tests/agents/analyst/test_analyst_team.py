"""The whole team, from the question to the answer, with the rules in a language model's place."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import pytest

from agentstream import events as ev
from agentstream.errors import LLMRequestError, RunFailedError
from agentstream.llm import LLM, LLMRequest
from agentstream.testing import record
from team_loading import EXAMPLE_DATA, load

pytestmark = [pytest.mark.anyio, pytest.mark.real("pandas")]

SALES = EXAMPLE_DATA / "sales.csv"
QUESTION = "Which region has the highest total revenue?"
team, offline = load("analyst", "team"), load("analyst", "offline")


# --- the rules --------------------------------------------------------------------------------------------------------
async def test_question_is_answered_without_a_model() -> None:
    """Offline, the answer holds the right figure, the code, its result, a picture and a plotly figure, all checked."""
    recording = await record(team.team, QUESTION, files=[SALES])
    analysis = recording.result
    assert analysis.accepted
    assert (analysis.rounds, analysis.model) == (1, "rules")
    assert analysis.reply.startswith("West has the highest total revenue: 924,751.01.")
    assert analysis.execution_result["rows"][0] == ["West", pytest.approx(924_751.01)]
    assert "groupby" in analysis.generated_code
    assert analysis.plotly_json["data"][0]["x"] == ["West", "South", "East", "North"]
    assert "without pandas" in analysis.checks["answer"]
    assert recording.text("analyst") == analysis.reply
    assert "not a language model" in recording.text("planner")


async def test_stream_shows_the_work() -> None:
    """Code is streamed in pieces before it runs; its output, table and picture follow, then the verdict."""
    recording = await record(team.team, QUESTION, files=[SALES])
    analysis = recording.result
    (call,) = [e.call for e in recording.of(ev.ToolCalled) if e.arguments["code"] == analysis.generated_code]
    pieces = [e.text for e in recording.of(ev.ToolDelta) if e.call == call]
    assert "".join(pieces) == analysis.generated_code
    assert len(pieces) > 50
    order = [e.type for e in recording.events if getattr(e, "call", "") == call and e.type != "tool.delta"]
    assert order == ["tool.started", "tool.called", "tool.output", "tool.finished"]
    created = {e.mime: e for e in recording.of(ev.ArtifactCreated) if e.name.startswith("answer")}
    assert set(created) == {"text/csv", "image/png", "application/vnd.plotly.v1+json"}
    assert base64.b64decode(created["image/png"].data or "").startswith(b"\x89PNG")
    assert created["image/png"].id == analysis.image
    rows = list(csv.reader(io.StringIO(created["text/csv"].data)))
    assert rows[1] == ["West", "924751.01"]
    verdicts = recording.of(ev.VerdictGiven)
    assert {(verdict.step, verdict.ok, verdict.agent) for verdict in verdicts} == {
        ("check", True, "verifier"),
        ("answer", True, "verifier"),
    }
    assert [[item.status for item in plan.steps] for plan in recording.of(ev.PlanUpdated)] == [
        ["pending", "pending"],
        ["active", "active"],
        ["done", "done"],
    ]


async def test_unknown_question_ends_with_a_plain_answer() -> None:
    """A question that the rules cannot read ends the run well, with an answer that says so and nothing computed."""
    recording = await record(team.team, "Why did revenue fall?", files=[SALES])
    analysis = recording.result
    assert not analysis.accepted
    assert analysis.rounds == 0
    assert "reasons and causes" in analysis.reply
    assert analysis.generated_code == ""
    assert recording.of(ev.ToolStarted) == []


async def test_several_answers_are_given_together() -> None:
    """Two questions in one are two steps and one reply."""
    recording = await record(team.team, "What is the total revenue and the average rating?", files=[SALES])
    assert recording.result.reply == (
        "The total revenue is 2,969,636.30. The mean rating is 3.94."
        " (729 rows have no usable rating and are left out of it.)"
    )


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "invalid_input", "is empty"),
        (b"a,b\n1,2,3\n", "invalid_input", "not a table"),
        (b"{}", "invalid_input", "not CSV"),
    ],
)
async def test_bad_file_fails_the_run_with_its_reason(tmp_path: Path, data: bytes, code: str, words: str) -> None:
    """A file that is no CSV ends the run with a typed error that names what is wrong."""
    (tmp_path / "bad.csv").write_bytes(data)
    recording = await record(team.team, QUESTION, files=[tmp_path / "bad.csv"])
    assert isinstance(recording.error, RunFailedError)
    assert recording.error.failure == code
    assert words in recording.error.message


@pytest.mark.parametrize("files", [[], [SALES, SALES]])
async def test_one_file_is_asked_for(files: list[Path]) -> None:
    """Without a file, or with two, the message says what to do."""
    recording = await record(team.team, QUESTION, files=files)
    assert isinstance(recording.error, RunFailedError)
    assert "--file" in recording.error.message


# --- the offline model ------------------------------------------------------------------------------------------------
async def test_offline_model_is_a_model() -> None:
    """It implements the interface of every model, streams in pieces, and refuses what is not the analyst's."""
    model = offline.OfflineModel()
    assert isinstance(model, LLM)
    request = LLMRequest(messages=load("analyst", "asking").messages("reply", {
        "ask": "reply", "file": {"file": "x.csv", "rows": 1, "encoding": "utf-8", "delimiter": ",", "columns": []},
        "results": [{"query": {"kind": "aggregate", "aggregate": "count"}, "result": {"rows": [[6]], "total": 1}}],
    }))  # fmt: skip
    result = await model.complete(request)
    assert result.text == "6 rows."
    assert result.usage.calls == 1
    with pytest.raises(LLMRequestError, match="only the requests of the analyst"):
        await model.complete(LLMRequest(messages=()))
