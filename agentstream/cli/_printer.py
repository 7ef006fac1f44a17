"""How items are printed where nobody redraws: one line after the other, for pipes, logs and dumb terminals.

What comes in: items of a board. What goes out: lines of plain text, each with the name of whose it is in front. It does
not know colours or width; what it prints is never taken back. `Printer` is what the other view offers too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, TextIO

from agentstream import events as ev
from agentstream.cli._board import Board, Item, answer_of

__all__ = ("PlainPrinter", "Printer", "Saved", "ending", "label")

_NAME: Final = 12
_MARKS: Final = {"thinking": "~ ", "output": "> ", "errors": "! ", "failure": "! "}


class Saved(Protocol):
    """Where an artifact was put, for people: a path or an address; empty where it is nowhere."""

    def __call__(self, artifact: ev.ArtifactCreated) -> str:
        """The place."""
        ...


class Printer(Protocol):
    """Shows a run."""

    board: Board

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, item: Item, place: str = "") -> None:
        """Print an item; `place` is where its artifact was put."""
        ...

    def refresh(self) -> None:
        """Draw what is under way."""
        ...

    def notice(self, text: str) -> None:
        """Say something that is not of the run."""
        ...

    def pause(self) -> None:
        """Redraw nothing: somebody types. What is said meanwhile is printed as lines."""
        ...

    def go_on(self) -> None:
        """Redraw again."""
        ...

    def finish(self, files: Sequence[tuple[str, str]], hints: Sequence[tuple[str, str]]) -> None:
        """Print how it ended. `files`: kind and place of what was kept; `hints`: what can be done next, and how."""
        ...


def label(inv: str, agent: str) -> str:
    """An invocation's name for people: the number only from the second on."""
    return agent if inv == f"{agent}.1" else inv


def ending(board: Board) -> tuple[str, str]:
    """How the run ended: a word, and the answer or the reason."""
    match board.terminal:
        case ev.RunFinished(output=output):
            return "finished", answer_of(output)
        case ev.RunFailed(code=code, message=message):
            return "failed", answer_of(f"{message} ({code})" if message else code)
        case ev.RunStopped(cause=cause, detail=detail):
            return "stopped", answer_of(f"{cause}: {detail}" if detail else cause)
        case None:
            return "not ended", ""


class PlainPrinter:
    """Prints lines to `out`; notices go to `errors`."""

    def __init__(self, out: TextIO, errors: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.board = Board(by_line=True)
        self._out = out
        self._errors = errors
        self._clock = clock
        self._began = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.flush()

    def refresh(self) -> None:
        """Nothing is ever redrawn."""

    def notice(self, text: str) -> None:
        """One line beside the output."""
        self._errors.write(f"{text}\n")
        self._errors.flush()

    def pause(self) -> None:
        """Nothing is redrawn here."""

    def go_on(self) -> None:
        """Nothing is redrawn here."""

    def show(self, item: Item, place: str = "") -> None:
        """Print an item."""
        name = label(item.inv, item.agent)
        match item.kind:
            case "start":
                self._out.write(f"{item.title} · {item.text}\n\n")
            case "plan":
                for number, step in enumerate(item.steps, 1):
                    self._line("plan", f"{number}. {step.title}")
            case "step":
                self._line("plan", f"{item.text}: {item.title}")
            case "verdict":
                word = "accepted" if item.ok else "rejected"
                about = f"{word}: {item.title}" if item.title else word
                self._line(name, f"{about} ({item.text})" if item.text else about)
            case "code" | "call":
                self._call(name, item)
            case "table" | "file":
                self._line(name, f"made {place or item.title or item.text}")
            case "notice":
                self._line(name or "run", item.text)
            case "end":  # `finish` says it
                pass
            case kind:
                self._lines(name, item.text, _MARKS.get(kind, ""))
        self._out.flush()

    def finish(self, files: Sequence[tuple[str, str]], hints: Sequence[tuple[str, str]]) -> None:
        """The answer, what was kept, and what can be done next."""
        word, text = ending(self.board)
        self._out.write(f"\n{'Answer' if word == 'finished' else f'The run {word}'}\n{text}\n\n")
        for kind, place in files:
            self._line(kind, place)
        seconds = self._clock() - self._began
        self._line("run", f"{self.board.run} · {word} after {seconds:.1f} s · {self.board.events:,} events")
        for what, how in hints:
            self._line(what, how)
        self._out.flush()

    def _call(self, name: str, item: Item) -> None:
        if item.kind == "call":
            self._line(name, f"calls {item.title}({item.text})")
        else:
            self._line(name, f"runs {item.title}:")
            self._lines("", item.text, "    ")

    def _line(self, name: str, text: str) -> None:
        self._out.write(f"{name:<{_NAME}}{' ' if len(name) >= _NAME else ''}{text}".rstrip() + "\n")

    def _lines(self, name: str, text: str, mark: str) -> None:
        for line in text.split("\n"):
            self._line(name, mark + line)
