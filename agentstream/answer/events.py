"""A run's events as one HTTP answer.

What comes in: a run, and a request for its events. What goes out: a stream of server-sent events or one JSON document,
or a problem document. It does not know routes, owners, or how a run is made; whoever builds the answer has checked that
the client may see the run.

Everything that can be wrong is found before the 200. After it there are two ways to end: cleanly, behind the terminal
event, or cut (`StreamAborted`), so that the server leaves out the last chunk and every client knows that more comes.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from agentstream import wire
from agentstream.answer.asgi import Headers, Message, Receive, Scope, Send, send_whole
from agentstream.answer.connection import AnswerOptions, Connection, retry_later
from agentstream.answer.cut import mark_cut
from agentstream.answer.drain import DrainSwitch
from agentstream.answer.frames import FrameCache, Framer, Pieces
from agentstream.answer.polling import Poll
from agentstream.answer.problem import ProblemAnswer
from agentstream.answer.request import Asked, read_request
from agentstream.errors import AgentStreamError, Overloaded, RunUnknown, StoreDown, StreamAborted, UsageError
from agentstream.events import UpToDate
from agentstream.ids import Cursor, is_run_id
from agentstream.ports import EventLog
from agentstream.stream import Audience, LogReader, Start, open_reader

__all__ = ("EventStreamAnswer",)

_logger = logging.getLogger(__name__)

_STREAM: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)
_JSON: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class EventStreamAnswer:
    """An ASGI application that answers one request with the events of one run.

    `Accept: application/json` gets a poll, everything else the stream. Query: `after`, `agents`, `types`, `coalesce`,
    `batch`, and for polls `wait` and `limit`; `Last-Event-ID` comes before `after`.

    Args:
        log: where the run is kept.
        run: its id.
        drain: ends the stream, with `retry`, when it is switched on.
        frames: framed pages, shared with the other answers.
        options: heartbeat and send timeout.
        location: path of the run's events, sent as `Content-Location`.
        audience: where its reader is counted while it is there.
    """

    __slots__ = ("_audience", "_drain", "_frames", "_headers", "_log", "_options", "_run")

    def __init__(
        self,
        log: EventLog,
        run: str,
        *,
        drain: DrainSwitch | None = None,
        frames: FrameCache | None = None,
        options: AnswerOptions | None = None,
        location: str = "",
        audience: Audience | None = None,
    ) -> None:
        self._audience = audience
        self._log = log
        self._run = run
        self._drain = drain or DrainSwitch()
        self._frames = frames or FrameCache(0)
        self._options = options or AnswerOptions()
        self._headers = [(b"x-run-id", run.encode("latin-1", "replace"))]
        if location:
            self._headers.append((b"content-location", location.encode("latin-1", "replace")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            StreamAborted: the stream was cut; the server then ends the connection abortively.
            UsageError: not an HTTP request.
        """
        if scope["type"] != "http":
            raise UsageError(f"events are answered over HTTP, not over {scope['type']}")
        try:
            asked = read_request(scope)
            if not is_run_id(self._run):
                raise RunUnknown("no such run")
            try:
                reader, start = await open_reader(self._log, self._run, asked.cursor)
                if asked.poll:
                    await self._poll(reader, start, asked, (scope, receive, send))
                    return
            except (Overloaded, StoreDown):
                if asked.poll:
                    raise
                # A reconnecting EventSource takes every status but 200 for a reason never to come back.
                await self._come_back(scope, send, "store")
                return
        except AgentStreamError as error:
            if isinstance(error, StreamAborted):
                raise
            await ProblemAnswer(error)(scope, receive, send)
            return
        await self._stream(reader, start, asked, (scope, receive, send))

    async def _poll(self, reader: LogReader, start: Start, asked: Asked, asgi: tuple[Scope, Receive, Send]) -> None:
        scope, receive, send = asgi
        if scope["method"] == "HEAD":
            asked = msgspec.structs.replace(asked, wait=0.0)
        seat = self._audience.join() if self._audience is not None else None
        try:
            document = await Poll(reader, start, asked).collect(receive, self._drain)
        finally:
            if seat is not None:
                seat.leave()
        if document is not None:
            await send_whole(scope, send, 200, (*_JSON, *self._headers, _resume(self._run, start)), document)

    async def _stream(self, reader: LogReader, start: Start, asked: Asked, asgi: tuple[Scope, Receive, Send]) -> None:
        scope, receive, send = asgi
        headers = (*_STREAM, *self._headers, _resume(self._run, start))
        if start.done:
            await send_whole(scope, send, 204, headers[1:])
        elif scope["method"] == "HEAD":
            await _send_head(send, headers)
        elif self._drain.draining:
            await self._come_back(scope, send, "draining")
        else:
            framer = Framer(asked.view, batch=asked.batch, cache=self._frames)
            options, drain, audience = self._options, self._drain, self._audience
            connection = Connection(reader, framer, receive, send, options=options, drain=drain, audience=audience)
            try:
                ending = await connection.run(_start(headers), _opening(framer, reader, start))
            except BaseException:
                mark_cut(scope, "error")
                raise
            if ending not in ("done", "gone"):
                self._abort(scope, ending)

    async def _come_back(self, scope: Scope, send: Send, reason: str) -> None:
        """A stream that ends at once and asks the client to come again."""
        headers = (*_STREAM, *self._headers)
        if scope["method"] == "HEAD":
            await _send_head(send, headers)
            return
        await send(_start(headers))
        await send({"type": "http.response.body", "body": wire.PREAMBLE + retry_later(), "more_body": True})
        self._abort(scope, reason)

    def _abort(self, scope: Scope, reason: str) -> None:
        _logger.info("the stream of run %s was cut (%s); its client resumes", self._run, reason)
        mark_cut(scope, reason)
        raise StreamAborted(f"the stream was cut ({reason})")


def _start(headers: Headers) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


async def _send_head(send: Send, headers: Headers) -> None:
    await send(_start(headers))
    await send({"type": "http.response.body", "body": b""})


def _resume(run: str, start: Start) -> tuple[bytes, bytes]:
    """For clients that can read headers: whether the position was kept, and what it is."""
    how = "exact" if start.reset is None else "reset"
    after = Cursor(run, start.incarnation, start.after)
    return b"agentstream-resume", f"{how}; after={after}".encode("ascii")


def _opening(framer: Framer, reader: LogReader, start: Start) -> Pieces:
    """The first bytes, at once: they open the stream through proxies. A notice goes with them."""
    notices: Pieces = ()
    if start.reset is not None:
        notices = framer.notice(reader, start.reset)
    elif start.up_to_date:
        notices = framer.notice(reader, UpToDate(start.after))
    return (b"".join((wire.PREAMBLE, *notices)),)
