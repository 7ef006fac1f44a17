"""`agentstream new`: a team of one's own, begun as a copy of one that works.

What comes in: where the copy goes, and which team it begins as. What goes out: a folder with the team's files, renamed.
It does not run anything, and never writes over what is there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from agentstream.errors import InvalidInput, UnknownTeam

__all__ = ("copy_team", "starters")

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def starters() -> Mapping[str, Path]:
    """The teams that come with agentstream, by name: from the wheel's data, or from the checkout it is run from."""
    package = Path(str(files("agentstream")))
    for folder in (package / "_starters", package.parent / "agents"):
        if folder.is_dir():
            return {path.name: path for path in sorted(folder.iterdir()) if (path / "team.py").is_file()}
    return {}


def copy_team(target: Path, origin: str) -> tuple[Path, list[str]]:
    """Copy a starter (by name) or any team's folder (by path) to `target`; where it is now, and the extras it needs.

    Raises:
        InvalidInput: the name is none for a team, or something is there already. UnknownTeam: no such starter.
    """
    name = target.name
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"{name!r} is no name for a team's folder: a lower-case letter, then up to 31 of a-z 0-9 _")
    if target.exists() or target.is_symlink():
        raise InvalidInput(f"{target} exists already; nothing was written. Take another name or remove it first")
    source = _source(origin)
    shutil.copytree(source, target, ignore=_LEFT_OUT)
    _rename(target / "team.py", source.name, name)
    return target, _needs(target)


def _source(origin: str) -> Path:
    known = starters()
    if origin in known:
        return known[origin]
    path = Path(origin).expanduser()
    if (path / "team.py").is_file():
        return path.resolve()
    raise UnknownTeam(f"there is no team {origin!r} to begin with: take {', '.join(known) or 'the path of one'}")


def _rename(file: Path, before: str, name: str) -> None:
    """Give the copy's teams the new name, so that both can be served side by side; lines that show its path too."""
    text = file.read_text(encoding="utf-8")
    named = re.sub(rf'(Team\(\s*["\']){re.escape(before)}((?:-[a-z0-9-]+)?["\'])', rf"\g<1>{name}\g<2>", text)
    file.write_text(named.replace(f"agents/{before}", name), encoding="utf-8")


def _needs(target: Path) -> list[str]:
    """What its files import that an extra brings."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(target.rglob("*.py")))
    return ["exec"] if re.search(r"\b(pandas|matplotlib)\b", text) else []
