"""`agentstream run` as a process: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli_kit import COMMAND, environment

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_plain_output(command: Command, folder: Path) -> None:
    """Through a pipe a run is lines, each with its agent, then the answer, the files, and what can be done next."""
    ran = command("run", "writer", "say", "it", "--file", "in.csv")
    assert (ran.returncode, ran.stderr) == (0, "")
    run = re.search(r"run {9}([A-Za-z0-9_-]{22}) ", ran.stdout)
    assert run is not None
    kept = f"artifacts/{run[1][:8]}"
    seen = re.sub(r"after [\d.]+ s", "after N s", ran.stdout).replace(kept, "KEPT").replace(run[1], "RUN")
    assert seen == (
        "writer · say it\n"
        "\n"
        "plan        1. Say it\n"
        "writer      ~ How to say it?\n"
        "writer      Evil: X\n"
        "writer      Second line\n"
        "writer      runs python:\n"
        "                print(1)\n"
        "                print(2)\n"
        "writer      > 1\n"
        "writer      > 2\n"
        "writer      made KEPT/in.csv\n"
        "writer      made KEPT/dot.png\n"
        "writer      accepted: Say it (heard)\n"
        "plan        done: Say it\n"
        "\n"
        "Answer\n"
        "SAY IT!\n"
        "\n"
        "table       KEPT/in.csv\n"
        "picture     KEPT/dot.png\n"
        "run         RUN · finished after N s · 19 events\n"
        "page        python -m agentstream.cli serve writer\n"
    )
    assert (folder / kept / "in.csv").read_text() == "a,b\n1,2\n"
    assert (folder / kept / "dot.png").read_bytes() == b"\x89PNG" * 10


def test_json_output(command: Command, folder: Path) -> None:
    """`--json` is the log, line by line, and nothing else; no files are written."""
    ran = command("run", "writer", "x", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("run.started", "run.finished")
    assert list(events[0])[:3] == ["seq", "at", "type"]  # the stored bytes, not a rewriting of them
    assert not (folder / "artifacts").exists()


def test_a_run_is_kept_and_can_be_read_again(command: Command) -> None:
    """With a store the run stays: `tail` reads the very same lines from it."""
    ran = command("run", "writer", "x", "--json", "--store", "sqlite:runs.sqlite")
    run = json.loads(ran.stdout.splitlines()[0])["run"]
    again = command("tail", run, "--store", "sqlite:runs.sqlite", "--json")
    assert (again.returncode, again.stdout) == (0, ran.stdout)
    cursor = command("tail", run, "--store", "sqlite:runs.sqlite", "--json", "--after", "tail")
    assert json.loads(cursor.stdout)["type"] == "run.finished"


def test_exit_status_of_a_failed_run(command: Command) -> None:
    """A failed run is status 1 with its safe message; the cause goes to the log, not to the output."""
    ran = command("run", "writer/team.py:breaks", "x")
    assert ran.returncode == 1
    assert "before" in ran.stdout
    assert "The run failed" in ran.stdout
    assert "a secret of the cause" not in ran.stdout
    assert command("run", "writer/team.py:breaks", "x", "--json").returncode == 1


def test_a_deadline_ends_a_run(command: Command) -> None:
    """`--deadline` stops the run with what there is; that is no success."""
    ran = command("run", "writer/team.py:sleeps", "x", "--deadline", "0.3")
    assert ran.returncode == 1
    assert "half a sentence" in ran.stdout
    assert "The run stopped\ndeadline" in ran.stdout


def test_typed_input_and_stdin(command: Command) -> None:
    """A team that takes no text takes JSON; `-`, or nothing, reads what is piped in."""
    ran = command("run", "writer/team.py:typed", '{"n": 41}')
    assert (ran.returncode, '"n": 42' in ran.stdout) == (0, True)
    assert "PIPED!" in command("run", "writer", "-", stdin="piped").stdout
    assert "PIPED!" in command("run", "writer", stdin="piped").stdout
    wrong = command("run", "writer/team.py:typed", "{}")
    assert (wrong.returncode, "n: Field required" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nobody", "x"], "there is no team 'nobody'"),
        (["run", "./nowhere", "x"], "there is no nowhere"),
        (["run", "writer/words.py", "x"], "has no 'team'"),
        (["run", "in.csv", "x"], "there is no team 'in.csv'"),
        (["run", "writer", "x", "--file", "missing.csv"], "there is no file 'missing.csv'"),
        (["run", "writer", " "], "the input of team writer is empty"),
        (["run", "writer", "x", "--store", "nothing"], "a store's address is"),
        (["tail", "nothing"], "is no run"),
        (["tail", "A" * 22, "--store", "sqlite:missing.sqlite"], "there is no store"),
        (["serve"], "name the teams to serve"),
        (["serve", "writer", "--port", "99999"], "less than or equal to 65535"),
        (["run"], "Missing argument 'TEAM'"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(command: Command, words: list[str], said: str) -> None:
    """Each mistake is named on stderr with what to do, without a traceback, and nothing is printed elsewhere."""
    ran = command(*words)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    if ran.stderr.startswith("error: "):
        assert ran.stderr.count("\n") == 1


def test_debug_shows_the_traceback(command: Command) -> None:
    """`--debug` adds the traceback, wherever it stands."""
    ran = command("--debug", "run", "writer/words.py", "x")
    assert ran.returncode == 2
    assert "Traceback (most recent call last)" in ran.stderr
    assert ran.stderr.endswith("write `team = Team(…)` in it\n")


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    """`agentstream run … | head -1` ends quietly."""
    line = f"{' '.join(COMMAND)} run writer x --json | head -1"
    ran = subprocess.run(
        ["/bin/sh", "-c", line], cwd=folder, env=environment(), capture_output=True, text=True, timeout=50, check=False
    )
    assert (ran.returncode, ran.stdout.count("\n"), ran.stderr) == (0, 1, "")


def _read_until(process: Any, text: str) -> str:
    seen = ""
    while text not in seen:
        line = process.stdout.readline()
        assert line, f"{text!r} never came; there was: {seen}"
        seen += line
    return seen


@pytest.mark.promise("P8")
def test_ctrl_c_stops_the_run_and_shows_what_there_is(started: Callable[..., Any]) -> None:
    """The first Ctrl-C stops the run properly: its partial text, its cause, status 130."""
    process = started("run", "writer/team.py:sleeps", "x")
    seen = _read_until(process, "half a sentence")
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(20) == 130
    assert "stopping; Ctrl-C again quits at once" in rest
    assert "The run stopped\nuser_stop: Ctrl-C" in seen + rest
    assert "Traceback" not in rest


def test_a_second_ctrl_c_quits(started: Callable[..., Any]) -> None:
    """An agent that swallows its cancellation cannot hold the command: the second Ctrl-C ends it within seconds."""
    process = started("run", "writer/team.py:stubborn", "x", "--plain")
    _read_until(process, "never")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _read_until(process, "stopping")  # two signals at once would be one
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert time.monotonic() - began < 8


def test_the_live_view(folder: Path) -> None:
    """In 80 columns: nothing is wider, the cursor comes back, and no sequence of the run's own gets out."""
    leader, follower = pty.openpty()
    subprocess.run(["stty", "cols", "80", "rows", "30"], stdin=follower, check=True, timeout=10)
    process = subprocess.Popen(
        [*COMMAND, "run", "writer", "say", "it", "--file", "in.csv"],
        cwd=folder,
        env=environment(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    data = b""
    try:
        while piece := os.read(leader, 65536):
            data += piece
    except OSError:  # how a terminal says that the other side is gone
        pass
    os.close(leader)
    assert process.wait(20) == 0
    assert b"\x1b[2J" not in data
    assert b"owned" not in data
    assert data.rfind(b"\x1b[?25h") > data.rfind(b"\x1b[?25l")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode()).replace("\r", "")
    assert max(len(line) for line in text.split("\n")) <= 80
    for part in ("● writer", "▎ Evil: X", "✓ accepted  Say it", "╭─ Answer", "SAY IT!", "picture", "finished after"):
        assert part in text
    assert "\x1b[1;" in data.decode()  # colours
