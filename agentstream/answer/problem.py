"""Errors as problem documents (RFC 9457).

What comes in: an exception. What goes out: `application/problem+json` with a stable `code`. It does not know where the
error came from; of what is not an `AgentStreamError` it shows nothing at all.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream.answer.asgi import Headers, Receive, Scope, Send, send_whole
from agentstream.errors import AgentStreamError, Overloaded, StoreDown
from agentstream.events import Json

__all__ = ("Problem", "ProblemAnswer", "problem_of")

_TYPE: Final = "urn:agentstream:problem:"
_RETRY_AFTER_S: Final = 2
_HIDDEN: Final = "an internal error; the server's log has its cause"
_encode = msgspec.json.Encoder(order="deterministic").encode


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document. `code` is what programs look at; `detail` and `details` are safe to show."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    details: dict[str, Json] = {}


def problem_of(error: BaseException) -> Problem:
    """The document for an error. Never a traceback, a cause, or the text of a foreign exception."""
    if not isinstance(error, AgentStreamError):
        error = AgentStreamError(_HIDDEN)
    title = error.code.replace("_", " ").capitalize()
    return Problem(_TYPE + error.code, title, error.status, error.code, error.detail, dict(error.details))


class ProblemAnswer:
    """A problem document as an ASGI response.

    Args:
        error: what went wrong.
        headers: further response headers.
    """

    __slots__ = ("_error", "_headers")

    def __init__(self, error: BaseException, headers: Headers = ()) -> None:
        self._error = error
        self._headers = tuple(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # the shape of ASGI
        """Send it; nothing is read."""
        problem = problem_of(self._error)
        headers = [
            *self._headers,
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if isinstance(self._error, (Overloaded, StoreDown)):
            headers.append((b"retry-after", b"%d" % _RETRY_AFTER_S))
        await send_whole(scope, send, problem.status, headers, _body(problem))


def _body(problem: Problem) -> bytes:
    try:
        return _encode(problem)
    except (TypeError, ValueError):  # details that JSON cannot hold must not hide the error itself
        return _encode(msgspec.structs.replace(problem, details={}))
