"""Teams by address: a folder, a file, a module's attribute, or a name that a distribution gave.

What comes in: an address as a person writes it. What goes out: a `Team`, or an error that says what is missing and what
to write instead. It does not know the command line or settings, changes no search path, and never loads anything twice.

| address | meaning |
|---|---|
| `agents/analyst` | a folder with `team.py` (or a package) that has a `team` |
| `agents/analyst/team.py`, `bot.py:helper` | a file, with the attribute `team` or the one behind the colon |
| `shop.teams:support` | an attribute of a module that can be imported already |
| `support` | an entry point of group `agentstream.teams` of an installed distribution |

Code loaded by path lives below one synthetic package for each folder, whose `__path__` is that folder. So relative
imports, pickling and tracebacks work, two teams may have files of the same names, and `agents` is never claimed as the
name of a module (another distribution has it).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias, TypeGuard

from agentstream.agent import Team
from agentstream.errors import DuplicateTeam, InvalidInput, UnknownTeam

__all__ = ("ENTRY_POINTS", "AnyTeam", "find_teams", "load_team", "load_teams")

ENTRY_POINTS: Final = "agentstream.teams"
"""The entry-point group in which distributions offer teams by name."""

AnyTeam: TypeAlias = Team[Any, Any]  # Any: what a team takes and gives is not known before it is loaded

_ATTRIBUTE: Final = "team"
_FILE: Final = "team.py"
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def load_team(address: str | Path) -> AnyTeam:
    """The team at an address.

    Raises:
        UnknownTeam: there is nothing at the address.
        InvalidInput: what is there is not a team, is several, or could not be imported (with its cause).
    """
    text = str(address).strip()
    if not text:
        raise InvalidInput("a team's address is empty: give a folder, file.py, module:attribute or a name")
    path, attribute = _split(text)
    if isinstance(address, Path) or _looks_like_path(text, path):
        return _from_path(path, attribute)
    if attribute:
        return _from_module(str(path), attribute)
    return _from_entry_point(text)


def load_teams(addresses: Sequence[str | Path]) -> list[AnyTeam]:
    """Every team at these addresses; a folder of team folders gives all of them. The same team twice counts once.

    Raises:
        DuplicateTeam: two teams of one name. UnknownTeam, InvalidInput: as `load_team`.
    """
    teams: dict[str, AnyTeam] = {}
    places: dict[str, str] = {}
    for address in addresses:
        folder = Path(address).expanduser()
        several = folder.is_dir() and _team_file(folder) is None
        inner: list[str | Path] = [*find_teams(folder)] if several else []
        for place in inner or [address]:
            team = load_team(place)
            if teams.setdefault(team.name, team) is not team:
                raise DuplicateTeam(
                    f"two teams are named {team.name!r}: {places[team.name]} and {place}; give one another name",
                    details={"team": team.name},
                )
            places.setdefault(team.name, str(place))
    return list(teams.values())


def find_teams(folder: Path) -> list[Path]:
    """The team folders directly below a folder, by name."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    return [path for path in inner if (path / _FILE).is_file()]


# --- addresses --------------------------------------------------------------------------------------------------------
def _split(text: str) -> tuple[Path, str]:
    """What stands before the attribute, and the attribute. A colon inside a path (`C:\\…`) is none of ours."""
    head, colon, tail = text.rpartition(":")
    if colon and head and tail.isidentifier():
        return Path(head).expanduser(), tail
    return Path(text).expanduser(), ""


def _looks_like_path(text: str, path: Path) -> bool:
    if path.suffix == ".py" or any(mark in text for mark in ("/", "\\", "~")) or text in (".", ".."):
        return True
    return path.is_dir() and (_team_file(path) is not None or bool(find_teams(path)))


def _team_file(folder: Path) -> Path | None:
    """The file of a team folder that has the team; None where it is no team folder."""
    if (folder / _FILE).is_file():
        return folder / _FILE
    package = folder / "__init__.py"
    return package if package.is_file() else None


# --- loading ----------------------------------------------------------------------------------------------------------
def _from_path(path: Path, attribute: str) -> AnyTeam:
    if not path.exists():
        raise UnknownTeam(f"there is no {path}: give a team's folder, a file.py, or module:attribute")
    file = path.resolve()
    if file.is_dir():
        inner = _team_file(file)
        if inner is None:
            raise _no_team_folder(path, file)
        file = inner
    elif file.suffix != ".py":
        raise InvalidInput(f"{path} is not Python: a team is a folder with {_FILE}, or a file.py")
    module = _import(*_place(file), shown=str(path))
    return _team_of(module, attribute or _ATTRIBUTE, f"{file.parent.name}/{file.name}")


