"""The executor: writes Python for a step and runs it for real.

What comes in: a step with a query or instructions. What goes out: a `StepResult`; on the way the code as it is written,
its output as it is printed, and its table and picture as artifacts, all as events of one call of the tool `python`. It
does not judge the result. Code that a language model wrote goes to a sandbox, and nowhere else.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream.agent import Context, code_version
from agentstream.agent.roles import Executor, Step
from agentstream.errors import LLMError, NoSandbox
from agentstream.events import (
    AgentWaiting,
    Json,
    ThinkingDelta,
    ThinkingFinished,
    ThinkingStarted,
    ToolCalled,
    ToolDelta,
    ToolFailed,
    ToolFinished,
    ToolOutput,
    ToolStarted,
)
from agentstream.llm import LLM, LLMRequest, TextPart, ThinkingPart

from .asking import data_file, messages, model_of
from .fences import FenceFilter
from .models import StepResult
from .offline import OfflineModel
from .query import Query
from .runner import CodeFailed, CodeResult, CodeRunner, RuleRunner
from .sandboxed import SandboxRunner

__all__ = ("PythonExecutor", "runner_for")

_TRIES: Final = 3
_CODE_CHARS: Final = 32_000
_STDOUT_CHARS: Final = 8_000
_INLINE_PLOTLY: Final = 32 * 1024


def runner_for(llm: LLM, runner: CodeRunner | None) -> CodeRunner:
    """Where code of this model may run: the rules' beside us, a language model's in the sandbox that was named, else in
    the library's own, which refuses where it does not work.

    Raises:
        NoSandbox: it is a language model, and what was named is no sandbox.
    """
    if isinstance(llm, OfflineModel):
        return RuleRunner()
    if runner is None:
        return SandboxRunner()
    if runner.trusted:
        return runner
    raise NoSandbox(
        f"the model {llm.name!r} would write code, and code that a language model wrote runs only in a sandbox, which"
        f" {type(runner).__name__} is not: hand in another with Analyst(runner=…), or none for the library's own, or"
        " use the fixed rules instead of the model with Analyst(rules=True)"
    )


class PythonExecutor(Executor[StepResult]):
    """Does a step by a Python program.

    Args:
        runner: the sandbox for code that a language model wrote, the library's own without one; code of the rules does
            not need one.
        rules: whether to use the rules even where a language model is configured.
    """

    name = "executor"

    def __init__(self, *, runner: CodeRunner | None = None, rules: bool = False) -> None:
        self.runner = runner
        self.rules = rules

    async def execute(self, ctx: Context, step: Step, /) -> StepResult:
        """Write the program, run it, keep what it made.

        Raises:
            NoSandbox: code of a language model, and no sandbox. LLMError: the model wrote no code.
        """
        llm = model_of(ctx, rules=self.rules)
        runner = runner_for(llm, self.runner)
        call, code = await _write(ctx, llm, step)
        version = code_version(type(self).execute)
        key = ctx.keys.current.next("python", code)
        await ctx.emit(ToolCalled(call, arguments={"code": code}, key=key, version=version))
        await ctx.flush()  # accepted before the code runs: each attempt is visible before it acts
        query = step.details.get("query")
        done = StepResult(
            step=step.id,
            attempt=step.attempt,
            title=step.title,
            task=step.task,
            query=None if query is None else Query.model_validate(query),
            code=code,
        )
        return await _run(ctx, runner, call, done)


async def _run(ctx: Context, runner: CodeRunner, call: str, done: StepResult) -> StepResult:
    file = data_file(ctx)
    printed: list[str] = []

    async def output(channel: str, text: str) -> None:
        if channel == "stdout":
            printed.append(text)
        await ctx.emit(ToolOutput(call, channel=channel, text=text))

    try:
        made = await runner.run(done.code, files={file.name: file.path}, output=output)
    except CodeFailed as failure:
        await ctx.emit(ToolFailed(call, code=failure.reason, message=failure.detail))
        return done.model_copy(update={"error": failure.detail, "stdout": "".join(printed)[:_STDOUT_CHARS]})
    kept = await _keep(ctx, done, made)
    shown = {"result": made.result, "seconds": made.seconds}
    await ctx.record(ToolFinished(call, result=shown), shown)
    return done.model_copy(
        update={"ok": True, "result": made.result, "stdout": "".join(printed)[:_STDOUT_CHARS], **kept}
    )


async def _keep(ctx: Context, done: StepResult, made: CodeResult) -> dict[str, Json]:
    """Keep table, picture and figure as artifacts; their ids, and a small figure itself."""
    name = done.step if done.attempt == 1 else f"{done.step}-{done.attempt}"
    kept: dict[str, Json] = {}
    if made.table:
        kept["table"] = await ctx.artifact(f"{name}.csv", made.table, mime="text/csv")
    if made.picture:
        kept["image"] = await ctx.artifact(f"{name}.png", made.picture, mime="image/png")
    if made.plotly:
        kept["plotly"] = await ctx.artifact(f"{name}.plotly.json", made.plotly, mime="application/vnd.plotly.v1+json")
        if len(made.plotly) <= _INLINE_PLOTLY:
            kept["plotly_json"] = msgspec.json.decode(made.plotly)
    return kept


# --- writing ----------------------------------------------------------------------------------------------------------
async def _write(ctx: Context, llm: LLM, step: Step) -> tuple[str, str]:
    """Have the program written; the id of the open call that shows it, and its text.

    A try that breaks off closes its call as failed, and the next opens one of its own: two are never joined.
    """
    asked: dict[str, Json] = {
        "ask": "code",
        "question": step.task,
        "step": {"title": step.title, "instructions": step.instructions, "query": step.details.get("query")},
        "file": step.details["file"],
    }
    if step.results:
        asked["results"] = step.results
    if step.feedback:
        asked["feedback"] = step.feedback
    request = LLMRequest(messages=messages("executor", asked))
    for tries_left in range(_TRIES - 1, -1, -1):
        call = ctx.new_id()
        await ctx.emit(AgentWaiting("llm"))
        await ctx.emit(ToolStarted(call, name="python"))
        try:
            code = await _stream(ctx, llm, request, call)
        except LLMError as error:
            await ctx.emit(ToolFailed(call, code=error.code, message="the code was not written to its end"))
            if not (error.retryable and tries_left):
                raise
            continue
        return call, code
    raise AssertionError("unreachable: the last try returns or raises")


async def _stream(ctx: Context, llm: LLM, request: LLMRequest, call: str) -> str:
    code = FenceFilter()
    thinking = ""
    async with llm.stream(request) as stream:
        async for delta in stream:
            if isinstance(delta, ThinkingPart):
                if not thinking:
                    thinking = ctx.new_id()
                    await ctx.emit(ThinkingStarted(thinking))
                await ctx.emit(ThinkingDelta(thinking, text=delta.text))
            elif isinstance(delta, TextPart) and (text := code.feed(delta.text)):
                await ctx.emit(ToolDelta(call, text=text))
    if thinking:
        await ctx.emit(ThinkingFinished(thinking))
    if rest := code.end():
        await ctx.emit(ToolDelta(call, text=rest))
    return code.text[:_CODE_CHARS]
