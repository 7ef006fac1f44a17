"""The routes of runs: start, list, state, events, stop, input.

What comes in: requests. What goes out: answers made of what the runtime says. It does not know how a run is carried
out; everything a client asks for is checked before anything is started, and whatever a client closes, no run stops by
it.

Runs started here belong to the owner "", and only runs of that owner are seen here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import anyio
import msgspec
import pydantic

from agentstream.agent import RunOptions
from agentstream.answer import ASGIApp, EventStreamAnswer
from agentstream.answer.request import read_request
from agentstream.errors import (
    AgentStreamError,
    InvalidInput,
    RunFailedError,
    RunLost,
    RunStoppedError,
    RunUnknown,
    StoreDown,
)
from agentstream.ids import Cursor, is_run_id
from agentstream.web.bodies import ClientLeft, read_json
from agentstream.web.exchange import HttpRequest, JsonAnswer
from agentstream.web.problems import InvocationUnknown

if TYPE_CHECKING:
    from agentstream.ports import EventLog, RunRow, Tail
    from agentstream.runtime import Run, Runtime
    from agentstream.stream import RunState
    from agentstream.web.options import WebOptions

__all__ = ("RunRoutes",)

_OWNER: Final = ""
_MOST_FILES: Final = 64
_MOST_LISTED: Final = 200
_MOST_WAIT_S: Final = 60
_LONGEST_KEY: Final = 255
_PREFER_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?:,|;|$)", re.IGNORECASE | re.ASCII)


class _Body(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class _Start(_Body):
    """Body of `POST /runs`."""

    team: str = pydantic.Field(min_length=1, max_length=64)
    input: Any  # Any: the team says what it takes; any JSON value
    session: str = pydantic.Field(default="", max_length=200)
    files: list[str] = pydantic.Field(default=[], max_length=_MOST_FILES)
    options: RunOptions | None = None


class _Stop(_Body):
    """Body of `POST /runs/{run}/stop`."""

    inv: str = pydantic.Field(default="", max_length=64)
    mode: Literal["now", "after_step"] = "now"
    reason: str = pydantic.Field(default="", max_length=1000)


class _Input(_Body):
    """Body of `POST /runs/{run}/input`."""

    request: str = pydantic.Field(min_length=1, max_length=64)
    value: Any  # Any: the question's schema says what fits; any JSON value
    by: str = pydantic.Field(default="", max_length=200)


class RunRoutes:
    """Handlers of everything below `/runs`, but for artifacts."""

    def __init__(self, runtime: Runtime, options: WebOptions) -> None:
        self._runtime = runtime
        self._options = options

    # --- start --------------------------------------------------------------------------------------------------------
    async def start(self, request: HttpRequest) -> ASGIApp:
        """`POST /runs`: 201 and the run's addresses, once its first event was accepted.

        The same `Idempotency-Key` with the same body gives the same answer for 24 h and starts nothing again; a
        `Last-Event-ID` attaches to the run it names. `Accept: text/event-stream` gets the events; `Prefer: wait=N`
        waits up to N (60) seconds for the end and adds what the run came to.
        """
        as_stream = "text/event-stream" in (request.header(b"accept") or "").lower()
        if as_stream:
            as_stream = not read_request(request.scope).poll  # what is wrong with the query is said before a run starts
        cursor = request.header(b"last-event-id")
        if cursor is not None:
            at = Cursor.parse(cursor)
            run: Run[Any] = await self._runtime.get(at.run if at else "", owner=_OWNER)
        else:
            run = await self._start(request)
        if as_stream:
            return run.asgi(location=request.run_path(run.id, "/events"))
        headers = {b"location": request.run_path(run.id).encode("ascii"), b"x-run-id": run.id.encode("ascii")}
        document = _addresses(request, run.id)
        wait = _preferred_wait(request)
        if wait is not None:
            await self._wait(run, wait, request)
            document |= _outcome(await run.state())
            headers[b"preference-applied"] = b"wait=%d" % wait
        return JsonAnswer(document, status=200 if cursor is not None else 201, headers=headers)

    async def _start(self, request: HttpRequest) -> Run[Any]:
        key = request.header(b"idempotency-key")
        if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
            raise InvalidInput(f"Idempotency-Key has 1 to {_LONGEST_KEY} printable ASCII characters")
        body = await read_json(request, _Start, self._options)
        team = self._runtime.team(body.team)
        files = [await self._runtime.uploaded(file, owner=_OWNER) for file in body.files]
        return await self._runtime.start(
            team, body.input, key=key, owner=_OWNER, files=files, options=body.options, session=body.session
        )

    async def _wait(self, run: Run[Any], seconds: int, request: HttpRequest) -> None:
        """Until the run ends or the time is up.

        Raises:
            ClientLeft: nobody waits any more. RunGone, StoreDown: as the store says.
        """
        left = False
        trouble: AgentStreamError | None = None

        async def watch() -> None:
            nonlocal left
            while (await request.receive())["type"] != "http.disconnect":
                await anyio.lowlevel.checkpoint()
            left = True
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            with anyio.move_on_after(seconds):
                try:
                    await run.result()
                except (RunFailedError, RunStoppedError, RunLost):
                    pass  # the state says how it ended
                except AgentStreamError as error:
                    trouble = error  # raised below: the group would wrap it
            group.cancel_scope.cancel()
        if trouble is not None:
            raise trouble
        if left:
            raise ClientLeft

    # --- look ---------------------------------------------------------------------------------------------------------
    async def list(self, request: HttpRequest) -> ASGIApp:
        """`GET /runs?limit=&before=`: newest first; `next`, where there are more, is the `before` of the next page."""
        limit, before = _limit(request.query.get("limit", "")), request.query.get("before", "")
        if before and not is_run_id(before):
            raise InvalidInput(
                "before is the id of a run: what `next` was in the page before", details={"parameter": "before"}
            )
        rows = await self._runtime.list(owner=_OWNER, before=before, limit=limit + 1)
        document: dict[str, object] = {"runs": [_row(row) for row in rows[:limit]]}
        if len(rows) > limit:
            document["next"] = rows[limit - 1].run
        return JsonAnswer(document)

    async def state(self, request: HttpRequest) -> ASGIApp:
        """`GET /runs/{run}`: the folded state, every field of it."""
        run = await self._run(request)
        state = await run.state()
        agents = {inv: msgspec.structs.asdict(agent) for inv, agent in state.agents.items()}
        return JsonAnswer({**msgspec.structs.asdict(state), "agents": agents}, headers={b"x-run-id": run.id.encode()})

    async def events(self, request: HttpRequest) -> ASGIApp:
        """`GET /runs/{run}/events`: the stream, or a poll."""
        try:
            run = await self._run(request)
        except StoreDown as error:
            # To a stream that comes again this must not be a refusal; but without its row nobody's run is read.
            return EventStreamAnswer(cast("EventLog", _Away(error)), request.parameters["run"])
        return run.asgi(location=request.run_path(run.id, "/events"))

    # --- stop ---------------------------------------------------------------------------------------------------------
    async def stop(self, request: HttpRequest) -> ASGIApp:
        """`POST /runs/{run}/stop`: 202 once the stop will be carried out; the same again, or after the end, is 202 too.

        Raises:
            InvocationUnknown: the run has no such invocation (404).
        """
        run = await self._run(request)
        body = await read_json(request, _Stop, self._options, empty=_Stop())
        if body.inv and body.inv not in (await run.state()).agents:
            raise InvocationUnknown("this run has no such invocation")
        await run.stop(inv=body.inv or None, mode=body.mode, reason=body.reason)
        row = await self._runtime.store.row(run.id)
        return JsonAnswer({"run": run.id, "status": row.status if row else "stopped"}, status=202)

    async def input(self, request: HttpRequest) -> ASGIApp:
        """`POST /runs/{run}/input`: 202 once the answer was left for the run, which takes the first one that fits.

        Raises:
            InputUnknown: it asked no such question (404). InputAnswered: it was answered before (409).
            InputExpiredError: it is closed (410). InvalidInput: the value does not fit its schema (422).
        """
        run = await self._run(request)
        body = await read_json(request, _Input, self._options)
        await run.answer(body.request, body.value, by=body.by)
        return JsonAnswer({"run": run.id, "request": body.request}, status=202)

    # --- inside -------------------------------------------------------------------------------------------------------
    async def _run(self, request: HttpRequest) -> Run[Any]:
        return await self._runtime.get(request.parameters["run"], owner=_OWNER)


class _Away:
    """A log that cannot be reached."""

    def __init__(self, error: StoreDown) -> None:
        self._error = error

    async def tail(self, run: str) -> Tail:
        if not is_run_id(run):
            raise RunUnknown("there is no such run")
        raise self._error


def _addresses(request: HttpRequest, run: str) -> dict[str, object]:
    return {
        "run": run,
        "events": request.run_path(run, "/events"),
        "stop": request.run_path(run, "/stop"),
        "state": request.run_path(run),
    }


def _outcome(state: RunState) -> dict[str, object]:
    """How far the run came, for who waited."""
    match state.status:
        case "finished":
            return {"status": state.status, "output": state.output}
        case "failed":
            return {"status": state.status, "failure": state.failure}
        case "stopped":
            return {"status": state.status, "cause": state.cause, "detail": state.detail}
        case status:
            return {"status": status}


def _row(row: RunRow) -> Mapping[str, object]:
    facts = row.facts
    return {
        "run": row.run,
        "team": facts.team,
        "status": row.status,
        "created": facts.created,
        "ended": row.ended or None,
        "seq": row.last,
        "title": facts.title,
    }


def _limit(text: str) -> int:
    if not text:
        return 50
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= _MOST_LISTED):
        raise InvalidInput(f"limit is a number from 1 to {_MOST_LISTED}", details={"parameter": "limit"})
    return int(text)


def _preferred_wait(request: HttpRequest) -> int | None:
    """`Prefer: wait=N` (RFC 7240); a preference that is not understood is left aside, as it asks."""
    found = _PREFER_WAIT.search(request.header(b"prefer") or "")
    return min(int(found[1]), _MOST_WAIT_S) if found else None
