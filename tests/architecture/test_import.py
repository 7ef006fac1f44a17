"""What importing the package does to a process: nothing but make names, and only from the core's own libraries.

Comes in: a fresh interpreter for each question. Goes out: a failure with what was patched, opened, started or missing.
It deliberately does not import the package into the process of the tests, which has everything loaded already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

from house import ROOT, modules

# Doors that stand behind an extra: the module, and all below it, may need what the extra installs.
BEHIND_AN_EXTRA: Final = {
    "agentstream.agent.code.jupyter": "exec",
    "agentstream.cli": "cli",
    "agentstream.web.server": "server",
}

# What the extras and the developers' tools bring. None of it may be needed by, or pulled in by, the core.
NOT_OF_THE_CORE: Final = (
    "click",
    "fastapi",
    "httptools",
    "ipykernel",
    "IPython",
    "jupyter_client",
    "hypothesis",
    "matplotlib",
    "numpy",
    "pandas",
    "pytest",
    "rich",
    "starlette",
    "trio",
    "typer",
    "uvicorn",
    "uvloop",
    "zmq",
)

CPU_BUDGET_S: Final = 0.5
"""CPU seconds for our own modules, the five libraries already loaded: far above what it takes, far below what hurts."""

_LOOK: Final = """
import builtins, importlib, json, logging, os, signal, sys, threading, time, warnings
import asyncio, io, random, select, socket, sqlite3, ssl, subprocess
import anyio, httpx, msgspec, opentelemetry.metrics, opentelemetry.trace, pydantic

names = json.loads(sys.argv[1])
watched = {name: module for name, module in sys.modules.items() if not name.startswith(("agentstream", "__main__"))}


def look():
    attributes = {(name, key): value for name, module in watched.items() for key, value in list(vars(module).items())
                  if callable(value)}
    hooks = {"excepthook": sys.excepthook, "displayhook": sys.displayhook, "trace": sys.gettrace()}
    handlers = {str(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    return attributes, {**hooks, **handlers}, {
        "path": list(sys.path),
        "environ": dict(os.environ),
        "filters": list(warnings.filters),
        "handlers": list(map(repr, logging.getLogger().handlers)),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "asyncgen hooks": str(sys.get_asyncgen_hooks()),
    }


acts = []
ACTS = ("socket.__new__", "socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "os.remove", "os.fork",
        "_thread.start_new_thread", "sqlite3.connect")


def hook(event, arguments):
    if event in ACTS or (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        # Compiled modules are written beside their source by the import system itself.
        if not str(arguments[0] if arguments else "").endswith("__pycache__"):
            acts.append(event + " " + repr(arguments)[:200])


sys.dont_write_bytecode = True
sys.addaudithook(hook)
attributes, hooks, state = look()
began = time.process_time()
for name in names:
    importlib.import_module(name)
took = time.process_time() - began
attributes_after, hooks_after, state_after = look()
print(json.dumps({
    "cpu": took,
    "acts": acts,
    "patched": [".".join(key) for key, value in attributes.items() if attributes_after.get(key) is not value],
    "hooks": [key for key, value in hooks.items() if hooks_after[key] is not value],
    "state": {key: [repr(value), repr(state_after[key])] for key, value in state.items() if state_after[key] != value},
}))
"""

_WITHOUT_EXTRAS: Final = """
import importlib, json, sys

names, blocked = map(json.loads, sys.argv[1:])


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r} (not of the core)", name=name)
        return None


sys.meta_path.insert(0, Blocked())
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""

_LOADED: Final = """
import json, sys
import agentstream
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def _ask(program: str, *arguments: object) -> Any:  # Any: each program answers in its own form
    result = subprocess.run(
        [sys.executable, "-c", program, *map(json.dumps, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _core() -> list[str]:
    """Return the names of all modules that need no extra."""
    doors = tuple(BEHIND_AN_EXTRA)
    names = [module.name for module in modules() if not module.name.endswith("__main__")]
    return [name for name in names if not any(name == door or name.startswith(f"{door}.") for door in doors)]


def test_importing_changes_nothing() -> None:
    """Importing every module of the core patches, opens, starts and registers nothing, and takes little CPU time."""
    seen = _ask(_LOOK, _core())
    print(f"importing our own modules: {seen['cpu'] * 1_000:.0f} ms of CPU time")
    assert seen["acts"] == []
    assert seen["patched"] == []
    assert seen["hooks"] == []
    assert seen["state"] == {}
    assert seen["cpu"] < CPU_BUDGET_S


def test_the_core_needs_no_extra() -> None:
    """Every module that does not stand behind an extra can be imported with the five libraries alone."""
    assert _ask(_WITHOUT_EXTRAS, _core(), NOT_OF_THE_CORE) == {}


def test_the_front_door_pulls_in_no_extra() -> None:
    """`import agentstream` loads no library of an extra, although all of them are installed here."""
    loaded = set(_ask(_LOADED))
    assert "agentstream" in loaded
    assert sorted(loaded & set(NOT_OF_THE_CORE)) == []
