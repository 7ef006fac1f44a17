"""Questions of a run, asked on the terminal.

What comes in: a question with its schema, and lines that somebody types. What goes out: answers to the run. It does not
know how a run is shown; while it asks, nothing is redrawn.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import anyio
import msgspec

from agentstream.cli._safe import one_line
from agentstream.errors import InputAnswered, InputExpiredError, InvalidInput
from agentstream.events import InputExpired, InputReceived, InputRequested, Json
from agentstream.loops import Wake, current_loop
from agentstream.runtime import Run

__all__ = ("Desk", "Lines", "answer_of_line", "hint_of")

_YES: Final = frozenset({"y", "yes", "true", "j", "ja"})
_MOST_CHOICES: Final = 8
_NO: Final = frozenset({"n", "no", "false", "nein"})


class Lines:
    """Lines from stdin, read by one thread while somebody waits for one: a read cannot be taken back."""

    def __init__(self) -> None:
        self._loop = current_loop()
        self._lines: deque[str] = deque()
        self._waiting: Wake | None = None
        self._reading = False

    async def next(self) -> str:
        """The next line without its end; empty at the end of the input, as for an empty line.

        Raises:
            EOFError: there is nothing more.
        """
        while not self._lines:
            if not self._reading:
                self._reading = True
                threading.Thread(target=self._read, name="agentstream-stdin", daemon=True).start()
            self._waiting = self._loop.wake()
            await self._waiting
        line = self._lines.popleft()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _read(self) -> None:
        try:
            line = sys.stdin.readline()
        except (OSError, ValueError):  # closed
            line = ""
        self._loop.call_soon(lambda: self._take(line))

    def _take(self, line: str) -> None:
        self._reading = False
        self._lines.append(line)
        if self._waiting is not None:
            self._waiting.set()


class Desk:
    """Asks whoever sits at the terminal, one question after the other.

    Args:
        say: prints a line for them.
    """

    def __init__(self, run: Run[Any], lines: Lines, say: Callable[[str], None]) -> None:  # Any: of every team
        self._run = run
        self._lines = lines
        self._say = say

    async def ask(self, event: InputRequested) -> None:
        """Ask until there is an answer that fits, or the question is closed.

        At the end of the input the run is stopped: nobody else could answer.
        """
        self._say(f"{one_line(event.prompt, 2000)}  [{hint_of(event)}]")
        async with anyio.create_task_group() as group:
            group.start_soon(self._until_closed, event.request, group.cancel_scope)
            await self._answer(event)
            group.cancel_scope.cancel()

    async def _answer(self, event: InputRequested) -> None:
        while True:
            try:
                value = answer_of_line(event, await self._lines.next())
                await self._run.answer(event.request, value)
                return
            except EOFError:
                await self._run.stop(reason="nobody is there to answer")
                return
            except InvalidInput as error:
                self._say(one_line(error.detail, 500))
            except (InputAnswered, InputExpiredError):
                return

    async def _until_closed(self, request: str, asking: anyio.CancelScope) -> None:
        async with self._run.events(types=("input.*",)) as events:
            async for event in events:
                if isinstance(event, InputReceived | InputExpired) and event.request == request:
                    break
        asking.cancel()


def hint_of(event: InputRequested) -> str:
    """What may be typed, in a few words."""
    if event.kind == "approval":
        return "y, or n and why"
    kind = _kind(event.schema)
    choices: list[Json] = (
        cast("dict[str, Json]", event.schema).get("enum", []) if isinstance(event.schema, dict) else []
    )
    if 0 < len(choices) <= _MOST_CHOICES:
        return " | ".join(str(choice) for choice in choices)
    return {"string": "text", "boolean": "y or n", "integer": "a whole number", "number": "a number"}.get(kind, "JSON")


def answer_of_line(event: InputRequested, line: str) -> Json:
    """What a line says to a question.

    Raises:
        InvalidInput: neither yes nor no, or not JSON.
    """
    word, _, rest = line.strip().partition(" ")
    if event.kind == "approval" or _kind(event.schema) == "boolean":
        if word.lower() not in _YES | _NO:
            raise InvalidInput("y or n")
        yes = word.lower() in _YES
        return {"approved": False, "reason": rest} if event.kind == "approval" and rest and not yes else yes
    if _kind(event.schema) == "string":
        return line
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        if _kind(event.schema) in ("object", "array", "integer", "number"):
            raise InvalidInput(f"{hint_of(event)} is asked for") from None
        return line


def _kind(schema: Json) -> str:
    return str(cast("dict[str, Json]", schema).get("type", "")) if isinstance(schema, dict) else ""
