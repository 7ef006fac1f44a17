"""Takes the Markdown fence off code while it is streamed.

What comes in: pieces of a model's answer, cut anywhere. What goes out: the pieces of the code alone. It does not know
languages; an answer without a fence is code from its first character on.
"""

from __future__ import annotations

__all__ = ("FenceFilter",)

_FENCE = "```"


class FenceFilter:
    """`feed` pieces, then `end`. What stands behind a closing fence is left out.

    Attributes:
        text: the code so far.

    Bounds: holds back at most one line.
    """

    __slots__ = ("_closed", "_fenced", "_line", "text")

    def __init__(self) -> None:
        self.text = ""
        self._line = ""
        self._fenced: bool | None = None  # None: the first line with something in it did not come yet
        self._closed = False

    def feed(self, piece: str) -> str:
        """The code that `piece` completes."""
        found: list[str] = []
        self._line += piece
        while not self._closed:
            line, end, rest = self._line.partition("\n")
            if not end:
                if not self._may_be_fence(line):
                    found.append(line)
                    self._line = ""
                break
            self._line = rest
            found.append(self._take(line + end))
        new = "".join(found)
        self.text += new
        return new

    def end(self) -> str:
        """The rest: the answer is complete."""
        rest = "" if self._closed else self._take(self._line)
        self._line = ""
        self.text += rest
        return rest

    def _take(self, line: str) -> str:
        bare = line.strip()
        if self._fenced is None:
            if not bare:
                return ""
            self._fenced = bare.startswith(_FENCE)
            return "" if self._fenced else line
        if self._fenced and bare == _FENCE:
            self._closed = True
            return ""
        return line

    def _may_be_fence(self, line: str) -> bool:
        """Whether the unfinished line could still turn out to be a fence, or tell whether there is one."""
        if self._fenced is None:
            return True
        return self._fenced and _FENCE.startswith(line.strip())
