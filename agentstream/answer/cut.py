"""The mark of a response that is cut.

What comes in: the scope of a request, and the reason for a cut. What goes out: the mark, for whoever expects one. It
does not know why a response is cut, or what its expecter does.

Some middleware takes the exception of a cut answer out of the way and ends the response cleanly. An answer therefore
leaves a mark before it raises; `agentstream.web.abortable`, being outermost, lets no last body pass behind it.
"""

from __future__ import annotations

from typing import Final

from agentstream.answer.asgi import Scope

__all__ = ("Cut", "expect_cut", "mark_cut")

_KEY: Final = "agentstream.cut"


class Cut:
    """Shared by reference, because middleware may copy the scope on the way in. `reason` is empty until the cut."""

    __slots__ = ("reason",)

    def __init__(self) -> None:
        self.reason = ""


def expect_cut(scope: Scope) -> tuple[Scope, Cut]:
    """The scope for the inner application, and the mark that an answer in there leaves."""
    cut = Cut()
    return {**scope, "extensions": {**_extensions(scope), _KEY: cut}}, cut


def mark_cut(scope: Scope, reason: str) -> None:
    """Say that this response is being cut, and why."""
    cut = _extensions(scope).get(_KEY)
    if isinstance(cut, Cut):
        cut.reason = reason


def _extensions(scope: Scope) -> dict[str, object]:
    return scope.get("extensions") or {}
