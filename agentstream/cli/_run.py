"""`agentstream run`: a team, on this machine, watched to its end.

What comes in: a team's address, its input, files. What goes out: the run on the terminal (or its events as JSON lines),
its artifacts as files, an exit status. It does not know how anything is drawn.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from agentstream.agent import RunOptions
from agentstream.cli._asking import Desk, Lines
from agentstream.cli._board import Item
from agentstream.cli._files import Folder, data_in
from agentstream.cli._printer import Printer, ending
from agentstream.cli._terminal import Exit, Interrupts, command_name, printer
from agentstream.errors import AgentStreamError, InvalidInput
from agentstream.events import ArtifactCreated, InputRequested
from agentstream.ports import Store
from agentstream.runtime import Run, Runtime
from agentstream.runtime.teams import AnyTeam, load_team
from agentstream.stream import Page, open_reader

__all__ = ("Asked", "Beat", "follow", "input_of", "pass_lines", "run_team", "status_of")

BEAT_S: Final = 0.1
_PATIENCE_S: Final = 0.5
"""An answer's last words are followed by the end of the run within this time; other words are not held back longer."""

_REASON: Final = "Ctrl-C"


class Asked(msgspec.Struct, frozen=True):
    """What the command line asked for."""

    team: str
    words: tuple[str, ...]
    files: tuple[Path, ...] = ()
    store: str = "memory:"
    out: Path | None = None
    deadline: float | None = None
    json: bool = False


async def run_team(asked: Asked) -> Exit:
    """Run it; the exit status.

    Raises:
        AgentStreamError: the team, the input, a file or the store does not fit.
    """
    team = load_team(asked.team)
    given = input_of(team, _text(asked.words))
    options = None if asked.deadline is None else RunOptions(deadline=asked.deadline)
    # Outside of everything, so that a second Ctrl-C also ends a shutdown that hangs.
    with anyio.CancelScope() as everything, Interrupts() as interrupts:
        interrupts.on_second(everything.cancel)
        async with Runtime(asked.store) as runtime, anyio.create_task_group() as group:
            run = await runtime.start(team, given, files=asked.files, options=options)
            if asked.json:
                group.start_soon(_stop_on_interrupt, interrupts, run, None)
                last = await pass_lines(runtime.store, run.id, None)
                status = {"finished": Exit.OK, "failed": Exit.FAILED}.get(last, Exit.FAILED)
            else:
                view = printer()
                group.start_soon(_stop_on_interrupt, interrupts, run, view)
                group.start_soon(_beating, view)
                folder = Folder(asked.out, run.id)
                await _show(run, runtime.store, view, folder, asked)
                status = status_of(view)
            group.cancel_scope.cancel()
            return Exit.INTERRUPTED if interrupts.count and status is not Exit.OK else status
    return Exit.INTERRUPTED


def input_of(team: AnyTeam, text: str) -> Any:  # Any: what the team takes
    """The words as the team's input: as text where it takes text, else as the JSON that they are.

    Raises:
        InvalidInput: they fit neither way.
    """
    try:
        return team.check_input(text)
    except InvalidInput as as_text:
        try:
            value: object = msgspec.json.decode(text)
        except msgspec.DecodeError:
            raise as_text from None
        return team.check_input(value)


def _text(words: Sequence[str]) -> str:
    """The words, or what is piped in.

    Raises:
        InvalidInput: neither.
    """
    if tuple(words) in ((), ("-",)):
        if words or not sys.stdin.isatty():
            return sys.stdin.read()
        raise InvalidInput("say what the team should do: agentstream run TEAM INPUT… (or `-` to read it from stdin)")
    return " ".join(words)


async def _stop_on_interrupt(interrupts: Interrupts, run: Run[Any], view: Printer | None) -> None:
    await interrupts.first.wait()
    if view is not None:
        view.notice("stopping; Ctrl-C again quits at once")
    await run.stop(reason=_REASON)


class Beat:
    """What is done again and again while a run is shown: redraw, and let go of words that nothing has followed."""

    def __init__(self, view: Printer) -> None:
        self._view = view
        self._held: Item | None = None
        self._beats = 0

    async def __call__(self) -> None:
        """One beat."""
        board = self._view.board
        self._beats = self._beats + 1 if board.held is self._held else 0
        self._held = board.held
        if self._beats * BEAT_S >= _PATIENCE_S:
            for item in board.let_go():
                self._view.show(item)
        self._view.refresh()
        await anyio.sleep(BEAT_S)


async def _beating(view: Printer) -> None:
    """Until cancelled."""
    beat = Beat(view)
    while True:
        await beat()


async def _show(run: Run[Any], store: Store, view: Printer, folder: Folder, asked: Asked) -> None:
    async def place(artifact: ArtifactCreated) -> str:
        data = data_in(artifact)
        if data is None:
            blob = await store.get(run.id, artifact.id)
            data = blob.data if blob is not None else b""
        return str(folder.keep(artifact, data))

    desk = Desk(run, Lines(), view.notice)
    with view:
        async with run.events() as events:
            async for event in events:
                for item in view.board.take(event):
                    await follow(view, item, place)
                if isinstance(event, InputRequested):
                    view.pause()
                    await desk.ask(event)
                    view.go_on()
    hints = [("page", f"{command_name()} serve {asked.team}")] if ending(view.board)[0] == "finished" else []
    view.finish([(kind, str(path)) for kind, path in folder.files], hints)


async def follow(view: Printer, item: Item, place: Any) -> None:  # Any: an async function from artifact to place
    """Show an item; its artifact is put somewhere first."""
    if item.artifact is None:
        view.show(item)
        return
    try:
        view.show(item, await place(item.artifact))
    except AgentStreamError as error:  # the run goes on, and so does who watches it
        view.show(item)
        view.notice(f"{item.artifact.name or item.artifact.id}: {error}")


def status_of(view: Printer) -> Exit:
    """The exit status of a run that was watched to its end."""
    return Exit.OK if ending(view.board)[0] == "finished" else Exit.FAILED


async def pass_lines(store: Store, run: str, after: str | None) -> str:
    """Write the run's lines to stdout as the log has them, to its end; how it ended.

    Raises:
        RunUnknown, RunGone, InvalidCursor, StoreDown: as the store says.
    """
    out = sys.stdout.buffer
    reader, start = await open_reader(store, run, after)
    ends = ""
    if start.reset is not None:
        out.write(msgspec.json.encode(start.reset) + b"\n")
    while (page := await reader.next()) is not None:
        if isinstance(page, Page):
            out.write(page.lines)
            ends = page.ends or ends
        else:
            out.write(msgspec.json.encode(page) + b"\n")
        with contextlib.suppress(ValueError):  # closed: who reads our output has left, and the next write says so
            out.flush()
    return ends
