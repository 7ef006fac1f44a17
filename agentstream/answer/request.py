"""What a request for events asks for.

What comes in: the scope of a GET on a run's events. What goes out: cursor, view and form, checked. It does not know the
run, its log, or who may see it. Query parameters that it does not know belong to somebody else and are left alone.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

import msgspec

from agentstream.answer.asgi import Scope, header
from agentstream.errors import InvalidInput, UsageError
from agentstream.stream import View

__all__ = ("MOST_POLLED", "MOST_WAIT_S", "Asked", "read_request")

MOST_WAIT_S: Final = 60.0
MOST_POLLED: Final = 1000
"""Events in one answer to a poll."""

_MOST_FIELDS: Final = 64
_FLAGS: Final = {"": True, "1": True, "true": True, "0": False, "false": False}


class Asked(msgspec.Struct, frozen=True):
    """A request for events, understood.

    Attributes:
        cursor: `Last-Event-ID`, else `after`; None where there is neither.
        view: filters and coalescing.
        batch: one SSE event for several of ours, as a JSON array.
        poll: the answer is one JSON document instead of a stream.
        wait, limit: of a poll: seconds to wait for a first event, and most events.
    """

    cursor: str | None
    view: View
    batch: bool = False
    poll: bool = False
    wait: float = 0.0
    limit: int = MOST_POLLED


def read_request(scope: Scope) -> Asked:
    """Understand a request.

    Raises:
        UsageError: a dialect that is not known (400), or `Accept` leaves no form that we have (406).
        InvalidInput: a parameter that does not fit.
    """
    try:
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise UsageError(f"the query holds more than {_MOST_FIELDS} fields") from None
    dialect = _last(query, "dialect") or "native"
    if dialect != "native":
        raise UsageError("this dialect is not known here; there is: native", details={"dialect": dialect[:64]})
    view = View(_patterns(query, "agents"), _patterns(query, "types"), coalesce=_flag(query, "coalesce", default=True))
    return Asked(
        cursor=header(scope, b"last-event-id") or _last(query, "after") or None,
        view=view,
        batch=_flag(query, "batch", default=False),
        poll=_is_poll(header(scope, b"accept")),
        wait=_number(query, "wait", 0.0, MOST_WAIT_S),
        limit=int(_number(query, "limit", MOST_POLLED, MOST_POLLED, least=1)),
    )


class _NotAcceptable(UsageError):
    code = "not_acceptable"
    status = 406


def _is_poll(accept: str) -> bool:
    """Whether the client would rather have JSON than an event stream. Without `Accept` it gets the stream.

    Raises:
        _NotAcceptable: it takes neither.
    """
    if not accept:
        return False
    stream, json = _quality(accept, "text", "event-stream"), _quality(accept, "application", "json")
    if stream <= 0 and json <= 0:
        raise _NotAcceptable("events come as text/event-stream or application/json")
    return json > stream


def _quality(accept: str, kind: str, subtype: str) -> float:
    """How much the client wants a media type (RFC 9110, 12.5.1): the most specific range counts."""
    best = (0, 0.0)
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        specific = {f"{kind}/{subtype}": 3, f"{kind}/*": 2, "*/*": 1}.get(media, 0)
        if specific > best[0]:
            best = (specific, _q(parameters))
    return best[1]


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _last(query: dict[str, list[str]], name: str) -> str:
    return query[name][-1] if name in query else ""


def _patterns(query: dict[str, list[str]], name: str) -> list[str]:
    """`?types=text.*,tool.*` and `?types=text.*&types=tool.*` are the same."""
    return [part.strip() for value in query.get(name, ()) for part in value.split(",") if part.strip()]


def _flag(query: dict[str, list[str]], name: str, *, default: bool) -> bool:
    if name not in query:
        return default
    value = _FLAGS.get(_last(query, name).lower())
    if value is None:
        raise InvalidInput(f"{name} is 0 or 1", details={"parameter": name})
    return value


def _number(query: dict[str, list[str]], name: str, default: float, most: float, *, least: float = 0) -> float:
    text = _last(query, name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:  # NaN as well
        raise InvalidInput(f"{name} is a number from {least:g} to {most:g}", details={"parameter": name})
    return value
