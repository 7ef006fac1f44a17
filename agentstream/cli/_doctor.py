"""`agentstream doctor`: what is installed here, and what works.

What comes in: this machine and its environment. What goes out: findings, each with what to do about it. It does not
change anything beyond a temporary folder, sends nothing, and never shows the value of a variable.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio
import anyio.lowlevel
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentstream.agent.code import probe
from agentstream.cli._new import starters
from agentstream.cli._safe import one_line
from agentstream.cli._terminal import Exit
from agentstream.errors import AgentStreamError
from agentstream.llm.environment import model_from_environment
from agentstream.runtime.teams import ENTRY_POINTS
from agentstream.store import open_store
from agentstream.web import load_settings

__all__ = ("Finding", "examine", "show_findings", "version_of")

State: TypeAlias = Literal["ok", "note", "bad"]

_MARKS: Final[Mapping[State, tuple[str, str]]] = {"ok": ("✓", "green"), "note": ("–", "yellow"), "bad": ("✗", "red")}
_CORE: Final = ("anyio", "pydantic", "httpx", "msgspec", "opentelemetry-api")
_EXTRAS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "server": (("uvicorn", "httptools", "uvloop"), "agentstream serve"),
    "cli": (("typer", "rich"), "this command"),
    "exec": (("pandas", "matplotlib"), "the analyst team's code"),
}
_OPTIONAL: Final = frozenset({"httptools", "uvloop"})
_VARIABLES: Final = (
    "AGENTSTREAM_BASE_URL",
    "AGENTSTREAM_MODEL",
    "AGENTSTREAM_API_KEY",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_MODEL",
    "AGENTSTREAM_PROVIDER",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OLLAMA_HOST",
)
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_PORT: Final = 8000
_LIMIT_S: Final = 10.0


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `ok`: works; `note`: works without it; `bad`: does not work."""

    group: str
    name: str
    state: State
    text: str
    advice: str = ""


def version_of(distribution: str) -> str:
    """The installed version; empty where there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other; nothing raises."""
    yield from _installed()
    yield from _loops()
    yield _tried("store", "sqlite", _sqlite, "check that the temporary folder can be written")
    yield _port()
    yield from _tools()
    yield _model()
    yield from _around()


def show_findings(console: Console) -> Exit:
    """Print the findings as they come, then what to do; `FAILED` if anything does not work."""
    advice: list[str] = []
    bad, group = 0, ""
    for finding in examine():
        if finding.group != group:
            group = finding.group
            console.print(Text(f"\n{group}" if advice or bad or group != "agentstream" else group, "bold"))
        mark, style = _MARKS[finding.state]
        row = Table.grid(padding=(0, 1))
        row.add_column(width=3, justify="right")
        row.add_column(width=12, no_wrap=True)
        row.add_column(overflow="fold")
        text_style = "" if finding.state == "ok" else style
        row.add_row(Text(mark, style), Text(finding.name), Text(one_line(finding.text, 400), text_style))
        console.print(row)
        bad += finding.state == "bad"
        if finding.advice:
            advice.append(finding.advice)
    if advice:
        console.print(Text("\nwhat to do", "bold"))
        for line in dict.fromkeys(advice):
            row = Table.grid(padding=(0, 1))
            row.add_row(Text("  →", "dim"), Text(line))
            console.print(row)
    console.print()
    works = f"{bad} thing{'s' if bad > 1 else ''} not working" if bad else "everything that is needed works"
    console.print(Text(works, "bold red" if bad else "bold green"))
    return Exit.FAILED if bad else Exit.OK


# --- what is installed ------------------------------------------------------------------------------------------------
def _installed() -> Iterator[Finding]:
    own = version_of("agentstream") or "not installed, run from its source"
    yield Finding("agentstream", "agentstream", "ok", own)
    enough = sys.version_info >= (3, 11)
    python = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    advice = "" if enough else "use Python 3.11 or newer"
    yield Finding("agentstream", "python", "ok" if enough else "bad", python, advice)
    found = {name: version_of(name) for name in _CORE}
    lost = [name for name, known in found.items() if not known]
    text = ", ".join(f"{name} {known or 'missing'}" for name, known in found.items())
    yield Finding("agentstream", "core", "bad" if lost else "ok", text, f"pip install {' '.join(lost)}" if lost else "")
    for extra, (names, use) in _EXTRAS.items():
        yield _extra(extra, names, use)


