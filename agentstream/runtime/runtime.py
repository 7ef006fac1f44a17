"""The runtime: starts runs, finds them again, and carries them to their end.

What comes in: teams, inputs, a store address. What goes out: runs. It does not know HTTP: the web rooms call what
stands here. It is inert until entered, so it may live at module level.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
import msgspec
from typing_extensions import TypeVar

from agentstream.agent import Agent, File, RunOptions, Team
from agentstream.answer import AnswerOptions, DrainSwitch, ProblemAnswer, Request, Response, as_response, read_request
from agentstream.bus import encode_value
from agentstream.clock import SYSTEM_CLOCK, Clock
from agentstream.errors import (
    AgentStreamError,
    BodyTooLarge,
    DuplicateTeam,
    InvalidInput,
    RunGone,
    RuntimeNotRunning,
    RunUnknown,
    UnknownTeam,
)
from agentstream.events import Json, RunStarted
from agentstream.ids import Cursor, check_run_id, is_run_id, new_run_id
from agentstream.llm import LLM
from agentstream.llm.config import models_from_environment
from agentstream.llm.pool import EndpointPool
from agentstream.ports import Chunk, Created, RunFacts, RunRow, Store
from agentstream.runtime.edge import Edge
from agentstream.runtime.execution import Ticket
from agentstream.runtime.files import keep_upload, local_files, uploaded_file
from agentstream.runtime.first import first_chunk
from agentstream.runtime.host import Host
from agentstream.runtime.options import RuntimeOptions
from agentstream.runtime.origin import Origin
from agentstream.runtime.recovery import Recovery
from agentstream.runtime.retention import sweep
from agentstream.runtime.run import Run
from agentstream.runtime.sessions import SessionLocks, check_session, make_way
from agentstream.runtime.watchdog import Watchdog
from agentstream.store import open_store
from agentstream.stream import RunState, fold

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Lifespan", "Runtime", "RuntimeStatistics")

_log = logging.getLogger("agentstream.runtime")

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741

_TITLE = 120
_MAX_INPUT = 128 * 1024
"""Of the input's JSON: it travels in the run's first event, before there is anything that could hold an artifact."""


class RuntimeStatistics(msgspec.Struct, frozen=True):
    """What a runtime holds now. `abandoned`: agents that did not end; `blocked`: times the loop stood still."""

    runs: int
    abandoned: int
    blocked: int
    draining: bool


class Runtime:
    """Runs teams. `async with Runtime(…) as runtime`, or `FastAPI(lifespan=runtime.lifespan)`.

    Args:
        store: `memory:` (gone with the process), `sqlite:PATH?level=process|machine`, or an opened store.
        teams: what can be started by name.
        models: by name; `default` is what agents use. None looks in the environment.
        options: the runtime's own limits. answers: heartbeat and send timeout of its streams.

    Raises:
        DuplicateTeam: two teams of one name.
    """

    def __init__(
        self,
        store: str | Store = "memory:",
        *,
        teams: Sequence[Team[Any, Any]] = (),
        models: Mapping[str, LLM] | LLM | None = None,
        options: RuntimeOptions | None = None,
        answers: AnswerOptions | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.teams: dict[str, Team[Any, Any]] = {}
        for team in teams:
            self.add_team(team)
        self.options = options or RuntimeOptions()
        self._answers = answers
        self._drain_switch = DrainSwitch()
        self._address = store
        self._given_models = models
        self._clock = clock
        self._watchdog = Watchdog(clock)
        self._stack = contextlib.AsyncExitStack()
        self._host: Host | None = None
        self._sessions = SessionLocks()

    def add_team(self, team: Team[Any, Any]) -> None:
        """Make a team startable by name.

        Raises:
            DuplicateTeam: there is one of that name.
        """
        if team.name in self.teams:
            raise DuplicateTeam(f"there are two teams named {team.name!r}: give one of them another name")
        self.teams[team.name] = team

    # --- life ---------------------------------------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        if self._host is not None:
            raise InvalidInput("the runtime is running already: enter it once")
        self._stack = contextlib.AsyncExitStack()
        try:
            store = open_store(self._address) if isinstance(self._address, str) else self._address
            if isinstance(self._address, str):
                await self._stack.enter_async_context(store)
            models = await self._open_models()
            work = Path(tempfile.mkdtemp(prefix="agentstream-"))
            self._stack.callback(shutil.rmtree, work, ignore_errors=True)
            group = await self._stack.enter_async_context(anyio.create_task_group())
            name = f"{os.uname().nodename}:{os.getpid()}:{new_run_id()[:6]}"
            self._host = Host(store, models, self.options, group, work, name=name, clock=self._clock)
            self._drain_switch = DrainSwitch()
            host = self._host
            self._edge = Edge(
                store,
                self._drain_switch,
                self._answers,
                audience=host.audience,
                halted=host.halted.get,
                clock=self._clock,
            )
            group.start_soon(sweep, store, self.options.retention, self._clock)
            group.start_soon(self._watchdog.watch)
            self._host.teams = self.teams
            group.start_soon(Recovery(self._host).look)
            group.start_soon(self._host.guard)
            self._group = group
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        host = self._host
        if host is not None:
            with anyio.CancelScope(shield=True):  # bounded by drain itself: grace 0 and three stop graces
                await self.drain(0)
            self._group.cancel_scope.cancel()
        try:
            # Not handed on to the group: it would wrap what the block raised into an exception group.
            await self._stack.__aexit__(None, None, None)
        finally:
            self._host = None

    def lifespan(self, app: object = None) -> Lifespan:  # noqa: ARG002  (what frameworks call it with)
        """For web frameworks: `FastAPI(lifespan=runtime.lifespan)`. A mounted app's own lifespan is never run."""
        return Lifespan(self)

    async def drain(self, grace: float = 10) -> None:
        """Shut down: no new runs, streams end with `retry`, runs get `grace` seconds and are then stopped."""
        self._drain_switch.drain()
        await self._running().drain(grace)

    @property
    def draining(self) -> bool:
        """Whether it is shutting down."""
        return self._host is not None and self._host.draining

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            RuntimeNotRunning: the runtime was not entered.
        """
        return self._running().store

    # --- runs ---------------------------------------------------------------------------------------------------------
    async def start(
        self,
        team: Team[I, O] | Agent[I, O],
        input: I,
        /,
        *,
        key: str | None = None,
        owner: str = "",
        files: Sequence[str | Path | File] = (),
        options: RunOptions | None = None,
        session: str = "",
    ) -> Run[O]:
        """Start a run; returns once its `run.started` was accepted.

        Args:
            team: a team, or any agent.
            key: idempotency key: the same key of the same owner within 24 h gives the run that it made before.
            files: paths, or what `upload` returned.
            session: runs of one session of one owner follow each other, one at a time (`RunOptions.busy`), and know
                what was said before (`ctx.history`).

        Raises:
            InvalidInput: the input, a file or an option does not fit. BodyTooLarge: the input is above 128 KiB.
            KeyReused: the key came with another input. Overloaded: too many runs wait, or the runtime is draining.
            SessionBusy: another run of the session is not over. StoreDown: the store did not take it.
        """
        if isinstance(team, Agent):
            team = Team(team.name, team)
        task = team.check_input(input)
        team.output_adapter  # noqa: B018  (a result type that cannot be decoded is told now, not at the end)
        settled = (options or RunOptions()).over(team.options)
        handed = local_files(files)
        shown = _input(task)
        registered = self.teams.get(team.name) is team
        origin = Origin.of(team, shown, handed, settled, registered=registered)
        known_as = f"{len(owner)}:{owner}:{key}" if key else ""
        facts = RunFacts(
            team=team.name,
            owner=owner,
            session=check_session(session),
            title=_title(task),
            created=self._clock.wall_ms(),
            key=hashlib.blake2b(known_as.encode(), digest_size=16).hexdigest() if key else "",
        )
        digest = _digest(team, task, handed, settled, session)
        new = _New(RunStarted(new_run_id(), team.name, input=shown), encode_value(origin), known_as, digest, facts)
        if session:
            async with self._sessions.of(owner, session):
                behind = await make_way(self._running().store, facts, settled.busy)
                created, first = await self._create(new, behind)
        else:
            created, first = await self._create(new, None)
        if created.fresh:
            ticket = Ticket(
                created.run,
                created.incarnation,
                owner,
                session,
                files=tuple(handed),
                metadata=settled.metadata,
                options=settled,
            )
            self._running().execute(ticket, team, task, fold(RunState(), first.lines))
        return Run(self.store, self._edge, created.run, created.incarnation, owner=owner, team=team)

    async def _create(self, new: _New, behind: int | None) -> tuple[Created, Chunk]:
        """Make the run, if there is room; where its key is known it is the run that the key made before."""
        host = self._running()
        position = host.admit()
        first = first_chunk(new.started, self._clock.wall_ms(), position, origin=new.origin, behind=behind)
        try:
            created = await host.store.create(new.started.run, new.key, new.digest, first, facts=new.facts)
        except BaseException:
            host.dismiss()
            raise
        if not created.fresh:
            host.dismiss()
        return created, first

    async def respond(
        self,
        request: Request,
        team: Team[I, O] | Agent[I, O],
        input: I,
        /,
        *,
        key: str | None = None,
        owner: str = "",
        files: Sequence[str | Path | File] = (),
        options: RunOptions | None = None,
    ) -> Response:
        """A run and its stream as one handler: `return await runtime.respond(request, team, question)`.

        A request that carries the id of an event (`Last-Event-ID`, `?after=`) attaches to that run, one whose
        `Idempotency-Key` is known attaches to the run that it started, every other one starts a run. A client that
        reconnects therefore never starts anything again. What is wrong is answered as a problem document.
        """
        try:
            run = await self._attach(request, owner)
            if run is None:
                key = key or request.headers.get("idempotency-key")
                run = await self.start(team, input, key=key, owner=owner, files=files, options=options)
        except AgentStreamError as error:
            return as_response(ProblemAnswer(error), request)
        return run.sse(request)

    async def _attach(self, request: Request, owner: str) -> Run[Any] | None:
        asked = read_request(request.scope).cursor
        cursor = Cursor.parse(asked) if asked else None
        return await self.get(cursor.run, owner=owner) if cursor is not None else None

    async def get(self, run_id: str, *, owner: str = "") -> Run[Json]:
        """A run by its id.

        Raises:
            RunUnknown: there is none, or it is another owner's. RunGone: it was deleted.
        """
        store = self._running().store
        row = await store.row(run_id) if is_run_id(run_id) else None
        if row is None and is_run_id(run_id) and await store.gone(check_run_id(run_id)):
            raise RunGone("this run was deleted")
        if row is None or row.facts.owner != owner:
            raise RunUnknown("there is no such run")
        team = self.teams.get(row.facts.team)
        return Run(store, self._edge, run_id, row.incarnation, owner=owner, team=team)

    async def list(self, *, owner: str | None = "", before: str = "", limit: int = 50) -> Sequence[RunRow]:
        """Runs, newest first. `before` is the id that the last page ended with; owner None means everybody's."""
        return await self._running().store.page(owner=owner, before=before, limit=limit)

    async def upload(self, name: str, data: bytes, *, mime: str = "", owner: str = "") -> str:
        """Keep a file; returns the id that `uploaded` takes.

        Raises:
            BodyTooLarge, InvalidInput: too large, or empty.
        """
        return await keep_upload(self.store, owner, name, data, mime, self.options.max_file_bytes)

    async def uploaded(self, id: str, *, owner: str = "") -> File:
        """An uploaded file, ready to be handed to `start`.

        Raises:
            InvalidInput: there is no such upload.
        """
        host = self._running()
        return await uploaded_file(host.store, owner, id, host.work)

    def team(self, name: str) -> Team[Any, Any]:
        """A team by name.

        Raises:
            UnknownTeam: there is none; the message lists those there are.
        """
        try:
            return self.teams[name]
        except KeyError:
            known = ", ".join(sorted(self.teams)) or "none"
            raise UnknownTeam(f"there is no team {name[:64]!r} here; known teams: {known}") from None

    @property
    def models(self) -> Mapping[str, LLM]:
        """The configured models by name.

        Raises:
            RuntimeNotRunning: the runtime was not entered.
        """
        return self._running().models

    def statistics(self) -> RuntimeStatistics:
        """What it holds now; free to call."""
        host = self._running()
        return RuntimeStatistics(host.count, host.abandoned, self._watchdog.blocked, host.draining)

    # --- inside -------------------------------------------------------------------------------------------------------
    def _running(self) -> Host:
        if self._host is None:
            raise RuntimeNotRunning(
                "the runtime is not running: use `async with runtime`, or give the app `lifespan=runtime.lifespan` "
                "(a mounted app's own lifespan is never run)"
            )
        return self._host

    async def _open_models(self) -> Mapping[str, LLM]:
        given = self._given_models
        if given is None:
            models = models_from_environment(os.environ)
            for model in models.values():
                self._stack.push_async_callback(model.aclose)
                if isinstance(model, EndpointPool):  # entered, it checks, prewarms and cleans up by itself
                    await self._stack.enter_async_context(model)
            return models
        return given if isinstance(given, Mapping) else {"default": given}


