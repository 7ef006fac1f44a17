"""Abortive ends behind middleware that would make them clean.

What comes in: an ASGI application whose responses may be cut. What goes out: the same application, with each cut kept a
cut. It does not know why a response is cut, or which middleware stands between.

Some middleware (Starlette's `BaseHTTPMiddleware` among it) takes an exception of the inner application out of the way
and sends the last, empty body itself. To a client that resolves on a clean end, a stream that was cut is then finished.
"""

from __future__ import annotations

from agentstream.answer import ASGIApp, Message, Receive, Scope, Send, expect_cut
from agentstream.errors import StreamAborted

__all__ = ("abortable",)


def abortable(app: ASGIApp) -> ASGIApp:
    """`app`, with responses that are cut seen as cut by the server. Put it outermost, around all other middleware."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        marked, cut = expect_cut(scope)

        async def send_unless_cut(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (cut.reason and is_last):
                await send(message)

        try:
            await app(marked, receive, send_unless_cut)
        except ExceptionGroup as group:
            if group.split(StreamAborted)[1] is not None:
                raise
        if cut.reason:
            raise StreamAborted(cut.reason)

    return wrapped
