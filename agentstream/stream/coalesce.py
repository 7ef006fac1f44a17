"""Neighbouring deltas of one block as one line.

What comes in: lines of a log, in order, with their numbers. What goes out: fewer lines that say the same, each with the
number of the last event it stands for. It is pure: it does not know filters, frames or readers.

The new line is the last delta's own, with `first_seq` and all the texts: `seq`, `agent_seq` and `at` are those of the
last. The texts are joined as the JSON they are, without decoding. Whatever is not laid out exactly as the bus does it
(a delta with a field of its own, say) is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ("MAX_TEXT_BYTES", "coalesce")

MAX_TEXT_BYTES: Final = 128 * 1024
"""Most JSON text of a coalesced line: it stays below the bound of a single event, for which readers are made."""

_TEXT: Final = b',"text":"'
_TYPE: Final = b',"type":"'
_NUMBER: Final = b',"agent_seq":'
_DELTAS: Final = (
    b',"type":"text.delta",',
    b',"type":"thinking.delta",',
    b',"type":"tool.delta",',
    b',"type":"tool.output",',
)
_JSON_TEXT = re.compile(rb'(?:[^"\\]|\\.)*')


class _Run:
    """Deltas of one block that follow each other.

    In a line, `who` (type, agent, invocation) stands before the `agent_seq` and `what` (block, or call and channel) after
    it. As long as the numbers do not get longer both stand where they stood in the line before: two comparisons.
    """

    __slots__ = ("first", "last", "line", "number", "size", "text", "texts", "type", "what", "what_at", "who")

    def __init__(self, seq: int, line: bytes, text: int) -> None:
        self.type = line.find(_TYPE, 0, text)
        self.number = line.find(_NUMBER, self.type, text)
        self.what_at = line.find(b',"', self.number + 1, text)
        self.who = line[self.type : self.number]
        self.what = line[self.what_at : text]
        self.line = line
        self.text = text
        self.first = self.last = seq
        self.texts = [line[text + len(_TEXT) : -2]]
        self.size = len(line)

    @classmethod
    def begin(cls, seq: int, line: bytes, text: int) -> _Run | None:
        """A run that begins with this line, or None if the line is no delta as the bus lays it out."""
        run = cls(seq, line, text)
        if run.type < 0 or run.number < 0 or run.what_at < 0 or not run.who.startswith(_DELTAS):
            return None
        return run if run.has_number(line) and _is_last_field(line, run.texts[0]) else None

    def has_number(self, line: bytes) -> bool:
        """Whether nothing but the number of the event stands between `who` and `what`."""
        start = self.number + len(_NUMBER)
        return line.startswith(_NUMBER, self.number) and line[start : self.what_at].isdigit()

    def add(self, seq: int, line: bytes, text: int) -> bool:
        """Take the line in, if it is the next delta of the same block."""
        same = text == self.text and line[self.type : self.number] == self.who and line[self.what_at : text] == self.what
        if not (same and self.has_number(line)) and not self._moved(line, text):
            return False
        more = line[text + len(_TEXT) : -2]
        size = self.size + len(more)
        if size > MAX_TEXT_BYTES or not _is_last_field(line, more):
            return False
        self.last, self.line, self.text, self.size = seq, line, text, size
        self.texts.append(more)
        return True

    def _moved(self, line: bytes, text: int) -> bool:
        """Whether the line is of the same block although its numbers have other lengths; then learn the new places."""
        other = _Run.begin(self.last, line, text)
        if other is None or other.who != self.who or other.what != self.what:
            return False
        self.type, self.number, self.what_at = other.type, other.number, other.what_at
        return True

    def done(self) -> bytes:
        """The one line for all."""
        if len(self.texts) == 1:
            return self.line
        return b'%b,"first_seq":%d%b%b"}' % (self.line[: self.text], self.first, _TEXT, b"".join(self.texts))


def _is_last_field(line: bytes, text: bytes) -> bool:
    """Whether the line ends with the text: no other field behind it."""
    return line.endswith(b'"}') and (b'"' not in text or _JSON_TEXT.fullmatch(text) is not None)


def coalesce(rows: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Join neighbouring deltas of one block (text, thinking, tool arguments, tool output of one channel).

    Args:
        rows: the number and line (without LF) of each event, in order. They need not be consecutive: neighbours are
            those that the reader is sent one after the other.

    Returns:
        Number and line of each event to send; a joined one has the number of the last that it stands for.

    Bounds: a joined line holds at most `MAX_TEXT_BYTES` of text. About 0.4 µs a delta.
    """
    found: list[tuple[int, bytes]] = []
    run: _Run | None = None
    for seq, line in rows:
        text = line.find(_TEXT)
        if run is not None:
            if text >= 0 and run.add(seq, line, text):
                continue
            found.append((run.last, run.done()))
        run = _Run.begin(seq, line, text) if text >= 0 else None
        if run is None:
            found.append((seq, line))
    if run is not None:
        found.append((run.last, run.done()))
    return found
