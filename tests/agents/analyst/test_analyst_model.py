"""The team with a scripted language model: what it may do, and how its errors are caught and mended."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentstream import events as ev
from agentstream.errors import LLMServerError, RunFailedError
from agentstream.testing import ScriptedModel, record
from agentstream.testing.scripted import Broken
from team_loading import EXAMPLE_DATA, load

pytestmark = [pytest.mark.anyio, pytest.mark.real("pandas")]

SALES = EXAMPLE_DATA / "sales.csv"
QUESTION = "Which region has the highest total revenue?"
team, runner, models = (load("analyst", name) for name in ("team", "runner", "models"))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop: each test starts processes, and the loops are told apart by the tests without a model."""
    return "asyncio"


class Sandbox:
    """Stands for a sandbox that somebody named."""

    trusted = True

    async def run(self, code: str, *, files: Mapping[str, Path], output: Any) -> Any:
        return await runner.RuleRunner().run(code, files=files, output=output)


PLAN = models.AnalysisPlan.model_validate(
    {
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
)
RIGHT = """import pandas as pd
table = pd.read_csv("sales.csv").groupby("region")["revenue"].sum().sort_values(ascending=False).reset_index()
result = {"columns": list(table.columns), "rows": table.values.tolist(), "total": len(table)}
"""
WRONG = RIGHT.replace(".sum()", ".mean()")


async def test_model_without_a_sandbox_is_refused_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of a language model runs in a sandbox only; nothing is spent before the refusal, which says what to do."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    model = ScriptedModel()
    recording = await record(team.team, QUESTION, models=model, files=[SALES])
    assert isinstance(recording.error, RunFailedError)
    assert recording.error.failure == "no_sandbox"
    assert "bubblewrap is not installed" in recording.error.message
    assert "Analyst(rules=True)" in recording.error.message
    assert model.requests == []


@pytest.mark.real("bwrap")
async def test_model_writes_code_for_the_sandbox() -> None:
    """Code of a model runs in the library's sandbox; picture and figure are what it drew, errors are its own lines."""
    drawn = (
        f"{RIGHT}table.plot.bar(x='region')\nplotly_figure = {{'data': [{{'y': table['revenue']}}]}}\nprint('drawn')\n"
    )
    model = ScriptedModel(PLAN, "open('/etc/passwd')\n", drawn, "West.")
    recording = await record(team.team, QUESTION, models=model, files=[SALES])
    analysis = recording.result
    assert (analysis.accepted, analysis.rounds) == (True, 2)
    (failed,) = recording.of(ev.ToolFailed)
    assert "No such file or directory: '/etc/passwd'" in failed.message
    kept = {artifact.mime: artifact for artifact in recording.of(ev.ArtifactCreated)}
    assert {"image/png", "text/csv", "application/vnd.plotly.v1+json"} <= set(kept)
    assert analysis.image == kept["image/png"].id
    assert analysis.plotly_json["data"][0]["y"][0] == pytest.approx(924751.01)
    assert [output.text for output in recording.of(ev.ToolOutput) if output.channel == "stdout"] == ["drawn\n"]


async def test_runner_that_is_no_sandbox_is_refused() -> None:
    """The limits of the rules' own runner are no sandbox, also when it is handed in."""
    analyst = team.Analyst(runner=runner.RuleRunner())
    recording = await record(analyst, QUESTION, models=ScriptedModel(), files=[SALES])
    assert isinstance(recording.error, RunFailedError)
    assert recording.error.failure == "no_sandbox"


async def test_rules_may_be_asked_for_where_a_model_is() -> None:
    """With `rules=True` the configured model is not asked at all."""
    model = ScriptedModel()
    recording = await record(team.rules, QUESTION, models=model, files=[SALES])
    assert recording.result.model == "rules"
    assert model.requests == []


async def test_wrong_answer_is_caught_and_corrected() -> None:
    """The verifier rejects a wrong result by counting again; its feedback reaches the model, and round two is right."""
    model = ScriptedModel(PLAN, f"```python\n{WRONG}```", RIGHT, "West leads with 924,751.01.")
    recording = await record(team.Analyst(runner=Sandbox()), QUESTION, models=model, files=[SALES])
    analysis = recording.result
    assert analysis.accepted
    assert (analysis.rounds, analysis.model) == (2, "scripted")
    assert analysis.generated_code == RIGHT
    assert analysis.reply == "West leads with 924,751.01."
    first, second = recording.of(ev.VerdictGiven)
    assert (first.ok, second.ok) == (False, True)
    assert "924751.01" in first.feedback
    asked = [msgspec.json.decode(request.messages[-1].content) for request in model.requests]
    assert [request["ask"] for request in asked] == ["plan", "code", "code", "reply"]
    assert first.feedback in asked[2]["feedback"]
    titles = [plan.steps[0].title for plan in recording.of(ev.PlanUpdated)]
    assert titles[-1] == "Total revenue by region (attempt 2)"


async def test_code_that_fails_is_written_again() -> None:
    """An error of the code is a failed tool call and the feedback of the next round."""
    model = ScriptedModel(PLAN, "import pandas as pd\npd.read_csv('nowhere.csv')\n", RIGHT, "West.")
    recording = await record(team.Analyst(runner=Sandbox()), QUESTION, models=model, files=[SALES])
    assert recording.result.accepted
    (failed,) = recording.of(ev.ToolFailed)
    assert failed.code == "exception"
    assert "nowhere.csv" in recording.of(ev.VerdictGiven)[0].feedback


async def test_answer_that_never_holds_up_is_not_accepted() -> None:
    """When the rounds are used up the run ends well, says that nothing holds up, and shows the last result."""
    model = ScriptedModel(PLAN, WRONG, WRONG)
    recording = await record(team.Analyst(runner=Sandbox(), rounds=2), QUESTION, models=model, files=[SALES])
    analysis = recording.result
    assert not analysis.accepted
    assert analysis.rounds == 2
    assert "no answer to rely on" in analysis.reply
    assert analysis.generated_code == WRONG
    assert recording.of(ev.PlanUpdated)[-1].steps[0].status == "failed"


async def test_plan_that_does_not_fit_the_file_goes_back() -> None:
    """A model's plan over a column that is not there is mended before anything runs."""
    wrong = PLAN.model_copy(
        update={
            "steps": [
                PLAN.steps[0].model_copy(update={"query": PLAN.steps[0].query.model_copy(update={"column": "profit"})})
            ]
        }
    )
    model = ScriptedModel(wrong, PLAN, RIGHT, "West.")
    recording = await record(team.Analyst(runner=Sandbox()), QUESTION, models=model, files=[SALES])
    assert recording.result.accepted
    assert "no column 'profit'" in model.requests[1].messages[-1].content


async def test_step_that_is_no_query_is_reviewed_by_the_model() -> None:
    """What cannot be counted again is reviewed, and the check says that it was only that."""
    free = models.AnalysisPlan.model_validate(
        {"steps": [{"id": "free", "title": "Count", "instructions": "Count rows."}]}
    )
    code = "result = {'columns': ['n'], 'rows': [[6000]], 'total': 1}"
    review = load("analyst", "verifier").Review(ok=True, feedback="the code counts rows")
    model = ScriptedModel(free, code, review, "6,000 rows.")
    recording = await record(team.Analyst(runner=Sandbox()), "How many?", models=model, files=[SALES])
    assert recording.result.accepted
    assert recording.result.checks["free"].startswith("not counted again, only reviewed by scripted")


async def test_broken_answer_is_tried_again_in_a_call_of_its_own() -> None:
    """Code that broke off is closed as failed; the next try has its own call, and nothing is joined."""
    model = ScriptedModel(PLAN, Broken("import pandas"), RIGHT, "West.")
    recording = await record(team.Analyst(runner=Sandbox()), QUESTION, models=model, files=[SALES])
    assert recording.result.generated_code == RIGHT
    assert [failed.code for failed in recording.of(ev.ToolFailed)] == ["llm_stream_broken"]
    assert len(recording.of(ev.ToolStarted)) == 2


async def test_model_that_never_answers_fails_the_run() -> None:
    """After three tries the provider's failure is the run's."""
    model = ScriptedModel(PLAN, *[LLMServerError("down")] * 3)
    recording = await record(team.Analyst(runner=Sandbox()), QUESTION, models=model, files=[SALES])
    assert isinstance(recording.error, RunFailedError)
    assert recording.error.failure == "llm_server"
