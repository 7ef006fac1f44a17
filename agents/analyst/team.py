"""The team `analyst`: answers a question about a CSV file by code that really runs, and checks the answer.

What comes in: a question, and a file handed in with the run. What goes out: an `Analysis`: the answer in words, the
code, its result, a picture. It does not know how the file got here, nor where the stream is read.

    agentstream run agents/analyst "Which region has the highest total revenue?" --file examples/data/sales.csv
"""

from __future__ import annotations

from typing import Final

from agentstream.agent import Agent, Context, Team
from agentstream.agent.roles import Outcome, PlanExecuteVerify, PlanTask
from agentstream.errors import InvalidInput
from agentstream.events import Json
from agentstream.llm import LLM

from .asking import ask, data_file, messages, model_of
from .executor import PythonExecutor, runner_for
from .models import Analysis, StepResult
from .planner import DataPlanner
from .runner import CodeRunner
from .sandboxed import SandboxRunner
from .verifier import RecomputingVerifier

__all__ = ("Analyst", "rules", "team")

_MAX_QUESTION: Final = 2_000


class Analyst(Agent[str, Analysis]):
    """Answers a question about one CSV file: plans, runs code, checks, and says what came out.

    Args:
        runner: the sandbox for code that a language model writes. Without one the library's own is used; where that
            does not work, a configured model is refused.
        rules: use the fixed rules even where a language model is configured.
        rounds: how often a result that was found wrong is computed anew.
    """

    role = "system"

    def __init__(self, *, runner: CodeRunner | None = None, rules: bool = False, rounds: int = 3) -> None:
        self.runner = runner
        self.rules = rules
        self._work = PlanExecuteVerify(
            DataPlanner(rules=rules),
            PythonExecutor(runner=runner, rules=rules),
            RecomputingVerifier(rules=rules),
            rounds=rounds,
            parallel=2,
        )

    async def run(self, ctx: Context, question: str, /) -> Analysis:
        """Answer `question`.

        Raises:
            InvalidInput: no question, no file, or several. NoSandbox: a language model is configured, and no
                sandbox works here.
            AgentFailedError: a role failed, for instance on a file that is no CSV.
        """
        if not question.strip() or len(question) > _MAX_QUESTION:
            raise InvalidInput(f"ask a question of at most {_MAX_QUESTION:,} characters about the file")
        data_file(ctx)
        llm = model_of(ctx, rules=self.rules)
        runner = runner_for(llm, self.runner)  # refuses before anything was spent
        if isinstance(runner, SandboxRunner):
            await runner.check()
        outcome = await self._work.run(ctx, PlanTask(task=question))
        reply = await _reply(ctx, llm, question, outcome)
        return _analysis(outcome, reply, llm.name)


async def _reply(ctx: Context, llm: LLM, question: str, outcome: Outcome[StepResult]) -> str:
    """What to say, as it was said in the stream."""
    if outcome.accepted:
        return await ask(ctx, llm, messages("reply", _asked(question, outcome)), str)
    if outcome.plan.steps:
        wrong = [verdict.feedback for verdict in outcome.verdicts.values() if not verdict.ok]
        text = (
            f"There is no answer to rely on: after {outcome.rounds} rounds the result still does not hold up."
            f" {' '.join(wrong)}"
        )
    else:
        text = outcome.plan.note
    await ctx.say(text)
    return text


def _asked(question: str, outcome: Outcome[StepResult]) -> dict[str, Json]:
    answers = [outcome.results[step.id] for step in outcome.plan.steps if _is_answer(outcome.results[step.id])]
    results = answers or list(outcome.results.values())
    return {
        "ask": "reply",
        "question": question,
        "file": outcome.plan.steps[0].details["file"],
        "results": [
            {
                "title": result.title,
                "query": None if result.query is None else result.query.model_dump(mode="json", exclude_defaults=True),
                "result": result.result,
            }
            for result in results
        ],
    }


def _is_answer(result: StepResult) -> bool:
    """Whether the step answers the question, and does not only look at the data for it."""
    return result.query is None or result.query.kind != "quality"


def _analysis(outcome: Outcome[StepResult], reply: str, model: str) -> Analysis:
    done = [outcome.results[step.id] for step in outcome.plan.steps if step.id in outcome.results]
    answers = [result for result in done if _is_answer(result)] or done
    last = answers[-1] if answers else StepResult(step="")
    pictured = next((result for result in reversed(answers) if result.image), last)
    return Analysis(
        reply=reply,
        accepted=outcome.accepted,
        generated_code=last.code,
        execution_result=last.result,
        image=pictured.image,
        table=last.table,
        plotly_json=pictured.plotly_json,
        checks={id_: verdict.feedback for id_, verdict in outcome.verdicts.items()},
        rounds=outcome.rounds,
        model=model,
    )


team = Team("analyst", Analyst(), description="Answers a question about a CSV file by code that really runs")
rules = Team("analyst-rules", Analyst(rules=True), description="The analyst with fixed rules, also where a model is")
