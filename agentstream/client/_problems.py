"""Answers that are errors, as errors of ours.

What comes in: the status and the beginning of the body of an answer that is not what was asked for. What goes out: the
typed error that its problem document names, and whether asking again may help. It does not know connections.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentstream import errors
from agentstream.errors import AgentStreamError, UsageError
from agentstream.events import Json

__all__ = ("error_of", "may_pass")

_LONGEST_DETAIL: Final = 500
_PASSING: Final = frozenset({408, 425, 429})
"""Besides 5xx: statuses that say `later` rather than `no` (RFC 9110, RFC 8470, RFC 6585)."""

# These are made of the terminal event's fields, and no answer carries them.
_OTHER_SHAPE: Final = (errors.RunFailedError, errors.RunStoppedError, errors.AgentFailedError)
_ALL: Final = [getattr(errors, name) for name in errors.__all__]
_BY_CODE: Final[dict[str, type[AgentStreamError]]] = {
    class_.code: class_ for class_ in _ALL if not issubclass(class_, _OTHER_SHAPE)
}


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""
    detail: str = ""
    title: str = ""
    details: dict[str, Json] = {}


def error_of(status: int, body: bytes) -> AgentStreamError:
    """The error in a problem document (RFC 9457), or one that says what little is known.

    What other programs on the way wrote (a proxy's page) is not repeated.
    """
    problem = _problem(body)
    class_ = _BY_CODE.get(problem.code)
    text = " ".join((problem.detail or problem.title).split())[:_LONGEST_DETAIL]
    if class_ is not None:
        return class_(text or f"the server answered {status}", details=problem.details)
    details = {**problem.details, "status": status, **({"code": problem.code[:64]} if problem.code else {})}
    base = UsageError if 400 <= status < 500 and status not in _PASSING else AgentStreamError
    return base(text or f"the server answered {status}: is this the address of an agentstream server?", details=details)


def may_pass(status: int, error: AgentStreamError) -> bool:
    """Whether the same request may be answered later: as the error's code says, else as the status does."""
    if type(error) not in (AgentStreamError, UsageError):
        return error.retryable
    return status in _PASSING or status >= 500


def _problem(body: bytes) -> _Problem:
    try:
        return msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _Problem()
