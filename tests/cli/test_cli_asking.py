"""`agentstream run` asks whoever sits at the terminal: as a process, and the words that count as answers."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentstream.cli._asking import answer_of_line, hint_of
from agentstream.errors import InvalidInput
from agentstream.events import InputRequested
from cli_kit import COMMAND, environment

Command = Callable[..., "subprocess.CompletedProcess[str]"]

TEAM = '''
from agentstream import Context, Team, as_agent, tool


@tool(approve=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@as_agent
async def buyer(ctx: Context, task: str) -> str:
    """Asks, then pays."""
    amount = await ctx.ask("How much?", int)
    return await ctx.tool(pay, amount)


team = Team("buyer", buyer)
'''


@pytest.fixture
def buyer(folder: Path) -> Path:
    """A team that asks."""
    (folder / "buyer.py").write_text(TEAM)
    return folder


@pytest.mark.usefixtures("buyer")
def test_answers_come_from_stdin(command: Command) -> None:
    """Through a pipe: a line an answer; what does not fit is told and asked for again."""
    ran = command("run", "buyer.py", "tea", stdin="lots\n3\nmaybe\ny\n")
    assert ran.returncode == 0, ran.stderr
    assert "Answer\npaid 3\n" in ran.stdout
    assert ran.stderr.splitlines() == [
        "How much?  [a whole number]",
        "a whole number is asked for",
        'Run the tool pay with {"amount":3}?  [y, or n and why]',
        "y or n",
    ]


@pytest.mark.usefixtures("buyer")
def test_nobody_is_there(command: Command) -> None:
    """At the end of the input the run is stopped, and says why."""
    ran = command("run", "buyer.py", "tea")
    assert ran.returncode == 1
    assert "nobody is there to answer" in ran.stdout


def test_in_the_live_view(buyer: Path) -> None:
    """On a terminal: the question stands alone while somebody types, then the view goes on."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", "buyer.py", "tea"],
        cwd=buyer,
        env=environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    data, answers = b"", [(b"How much?", b"3\n"), (b"Run the tool", b"n too dear\n")]
    try:
        while piece := os.read(leader, 65536):
            data += piece
            if answers and answers[0][0] in data:
                os.write(leader, answers.pop(0)[1])
    except OSError:  # how a terminal says that the other side is gone
        pass
    os.close(leader)
    assert process.wait(20) == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())
    assert "was not allowed to run: too dear" in " ".join(text.split())
    assert data.rfind(b"\x1b[?25h") > data.rfind(b"\x1b[?25l")


@pytest.mark.parametrize(
    ("kind", "schema", "line", "value", "hint"),
    [
        ("question", {"type": "string"}, "3 ", "3 ", "text"),
        ("question", {"type": "boolean"}, "Yes", True, "y or n"),
        ("question", {"type": "integer"}, "3", 3, "a whole number"),
        ("question", {"enum": ["a", "b"]}, "a", "a", "a | b"),
        ("question", {"type": "object"}, '{"a":1}', {"a": 1}, "JSON"),
        ("approval", None, "n", False, "y, or n and why"),
        ("approval", None, "no, never", None, "y, or n and why"),
        ("approval", None, "n never", {"approved": False, "reason": "never"}, "y, or n and why"),
    ],
)
def test_lines_as_values(kind: Any, schema: Any, line: str, value: Any, hint: str) -> None:
    """A line is what the schema asks for."""
    event = InputRequested("a.1.1", kind=kind, prompt="?", schema=schema)
    assert hint_of(event) == hint
    if value is None:
        with pytest.raises(InvalidInput):
            answer_of_line(event, line)
    else:
        assert answer_of_line(event, line) == value
