"""Neighbouring deltas of one block as one line.

What comes in: lines of a log, in order, with their numbers. What goes out: fewer lines that say the same, each with the
number of the last event it stands for. It is pure: it does not know filters, frames or readers.

The new line is the last delta's own, with `first_seq` and all the texts: `seq`, `agent_seq` and `at` are those of the
last. The texts are joined as the JSON they are, without decoding. Whatever is not laid out exactly as the bus does it
(a delta with a field of its own, say) is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

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
_JSON_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*')

# So much of what stands before the text is compared first: the end of the block's id tells most blocks apart.
_GLANCE: Final = 12

# So few bytes between `"agent_seq":` and the next field that was there before cannot hold a further field.
_SHORT: Final = 6


def coalesce(rows: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Join neighbouring deltas of one block (text, thinking, tool arguments, tool output of one channel).

    Args:
        rows: the number and line (without LF) of each event, in order. They need not be consecutive: neighbours are
            those that the reader is sent one after the other.

    Returns:
        Number and line of each event to send; a joined one has the number of the last that it stands for.

    Bounds: a joined line holds at most `MAX_TEXT_BYTES` of text. Linear in the bytes given.
    """
    found: list[tuple[int, bytes]] = []
    glance = b""
    done = 0
    for at, row in enumerate(rows):
        if at < done:
            continue
        text = row[1].find(_TEXT)
        before, glance = glance, row[1][text - _GLANCE : text] if text > 0 else b""
        if glance and glance == before:
            found[-1], done = _join(rows, at - 1)
            if done > at:
                glance = b""
                continue
        found.append(row)
    return found


def _join(rows: Sequence[tuple[int, bytes]], at: int) -> tuple[tuple[int, bytes], int]:
    """The row that stands for row `at` and all that continue it, and the index of the first that does not."""
    first, last = rows[at]
    places = _places(last)
    end = at + 1
    if places is None:
        return rows[at], end
    who, number, what, text = places
    is_by, is_of = last[who:number], last[what:text]
    texts, size, seq, last_text = [last[text:-2]], len(last) - text, first, text
    while end < len(rows):
        seq_now, line = rows[end]
        # As long as the numbers keep their lengths, everything stands where it stood in the line before.
        if line[who:number] != is_by or line[what:text] != is_of:
            places = _places(line)
            if places is None or line[places.who : places.number] != is_by or line[places.what : places.text] != is_of:
                break
            who, number, what, text = places
        elif (what - number > _SHORT and not line[number:what].isdigit()) or (
            # Most texts hold no quotation mark: then the first one ends the text, and `}` follows it.
            line.find(b'"', text) != len(line) - 2 and not _ends_with_text(line, text)
        ):
            break
        size += len(line) - text
        if size > MAX_TEXT_BYTES:
            break
        texts.append(line[text:-2])
        seq, last, last_text = seq_now, line, text
        end += 1
    if end == at + 1:
        return rows[at], end
    head = last[: last_text - len(_TEXT)]
    return (seq, b'%b,"first_seq":%d%b%b"}' % (head, first, _TEXT, b"".join(texts))), end


class _Places(NamedTuple):
    """Where the parts of a delta begin: its type and agent, its number, its block (or call and channel), its text."""

    who: int
    number: int
    what: int
    text: int


def _places(line: bytes) -> _Places | None:
    """The places in a delta as the bus lays it out; None for every other line."""
    what_ends = line.find(_TEXT)
    who = line.find(_TYPE, 0, what_ends)
    if who < 0 or not line.startswith(_DELTAS, who):
        return None
    number = line.find(_NUMBER, who, what_ends) + len(_NUMBER)
    what = line.find(b',"', number, what_ends)
    if number < who or what < 0 or not line[number:what].isdigit() or not _ends_with_text(line, what_ends + len(_TEXT)):
        return None
    return _Places(who, number, what, what_ends + len(_TEXT))


def _ends_with_text(line: bytes, start: int) -> bool:
    """Whether the text that starts there is the last field."""
    return line.endswith(b'"}') and _JSON_TEXT.fullmatch(line, start, len(line) - 2) is not None
