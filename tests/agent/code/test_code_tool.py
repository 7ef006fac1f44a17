"""Running code as a tool: events while it runs, artifacts of what it made, and failures that a model can mend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agentstream import events as ev
from agentstream.agent import Assistant
from agentstream.agent.code import CodeFailed, CodeResult, OutputCallback, RichOutput, code_tool
from agentstream.llm import ToolCall
from agentstream.testing import ScriptedModel, record

pytestmark = pytest.mark.anyio


class Told:
    """A runner that says what a test wrote down."""

    def __init__(self, *ends: CodeResult | CodeFailed) -> None:
        self.ends = list(ends)
        self.asked: list[tuple[str, Mapping[str, Path] | None]] = []

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        self.asked.append((code, files))
        end = self.ends.pop(0)
        result = end.result if isinstance(end, CodeFailed) else end
        assert output is not None
        if result.stdout:
            await output("stdout", result.stdout)
        if isinstance(end, CodeFailed):
            raise end
        return result


def call(code: str) -> ToolCall:
    """A model's call of the tool."""
    return ToolCall("1", "python", f'{{"code": "{code}"}}')


async def test_a_run_shows_output_and_keeps_what_was_made(tmp_path: Path) -> None:
    """Output is streamed, pictures become artifacts under their names, and the model is told about all of it."""
    picture = RichOutput("picture-1.png", "image/png", b"\x89PNG")
    runner = Told(CodeResult("42", "printed\n", "", (picture,), ("huge.bin",)))
    files = {"data.csv": tmp_path}
    model = ScriptedModel(call("x"), "It is 42.")
    recording = await record(Assistant("Answer.", tools=[code_tool(runner, files=files)]), "What?", models=model)
    assert recording.result == "It is 42."
    assert runner.asked == [("x", files)]
    assert [(one.channel, one.text) for one in recording.of(ev.ToolOutput)] == [("stdout", "printed\n")]
    (artifact,) = recording.of(ev.ArtifactCreated)
    assert (artifact.name, artifact.mime) == ("picture-1.png", "image/png")
    told = model.requests[1].messages[-1].content
    assert told == "printed\n42\n[kept: picture-1.png]\n[too large to be kept: huge.bin]"


async def test_a_failure_is_told_to_the_model() -> None:
    """The traceback, what was printed before, and that variables are gone; the call has failed and the run goes on."""
    failure = CodeFailed("cpu", "used up", result=CodeResult(stdout="so far\n"), state_lost=True)
    runner = Told(failure, CodeResult())
    model = ScriptedModel(call("x"), call("y"), "Done.")
    recording = await record(Assistant("Answer.", tools=[code_tool(runner)]), "What?", models=model)
    assert recording.result == "Done."
    assert [failed.code for failed in recording.of(ev.ToolFailed)] == ["code_failed"]
    told = model.requests[1].messages[-1].content
    assert "used up" in told and "so far" in told and "started anew" in told
    assert model.requests[2].messages[-1].content == "[no output]"


def test_the_tool_describes_itself() -> None:
    """A model sees one argument and what happens with it."""
    tool = code_tool(Told())
    assert tool.name == "python"
    assert list(tool.parameters.schema["properties"]) == ["code"]  # type: ignore[call-overload, index, arg-type]
    assert "no network" in tool.description
