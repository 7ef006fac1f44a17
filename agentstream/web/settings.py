"""Settings of a server: from a file, the environment, and whoever starts it.

What comes in: `agentstream.toml`, variables `AGENTSTREAM_…`, and values given on the command line, which go before the
variables, which go before the file. What goes out: checked `Settings`. It does not know models: what names them and
their keys is read by `agentstream.llm`, and a key never stands in the file.

    # agentstream.toml                  the same as a variable
    store = "sqlite:runs.db"            AGENTSTREAM_STORE=sqlite:runs.db
    teams = ["agents/analyst"]          AGENTSTREAM_TEAMS=agents/analyst,agents/writer
    port = 8000                         AGENTSTREAM_PORT=8000
    [limits]
    max_runs = 16                       AGENTSTREAM_LIMITS_MAX_RUNS=16
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import pydantic

from agentstream.answer import AnswerOptions
from agentstream.errors import InvalidInput
from agentstream.runtime import RuntimeOptions
from agentstream.web.options import WebOptions

__all__ = ("FILE_NAME", "Settings", "is_loopback", "load_settings")

FILE_NAME: Final = "agentstream.toml"
_PREFIX: Final = "AGENTSTREAM_"
_LIMITS: Final = "LIMITS_"
_LISTS: Final = frozenset({"teams", "cors", "hosts"})


class Settings(WebOptions):
    """What a server is started with: the limits of the web application, and these. Times in seconds.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        public: allows a host that other machines can reach. There is no authentication yet.
        store: address of the store (`agentstream.store.open_store`).
        teams: where teams are loaded from; paths of the file are relative to the file's folder.
        drain: what runs get to end by themselves when the server is told to stop.
        heartbeat: silence of a stream after which a comment is sent.
        send_timeout: how long a client may take nothing of a stream; then it is cut off and may resume.
        log_level: of the process's log.
        limits: of the runtime.
    """

    host: str = pydantic.Field(default="127.0.0.1", min_length=1, max_length=255)
    port: int = pydantic.Field(default=8000, ge=0, le=65535)
    public: bool = False
    store: str = pydantic.Field(default="memory:", min_length=1)
    teams: tuple[str, ...] = ()
    drain: float = pydantic.Field(default=10.0, ge=0, le=3600)
    heartbeat: float = pydantic.Field(default=15.0, gt=0, le=600)
    send_timeout: float = pydantic.Field(default=30.0, gt=0, le=3600)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    limits: RuntimeOptions = RuntimeOptions()

    def web(self) -> WebOptions:
        """What of this the application takes."""
        return WebOptions.model_validate(self.model_dump(include=set(WebOptions.model_fields)))

    def answers(self) -> AnswerOptions:
        """What of this the runtime takes for its streams."""
        return AnswerOptions(heartbeat=self.heartbeat, send_timeout=self.send_timeout)

    def check_bind(self) -> None:
        """Refuse to listen where other machines can reach a server without authentication, unless that was asked for.

        Raises:
            InvalidInput: it says what to set.
        """
        if not (self.public or is_loopback(self.host)):
            raise InvalidInput(
                f"host {self.host} can be reached from other machines, and this server has no authentication: give "
                "`--host` on the command line or set `public = true` (AGENTSTREAM_PUBLIC=1) if that is meant"
            )


def is_loopback(host: str) -> bool:
    """Whether a host names this machine only."""
    name = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def load_settings(
    file: str | Path | None = None,
    *,
    given: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
) -> Settings:
    """The settings that file, environment and `given` make together.

    Args:
        file: None looks for `agentstream.toml` in `folder` and the folders above it; none at all is fine.
        given: values by field, for instance from the command line; they go before everything else.
        environ: the process's own where it is None.
        folder: the current one where it is None.

    Raises:
        InvalidInput: a file that is missing or not TOML, an unknown key, or a value that does not fit; it says where
            the value stands and what is asked for.
    """
    path = Path(file) if file is not None else _look_upward(Path.cwd() if folder is None else Path(folder))
    values: dict[str, object] = {}
    places: dict[str, str] = {}
    if path is not None:
        _take_file(path, values, places)
    _take_environment(os.environ if environ is None else environ, values, places)
    for name, value in (given or {}).items():
        values[name] = value
        places[name] = f"--{name.replace('_', '-')}"
    try:
        return Settings.model_validate(values)
    except pydantic.ValidationError as error:
        raise InvalidInput("; ".join(_complaints(error, places))) from None


def _look_upward(folder: Path) -> Path | None:
    folder = folder.resolve()
    return next((path for at in (folder, *folder.parents) if (path := at / FILE_NAME).is_file()), None)


def _take_file(path: Path, values: dict[str, object], places: dict[str, str]) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the settings file {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path.name} is not TOML: {error}") from None
    match table.get("teams"):
        case [*teams]:
            table["teams"] = [_beside(path, team) for team in teams]
        case _:
            pass
    match table.get("limits"):
        case {**limits}:
            inner = [f"limits.{key}" for key in limits]
        case _:
            inner = []
    for name in (*table, *inner):
        places[name] = f"{path.name}{_line_of(name, text)}, `{name}`"
    values.update(table)


def _beside(path: Path, team: object) -> object:
    """A team's address as written in the file: one that is a path there is meant from the file's folder."""
    if not isinstance(team, str):
        return team
    place, colon, attribute = team.rpartition(":")
    place = place if colon and attribute.isidentifier() else team
    return str(path.parent / team) if (path.parent / place).exists() else team


def _line_of(name: str, text: str) -> str:
    """Good enough for people: the first line that sets a key of that name."""
    key = re.escape(name.rpartition(".")[2])
    found = re.search(rf"^[ \t]*(?:{key}[ \t]*=|\[{key}\])", text, re.MULTILINE)
    return f", line {text.count(chr(10), 0, found.start()) + 1}" if found else ""


def _take_environment(environ: Mapping[str, str], values: dict[str, object], places: dict[str, str]) -> None:
    """Variables of ours; an empty one counts as not set, one of an unknown name belongs to somebody else."""
    for name in Settings.model_fields:
        variable = _PREFIX + name.upper()
        if name != "limits" and (text := environ.get(variable, "").strip()):
            values[name] = [part.strip() for part in text.split(",") if part.strip()] if name in _LISTS else text
            places[name] = variable
    for name in RuntimeOptions.model_fields:
        variable = _PREFIX + _LIMITS + name.upper()
        if text := environ.get(variable, "").strip():
            limits = values.get("limits", {})
            values["limits"] = {**(limits if isinstance(limits, dict) else {}), name: text}
            places[f"limits.{name}"] = variable


def _complaints(error: pydantic.ValidationError, places: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        where = [str(part) for part in problem["loc"]]
        names = [".".join(where[:depth]) for depth in range(len(where), 0, -1)]
        place = next((places[name] for name in names if name in places), "settings")
        if problem["type"] == "extra_forbidden":
            known = RuntimeOptions.model_fields if where[0] == "limits" else Settings.model_fields
            found.append(f"{place}: there is no such setting; known are {', '.join(sorted(known))}")
        else:
            found.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}")
    return found
