"""The developer page, out of the package.

What comes in: names of files. What goes out: the page's own files and nothing else, with the headers that keep it to
itself. It does not know what the page does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from agentstream.web.exchange import HttpRequest, WholeAnswer, sub_path

if TYPE_CHECKING:
    from agentstream.answer import ASGIApp

__all__ = ("PageRoutes",)

_KINDS: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        ".css": b"text/css; charset=utf-8",
        ".html": b"text/html; charset=utf-8",
        ".js": b"text/javascript; charset=utf-8",
        ".svg": b"image/svg+xml",
    }
)

# What the page needs, and no more: pictures may come inside events, pages made by agents stand in sandboxed frames
# whose content comes with the document itself.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class _File(NamedTuple):
    body: bytes
    headers: Mapping[bytes, bytes]


class PageRoutes:
    """Handlers of `/` and the page's files, which are read once."""

    def __init__(self) -> None:
        folder = files("agentstream.web") / "page"
        self._files = {
            item.name: _file(item.read_bytes(), _KINDS[kind])
            for item in folder.iterdir()
            if (kind := item.name[item.name.rfind(".") :]) in _KINDS
        }

    @property
    def names(self) -> Collection[str]:
        """The page's files."""
        return self._files.keys()

    async def index(self, request: HttpRequest) -> ASGIApp:
        """`GET /`."""
        if not request.scope["path"].endswith("/"):
            # The page's addresses are relative: below a mount point they need its final slash.
            return WholeAnswer(308, {b"location": f"{request.root}/".encode("ascii"), b"cache-control": b"no-store"})
        return self._serve("index.html", request)

    async def file(self, request: HttpRequest) -> ASGIApp:
        """`GET /{name}` for each of `names`."""
        return self._serve(sub_path(request.scope)[1:], request)

    def _serve(self, name: str, request: HttpRequest) -> ASGIApp:
        file = self._files[name]
        if file.headers[b"etag"].decode("ascii") in (request.header(b"if-none-match") or ""):
            return WholeAnswer(304, file.headers)
        return WholeAnswer(200, file.headers, file.body)


def _file(body: bytes, kind: bytes) -> _File:
    tag = hashlib.blake2b(body, digest_size=12).hexdigest()
    return _File(
        body,
        {
            b"content-type": kind,
            b"etag": f'"{tag}"'.encode("ascii"),
            b"cache-control": b"no-cache",  # kept, but asked for: a new version of the package is a new page at once
            b"content-security-policy": _POLICY,
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"no-referrer",
        },
    )