class Lifespan:
    """The runtime as a framework's lifespan: an async context manager around the app's life."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __aenter__(self) -> None:
        await self._runtime.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runtime.__aexit__(kind, error, trace)


class _New(NamedTuple):
    """A run that is about to be made."""

    started: RunStarted
    origin: bytes
    key: str
    digest: str
    facts: RunFacts


def _digest(team: Team[Any, Any], task: object, files: Sequence[File], options: RunOptions, session: str) -> str:
    """What must be the same when an idempotency key comes again."""
    handed = [[file.name, file.size] for file in files]
    facts = [team.name, team.version, handed, options.model_dump(mode="json"), session]
    body = encode_value(task) + msgspec.json.encode(facts)
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _input(task: object) -> msgspec.Raw:
    """The input as `run.started` shows it."""
    encoded = encode_value(task)
    if len(encoded) > _MAX_INPUT:
        raise BodyTooLarge(
            f"the input is {len(encoded):,} bytes; at most {_MAX_INPUT:,} are taken: hand larger data in as a file"
        )
    return msgspec.Raw(encoded)


def _title(task: object) -> str:
    """What lists of runs show: the beginning of the question."""
    text = task if isinstance(task, str) else encode_value(task).decode()
    return " ".join(text.split())[:_TITLE]