def _extra(extra: str, names: tuple[str, ...], use: str) -> Finding:
    found = {name: version_of(name) for name in names}
    lost = [name for name, known in found.items() if not known and name not in _OPTIONAL]
    text = ", ".join(f"{name} {known}" for name, known in found.items() if known)
    if lost:
        install = f"for {use}: pip install 'agentstream[{extra}]'"
        return Finding("agentstream", f"[{extra}]", "note", f"missing {', '.join(lost)}; needed for {use}", install)
    return Finding("agentstream", f"[{extra}]", "ok", text)


# --- what works -------------------------------------------------------------------------------------------------------
def _loops() -> Iterator[Finding]:
    yield _tried("works", "asyncio", lambda: _spin("asyncio", {}), "reinstall Python: its event loop does not run")
    for name, backend, options in (("uvloop", "asyncio", {"use_uvloop": True}), ("trio", "trio", {})):
        if find_spec(name) is None:
            yield Finding("works", name, "note", "not installed; asyncio is used")
        else:
            yield _tried("works", name, partial(_spin, backend, options), f"reinstall {name}")


def _spin(backend: str, options: dict[str, bool]) -> str:
    async def turn() -> None:
        with anyio.fail_after(_LIMIT_S):
            await anyio.lowlevel.checkpoint()

    anyio.run(turn, backend=backend, backend_options=options)
    return "runs"


def _sqlite() -> str:
    async def write(path: str) -> str:
        with anyio.fail_after(_LIMIT_S):
            async with open_store(f"sqlite:{path}") as store:
                await store.ping()
                return f"opened and written in {tempfile.gettempdir()}"

    with tempfile.TemporaryDirectory(prefix="agentstream-doctor-") as folder:
        return anyio.run(write, str(Path(folder, "runs.sqlite")))


def _tried(group: str, name: str, attempt: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding("works" if group == "store" else group, name, "ok", attempt())
    except (AgentStreamError, OSError, RuntimeError, ImportError, TimeoutError) as error:
        return Finding("works" if group == "store" else group, name, "bad", f"{type(error).__name__}: {error}", advice)


def _port() -> Finding:
    try:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", _PORT))
    except OSError as error:
        text = f"port {_PORT} cannot be listened on ({error.strerror})"
        return Finding("works", "port", "note", text, "agentstream serve --port 0 takes a free port")
    return Finding("works", "port", "ok", f"{_PORT} is free")


def _tools() -> Iterator[Finding]:
    report = probe()
    yield Finding("works", "sandbox", "ok" if report.ok else "note", str(report))


# --- what is configured -----------------------------------------------------------------------------------------------
def _model() -> Finding:
    present = [name for name in _VARIABLES if os.environ.get(name, "").strip()]
    try:
        model = model_from_environment(os.environ)
    except AgentStreamError as error:
        return Finding("configured", "model", "bad", f"{', '.join(present)}: {error}", "mend or unset these variables")
    if model is None:
        advice = "for a language model: set OPENAI_API_KEY, or AGENTSTREAM_BASE_URL and AGENTSTREAM_MODEL"
        return Finding("configured", "model", "note", "none in the environment; the analyst answers by rules", advice)
    return Finding("configured", "model", "ok", f"from {', '.join(present)} (not tried)")


def _around() -> Iterator[Finding]:
    try:
        settings = load_settings()
        teams = f"teams {', '.join(settings.teams)}" if settings.teams else "no teams named"
        yield Finding("configured", "settings", "ok", f"{teams}; store {settings.store}")
    except AgentStreamError as error:
        yield Finding("configured", "settings", "bad", str(error), "mend agentstream.toml or the variable it names")
    offered = sorted(entry_points(group=ENTRY_POINTS).names)
    names = [*starters()]
    text = "; ".join(
        [f"to begin with: {', '.join(names) or 'none'}", *([f"installed: {', '.join(offered)}"] if offered else [])]
    )
    yield Finding("configured", "teams", "ok" if names or offered else "note", text)
    proxies = [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]
    if proxies:
        text = f"{', '.join(sorted(proxies))}; used for other machines, never for this one"
        yield Finding("configured", "proxy", "note", text)