def _no_team_folder(path: Path, folder: Path) -> InvalidInput:
    inner = [found.name for found in find_teams(folder)]
    if inner:
        return InvalidInput(f"{path} holds several teams; name one of them: {', '.join(inner)}")
    return InvalidInput(f"{path} has no {_FILE}: a team's folder has one, with `team = Team(…)` in it")


def _place(file: Path) -> tuple[Path, list[str]]:
    """The folder that becomes the synthetic package's path, and the names from there to the file.

    Packages around the file belong to its name, so that its relative imports work.
    """
    names = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    # A team's folder is a package even without `__init__.py`: its files import each other relatively.
    if file.name in (_FILE, "__init__.py") and folder.name:
        names.insert(0, folder.name)
        folder = folder.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, names


def _import(folder: Path, names: list[str], *, shown: str) -> ModuleType:
    for name in names:
        if "." in name:
            raise InvalidInput(f"the name {name!r} in {shown} has a dot, which no module can have: rename it")
    name = ".".join((_parent(folder), *names))
    importlib.invalidate_caches()  # the folder may be seconds old
    try:
        return importlib.import_module(name)
    except Exception as error:  # a user's module may raise anything; it is told with its place
        raise InvalidInput(f"{shown} could not be loaded: {_told(error, folder)}") from error


def _parent(folder: Path) -> str:
    """The synthetic package whose submodules are the files of `folder`; made once a folder."""
    name = "agentstream_teams_" + hashlib.blake2b(str(folder).encode(), digest_size=5).hexdigest()
    if name not in sys.modules:
        parent = ModuleType(name, f"Teams in {folder}.")
        parent.__path__ = [str(folder)]
        sys.modules[name] = parent
    return name


def _told(error: Exception, folder: Path) -> str:
    """The error in one line, with the last line of the folder's own code that led to it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return text
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(folder))]
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text


def _from_module(name: str, attribute: str) -> AnyTeam:
    if _DOTTED.fullmatch(name) is None:
        raise UnknownTeam(f"{name}:{attribute} is no address of a team: write module:attribute or file.py:attribute")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UnknownTeam(f"there is no module {name}; for a file write {name.replace('.', '/')}.py") from None
        raise InvalidInput(f"{name} could not be loaded: {error}") from error
    except Exception as error:  # a user's module may raise anything; it is told with its place
        raise InvalidInput(f"{name} could not be loaded: {type(error).__name__}: {error}") from error
    return _team_of(module, attribute, name)


def _from_entry_point(name: str) -> AnyTeam:
    offered = importlib.metadata.entry_points(group=ENTRY_POINTS)
    found = [point for point in offered if point.name == name]
    if not found:
        known = ", ".join(sorted(offered.names))
        hint = f"installed teams: {known}" if known else "no installed distribution offers teams"
        raise UnknownTeam(f"there is no team {name!r} ({hint}); for one of your own give its folder, as ./{name}")
    try:
        loaded = found[0].load()
    except Exception as error:  # a distribution's module may raise anything; it is told
        raise InvalidInput(
            f"the installed team {name!r} could not be loaded: {type(error).__name__}: {error}"
        ) from error
    return _checked(loaded, f"the entry point {name!r}")


def _team_of(module: ModuleType, attribute: str, where: str) -> AnyTeam:
    if not hasattr(module, attribute):
        others = sorted(name for name, value in vars(module).items() if isinstance(value, Team))
        hint = f"it has {', '.join(others)}; write :{others[0]}" if others else f"write `{attribute} = Team(…)` in it"
        raise InvalidInput(f"{where} has no {attribute!r}: {hint}")
    return _checked(getattr(module, attribute), f"{attribute!r} in {where}")


def _checked(value: object, where: str) -> AnyTeam:
    if _is_team(value):
        return value
    raise InvalidInput(f"{where} is of type {type(value).__name__}, not Team: write Team(name, agent)")


def _is_team(value: object) -> TypeGuard[AnyTeam]:
    return isinstance(value, Team)
