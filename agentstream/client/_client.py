"""A server of runs, seen from elsewhere.

What comes in: the server's address. What goes out: its teams and runs, and new runs that are started exactly once
however often a request has to be repeated. It does not know streams; what a run gives is the business of `RemoteRun`.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, overload
from urllib.parse import quote

import anyio
import msgspec
import pydantic
from typing_extensions import TypeVar

from agentstream.agent import RunOptions, Team
from agentstream.bus import encode_value
from agentstream.client._http import Answer, Door, Refused
from agentstream.client._retry import Retry
from agentstream.client._run import RemoteRun
from agentstream.errors import InvalidInput, RunLost, RunUnknown, WireError
from agentstream.events import Json
from agentstream.ids import is_run_id, new_run_id

if TYPE_CHECKING:
    import httpx

__all__ = ("Client", "RunInfo", "TeamInfo", "connect")

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

_MOST_UPLOADED: Final = 256 << 20
_LONGEST_KEY: Final = 255


class TeamInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A team that a server offers; `input` and `output` are the JSON schemas of what it takes and gives."""

    name: str
    version: str = ""
    description: str = ""
    input: Json = None
    output: Json = None


class RunInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run in a server's list. `created` and `ended` are milliseconds since the epoch, `ended` None while it runs."""

    run: str
    team: str = ""
    status: str = ""
    title: str = ""
    seq: int = 0
    created: int = 0
    ended: int | None = None


class _Teams(msgspec.Struct, frozen=True):
    teams: tuple[TeamInfo, ...] = ()


class _Runs(msgspec.Struct, frozen=True):
    runs: tuple[RunInfo, ...] = ()


class _Started(msgspec.Struct, frozen=True):
    run: str


class _Uploaded(msgspec.Struct, frozen=True):
    file: str


def connect(url: str, *, retry: Retry | None = None, http: httpx.AsyncClient | None = None) -> Client:
    """A client of the server at `url`: `async with connect("http://127.0.0.1:8000") as client`. Nothing is sent yet.

    Args:
        url: where the server's routes are; a path before them is kept.
        retry: how a server that does not answer is dealt with.
        http: an `httpx.AsyncClient`, or one shaped like it, for instance with authentication; who made it closes it.

    Raises:
        InvalidInput: not an http(s) address, or one with user, query or fragment.
    """
    return Client(url, retry=retry, http=http)


