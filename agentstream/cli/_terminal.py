"""The terminal as the command sees it: what to show a run with, Ctrl-C, and errors in one line.

What comes in: switches, signals, exceptions. What goes out: a printer, a first and a second interrupt, an exit status.
It does not know runs or servers.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

import anyio
from rich.console import Console
from rich.text import Text

from agentstream.cli._live import LivePrinter
from agentstream.cli._printer import PlainPrinter, Printer
from agentstream.cli._safe import one_line
from agentstream.errors import AgentStreamError, UsageError
from agentstream.loops import current_loop

__all__ = ("PLAIN", "Exit", "Interrupts", "command_name", "printer", "report", "say_error")

_LAST_SECONDS: Final = 3.0
"""What a second Ctrl-C leaves for putting things away."""


class Exit(IntEnum):
    """Exit statuses."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


PLAIN: Final = "AGENTSTREAM_PLAIN"
"""The variable that `--plain` sets, and that may be set for good."""


def printer() -> Printer:
    """The live view where somebody watches, plain lines elsewhere."""
    if os.environ.get(PLAIN) or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainPrinter(sys.stdout, sys.stderr)
    return LivePrinter(Console(highlight=False))


def say_error(text: str) -> None:
    """One line, in red where there are colours."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        Text.assemble(("error: ", "bold red"), (one_line(text, 1000), "red"))
    )


def report(caught: BaseException, *, debug: bool) -> Exit:
    """Tell of an error that is ours or the system's in one line, with the traceback too under `debug`; the exit status.

    Raises:
        BaseException: the error itself, where it is neither: that is a bug, and its traceback is shown.
    """
    error = _only(caught)
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, BrokenPipeError):  # who read our output has left: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter's own last flush must not fail
        return Exit.OK
    if debug:
        traceback.print_exception(caught)
    elif not isinstance(error, (AgentStreamError, OSError)):
        raise caught
    say_error(str(error) if isinstance(error, AgentStreamError) else f"{type(error).__name__}: {error}")
    return Exit.USAGE if isinstance(error, UsageError) else Exit.FAILED


def _only(error: BaseException) -> BaseException:
    """The one error inside groups, or the group itself."""
    inner: Sequence[BaseException] = getattr(error, "exceptions", ())
    while len(inner) == 1:
        error = inner[0]
        inner = getattr(error, "exceptions", ())
    return error


def command_name() -> str:
    """How this command is called here, for lines that people copy."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m agentstream.cli"
    found = shutil.which("agentstream")
    if found is not None and called.exists() and Path(found).samefile(called):
        return "agentstream"
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return "agentstream"


class Interrupts:
    """Ctrl-C, counted, also while an agent blocks the loop. Enter it on the main thread, inside the loop.

    The first sets `first`; the second calls `quit` and, three seconds later at most, ends the process.
    """

    def __init__(self) -> None:
        self.first = anyio.Event()
        self.count = 0
        self._quit: Callable[[], object] = self.first.set
        self._call_soon = current_loop().call_soon
        self._before: object = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]  # what `signal` itself gave

    def on_second(self, quit: Callable[[], object]) -> None:
        """What the second one does, on the loop."""
        self._quit = quit

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the shape of a signal handler
        self.count += 1
        if self.count == 1:
            self._call_soon(self.first.set)
            return
        self._call_soon(self._quit)
        timer = threading.Timer(0.0 if self.count > 2 else _LAST_SECONDS, _leave)
        timer.daemon = True
        timer.start()


def _leave() -> None:
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the live view hides the cursor
    os._exit(Exit.INTERRUPTED)
