"""The bodies of requests.

What comes in: ASGI's receive, and what is asked for. What goes out: bytes, or values that fit a model. It does not know
routes; it holds no more than the limit that it was given, and waits no longer for the next bytes than it was told.
"""

from __future__ import annotations

from typing import Final, TypeVar

import anyio
import msgspec
import pydantic

from agentstream.answer import Message
from agentstream.errors import BodyTooLarge, InvalidInput
from agentstream.web.exchange import HttpRequest
from agentstream.web.options import WebOptions
from agentstream.web.problems import BodyTooSlow, InvalidJson, UnsupportedMediaType

__all__ = ("ClientLeft", "media_type", "read_body", "read_json")

M = TypeVar("M", bound=pydantic.BaseModel)

_MOST_COMPLAINTS: Final = 20
_LONGEST_KEY: Final = 64


class ClientLeft(Exception):
    """The client went away before its request was complete: there is nobody to answer."""


async def read_body(request: HttpRequest, limit: int, silence: float) -> bytes:
    """The body, read piece by piece.

    Raises:
        BodyTooLarge: above `limit` bytes; at once where the request says its length.
        BodyTooSlow: nothing came for `silence` seconds.
        UnsupportedMediaType: it is compressed: a small body could become a large one.
        ClientLeft: the client did not wait.
    """
    if (request.header(b"content-encoding") or "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("a compressed body is not taken: send it as it is")
    announced = request.header(b"content-length") or ""
    if announced.isdigit() and (len(announced) > 15 or int(announced) > limit):
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    while True:
        message: Message = {}
        with anyio.move_on_after(silence):
            message = await request.receive()
        if not message:
            raise BodyTooSlow(f"nothing more of the body came for {silence:g} s")
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def read_json(request: HttpRequest, model: type[M], options: WebOptions, *, empty: M | None = None) -> M:
    """The body as a model.

    Args:
        empty: what no body at all stands for; None means that there must be one.

    Raises:
        UnsupportedMediaType: the body does not say that it is JSON: a form of another site cannot say so.
        InvalidJson: it is not JSON. InvalidInput: it does not fit the model; `details["errors"]` says where.
        BodyTooLarge, BodyTooSlow, ClientLeft: as `read_body`.
    """
    kind = media_type(request)
    if kind != "application/json" and (kind or empty is None):
        raise UnsupportedMediaType("send JSON, with `Content-Type: application/json`")
    body = await read_body(request, options.max_body_bytes, options.body_timeout)
    if not body and empty is not None:
        return empty
    if kind != "application/json":
        raise UnsupportedMediaType("send JSON, with `Content-Type: application/json`")
    try:
        # Strict where pydantic's own parser is not: NaN and Infinity are not JSON.
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = str(error) if isinstance(error, msgspec.DecodeError) else "it is nested too deep, or not UTF-8"
        raise InvalidJson(f"the body is not JSON: {what}") from None
    try:
        return model.model_validate(value, strict=True)
    except pydantic.ValidationError as error:
        raise _does_not_fit(error) from None


def media_type(request: HttpRequest) -> str:
    """The kind of the body, in lower case without parameters; empty if it is not said."""
    return (request.header(b"content-type") or "").partition(";")[0].strip().lower()


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is larger than {limit:,} bytes, the most that is taken here", details={"limit": limit}
    )


def _does_not_fit(error: pydantic.ValidationError) -> InvalidInput:
    listed = [
        # An unknown key is shown to who sent it, but not all of it.
        {"loc": [str(part)[:_LONGEST_KEY] for part in found["loc"]], "msg": found["msg"], "type": found["type"]}
        for found in error.errors(include_url=False, include_input=False, include_context=False)[:_MOST_COMPLAINTS]
    ]
    where = "; ".join(f"{'.'.join(found['loc']) or 'body'}: {found['msg']}" for found in listed[:3])
    return InvalidInput(f"the body does not fit: {where}", details={"errors": listed})
