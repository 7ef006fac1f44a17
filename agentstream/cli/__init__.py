"""The command `agentstream`: run, serve, tail, new, doctor. The door of the extra `cli`.

What comes in: the words of a command line. What goes out: an exit status. It does not know how anything is done; where
the extra's libraries are missing it says which command installs them.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import Final

__all__ = ("main",)

_NEEDED: Final = ("typer", "rich")


def main() -> int:
    """Run the command in `sys.argv`; returns its exit status."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"agentstream: {' and '.join(missing)} not installed; the command needs: pip install 'agentstream[cli]'\n"
        )
        return 2
    # Loaded by name: nothing of it can be imported where the extra is missing.
    status: int = importlib.import_module("agentstream.cli._app").run_command()
    return status
