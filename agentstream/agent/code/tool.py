"""Running code as a tool of an agent: `code_tool`.

What comes in: a runner, or a session of one. What goes out: a tool named `python`; while it runs its output is events
of the call, and what it showed or wrote becomes artifacts of the run. It does not know where the code runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from agentstream.agent.code.contract import CodeFailed, CodeResult, OutputCallback
from agentstream.agent.tools import AsyncTool, ToolContext, current_tool, tool

__all__ = ("code_tool", "keep_outputs")

_PRINTED_CHARS: Final = 8_000


class _Runs(Protocol):
    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult: ...


def code_tool(runner: _Runs, *, files: Mapping[str, Path] | None = None, name: str = "python") -> AsyncTool[[str], str]:
    """A tool that runs Python.

        async with runner.session() as session:
            reply = await ctx.generate(question, tools=[code_tool(session, files={"sales.csv": path})])

    Args:
        runner: a session, whose variables last from call to call; or a runner, where each call begins anew.
        files: laid beside the code in each call.

    The tool answers with the value of the last expression, what was printed, and the names of what was kept; it raises
    `CodeFailed`, which a model is told with the traceback and may mend.
    """

    @tool(name=name, version="1")
    async def python(code: str) -> str:
        """Run Python code and see what it prints.

        The value of the last expression is shown, as in a notebook. Pictures drawn with matplotlib, plotly figures,
        data frames and files that are written are kept for the reader. There is no network.

        Args:
            code: a whole program, or the next cell.
        """
        context = current_tool()
        try:
            result = await runner.run(code, files=files, output=context.output)
        except CodeFailed as failure:
            await keep_outputs(context, failure.result)
            raise _told(failure) from failure
        return _answer(result, await keep_outputs(context, result))

    return python


async def keep_outputs(context: ToolContext, result: CodeResult) -> dict[str, str]:
    """Make artifacts of what code showed and wrote; name → id, in the same order."""
    return {
        output.name: await context.artifact(output.name, output.data, mime=output.mime) for output in result.outputs
    }


def _answer(result: CodeResult, kept: Mapping[str, str]) -> str:
    parts = [_tail(result.stdout), _tail(result.stderr), result.text]
    if kept:
        parts.append(f"[kept: {', '.join(kept)}]")
    if result.left_out:
        parts.append(f"[too large to be kept: {', '.join(result.left_out)}]")
    return "\n".join(part.rstrip("\n") for part in parts if part) or "[no output]"


def _told(failure: CodeFailed) -> CodeFailed:
    """The failure, with what had been printed, and whether variables are gone: a model has to know."""
    detail = failure.detail
    if printed := _tail(failure.result.stdout):
        detail += f"\nIt had printed:\n{printed}"
    if failure.state_lost:
        detail += "\nThe interpreter was started anew: variables and files of earlier steps are gone."
    return CodeFailed(failure.reason, detail, result=failure.result, state_lost=failure.state_lost)


def _tail(text: str) -> str:
    return text if len(text) <= _PRINTED_CHARS else f"…{text[-_PRINTED_CHARS:]}"
