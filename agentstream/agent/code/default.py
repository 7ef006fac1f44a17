"""The default runner, made only where it works.

What comes in: limits. What goes out: a `JupyterRunner`, or an error that names what is missing. It deliberately knows
no second choice: where the sandbox does not work, nothing runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import cast

from agentstream.agent.code.bubblewrap import probe
from agentstream.agent.code.contract import CodeRunner, Limits

__all__ = ("sandbox",)


def sandbox(*, limits: Limits | None = None, warm: int = 0, preload: Sequence[str] = ()) -> CodeRunner:
    """The default runner; enter it. For its arguments see `JupyterRunner`. Looks at the machine, some 50 ms.

    Raises:
        NoSandbox: this machine cannot isolate. MissingExtra: `agentstream[exec]` is not installed.
    """
    probe().require()
    door = importlib.import_module("agentstream.agent.code.jupyter")
    return cast("CodeRunner", door.JupyterRunner(limits=limits, warm=warm, preload=preload))
