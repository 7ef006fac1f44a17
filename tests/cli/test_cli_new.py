"""`agentstream new` and `doctor`: a copy that runs, and findings that give nothing away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentstream.cli._files import Folder, data_in
from agentstream.cli._new import copy_team, starters
from agentstream.errors import InvalidInput, UnknownTeam
from agentstream.events import ArtifactCreated
from cli_kit import environment
from house import AGENTS, ROOT

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_new_then_run(command: Command, folder: Path) -> None:
    """A copy of the analyst runs under its new name and answers from the file, without any key."""
    made = command("new", "teams/sales_desk")
    assert (made.returncode, made.stderr) == (0, "")
    assert "python -m agentstream.cli run teams/sales_desk" in made.stdout
    assert "pip install 'agentstream[exec]'" in made.stdout
    data = str(ROOT / "examples" / "data" / "sales.csv")
    ran = command("run", "teams/sales_desk", "Which region has the highest total revenue?", "--file", data)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("sales_desk · Which region")
    assert "West has the highest total revenue: 924,751.01" in ran.stdout
    again = command("new", "teams/sales_desk")
    assert (again.returncode, "exists already; nothing was written" in again.stderr) == (2, True)


def test_a_copy_has_everything_but_what_python_left(tmp_path: Path) -> None:
    """Every file of the starter is there, its own name in place of the other, and nothing compiled."""
    target, extras = copy_team(tmp_path / "mine", "analyst")
    files = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    wanted = {path.relative_to(AGENTS / "analyst") for path in (AGENTS / "analyst").rglob("*") if path.is_file()}
    assert files == {path for path in wanted if "__pycache__" not in path.parts}
    text = (target / "team.py").read_text()
    assert 'Team("mine"' in text
    assert 'Team("analyst' not in text
    assert extras == ["exec"]


@pytest.mark.parametrize("name", ["Mine", "my-team", "1st", "", "a" * 40])
def test_names_that_no_team_can_have(tmp_path: Path, name: str) -> None:
    """A folder whose name is no module's is refused before anything is written."""
    with pytest.raises(InvalidInput, match="is no name"):
        copy_team(tmp_path / name if name else Path(), "analyst")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_starter_lists_those_there_are(tmp_path: Path) -> None:
    """The error names the starters; a path to any team's folder works too."""
    with pytest.raises(UnknownTeam, match="take analyst"):
        copy_team(tmp_path / "mine", "nothing")
    assert "analyst" in starters()
    copy_team(tmp_path / "first", "analyst")
    assert 'Team("second"' in (copy_team(tmp_path / "second", str(tmp_path / "first"))[0] / "team.py").read_text()


def test_doctor_tells_names_and_no_values(command: Command) -> None:
    """Findings name versions and variables; the value of a variable never appears; all that is needed works here."""
    ran = command("doctor", env={"OPENAI_API_KEY": "sk-very-secret", "http_proxy": "http://user:hidden@proxy:1"})
    assert ran.returncode == 0, ran.stdout
    assert "OPENAI_API_KEY" in ran.stdout
    assert "http_proxy" in ran.stdout
    assert "sk-very-secret" not in ran.stdout + ran.stderr
    assert "hidden" not in ran.stdout + ran.stderr
    for part in ("[server]", "asyncio", "sqlite", "everything that is needed works", "analyst"):
        assert part in ran.stdout


def test_doctor_finds_what_does_not_work(command: Command, folder: Path) -> None:
    """A setting that cannot be is a finding with its line, and the status says so."""
    (folder / "agentstream.toml").write_text('prot = 1\nstore = "memory:"\n')
    ran = command("doctor", env={"AGENTSTREAM_BASE_URL": "http://localhost:1/v1"})
    assert ran.returncode == 1
    assert "there is no such setting" in ran.stdout
    assert "AGENTSTREAM_MODEL" in ran.stdout
    assert "2 things not working" in ran.stdout


def test_version_and_help(command: Command) -> None:
    """`--version` is one line; help fits 80 columns and shows examples."""
    assert command("--version").stdout.startswith("agentstream ")
    for words in (["--help"], ["run", "-h"], ["serve", "-h"], ["tail", "-h"], ["new", "-h"], ["doctor", "-h"]):
        shown = command(*words, env={"COLUMNS": "80"})
        assert shown.returncode == 0
        assert max(map(len, shown.stdout.split("\n"))) <= 80
    assert "agentstream tail" in command("tail", "-h").stdout


def test_without_its_extra_the_command_says_what_to_install(folder: Path) -> None:
    """Where typer or rich is missing there is one line with the command to install them, and status 2."""
    program = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'rich' else find(name, package)\n"
        "import agentstream.cli as cli; sys.exit(cli.main())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr == "agentstream: rich not installed; the command needs: pip install 'agentstream[cli]'\n"


# --- artifacts --------------------------------------------------------------------------------------------------------
def test_names_of_artifacts_never_leave_their_folder(tmp_path: Path) -> None:
    """A name from a run is the last part of a path at most, and nothing is written over."""
    folder = Folder(tmp_path / "out", "R" * 22)
    for name in ("../../etc/passwd", "a/b/x.csv", "C:\\x.csv", "x.csv", ".bashrc", "", "bad\x00\x1bname"):
        folder.keep(ArtifactCreated("i", "text/csv", name), b"data")
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    names = ["artifact.csv", "badname", "bashrc", "passwd", "x.csv", "x~2.csv", "x~3.csv"]
    assert made == [f"out/{name}" for name in names]


def test_data_in_an_event() -> None:
    """Text is as it is, other bytes are base64; told apart by the size."""
    assert data_in(ArtifactCreated("i", "text/csv", data="ü\n", size=3)) == "ü\n".encode()
    assert data_in(ArtifactCreated("i", "image/png", data="iVBORw==", size=4)) == b"\x89PNG"
    assert data_in(ArtifactCreated("i", "image/png", uri="/x", size=9)) is None
