"""The folder `agents/` holds teams, and is never an import package.

Comes in: the folder as it lies in the checkout. Goes out: a failure that names the file that should, or should not, be.
It deliberately does not load a team: the command's loader has tests of its own.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from house import AGENTS, ROOT


def _teams() -> list[Path]:
    return [path for path in sorted(AGENTS.glob("*")) if path.is_dir() and not path.name.startswith((".", "_"))]


def test_agents_is_no_package() -> None:
    """There is no `agents/__init__.py`: it would shadow another distribution's module of that name."""
    assert not (AGENTS / "__init__.py").exists()
    assert [path.name for path in AGENTS.glob("*.py")] == []


def test_each_team_is_a_package_with_a_team() -> None:
    """Every team folder has `__init__.py`, so type checkers tell teams apart, and `team.py` with a top-level `team`."""
    incomplete: list[str] = []
    for folder in _teams():
        source = folder / "team.py"
        if not (folder / "__init__.py").exists() or not source.exists():
            incomplete.append(folder.name)
            continue
        names = {
            target.id
            for node in ast.parse(source.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        if "team" not in names:
            incomplete.append(f"{folder.name}/team.py")
    assert not incomplete


def test_another_distribution_keeps_the_name(tmp_path: Path) -> None:
    """With the checkout as the working folder, `agents` is still the other distribution's package."""
    other = tmp_path / "agents"
    other.mkdir()
    (other / "__init__.py").write_text("")
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('agents').origin)"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout.strip() == str(other / "__init__.py")
