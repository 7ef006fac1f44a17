"""The verifier: gets every result a second time by another way, and accepts it or says what is wrong.

What comes in: what the executor made of one step. What goes out: a `Verdict`. It does not look at the code of a result
that it can count again from the file; only where a step is no query it asks a model to review the code instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio.to_thread
from pydantic import BaseModel, ConfigDict

from agentstream.agent import Context
from agentstream.agent.roles import Verdict, Verifier
from agentstream.events import Json

from .asking import ask, data_file, messages, model_of
from .models import StepResult
from .offline import OfflineModel
from .query import Query
from .reading import read_table, shape_of
from .recompute import Expected, difference, expected

__all__ = ("RecomputingVerifier",)

_SHOWN_CHARS: Final = 4_000


class Review(BaseModel):
    """A model's judgement, where nothing can be counted again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ok: bool
    feedback: str
    replan: bool = False


class RecomputingVerifier(Verifier[StepResult]):
    """Counts again with the standard library what pandas counted.

    Args:
        rules: whether to use the rules even where a language model is configured.
    """

    name = "verifier"

    def __init__(self, *, rules: bool = False) -> None:
        self.rules = rules

    async def verify(self, ctx: Context, result: StepResult, /) -> Verdict:
        """Judge one result.

        Raises:
            InvalidInput: the file cannot be read any more. LLMError: a model was to review, and did not answer.
        """
        if not result.ok:
            return Verdict(ok=False, score=0, feedback=result.error, step=result.step)
        if result.query is None:
            return await self._review(ctx, result)
        file = data_file(ctx)
        async with ctx.text() as said:
            await said.write(f"{result.title}: counting again in {file.name}, row by row and without pandas")
            rows, wanted = await anyio.to_thread.run_sync(
                _count_again, file.path, file.name, result.query, abandon_on_cancel=True
            )
            wrong = difference(result.result, wanted)
            await said.write(f" … {'that differs.' if wrong else 'the same.'}")
        if wrong:
            return Verdict(ok=False, score=0, feedback=f"{wrong}. Mend the code.", step=result.step)
        told = "value agrees" if len(wanted.rows) == 1 else "rows agree"
        checked = f"counted again from {rows:,} rows of {file.name} without pandas: {len(wanted.rows)} {told}"
        return Verdict(ok=True, score=1, feedback=checked, step=result.step)

    async def _review(self, ctx: Context, result: StepResult) -> Verdict:
        llm = model_of(ctx, rules=self.rules)
        if isinstance(llm, OfflineModel):
            feedback = "the step is no query, so it cannot be counted again, and no model can review it"
            return Verdict(ok=False, replan=True, feedback=feedback, step=result.step)
        asked: dict[str, Json] = {
            "ask": "verdict",
            "question": result.task,
            "step": result.title,
            "code": result.code,
            "printed": result.stdout[:_SHOWN_CHARS],
            "result": result.result,
        }
        review = await ask(ctx, llm, messages("verifier", asked), Review)
        told = f"not counted again, only reviewed by {llm.name}: {review.feedback}" if review.ok else review.feedback
        return Verdict(ok=review.ok, replan=review.replan, feedback=told, step=result.step)


def _count_again(path: Path, name: str, query: Query) -> tuple[int, Expected]:
    table = read_table(path, name)
    return len(table.rows), expected(query, shape_of(table), table)
