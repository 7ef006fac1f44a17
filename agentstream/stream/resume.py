"""The resume decision: what a reader gets that comes with, or without, a cursor.

What comes in: the cursor's text, the run's id and where its log stands. What goes out: a `Start`. It is pure: it does
not know stores, HTTP, filters or dialects, and it changes nothing.

The table (DESIGN §7; n is the cursor's position, a cursor inside event n + 1 counts as that event):

    cursor                                      answer
    none                                        from the first retained event
    `tail`                                      `up-to-date`, then what follows; of an ended run the terminal event
    same incarnation, first - 1 <= n <= last    n + 1, n + 2 …
    same incarnation, n == last, ended          nothing follows (`done`)
    same incarnation, n > last                  `reset` rollback, from the first retained event
    same incarnation, n < first - 1             `reset` trimmed, from the first retained event
    another incarnation                         `reset` new-log, from the first retained event
    another run, or not a cursor of ours        `reset` unknown-cursor, from the first retained event
    above 128 bytes, or not printable           InvalidCursor

A cursor that is ahead of the log proves that the log was rolled back only if the log was read where it is written:
`open_reader` looks a second time before it believes it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream.events import Reset, ResetReason
from agentstream.ids import Cursor
from agentstream.ports import Tail

__all__ = ("TAIL", "Start", "decide", "reset_to_first")

TAIL: Final = "tail"
"""In place of a cursor: only what is appended from now on."""


class Start(msgspec.Struct, frozen=True):
    """Where a reader begins.

    Attributes:
        incarnation, after: the reader gets the events of this incarnation with seq > `after`.
        last: the log's last event when it was looked at.
        part: of event `after + 1` so many frames were received already, in a dialect that renders several.
        reset: to be sent first, with the id of position `after`.
        up_to_date: send `up-to-date` first, with the id of position `after`.
        done: the run has ended and nothing follows `after`.
    """

    incarnation: str
    after: int
    last: int
    part: int = 0
    reset: Reset | None = None
    up_to_date: bool = False
    done: bool = False


def decide(cursor: str | None, run: str, tail: Tail) -> Start:
    """The row of the table for this cursor. None and empty text are no cursor; `TAIL` asks for what is new.

    Raises:
        InvalidCursor: longer than 128 bytes, or not printable ASCII.
    """
    if not cursor:
        return Start(tail.incarnation, tail.first - 1, tail.last)
    if cursor == TAIL:
        # Of an ended run the terminal is sent again, so that the reader learns of the end from an event.
        after = max(tail.last - 1, tail.first - 1) if tail.ended else tail.last
        return Start(tail.incarnation, after, tail.last, up_to_date=True)
    at = Cursor.parse(cursor)
    if at is None or at.run != run:
        return _reset("unknown-cursor", tail)
    if at.incarnation != tail.incarnation:
        return _reset("new-log", tail)
    if at.seq + (at.part > 0) > tail.last:
        return _reset("rollback", tail)
    if at.seq < tail.first - 1:
        return _reset("trimmed", tail)
    done = tail.ended and at.seq == tail.last
    return Start(tail.incarnation, at.seq, tail.last, part=at.part, done=done)


def reset_to_first(reason: ResetReason, tail: Tail) -> Reset:
    """The notice that what follows starts at the first retained event."""
    return Reset(reason, tail.first, tail.last)


def _reset(reason: ResetReason, tail: Tail) -> Start:
    return Start(tail.incarnation, tail.first - 1, tail.last, reset=reset_to_first(reason, tail))
