"""`agentstream tail`: a run that is somewhere else, watched to its end.

What comes in: the address of a run on a server, or its id in a store of this machine. What goes out: the run on the
terminal, or its events as JSON lines. It never changes a run: leaving does not stop it.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import anyio
import msgspec

from agentstream.cli._printer import Printer
from agentstream.cli._run import Beat, follow, pass_lines, status_of
from agentstream.cli._terminal import Exit, Interrupts, command_name, printer
from agentstream.client import RemoteEvents, RemoteRun, connect
from agentstream.errors import InvalidInput, RunGone, RunUnknown
from agentstream.events import ArtifactCreated, Reset, is_terminal
from agentstream.ids import is_run_id
from agentstream.store import open_store
from agentstream.stream import Subscription

__all__ = ("Watched", "tail_run", "where_is")

SERVER: Final = "http://127.0.0.1:8000"
_ADDRESS: Final = re.compile(
    r"(?P<base>https?://[^#?]*?)(?:/#)?/runs/(?P<run>[A-Za-z0-9_-]{22})(?:/events)?/?(?:[?#].*)?"
)


class Watched(msgspec.Struct, frozen=True):
    """What the command line asked for."""

    run: str
    store: str = ""
    server: str = SERVER
    after: str | None = None
    json: bool = False


async def tail_run(asked: Watched) -> Exit:
    """Follow it; the exit status.

    Raises:
        AgentStreamError: there is no such run, or nobody answers.
    """
    with anyio.CancelScope() as everything, Interrupts() as interrupts:
        async with anyio.create_task_group() as group:
            group.start_soon(_leave_on_interrupt, interrupts, everything)
            status = await (_in_store(asked) if asked.store else _on_server(asked))
            group.cancel_scope.cancel()
            return status
    return Exit.INTERRUPTED


def where_is(address: str, server: str = SERVER) -> tuple[str, str]:
    """Server and run of an address: of a run, of its events, of its developer page; or of a bare id.

    Raises:
        InvalidInput: it is none of these.
    """
    found = _ADDRESS.fullmatch(address.strip())
    if found is not None:
        return found["base"], found["run"]
    if is_run_id(address):
        return server, address
    raise InvalidInput(f"{address[:100]!r} is no run: give its address (http://host:port/runs/ID) or its id")


async def _leave_on_interrupt(interrupts: Interrupts, everything: anyio.CancelScope) -> None:
    await interrupts.first.wait()
    everything.cancel()


# --- in a store -------------------------------------------------------------------------------------------------------
async def _in_store(asked: Watched) -> Exit:
    kind, _, place = asked.store.partition(":")
    if kind == "memory":
        raise InvalidInput("a memory: store is seen by its own process only: follow the run by its address")
    if kind == "sqlite" and not await anyio.Path(place.partition("?")[0]).exists():
        raise InvalidInput(f"there is no store {asked.store}")  # opening it would make one
    async with open_store(asked.store) as store:
        if not is_run_id(asked.run) or await store.row(asked.run) is None:
            if is_run_id(asked.run) and await store.gone(asked.run):
                raise RunGone(f"run {asked.run} was deleted")
            raise RunUnknown(f"there is no run {asked.run[:64]} in {asked.store}")
        if asked.json:
            return Exit.OK if await pass_lines(store, asked.run, asked.after) == "finished" else Exit.FAILED
        view = printer()
        async with anyio.create_task_group() as group:
            group.start_soon(_redraw, view, None)
            with view:
                async with Subscription(store, asked.run, after=asked.after) as events:
                    await _watch(events, view, "")
            group.cancel_scope.cancel()
        view.finish([], [])
        return status_of(view)


# --- on a server ------------------------------------------------------------------------------------------------------
async def _on_server(asked: Watched) -> Exit:
    base, id_ = where_is(asked.run, asked.server)
    async with connect(base) as client:
        run = await client.get(id_)
        events = run.events(after=asked.after, coalesce=not asked.json)
        try:
            if asked.json:
                return await _pass_events(events)
            return await _show(run, events, base)
        except anyio.get_cancelled_exc_class():
            _say_how_to_go_on(asked, events)
            raise


async def _show(run: RemoteRun[Any], events: RemoteEvents, base: str) -> Exit:  # Any: without its team
    view = printer()
    async with anyio.create_task_group() as group:
        group.start_soon(_redraw, view, events)
        with view:
            async with events:
                await _watch(events, view, f"{base}/runs/{run.id}/artifacts/")
        group.cancel_scope.cancel()
    if view.board.terminal is None:  # everything up to the end was received before: say how it ended all the same
        async with run.events(after="tail", types=("run.*",)) as rest:
            await _watch(rest, view, "")
    view.finish([], [])
    return status_of(view)


async def _watch(events: RemoteEvents | Subscription, view: Printer, artifacts: str) -> None:
    async def place(artifact: ArtifactCreated) -> str:
        return f"{artifacts}{artifact.id}" if artifacts else artifact.name

    async for event in events:
        for item in view.board.take(event):
            await follow(view, item, place)


async def _pass_events(events: RemoteEvents) -> Exit:
    status = Exit.FAILED
    async with events:
        async for event in events:
            sys.stdout.buffer.write(events.line + b"\n")
            sys.stdout.buffer.flush()
            if not isinstance(event, Reset) and is_terminal(event):
                status = Exit.OK if event.type == "run.finished" else Exit.FAILED
    return status


async def _redraw(view: Printer, events: RemoteEvents | None) -> None:
    """Redraw, and say when the connection is away; until cancelled."""
    beat = Beat(view)
    told = ""
    while True:
        if events is not None:
            status = events.status
            away = status.phase == "waiting" or (status.phase == "connecting" and status.attempts > 0)
            text = f"connection lost ({status.reason}); trying again, attempt {status.attempts}" if away else ""
            if text != told and (text or told):
                view.notice(text or "connected again")
            told = text
        await beat()


def _say_how_to_go_on(asked: Watched, events: RemoteEvents) -> None:
    if events.cursor:
        sys.stderr.write(f"the run goes on; to read on: {command_name()} tail {asked.run} --after {events.cursor}\n")
