"""The command as people run it: a process of its own, with a small team in a folder.

Comes in: words of a command line. Goes out: what was printed, and the exit status. It deliberately does not import the
command: that is what the process is for.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from cli_kit import COMMAND, environment

TEAM: Final = '''
import anyio
import pydantic
from agentstream.agent import Agent, Team
from agentstream.events import PlanItem, PlanUpdated, ToolCalled, ToolFinished, ToolOutput, ToolStarted, VerdictGiven

from .words import SHOUT


class Writer(Agent[str, str]):
    """Writes what it is told."""

    async def run(self, ctx, task: str) -> str:
        await ctx.emit(PlanUpdated((PlanItem("a", "Say it"),)))
        async with ctx.thinking() as block:
            await block.write("How to say it?")
        await ctx.say("Evil: \\x1b[2J\\x1b]0;owned\\x07\\u202eX\\nSecond line")
        call = ctx.new_id()
        await ctx.emit(ToolStarted(call, name="python"))
        await ctx.emit(ToolCalled(call, arguments={"code": "print(1)\\nprint(2)"}))
        await ctx.emit(ToolOutput(call, channel="stdout", text="1\\n2\\n"))
        await ctx.emit(ToolFinished(call, result=None))
        for file in ctx.files:
            await ctx.artifact(file.name, file.path.read_text(), mime="text/csv")
        await ctx.artifact("../dot.png", b"\\x89PNG" * 10, mime="image/png")
        await ctx.emit(VerdictGiven(True, feedback="heard", step="a"))
        await ctx.emit(PlanUpdated((PlanItem("a", "Say it", "done"),)))
        return task.upper() + SHOUT


class Breaks(Agent[str, str]):
    async def run(self, ctx, task: str) -> str:
        await ctx.say("before")
        raise RuntimeError("a secret of the cause")


class Sleeps(Agent[str, str]):
    async def run(self, ctx, task: str) -> str:
        async with ctx.text() as block:
            await block.write("half a sen")
            await block.write("tence\\n")
            await anyio.sleep_forever()
        return ""


class Stubborn(Agent[str, str]):
    async def run(self, ctx, task: str) -> str:
        await ctx.say("never")
        while True:
            try:
                await anyio.sleep(3600)
            except BaseException:
                pass


class Order(pydantic.BaseModel):
    n: int


class Typed(Agent[Order, Order]):
    async def run(self, ctx, task: Order) -> Order:
        return Order(n=task.n + 1)


team = Team("writer", Writer())
breaks = Team("breaks", Breaks())
sleeps = Team("sleeps", Sleeps())
stubborn = Team("stubborn", Stubborn())
typed = Team("typed", Typed())
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A current folder with the team `writer` in it."""
    writer = tmp_path / "writer"
    writer.mkdir()
    (writer / "team.py").write_text(TEAM)
    (writer / "words.py").write_text('SHOUT = "!"\n')
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    return tmp_path


Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def command(folder: Path) -> Callable[..., Ran]:
    """Run the command to its end in the folder."""

    def run(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=folder,
            env=environment(env),
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=50,
            check=False,
        )

    return run


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command and leave it running; what still runs after the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=folder,
            env=environment({"PYTHONUNBUFFERED": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
