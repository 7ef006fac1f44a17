"""A stand-in for a language model: the same interface, answered by rules.

What comes in: the requests that the analyst's roles send to any model. What goes out: their answers, token by token: a
plan as JSON, Python code, a sentence. It does not know language: it recognises some forms of questions, and says of
every other one that it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel
import msgspec

from agentstream.errors import LLMRequestError
from agentstream.events import Json, Usage
from agentstream.llm import Assembly, Delta, Finish, LLMRequest, LLMResult, LLMStream, TextPart, ThinkingPart

from .models import AnalysisPlan, PlannedStep
from .pandas_code import code_for
from .query import Query, Shape
from .replies import reply_for
from .rules import Unclear, queries_of
from .titles import title

__all__ = ("CAN_DO", "NAME", "OfflineModel")

NAME: Final = "rules"
CAN_DO: Final = (
    "They know totals, means, medians, minima, maxima, standard deviations and counts; by group or over time; highest,"
    " lowest and top n; shares, changes over time, correlations, outliers, missing values and descriptions; for rows"
    " with certain values, numbers or dates."
)

_TOKEN: Final = re.compile(r"\s*[^\W_]+|\s*[\W_]|\s+")
_GROUP: Final = 3  # of these a delta, about the size of a language model's


class OfflineModel:
    """Answers the analyst's requests by rules. It implements `agentstream.llm.LLM`.

    Args:
        pace: seconds between two tokens, to look at; 0 is as fast as they are read.
    """

    def __init__(self, *, pace: float = 0.0) -> None:
        self.name = NAME
        self.pace = pace

    def stream(self, request: LLMRequest) -> AbstractAsyncContextManager[LLMStream]:
        """The answer, token by token."""
        return _Answer(self, request)

    async def complete(self, request: LLMRequest) -> LLMResult:
        """The whole answer."""
        async with self.stream(request) as stream:
            async for _ in stream:
                pass
            return stream.result

    async def aclose(self) -> None:
        """Nothing to free."""


class _Answer:
    """One answer being read."""

    def __init__(self, model: OfflineModel, request: LLMRequest) -> None:
        self._model = model
        self._request = request
        self._assembly = Assembly()
        self._deltas: Iterator[Delta] = iter(())

    @property
    def result(self) -> LLMResult:
        """What was read so far."""
        return self._assembly.result(NAME)

    async def __aenter__(self) -> Self:
        await anyio.lowlevel.checkpoint()
        self._deltas = _deltas(*_answer(self._request))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deltas = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        await anyio.sleep(self._model.pace)
        delta = next(self._deltas, None)
        if delta is None:
            raise StopAsyncIteration
        self._assembly.add(delta)
        return delta


def _deltas(thinking: str, text: str) -> Iterator[Delta]:
    count = 0
    for part, whole in ((ThinkingPart, thinking), (TextPart, text)):
        tokens = _TOKEN.findall(whole)
        for start in range(0, len(tokens), _GROUP):
            count += 1
            yield part("".join(tokens[start : start + _GROUP]))
    yield Finish("stop", Usage(output_tokens=count, calls=1))


# --- answers ----------------------------------------------------------------------------------------------------------
def _answer(request: LLMRequest) -> tuple[str, str]:
    """Thinking and text. The last message is the JSON that every model gets from the analyst's roles."""
    try:
        asked = msgspec.json.decode(request.messages[-1].content, type=dict[str, Json])
        answer = {"plan": _plan, "code": _code, "reply": _reply}[asked["ask"]]
        shape = Shape.model_validate(asked["file"])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, IndexError, ValueError):
        raise LLMRequestError(
            "these rules answer only the requests of the analyst's own roles", provider=NAME
        ) from None
    return answer(asked, shape)


def _plan(asked: dict[str, Json], shape: Shape) -> tuple[str, str]:
    try:
        queries = queries_of(asked["question"], shape)
    except Unclear as unclear:
        plan = AnalysisPlan(refusal=refusal(str(unclear), shape))
        return f"The rules cannot read this question: {unclear}.", plan.model_dump_json(exclude_defaults=True)
    steps = [
        PlannedStep(id="answer" if len(queries) == 1 else f"answer-{number}", title=title(query), query=query)
        for number, query in enumerate(queries, 1)
    ]
    used = tuple(dict.fromkeys(name for query in queries for name in query.used()))
    if used and not any(query.kind in {"quality", "describe"} for query in queries):
        check = Query(kind="quality", columns=used)
        steps.insert(0, PlannedStep(id="check", title=f"Check {', '.join(used)} for missing values", query=check))
    read = "; ".join(f"{title(query)[:1].lower()}{title(query)[1:]}" for query in queries)
    thinking = f"The rules read this as: {read}."
    return thinking, AnalysisPlan(steps=steps).model_dump_json(exclude_defaults=True)


def refusal(reason: str, shape: Shape) -> str:
    """What is said of a question that the rules cannot answer."""
    names = ", ".join(column.name for column in shape.columns[:20])
    more = " and more" if len(shape.columns) > 20 else ""
    return (
        f"This question is not answered: {reason}. Fixed rules read it, not a language model."
        f" {CAN_DO} The columns of {shape.file} are: {names}{more}."
    )


def _code(asked: dict[str, Json], shape: Shape) -> tuple[str, str]:
    try:
        query = Query.model_validate(asked["step"]["query"])
        return "", code_for(query, shape)
    except (KeyError, TypeError, ValueError):
        raise LLMRequestError(
            "the rules write code for queries on the file's own columns only", provider=NAME
        ) from None


def _reply(asked: dict[str, Json], shape: Shape) -> tuple[str, str]:
    try:
        told = [reply_for(Query.model_validate(r["query"]), r["result"], shape) for r in asked["results"]]
    except (KeyError, TypeError, ValueError):
        raise LLMRequestError("the rules put only their own results into words", provider=NAME) from None
    return "", " ".join(told)
