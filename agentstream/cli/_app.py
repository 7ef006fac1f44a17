"""The commands and their options.

What comes in: the command line. What goes out: calls of the modules that do the work, and an exit status. It does not
know how anything is done; the help texts are its main business.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import anyio
import typer
from rich.console import Console
from rich.text import Text

from agentstream.cli._doctor import show_findings, version_of
from agentstream.cli._new import copy_team, starters
from agentstream.cli._run import Asked, run_team
from agentstream.cli._safe import safe_output
from agentstream.cli._serve import serve_teams
from agentstream.cli._tail import SERVER, Watched, tail_run
from agentstream.cli._terminal import PLAIN, Exit, command_name, report
from agentstream.errors import AgentStreamError

__all__ = ("app", "run_command")

app: Final = typer.Typer(
    name="agentstream",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Json = Annotated[bool, typer.Option("--json", help="One event a line, as the log has it, and nothing else.")]


def run_command() -> int:
    """Run the command in `sys.argv`; its exit status. `--plain` and `--debug` may stand anywhere before a `--`."""
    safe_output()
    switches, words = _taken_out(sys.argv[1:], {"--plain", "--debug"})
    if "--plain" in switches:
        os.environ[PLAIN] = "1"
    try:
        app(args=words, prog_name="agentstream")
    except (AgentStreamError, OSError, ExceptionGroup, KeyboardInterrupt) as error:
        return report(error, debug="--debug" in switches)
    return Exit.OK


def _taken_out(words: Sequence[str], switches: set[str]) -> tuple[set[str], list[str]]:
    """The switches among `words`, and the rest."""
    end = words.index("--") if "--" in words else len(words)
    found = {word for word in words[:end] if word in switches}
    return found, [word for n, word in enumerate(words) if n >= end or word not in switches]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"agentstream {version_of('agentstream') or '(from source)'} on Python {platform.python_version()}")
        raise typer.Exit


@app.callback(
    epilog="[dim]Begin with:[/] agentstream doctor [dim]·[/] agentstream new mine [dim]·[/] agentstream serve mine"
)
def _agentstream(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines, as where the output is no terminal.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Teams of agents with one ordered, resumable stream.

    --plain and --debug may stand behind a command too.
    """


@app.command(
    epilog="[dim]Examples[/]\n\n"
    'agentstream run agents/analyst "Total revenue by region?" --file sales.csv\n\n'
    "agentstream run shop.teams:support --json < question.txt | jq .type"
)
def run(
    team: Annotated[
        str, typer.Argument(metavar="TEAM", help="A folder, file.py\\[:name], module:name or an installed team.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="What it should do; - or nothing reads stdin.", show_default=False),
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="Hand in a file; may be repeated.", show_default=False)
    ] = None,
    store: Annotated[str, typer.Option(help="Where the run is kept: memory: or sqlite:PATH.")] = "memory:",
    out: Annotated[Path | None, typer.Option(help="Folder for artifacts.", show_default="artifacts/RUN")] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0.001, help="Stop it after so many seconds.", show_default=False)
    ] = None,
    json: _Json = False,
) -> None:
    """Run a team here and watch it work.

    Ctrl-C stops the run and shows what there is; a second one quits at once.

    Exit status: 0 finished, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    asked = Asked(team, tuple(words or ()), tuple(file or ()), store, out, deadline, json)
    raise typer.Exit(anyio.run(partial(run_team, asked)))


@app.command(
    epilog="[dim]Examples[/]\n\nagentstream serve agents/analyst\n\n"
    "agentstream serve agents --port 0 --store sqlite:runs.db"
)
def serve(
    teams: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEAM", help="What to serve; a folder of teams serves them all.", show_default=False),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.", show_default="8000")] = None,
    store: Annotated[
        str | None, typer.Option(help="Where runs are kept: memory: or sqlite:PATH.", show_default="memory:")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A settings file.", show_default="agentstream.toml, if there is one")
    ] = None,
    browse: Annotated[bool, typer.Option("--open", help="Open the developer page.")] = False,
) -> None:
    """Serve teams over HTTP, with the developer page.

    Settings come from agentstream.toml and AGENTSTREAM_… variables; options go before them.
    There is no authentication: whoever reaches the port may start and read runs.
    """
    options = {"host": host, "port": port, "store": store}
    given = {name: value for name, value in options.items() if value is not None}
    raise typer.Exit(serve_teams(teams or [], given, file=None if config is None else str(config), browse=browse))


@app.command(
    epilog="[dim]Examples[/]\n\nagentstream tail http://127.0.0.1:8000/runs/3WJBzX433AIwDV5mgusd9w\n\n"
    "agentstream tail 3WJBzX433AIwDV5mgusd9w --store sqlite:runs.db --json"
)
def tail(
    run: Annotated[str, typer.Argument(metavar="URL|RUN", help="The address of a run, or its id.")],
    after: Annotated[
        str | None,
        typer.Option(help="Go on behind this cursor; tail: only what is new.", show_default="from the start"),
    ] = None,
    store: Annotated[
        str, typer.Option(help="Read the run from this store instead of a server.", show_default=False)
    ] = "",
    server: Annotated[str, typer.Option(help="The server that an id belongs to.")] = SERVER,
    json: _Json = False,
) -> None:
    """Follow a run that is somewhere else, to its end.

    Lost connections are taken up again where they were. Ctrl-C leaves; the run goes on.
    """
    raise typer.Exit(anyio.run(partial(tail_run, Watched(run, store, server, after, json))))


@app.command(epilog="[dim]Example[/]\n\nagentstream new teams/sales_desk --from analyst")
def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Where it goes: a folder that is not there yet.")],
    origin: Annotated[
        str, typer.Option("--from", metavar="TEAM", help=f"What to begin with: {', '.join(starters())}, or a path.")
    ] = next(iter(starters()), "analyst"),
) -> None:
    """Begin a team of your own as a copy of one that works."""
    folder, extras = copy_team(name, origin)
    command = command_name()
    out = Console(highlight=False, soft_wrap=True)
    out.print(Text.assemble(("✓ ", "green"), f"{folder} is yours: a copy of {origin}"))
    for extra in extras:
        out.print(f"  its code needs   pip install 'agentstream\\[{extra}]'")
    out.print(Text(f'  try it           {command} run {folder} "…" --file FILE'))
    out.print(Text(f"  its page         {command} serve {folder}"))
    out.print(Text(f"  change it        {folder}/team.py"))


@app.command()
def doctor() -> None:
    """Say what is installed here and what works.

    Names of variables are shown, never their values; nothing is sent anywhere. Exit status 1 if anything needed fails.
    """
    raise typer.Exit(show_findings(Console(highlight=False, file=sys.stdout)))
