"""The loader of teams: by path without touching the search path, by module, by entry point; and what is wrong."""

from __future__ import annotations

import pickle
import sys
import typing
from pathlib import Path

import pytest

from agentstream.errors import DuplicateTeam, InvalidInput, UnknownTeam
from agentstream.runtime.teams import find_teams, load_team, load_teams

TEAM = """
from __future__ import annotations
import dataclasses
from agentstream.agent import Agent, Context, Team
from .words import WORD

@dataclasses.dataclass
class Task:
    n: int

class Worker(Agent[Task, str]):
    async def run(self, ctx: Context, task: Task) -> str:
        return WORD

team = Team("{name}", Worker())
other = Team("{name}-other", Worker())
number = 3
"""


def _team(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "team.py").write_text(TEAM.format(name=name))
    (folder / "words.py").write_text(f"WORD = {name!r}")
    return folder


def test_a_folder_is_loaded_without_a_trace(tmp_path: Path) -> None:
    """Relative imports, type hints and pickling work; the search path and the names of modules stay as they were."""
    path, names = list(sys.path), {name.partition(".")[0] for name in sys.modules}
    team = load_team(_team(tmp_path / "agents" / "alpha", "alpha"))
    assert team.name == "alpha"
    assert sys.path == path
    assert {name.partition(".")[0] for name in sys.modules} - names <= {type(team.agent).__module__.partition(".")[0]}
    assert "agents" not in sys.modules
    task = team.check_input({"n": 1})
    assert pickle.loads(pickle.dumps(task)) == task
    assert typing.get_type_hints(type(team.agent).run)["task"] is type(task)
    assert load_team(tmp_path / "agents" / "alpha") is team
    assert load_team(f"{tmp_path}/agents/alpha/team.py:other").name == "alpha-other"


def test_two_teams_with_the_same_files_do_not_meet(tmp_path: Path) -> None:
    """Each has its own `words`; a folder of them gives all, the same one twice counts once."""
    for name in ("beta", "alpha", "_hidden", ".git"):
        _team(tmp_path / "teams" / name, name.strip("._"))
    assert [path.name for path in find_teams(tmp_path / "teams")] == ["alpha", "beta"]
    teams = load_teams([tmp_path / "teams", str(tmp_path / "teams" / "beta")])
    assert [team.name for team in teams] == ["alpha", "beta"]
    words = [sys.modules[type(team.agent).__module__.replace(".team", ".words")].WORD for team in teams]
    assert words == ["alpha", "beta"]


def test_two_teams_of_one_name_are_refused(tmp_path: Path) -> None:
    """The error names both places."""
    one, two = _team(tmp_path / "one", "same"), _team(tmp_path / "two", "same")
    with pytest.raises(DuplicateTeam, match=rf"'same': {one} and {two}"):
        load_teams([one, two])


def test_a_file_inside_packages_keeps_its_relative_imports(tmp_path: Path) -> None:
    """Packages around a file belong to its name."""
    inner = tmp_path / "shop" / "desk"
    inner.mkdir(parents=True)
    for folder in (tmp_path / "shop", inner):
        (folder / "__init__.py").write_text("")
    (tmp_path / "shop" / "words.py").write_text('WORD = "shared"')
    (inner / "support.py").write_text(TEAM.format(name="support").replace(".words", "..words"))
    assert load_team(inner / "support.py").name == "support"


def test_a_package_may_be_a_team(tmp_path: Path) -> None:
    """A folder without `team.py` may have its team in `__init__.py`; a single file needs no folder of its own."""
    folder = tmp_path / "solo"
    folder.mkdir()
    (folder / "__init__.py").write_text(TEAM.format(name="solo"))
    (folder / "words.py").write_text('WORD = "x"')
    (tmp_path / "bot.py").write_text(TEAM.format(name="bot").replace("from .words import WORD", 'WORD = ""'))
    assert [load_team(folder).name, load_team(tmp_path / "bot.py").name] == ["solo", "bot"]


def test_modules_and_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution gives teams by module and by name; the error lists the names there are."""
    name = "agentstream_loader_test"
    (tmp_path / f"{name}.py").write_text(TEAM.format(name="shop").replace("from .words import WORD", 'WORD = ""'))
    info = tmp_path / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[agentstream.teams]\nshop = {name}:team\nbad = {name}:number\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_team(f"{name}:team") is load_team("shop")
    assert load_team(f"{name}:other").name == "shop-other"
    with pytest.raises(UnknownTeam, match="installed teams: bad, shop"):
        load_team("nothing")
    with pytest.raises(InvalidInput, match="entry point 'bad' is of type int"):
        load_team("bad")
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("", InvalidInput, "empty"),
        ("nothing", UnknownTeam, "as ./nothing"),
        ("./nothing", UnknownTeam, "there is no nothing"),
        ("no_such_module:team", UnknownTeam, "no module no_such_module; for a file write no_such_module.py"),
        ("json:dumps", InvalidInput, "of type function, not Team"),
        ("what is this:team", UnknownTeam, "is no address of a team"),
        ("{0}/empty", InvalidInput, "has no team.py"),
        ("{0}/several", InvalidInput, "holds several teams; name one of them: one, two"),
        ("{0}/data.txt", InvalidInput, "is not Python"),
        ("{0}/several/one/team.py:number", InvalidInput, "'number' in one/team.py is of type int"),
        ("{0}/several/one/team.py:nothing", InvalidInput, "it has other, team; write :other"),
        ("{0}/several/one/words.py", InvalidInput, "has no 'team': write `team = Team"),
        ("{0}/raises/team.py", InvalidInput, r"ZeroDivisionError: division by zero \(team.py, line 2\)"),
        ("{0}/missing.py", InvalidInput, "No module named 'a_module_that_is_not_there'"),
        ("{0}/syntax.py", InvalidInput, "SyntaxError"),
        ("{0}/a.dot/team.py", InvalidInput, "has a dot"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, address: str, error: type[Exception], said: str) -> None:
    """Each mistake has its type, its place, and what to write instead; the cause of an import's failure is kept."""
    (tmp_path / "empty").mkdir()
    for name in ("one", "two"):
        _team(tmp_path / "several" / name, name)
    (tmp_path / "data.txt").write_text("x")
    for folder, text in (("raises", "x = 1\n1 / 0\n"), ("a.dot", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "team.py").write_text(text)
    (tmp_path / "missing.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "syntax.py").write_text("def (:\n")
    with pytest.raises(error, match=said) as caught:
        load_team(address.format(tmp_path))
    if "could not be loaded" in str(caught.value):
        assert caught.value.__cause__ is not None