class Client:
    """A server. Made by `connect`; used as an async context manager, by any number of tasks.

    Every method repeats its request until there is an answer, and raises `ServerUnreachable` after `Retry.give_up`
    seconds without one. Errors of the server are raised as the classes of `agentstream.errors` that their codes name.

    Attributes:
        url: where the server is.
    """

    def __init__(self, url: str, *, retry: Retry | None = None, http: httpx.AsyncClient | None = None) -> None:
        self._door = Door(url, retry or Retry(), http)
        self.url = self._door.base

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    async def __aenter__(self) -> Self:
        self._door.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._door.aclose()

    @overload
    async def start(
        self,
        team: Team[I, O],
        input: I,
        /,
        *,
        key: str | None = None,
        files: Sequence[str | Path] = (),
        options: RunOptions | None = None,
        session: str = "",
    ) -> RemoteRun[O]: ...
    @overload
    async def start(
        self,
        team: str,
        input: object,
        /,
        *,
        key: str | None = None,
        files: Sequence[str | Path] = (),
        options: RunOptions | None = None,
        session: str = "",
    ) -> RemoteRun[Json]: ...
    async def start(
        self,
        team: Team[Any, Any] | str,  # Any: the overloads say it
        input: object,
        /,
        *,
        key: str | None = None,
        files: Sequence[str | Path] = (),
        options: RunOptions | None = None,
        session: str = "",
    ) -> RemoteRun[Any]:
        """Start a run on the server; returns once its `run.started` was accepted there.

        Args:
            team: a name, or a team that the server has too: its result then has the team's type.
            input: what the team takes; JSON values, dataclasses, Structs or pydantic models.
            key: idempotency key: the same key within 24 h gives the run that it made before. Without one the request
                has a key of its own, so that a repeated request never starts a second run.
            files: paths on this machine; they are uploaded first.
            session: runs of one session follow each other and know what was said before.

        Raises:
            UnknownTeam, InvalidInput, KeyReused, Overloaded, SessionBusy, …: as the server says.
            InvalidInput: a file is not there, or too large.
        """
        name = team if isinstance(team, str) else team.name
        key = new_run_id() if key is None else key
        if not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
            raise InvalidInput(f"an idempotency key has 1 to {_LONGEST_KEY} printable ASCII characters")
        body: dict[str, object] = {"team": name, "input": msgspec.Raw(encode_value(input))}
        if files:
            body["files"] = [await self._upload(Path(path)) for path in files]
        if session:
            body["session"] = session
        if options is not None:
            body["options"] = options.model_dump(mode="json", exclude_unset=True)
        headers = {"content-type": "application/json", "idempotency-key": key}
        answer = await self._ask("POST", "/runs", headers=headers, content=msgspec.json.encode(body))
        run = _decode(answer, _Started).run
        if not is_run_id(run):
            raise WireError(f"{self.url} started a run but did not say which")
        return RemoteRun(self._door, run, None if isinstance(team, str) else _decoder(team, run))

    async def get(self, run_id: str) -> RemoteRun[Json]:
        """A run by its id.

        Raises:
            RunUnknown: there is none, or it is another owner's. RunGone: it was deleted.
        """
        if not is_run_id(run_id):
            raise RunUnknown("there is no such run: a run id has 22 characters")
        await self._ask("GET", f"/runs/{run_id}")
        return RemoteRun(self._door, run_id)

    async def teams(self) -> Sequence[TeamInfo]:
        """The teams that can be started there."""
        return _decode(await self._ask("GET", "/teams"), _Teams).teams

    async def runs(self, *, before: str = "", limit: int = 50) -> Sequence[RunInfo]:
        """The server's runs, newest first. `before` is the id that the last page ended with."""
        query = [("limit", str(limit)), *([("before", before)] if before else [])]
        return _decode(await self._ask("GET", "/runs", query=query), _Runs).runs

    async def _upload(self, path: Path) -> str:
        """Send a file; the same bytes twice are kept once, so repeating is safe."""
        data = await _read(path)
        headers = {
            "content-type": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            "x-file-name": quote(path.name, safe=""),
        }
        return _decode(await self._ask("POST", "/files", headers=headers, content=data), _Uploaded).file

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        try:
            return await self._door.request(method, path, query=query, headers=headers, content=content)
        except Refused as refusal:
            raise refusal.error from None


async def _read(path: Path) -> bytes:
    file = anyio.Path(path)
    if not await file.is_file():
        raise InvalidInput(f"there is no file {path.name!r}: give the path of a file", details={"file": path.name})
    if (await file.stat()).st_size > _MOST_UPLOADED:
        raise InvalidInput(
            f"the file {path.name!r} is larger than {_MOST_UPLOADED >> 20} MiB", details={"file": path.name}
        )
    return await file.read_bytes()


class _decoder:  # noqa: N801  # used as a function; a closure would hide its parts
    """Turns a result from the wire into what the team gives."""

    def __init__(self, team: Team[Any, Any], run: str) -> None:  # Any: a team of every kind
        self._team = team
        self._run = run

    def __call__(self, output: Json) -> Any:  # Any: what the team gives
        try:
            return self._team.output_adapter.validate_python(output)
        except pydantic.ValidationError as error:
            raise RunLost(
                f"the result of run {self._run} does not fit team {self._team.name}: {error.error_count()} errors"
            ) from None


def _decode(answer: Answer, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(
            f"an answer ({answer.status}) is not in a form that this version knows: is this an agentstream server?"
        ) from error
