"""The numbers and names that bound the web application.

What comes in: settings. What goes out: checked options. It does not know where they were written down.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import pydantic

__all__ = ("Host", "Origin", "WebOptions")

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.\-_\[\]:]+", re.ASCII)
_HOST: Final = re.compile(r"[a-z0-9.\-_]+|\[[0-9a-f:.]+\]", re.ASCII)


def _origin(text: str) -> str:
    origin = text.lower().rstrip("/")
    if origin != "*" and _ORIGIN.fullmatch(origin) is None:
        raise ValueError("an origin is scheme, host and port, for instance https://app.example.com; or * for all")
    return origin


def _host(text: str) -> str:
    host = text.lower().rstrip(".")
    if host != "*" and _HOST.fullmatch(host) is None:
        raise ValueError("a host is a name without scheme and port, for instance agents.example.com; or * for all")
    return host


Origin = Annotated[str, pydantic.AfterValidator(_origin)]
"""An origin as browsers send it: `https://app.example.com`, or `*`."""

Host = Annotated[str, pydantic.AfterValidator(_host)]
"""A host name without a port, or `*`."""


class WebOptions(pydantic.BaseModel):
    """Limits of the web application. All times in seconds.

    Attributes:
        cors: origins whose pages may call this server; none by default. Nothing is ever allowed to carry credentials.
        hosts: names under which this server may be called, besides those of the loopback. Where it is empty, only
            connections to a loopback address are checked: that is what keeps pages of other sites, whose names can be
            made to point to this machine, away from a local server. `*` switches the check off.
        page: whether the developer page is served at `/`.
        max_body_bytes: one JSON body. (Files: `RuntimeOptions.max_file_bytes`.)
        max_uploads: files that are taken in at once; each is held in memory until it is stored.
        rate: requests a second from one address, on average; None means no limit. Streams of events do not count: a
            client whose connection dropped must be let in again. burst: how many of them at once.
        body_timeout: silence in the middle of a request's body after which it is given up.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    cors: tuple[Origin, ...] = ()
    hosts: tuple[Host, ...] = ()
    page: bool = True
    max_body_bytes: int = pydantic.Field(default=1 << 20, ge=1024, le=1 << 30)
    max_uploads: int = pydantic.Field(default=4, ge=1, le=1000)
    rate: float | None = pydantic.Field(default=None, gt=0, le=100_000)
    burst: int = pydantic.Field(default=20, ge=1, le=100_000)
    body_timeout: float = pydantic.Field(default=30.0, gt=0, le=3600)
