"""Loads teams of the folder `agents` as users do: by path, without touching the import path.

What comes in: the name of a team and of a module in it. What goes out: the module. It deliberately does not know what a
team does.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

AGENTS: Final = Path(__file__).resolve().parents[1] / "agents"
EXAMPLE_DATA: Final = AGENTS.parent / "examples" / "data"
_PARENT: Final = "agentstream_teams_under_test"


def load(team: str, module: str) -> ModuleType:
    """Import `agents/<team>/<module>.py`; relative imports between a team's modules work."""
    if _PARENT not in sys.modules:
        parent = ModuleType(_PARENT)
        parent.__path__ = [str(AGENTS)]
        sys.modules[_PARENT] = parent
    return importlib.import_module(f"{_PARENT}.{team}.{module}")
