"""Letters to a run's writer: stops from wherever they come.

What comes in: letters of the run's mailbox. What goes out: stops, in order, each once; letters are acknowledged when
what they caused was accepted. It does not know how a stop is carried out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal

import anyio
import msgspec

from agentstream.errors import StoreError
from agentstream.ports import Letter, Mailbox

__all__ = ("Mail", "Stop", "stop_letter")

_log = logging.getLogger("agentstream.runtime")

_RETRY: Final = 1.0
"""Seconds until an unreachable mailbox is asked again."""


class Stop(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="stop"):
    """A request to stop a run, or one invocation with everything it called."""

    inv: str = ""
    mode: Literal["now", "after_step"] = "now"
    reason: str = ""


def stop_letter(stop: Stop) -> Letter:
    """The letter of a stop; the same stop twice is one letter, whoever asks."""
    return Letter(f"stop:{stop.inv}:{stop.mode}", msgspec.json.encode(stop))


class Mail:
    """Reads a run's letters until cancelled."""

    def __init__(self, mailbox: Mailbox, run: str, epoch: int, take: Callable[[Stop], None]) -> None:
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
            for key in self._read:
                await self._mailbox.ack(self._run, self._epoch, key)
        except StoreError as error:
            _log.warning("run %s: letters not acknowledged: %s", self._run, error)

    def _open(self, letter: Letter) -> None:
        if letter.key in self._read:
            return
        self._read[letter.key] = None
        try:
            stop = msgspec.json.decode(letter.body, type=Stop)
        except msgspec.DecodeError:
            _log.warning("run %s: a letter of another version was left unread", self._run)
            return
        self._take(stop)
