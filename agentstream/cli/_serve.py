"""`agentstream serve`: teams over HTTP, with the developer page.

What comes in: addresses of teams, and what the command line says beside file and environment. What goes out: the line
to open, and the server's exit status. It does not know routes; the server stands behind the extra `server`.
"""

from __future__ import annotations

import importlib
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from agentstream.cli._new import starters
from agentstream.cli._terminal import command_name
from agentstream.errors import InvalidInput
from agentstream.runtime import Runtime
from agentstream.runtime.teams import load_teams
from agentstream.web import Settings, load_settings

if TYPE_CHECKING:
    from agentstream.web.server import Serving

__all__ = ("serve_teams",)


def serve_teams(teams: Sequence[str], given: Mapping[str, object], *, file: str | None, browse: bool) -> int:
    """Serve until told to stop; the exit status.

    Raises:
        AgentStreamError: a team, a setting, the store or the address does not fit, or the extra is missing.
    """
    server = importlib.import_module("agentstream.web.server")  # raises MissingExtra where uvicorn is not there
    values = dict(given)
    if teams:
        values["teams"] = list(teams)
    if "host" in values:
        values["public"] = True  # named on the command line: it is meant
    settings = load_settings(file, given=values)
    loaded = load_teams(settings.teams)
    if not loaded:
        known = next(iter(starters()), "analyst")
        raise InvalidInput(
            f"name the teams to serve: {command_name()} serve PATH… (or set `teams` in agentstream.toml). "
            f"To begin with one: {command_name()} new mine --from {known}"
        )
    runtime = Runtime(settings.store, teams=loaded, options=settings.limits, answers=settings.answers())

    def ready(serving: Serving) -> None:
        sys.stdout.write(_banner(serving.url, settings, [team.name for team in loaded]))
        sys.stdout.flush()
        if browse:
            webbrowser.open(serving.url)

    run_server = cast("Callable[..., Any]", server.run_server)  # Any: loaded by name, see above
    return int(run_server(runtime, settings, ready=ready))


def _banner(url: str, settings: Settings, teams: Sequence[str]) -> str:
    facts = {
        "developer page" if settings.page else "serving": url,
        "teams": ", ".join(teams),
        "store": settings.store,
        "Ctrl-C": "drains, then stops",
    }
    return "".join(f"{name:<16}{value}\n" for name, value in facts.items())
