"""Letters to a run's writer: stops and answers from wherever they come.

What comes in: letters of the run's mailbox. What goes out: stops and answers, in order, each once; letters are
acknowledged when what they caused was accepted. It does not know how a stop is carried out, or what an answer says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import anyio
import msgspec

from agentstream.errors import StoreError
from agentstream.events import Json
from agentstream.ports import Letter, Mailbox

__all__ = ("Answer", "Mail", "Stop", "answer_letter", "stop_letter")

_log = logging.getLogger("agentstream.runtime")

_RETRY: Final = 1.0
"""Seconds until an unreachable mailbox is asked again."""


class Stop(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="stop"):
    """A request to stop a run, or one invocation with everything it called."""

    inv: str = ""
    mode: Literal["now", "after_step"] = "now"
    reason: str = ""
    cause: Literal["user_stop", "replaced"] = "user_stop"


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="answer"):
    """What somebody said to a question."""

    request: str
    value: Json = None
    by: str = ""


def stop_letter(stop: Stop) -> Letter:
    """The letter of a stop; the same stop twice is one letter, whoever asks."""
    own = "" if stop.cause == "user_stop" else f":{stop.cause}"
    return Letter(f"stop:{stop.inv}:{stop.mode}{own}", msgspec.json.encode(stop))


def answer_letter(answer: Answer) -> Letter:
    """The letter of an answer: a question takes one, whoever gives it."""
    return Letter(f"input:{answer.request}", msgspec.json.encode(answer))


_Body: TypeAlias = Stop | Answer


class Mail:
    """Reads a run's letters until cancelled."""

    def __init__(self, mailbox: Mailbox, run: str, epoch: int, take: Callable[[Stop | Answer], None]) -> None:
        self._mailbox = mailbox
        self._run = run
        self._epoch = epoch
        self._take = take
        self._read: dict[str, None] = {}

    async def read(self) -> None:
        """Hand over every letter once, as it comes."""
        seen = 0
        while True:
            try:
                for letter in await self._mailbox.letters(self._run):
                    self._open(letter)
                seen = await self._mailbox.mail(self._run, seen)
            except StoreError as error:
                _log.warning("run %s: the mailbox does not answer: %s", self._run, error)
                await anyio.sleep(_RETRY)

    async def acknowledge(self) -> None:
        """Mark the letters that were read as done: the run's terminal event was accepted."""
        try:
            for key in list(self._read):
                await self._mailbox.ack(self._run, self._epoch, key)
        except StoreError as error:
            _log.warning("run %s: letters not acknowledged: %s", self._run, error)

    async def done(self, key: str) -> None:
        """Mark one letter as done: what it caused was accepted.

        Raises:
            StoreError: it could not be marked.
        """
        await self._mailbox.ack(self._run, self._epoch, key)
        self._read.pop(key, None)

    def _open(self, letter: Letter) -> None:
        if letter.key in self._read:
            return
        self._read[letter.key] = None
        try:
            body = msgspec.json.decode(letter.body, type=_Body)
        except msgspec.DecodeError:
            _log.warning("run %s: a letter of another version was left unread", self._run)
            return
        self._take(body)
