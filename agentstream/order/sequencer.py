"""The sequencer: the only place where a `seq` is born.

What comes in: items in order, and the wall time of this drain. What goes out: chunks of numbered JSON lines, ready to be
appended. It does not know who emitted an item, whether the append succeeds, or who reads it.
"""

from __future__ import annotations

import json
from typing import Final

from agentstream.order.reassembler import Extra, Item
from agentstream.ports import Chunk

__all__ = ("MAX_CHUNK_BYTES", "Sequencer")

MAX_CHUNK_BYTES: Final = 512 * 1024
"""DESIGN §3. Two of the largest events fit; a store row and a reader's page stay small."""


class Sequencer:
    """Numbers items from `last + 1` on and cuts them into chunks of at most `max_bytes` (one event always fits)."""

    def __init__(self, last: int = 0, *, max_bytes: int = MAX_CHUNK_BYTES) -> None:
        self.last = last
        self._max_bytes = max_bytes

    def stamp(self, items: list[Item], at: int) -> list[Chunk]:
        """Chunks that hold `items` in their order, numbered without a gap; `at` is wall milliseconds."""
        if not items:
            return []
        first = self.last + 1
        # The stamp is the same for the whole drain: it goes into the template once instead of into every line.
        line = b'{"seq":%%d,"at":%d,%%b%%d%%b\n' % at
        lines = [line % (seq, head, n, rest) for seq, (_, n, head, rest, _) in enumerate(items, first)]
        self.last += len(items)
        extras: dict[int, Extra] = {}
        if any([item[4] for item in items]):
            extras = {seq: item[4] for seq, item in enumerate(items, first) if item[4] is not None}
            self._rewrite(items, lines, first, at)
        joined = b"".join(lines)
        if len(joined) <= self._max_bytes and not extras:
            return [Chunk(first, self.last, joined)]
        return self._cut(lines, first, extras)

    @staticmethod
    def _rewrite(items: list[Item], lines: list[bytes], first: int, at: int) -> None:
        """Run-level events carry no number of an invocation."""
        for index, (_, _, head, rest, extra) in enumerate(items):
            if extra is not None and extra.bare:
                lines[index] = b'{"seq":%d,"at":%d,%b%b\n' % (first + index, at, head, rest)

    def _cut(self, lines: list[bytes], first: int, extras: dict[int, Extra]) -> list[Chunk]:
        chunks: list[Chunk] = []
        start, size = 0, 0
        for index, line in enumerate(lines):
            if size + len(line) > self._max_bytes and index > start:
                chunks.append(_chunk(lines[start:index], first + start, extras))
                start, size = index, 0
            size += len(line)
        chunks.append(_chunk(lines[start:], first + start, extras))
        return chunks


def _chunk(lines: list[bytes], first: int, extras: dict[int, Extra]) -> Chunk:
    last = first + len(lines) - 1
    inside = {seq: extra for seq, extra in extras.items() if first <= seq <= last}
    ends = inside[last].ends if last in inside else ""
    return Chunk(first, last, b"".join(lines), _private(inside), ends)


def _private(extras: dict[int, Extra]) -> bytes:
    """A JSON object by seq: `{"12": {"epoch": 1, "after": {…}, "value": <recorded result>}}`; empty if there is nothing."""
    parts = []
    for seq, extra in extras.items():
        fields = []
        if extra.epoch:
            fields.append(b'"epoch":%d' % extra.epoch)
        if extra.after:
            fields.append(b'"after":' + json.dumps(extra.after, separators=(",", ":")).encode())
        if extra.private:
            fields.append(b'"value":' + extra.private)
        if fields:
            parts.append(b'"%d":{%b}' % (seq, b",".join(fields)))
    return b"{%b}" % b",".join(parts) if parts else b""
