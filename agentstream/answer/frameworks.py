"""Answers as the responses of web frameworks.

What comes in: an ASGI answer and the framework's own request. What goes out: what a handler of that framework returns.
It imports no framework: a request of one shows that it is loaded. Elsewhere the answer itself is the response.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from agentstream.answer.asgi import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from starlette.responses import Response
else:
    Response = object

__all__ = ("Request", "Response", "as_response")


class Request(Protocol):
    """What we need of a request: Starlette's and FastAPI's have it."""

    @property
    def scope(self) -> MutableMapping[str, Any]:  # Any: an ASGI scope is an open dict
        """The ASGI scope."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers."""
        ...


def as_response(answer: ASGIApp, request: Request) -> Response:
    """What a handler returns so that its framework sends `answer`.

    For Starlette and FastAPI a `Response` of theirs: its headers, cookies and background task are honoured. Else the
    answer itself, an ASGI callable.
    """
    if any(base.__module__.startswith("starlette.") for base in type(request).__mro__):
        responses = sys.modules.get("starlette.responses")
        if responses is not None:
            return cast("Response", _response_class(responses.Response)(answer))
    return cast("Response", answer)


@cache
def _response_class(base: Any) -> Any:  # Any: a class of a framework that is not imported here
    """A subclass of the framework's response whose sending is the answer's."""

    class AnswerResponse(base):  # type: ignore[misc]  # the base is known at run time only
        """One of our answers as a response of the framework."""

        def __init__(self, answer: ASGIApp) -> None:
            super().__init__()  # pyright: ignore[reportUnknownMemberType]
            self._answer = answer
            self.raw_headers: list[tuple[bytes, bytes]] = []

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            more = [(name, value) for name, value in self.raw_headers if name not in _OURS]

            async def send_with_headers(message: Message) -> None:
                if more and message["type"] == "http.response.start":
                    message = {**message, "headers": [*message["headers"], *more]}
                await send(message)

            await self._answer(scope, receive, send_with_headers if more else send)
            if self.background is not None:
                await self.background()

    return AnswerResponse


_OURS = frozenset({b"content-length", b"content-type", b"cache-control"})
