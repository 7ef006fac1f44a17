"""Files in and artifacts out.

What comes in: the bytes of an upload, or the id of an artifact. What goes out: an id, or the bytes with headers under
which no browser runs them as a page of this server. It does not know what is in a file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import anyio
from anyio.lowlevel import RunVar

from agentstream.errors import InvalidInput, Overloaded
from agentstream.runtime.files import clean_name
from agentstream.web.bodies import media_type, read_body
from agentstream.web.exchange import HttpRequest, JsonAnswer, WholeAnswer
from agentstream.web.problems import ArtifactUnknown, UnsupportedMediaType

if TYPE_CHECKING:
    from agentstream.answer import ASGIApp
    from agentstream.runtime import Runtime
    from agentstream.web.options import WebOptions

__all__ = ("FileRoutes",)

_OWNER: Final = ""
_LONGEST_NAME: Final = 1024
_MOST_WAIT_S: Final = 20.0

# Kinds that a browser shows without running anything. What is not here (HTML, SVG, unknown kinds) is saved instead.
_SHOWN: Final = frozenset(
    {
        "application/json",
        "application/vnd.plotly.v1+json",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/csv",
        "text/markdown",
        "text/plain",
        "text/x-python",
    }
)
_KIND: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}", re.ASCII)
_UNSAID: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})


class FileRoutes:
    """Handlers of `/files` and of a run's artifacts."""

    def __init__(self, runtime: Runtime, options: WebOptions) -> None:
        self._runtime = runtime
        self._options = options
        # One for each event loop: the application may be made before any, and a program may run several in turn.
        self._places: RunVar[anyio.CapacityLimiter] = RunVar("agentstream.web.uploads")

    async def upload(self, request: HttpRequest) -> ASGIApp:
        """`POST /files`: the body is the file, as it is; `X-File-Name` (percent-encoded UTF-8) or `?name=` names it.

        Raises:
            Overloaded: too many files are being taken in.
        """
        kind = media_type(request)
        if kind.startswith("multipart/"):
            raise UnsupportedMediaType(
                "a form is not taken: send the file itself as the body (`curl --data-binary @FILE`), "
                "with its name in `X-File-Name`"
            )
        name = _name(request)
        places = self._limiter()
        with anyio.move_on_after(_MOST_WAIT_S) as waiting:
            await places.acquire_on_behalf_of(request)
        if waiting.cancelled_caught:
            raise Overloaded("too many files are being uploaded: try again later")
        try:
            data = await read_body(request, self._runtime.options.max_file_bytes, self._options.body_timeout)
            mime = "" if kind in _UNSAID else _checked(kind)
            file = await self._runtime.upload(name, data, mime=mime, owner=_OWNER)
        finally:
            places.release_on_behalf_of(request)
        return JsonAnswer({"file": file, "name": clean_name(name), "size": len(data)}, status=201)

    def _limiter(self) -> anyio.CapacityLimiter:
        places = self._places.get(None)
        if places is None:
            places = anyio.CapacityLimiter(self._options.max_uploads)
            self._places.set(places)
        return places

    async def artifact(self, request: HttpRequest) -> ASGIApp:
        """`GET /runs/{run}/artifacts/{id}`: the bytes. An id names its content, so it is fetched once."""
        run = await self._runtime.get(request.parameters["run"], owner=_OWNER)
        try:
            blob = await self._runtime.store.get(run.id, request.parameters["id"])
        except InvalidInput:
            blob = None
        if blob is None:
            raise ArtifactUnknown("this run has no such artifact")
        tag = f'"{blob.id}"'.encode("ascii")
        kind = _checked(blob.mime.partition(";")[0].strip().lower())
        headers = {
            b"content-type": (f"{kind}; charset=utf-8" if kind.startswith("text/") else kind).encode("ascii"),
            b"content-disposition": _disposition(blob.name or "artifact", inline=kind in _SHOWN),
            # Even where somebody opens it as a document it has no origin, and nothing in it runs or loads.
            b"content-security-policy": b"sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'",
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"no-referrer",
            b"cache-control": b"private, max-age=31536000, immutable",
            b"etag": tag,
        }
        if tag in [part.strip().encode("latin-1") for part in (request.header(b"if-none-match") or "").split(",")]:
            return WholeAnswer(304, headers)
        return WholeAnswer(200, headers, blob.data)


def _name(request: HttpRequest) -> str:
    """The file's name as the client says it; what is left of it is the runtime's business.

    Raises:
        InvalidInput: not percent-encoded UTF-8, or too long.
    """
    given = request.header(b"x-file-name")
    try:
        name = request.query.get("name", "file") if given is None else unquote(given, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput("X-File-Name is the file's name in percent-encoded UTF-8") from None
    if len(name) > _LONGEST_NAME:
        raise InvalidInput(f"the file's name has more than {_LONGEST_NAME} characters")
    return name


def _checked(kind: str) -> str:
    """A media type that may stand in a header."""
    return kind if _KIND.fullmatch(kind) else "application/octet-stream"


def _disposition(name: str, *, inline: bool) -> bytes:
    """RFC 6266, with the name in the encoding of RFC 8187: nothing of it can end the header or its quotes."""
    how = "inline" if inline else "attachment"
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in name)
    return f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}".encode("ascii")
