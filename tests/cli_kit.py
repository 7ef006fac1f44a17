"""How tests start the command: its words, and an environment that says nothing about how it should behave.

Comes in: variables that a test adds. Goes out: the environment of a process. It deliberately does not start anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

from house import ROOT

__all__ = ["COMMAND", "environment"]

COMMAND: Final = [sys.executable, "-m", "agentstream.cli"]
_LEFT_OUT: Final = ("AGENTSTREAM_", "OPENAI_", "COLUMNS", "FORCE_COLOR", "NO_COLOR")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would change the command's output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "TERM": "xterm", **(extra or {})}
