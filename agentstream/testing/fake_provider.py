"""A local server that speaks as model providers do, and fails as they do.

What comes in: a script of answers and faults. What goes out: a real server on this machine's loopback, in five formats,
and the requests that it got. It does not know any model, waits for nothing that the script does not say, and listens to
nobody else's machine.

    async with FakeProvider("The sum is 3.", Fault.refusal(429, retry_after="2")) as provider:
        llm = HttpLLM("openai", provider.url("openai"), "any", "key")
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self, TypeGuard
from urllib.parse import parse_qs, urlsplit

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketStream

from agentstream.errors import InvalidInput
from agentstream.events import Json
from agentstream.llm.messages import ToolCall
from agentstream.testing._fake_formats import FORMATS
from agentstream.testing._fake_http import Connection, RawRequest
from agentstream.testing._fake_script import (
    KEY_HEADERS,
    FakeAnswer,
    FakeRequest,
    Fault,
    ProviderItem,
)

__all__ = ("FakeAnswer", "FakeProvider", "FakeRequest", "Fault", "ProviderItem")

_KEPT: Final = 64
_BLOCK: Final = 1 << 20
_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class FakeProvider:
    """A server that plays `script`, one item a request, whichever format is asked in.

    `async with FakeProvider(…) as provider`; afterwards nothing of it is left. A request beyond the script is refused
    with 400 and the code `script_used_up`. An error repeats the key and the prompt, as some providers' do: what your
    program shows must not. Lists of models are answered without the script.

    Args:
        repeat: play the last item again and again.
        piece: characters of one piece of text.
        port: to listen at; 0 for any free one.

    Attributes:
        requests: what was asked, in order, lists of models included.
        connections: how many connections were made. left: how many have ended.

    Raises:
        OSError: (on entering) the port is taken.
    """

    def __init__(self, *script: ProviderItem, repeat: bool = False, piece: int = 4, port: int = 0) -> None:
        if piece < 1:
            raise InvalidInput("a piece of text has at least one character")
        self.requests: list[FakeRequest] = []
        self.connections = 0
        self.left = 0
        self._script = script
        self._repeat = repeat
        self._piece = piece
        self._port = port
        self._played = 0
        self._kept: OrderedDict[str, list[bytes]] = OrderedDict()  # answers in the background, by name
        self._cancelled: set[str] = set()
        self._stack = AsyncExitStack()
        self._leaving = anyio.Event()  # set when the next connection ends

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self._port)
            await stack.enter_async_context(listener)
            self._port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            group.start_soon(listener.serve, self._serve)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without the error of the block, which the server's task group would wrap into a group of errors.
        await self._stack.__aexit__(None, None, None)

    @property
    def root(self) -> str:
        """The address without a version, as some providers' own clients want it."""
        return f"http://127.0.0.1:{self._port}"

    def url(self, provider: str = "openai") -> str:
        """The base address for a format, as `HttpLLM` and `Endpoint` want it; the names are theirs.

        Raises:
            InvalidInput: there is no such format.
        """
        if provider not in FORMATS:
            raise InvalidInput(f"no provider is called {provider!r}; there are {', '.join(FORMATS)}")
        return self.root + FORMATS[provider].prefix

    async def until_left(self, connections: int = 1) -> None:
        """Wait until so many connections have ended since the beginning; bound it with `anyio.fail_after`."""
        while self.left < connections:
            await self._leaving.wait()

    @property
    def cancelled(self) -> frozenset[str]:
        """Names of answers in the background that were ended from outside."""
        return frozenset(self._cancelled)

    # --- one connection -----------------------------------------------------------------------------------------------
    async def _serve(self, stream: SocketStream) -> None:
        self.connections += 1
        connection = Connection(stream)
        try:
            async with stream:
                while connection.open and (raw := await connection.read()) is not None:
                    await self._handle(connection, raw)
        except _GONE:
            pass  # the client has left, which is its right
        finally:
            self.left += 1
            self._leaving.set()
            self._leaving = anyio.Event()

    async def _handle(self, connection: Connection, raw: RawRequest) -> None:
        path = urlsplit(raw.path).path
        provider = _provider_of(path)
        try:
            body = msgspec.json.decode(raw.body) if raw.body else None
        except msgspec.MsgspecError:
            body = None
        request = FakeRequest(provider, raw.method, raw.path, raw.headers, body)
        self.requests.append(request)
        if provider == "openai-responses" and not path.endswith("/responses"):
            await self._go_on(connection, raw, path)
        elif raw.method == "GET" or not provider:
            await _list(connection, path)
        else:
            await self._play(connection, request)

    # --- one answer ---------------------------------------------------------------------------------------------------
    async def _play(self, connection: Connection, request: FakeRequest) -> None:
        form = FORMATS[request.provider]
        answer = self._next(request)
        said = _repeated(request)
        if answer is None:
            await _refuse(connection, Fault.refusal(400, code="script_used_up"), request.provider, said)
            return
        fault = answer.fault
        if fault is not None and fault.kind in ("refusal", "gzip_bomb", "wrong_type"):
            await _refuse(connection, fault, request.provider, said)
            return
        name = f"{self._played:04}"
        background = msgspec.convert(request.body or {}, _Asked).background or False
        frames, marks = form.frames(answer, _model_of(request), self._piece, name, background)
        if background:
            self._kept[f"resp_{name}"] = frames
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        await connection.begin({"content-type": form.content_type, "x-request-id": f"req_{name}"})
        if fault is None:
            await _send(connection, frames)
        else:
            await _fail(connection, fault, frames, frames[:-marks], form.error(fault.code, said, fault.after))

    def _next(self, request: FakeRequest) -> FakeAnswer | None:
        if self._repeat and self._script:
            self._played = min(self._played, len(self._script) - 1)
        if self._played >= len(self._script):
            return None
        item: ProviderItem = self._script[self._played]
        self._played += 1
        while callable(item):
            item = item(request)
        return _answer(item)

    async def _go_on(self, connection: Connection, raw: RawRequest, path: str) -> None:
        """The rest of an answer that is kept, or its end from outside."""
        *_, name, last = path.split("/")
        if raw.method == "POST" and last == "cancel":
            self._cancelled.add(name)
            await connection.answer(200, _JSON, msgspec.json.encode({"id": name, "status": "cancelled"}))
            return
        frames = self._kept.get(last)
        if frames is None:
            body = FORMATS["openai-responses"].refusal(404, "not_found", "no such response")
            await connection.answer(404, _JSON, msgspec.json.encode(body))
            return
        after = parse_qs(urlsplit(raw.path).query).get("starting_after", ["-1"])[0]
        await connection.begin({"content-type": FORMATS["openai-responses"].content_type})
        await _send(connection, frames[int(after) + 1 :])


