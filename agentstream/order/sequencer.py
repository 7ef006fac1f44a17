"""The sequencer: the only place where a `seq` is born.

What comes in: items in order, and the wall time of this drain. What goes out: chunks of numbered JSON lines, ready to
be appended. It does not know who emitted an item, whether the append succeeds, or who reads it.
"""

from __future__ import annotations

import json
from typing import Final

from agentstream.order.reassembler import Extra, Item
from agentstream.ports import Chunk

__all__ = ("MAX_CHUNK_BYTES", "Sequencer", "line_form")

MAX_CHUNK_BYTES: Final = 512 * 1024
"""DESIGN §3. Two of the largest events fit; a store row and a reader's page stay small."""


class Sequencer:
    """Numbers items from `last + 1` on and cuts them into chunks of at most `max_bytes` (one event always fits)."""

    def __init__(self, last: int = 0, *, max_bytes: int = MAX_CHUNK_BYTES) -> None:
        self.last = last
        self._max_bytes = max_bytes

    def stamp(self, items: list[Item], at: int, *, quiet: bool = False) -> list[Chunk]:
        """Chunks that hold `items` in their order, numbered without a gap.

        Args:
            at: wall milliseconds. quiet: all of them are deltas of blocks (`ports.Chunk.quiet`) and have no `Extra`.
        """
        if not items:
            return []
        first = self.last + 1
        stamp = b"%d" % at
        extras: dict[int, Extra] = {}
        if not quiet:
            extras = {seq: item[4] for seq, item in enumerate(items, first) if item[4] is not None}
        if extras:
            lines = [_line(seq, stamp, item) for seq, item in enumerate(items, first)]
        else:
            lines = [form % (seq, stamp, n, rest) for seq, (_, n, form, rest, _) in enumerate(items, first)]
        self.last += len(items)
        joined = b"".join(lines)
        if len(joined) <= self._max_bytes and not extras:
            return [Chunk(first, self.last, joined, quiet=quiet)]
        return self._cut(lines, first, extras, quiet=quiet)

    def _cut(self, lines: list[bytes], first: int, extras: dict[int, Extra], *, quiet: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        start, size = 0, 0
        for index, line in enumerate(lines):
            if size + len(line) > self._max_bytes and index > start:
                chunks.append(_chunk(lines[start:index], first + start, extras, quiet=quiet))
                start, size = index, 0
            size += len(line)
        chunks.append(_chunk(lines[start:], first + start, extras, quiet=quiet))
        return chunks


def line_form(type_: str, agent: str = "", inv: str = "", rest: bytes = b"%b") -> bytes:
    """The form of an event's line. `rest` begins behind the number and ends the object.

    Names and ids hold no `%`: their grammar (`agentstream.ids`) has none.
    """
    if not inv:
        return b'{"seq":%%d,"at":%%b,"type":"%b"%b\n' % (type_.encode(), rest)
    head = b'{"seq":%%d,"at":%%b,"type":"%b","agent":"%b","inv":"%b","agent_seq":%%d%b\n'
    return head % (type_.encode(), agent.encode(), inv.encode(), rest)


def _line(seq: int, stamp: bytes, item: Item) -> bytes:
    _, n, form, rest, extra = item
    return form % ((seq, stamp, rest) if extra is not None and extra.bare else (seq, stamp, n, rest))


def _chunk(lines: list[bytes], first: int, extras: dict[int, Extra], *, quiet: bool) -> Chunk:
    last = first + len(lines) - 1
    inside = {seq: extra for seq, extra in extras.items() if first <= seq <= last}
    ends = inside[last].ends if last in inside else ""
    return Chunk(first, last, b"".join(lines), _private(inside), ends, quiet)


def _private(extras: dict[int, Extra]) -> bytes:
    """A JSON object by seq: `{"12": {"epoch": 1, "after": {…}, "value": <recorded result>}}`; empty if there is
    nothing."""
    parts: list[bytes] = []
    for seq, extra in extras.items():
        fields: list[bytes] = []
        if extra.epoch:
            fields.append(b'"epoch":%d' % extra.epoch)
        if extra.after:
            fields.append(b'"after":' + json.dumps(extra.after, separators=(",", ":")).encode())
        if extra.private:
            fields.append(b'"value":' + extra.private)
        if fields:
            parts.append(b'"%d":{%b}' % (seq, b",".join(fields)))
    return b"{%b}" % b",".join(parts) if parts else b""
