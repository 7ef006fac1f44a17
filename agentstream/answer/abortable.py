"""Abortive ends behind middleware that would make them clean.

What comes in: an ASGI application whose responses may be cut. What goes out: the same application, with each cut kept a
cut. It does not know why a response is cut, or which middleware stands between.

Some middleware (Starlette's `BaseHTTPMiddleware` among it) takes an exception of the inner application out of the way
and sends the last, empty body itself. To a client that resolves on a clean end, a stream that was cut is then finished.
An answer therefore leaves a mark before it raises, and this, being outermost, lets no last body pass behind it.
"""

from __future__ import annotations

from typing import Final

from agentstream.answer.asgi import ASGIApp, Message, Receive, Scope, Send
from agentstream.errors import StreamAborted

__all__ = ("abortable", "mark_cut")

_KEY: Final = "agentstream.cut"


class _Mark:
    """Shared by reference, because middleware may copy the scope on the way in."""

    __slots__ = ("reason",)

    def __init__(self) -> None:
        self.reason = ""


def mark_cut(scope: Scope, reason: str) -> None:
    """Say that this response is being cut, and why."""
    mark = _extensions(scope).get(_KEY)
    if isinstance(mark, _Mark):
        mark.reason = reason


def _extensions(scope: Scope) -> dict[str, object]:
    return scope.get("extensions") or {}


def abortable(app: ASGIApp) -> ASGIApp:
    """`app`, with responses that are cut seen as cut by the server. Put it outermost, around all other middleware."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        mark = _Mark()

        async def send_unless_cut(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (mark.reason and is_last):
                await send(message)

        marked: Scope = {**scope, "extensions": {**_extensions(scope), _KEY: mark}}
        try:
            await app(marked, receive, send_unless_cut)
        except ExceptionGroup as group:
            if group.split(StreamAborted)[1] is not None:
                raise
        if mark.reason:
            raise StreamAborted(mark.reason)

    return wrapped