class _Asked(msgspec.Struct):
    model: str = ""
    background: bool | None = None


_JSON: Final = {"content-type": "application/json"}


def _provider_of(path: str) -> str:
    for ending, provider in (
        ("/chat/completions", "openai"),
        ("/messages", "anthropic"),
        (":streamGenerateContent", "gemini"),
        ("/api/chat", "ollama"),
    ):
        if path.endswith(ending):
            return provider
    return "openai-responses" if "responses" in path.split("/") else ""


def _model_of(request: FakeRequest) -> str:
    if request.provider == "gemini":
        return urlsplit(request.path).path.rpartition("/")[2].partition(":")[0]
    return msgspec.convert(request.body or {}, _Asked).model


def _answer(item: ProviderItem) -> FakeAnswer:
    if isinstance(item, FakeAnswer):
        return item
    if isinstance(item, str):
        return FakeAnswer(item)
    if isinstance(item, Fault):
        return FakeAnswer("Hello.", fault=item)
    if isinstance(item, ToolCall):
        return FakeAnswer(tool_calls=(item,))
    if _is_sequence(item) and item and all(isinstance(one, ToolCall) for one in item):
        return FakeAnswer(tool_calls=tuple(item))
    raise InvalidInput(f"a {type(item).__name__} is no item of a provider's script; see ProviderItem")


def _is_sequence(item: object) -> TypeGuard[Sequence[ToolCall]]:
    return isinstance(item, Sequence)


def _repeated(request: FakeRequest) -> str:
    """What an error says: the key and the prompt."""
    keys = [value for name, value in request.headers.items() if name in KEY_HEADERS]
    return f"refused {' '.join(keys)} {msgspec.json.encode(request.body).decode()}"


async def _list(connection: Connection, path: str) -> None:
    """A list of models, or 404."""
    found: dict[str, Json] = {
        "models": {"object": "list", "data": [{"id": "fake", "object": "model"}], "models": []},
        "tags": {"models": [{"name": "fake"}]},
        "version": {"version": "0.0.0"},
    }
    body = found.get(path.rpartition("/")[2])
    status = 200 if body is not None else 404
    await connection.answer(status, _JSON, msgspec.json.encode(body or {"error": {"message": "not found"}}))


async def _refuse(connection: Connection, fault: Fault, provider: str, said: str) -> None:
    if fault.kind == "gzip_bomb":
        headers = {"content-type": FORMATS[provider].content_type, "content-encoding": "gzip"}
        await connection.answer(200, headers, _bomb(fault.size))
    elif fault.kind == "wrong_type":
        await connection.answer(200, {"content-type": fault.content_type}, b"<!doctype html><p>" + said.encode())
    else:
        body = FORMATS[provider].refusal(fault.status, fault.code, said)
        await connection.answer(fault.status, {**_JSON, **dict(fault.headers)}, msgspec.json.encode(body))


def _bomb(size: int) -> bytes:
    """A gzip file about a thousandth as large as what is in it; quickly made, out of one block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(_BLOCK)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)  # knows nothing of what comes before it
    count, checksum = size // _BLOCK + 1, 0
    for _ in range(count):
        checksum = zlib.crc32(zeros, checksum)
    end = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952: deflate, no time, no name, no system
    return head + block * count + end + struct.pack("<II", checksum, count * _BLOCK & 0xFFFFFFFF)


async def _send(connection: Connection, frames: list[bytes]) -> None:
    for frame in frames:
        await connection.piece(frame)
    await connection.end()


async def _fail(
    connection: Connection, fault: Fault, frames: list[bytes], unfinished: list[bytes], error: bytes
) -> None:
    """Send as much of an answer as its fault lets through; `unfinished` is all of it but the mark of its end."""
    if fault.kind == "drip":
        for frame in frames:
            for start in range(0, len(frame), fault.size):
                await connection.piece(frame[start : start + fault.size])
                await anyio.sleep(fault.seconds)
        await connection.end()
        return
    if fault.kind == "no_end":
        await _send(connection, unfinished)
        return
    whole = unfinished[: fault.after]
    for frame in whole:
        await connection.piece(frame)
    if fault.kind == "hang":
        await connection.wait_for_leaving()
    elif fault.kind == "cut":
        await connection.cut(frames[len(whole)], reset=fault.reset)
    elif fault.kind == "error":
        await _send(connection, [error])
    else:  # broken_json: without its last brace, which is the object's own
        before, _, after = frames[len(whole)].rpartition(b"}")
        await _send(connection, [before + after, *frames[len(whole) + 1 :]])
