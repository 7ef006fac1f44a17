"""What a reader is sent of a page: filters, then coalescing.

What comes in: a page, and which agents and types a reader wants. What goes out: numbered lines. It is pure: the same
page and view give the same lines, whoever reads, so that frames can be shared.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

from agentstream.errors import InvalidInput
from agentstream.stream.coalesce import coalesce
from agentstream.stream.reader import Page
from agentstream.wire import peek

__all__ = ("View",)

_MOST_PATTERNS: Final = 32
_LONGEST_PATTERN: Final = 64
_MOST_REMEMBERED: Final = 1024


class View:
    """What to show: events of these agents and types, run-level events always.

    Args:
        agents: names of agents or ids of invocations (`executor.2`), with `*` and `?`; none means all.
        types: types of events, with `*` and `?` (`text.*`); none means all.
        coalesce: whether neighbouring deltas of one block become one.

    Raises:
        InvalidInput: more than 32 patterns, or one of more than 64 characters.
    """

    __slots__ = ("_agents", "_seen", "_types", "coalesces", "filters")

    def __init__(self, agents: Sequence[str] = (), types: Sequence[str] = (), *, coalesce: bool = True) -> None:
        self.coalesces = coalesce
        self.filters = bool(agents or types)
        self._agents = _compiled("agents", agents)
        self._types = _compiled("types", types)
        self._seen: dict[tuple[str, str], bool] = {}

    def rows(self, page: Page) -> list[tuple[int, bytes]]:
        """Number and line (without LF) of each event to send."""
        lines = page.lines.split(b"\n")
        lines.pop()
        rows = list(enumerate(lines, page.first))
        if self.filters:
            rows = [row for row in rows if self._wants(row[1])]
        return coalesce(rows) if self.coalesces else rows

    def _wants(self, line: bytes) -> bool:
        head = peek(line)
        key = (head.type, head.inv)
        wanted = self._seen.get(key)
        if wanted is None:
            wanted = not head.agent or (
                (self._agents is None or any(map(self._agents.fullmatch, (head.agent, head.inv))))
                and (self._types is None or self._types.fullmatch(head.type) is not None)
            )
            if len(self._seen) < _MOST_REMEMBERED:
                self._seen[key] = wanted
        return wanted


def _compiled(what: str, patterns: Sequence[str]) -> re.Pattern[str] | None:
    if isinstance(patterns, str):
        raise InvalidInput(f"{what} is a sequence of patterns, not one text: write {what}=({patterns[:64]!r},)")
    if len(patterns) > _MOST_PATTERNS or any(len(pattern) > _LONGEST_PATTERN for pattern in patterns):
        raise InvalidInput(f"{what} takes at most {_MOST_PATTERNS} patterns of at most {_LONGEST_PATTERN} characters")
    return re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None
