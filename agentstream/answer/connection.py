"""One open event stream: who watches, who sends, and how it ends.

What comes in: a reader, a framer, and a server's receive and send. What goes out: the stream, and how it ended. It does
not know cursors, headers, or what the run does; that a client leaves never reaches the run from here.

Three tasks under one roof, for as long as the connection lives:

    pump    reads pages and sends their pieces, with one turn of the loop behind each
    watch   waits in `receive` for the client to leave; nobody else calls `receive`
    guard   one timer: heartbeats while the pump waits for the log, and the end of a send that takes too long

The turns are needed because a server's `send` may neither wait nor fail once the client has left (uvicorn's does not):
without them a replay into nowhere would hold the loop for as long as there is a log. The timer is pushed back by a time
stamp, since a scope or timer for each event costs more than the event.
"""

from __future__ import annotations

import random
from typing import Final, Literal, TypeAlias, cast

import anyio
import msgspec

from agentstream import wire
from agentstream.answer.asgi import Message, Receive, Send
from agentstream.answer.drain import DrainSwitch
from agentstream.answer.frames import Framer, Pieces
from agentstream.errors import AgentStreamError
from agentstream.events import Reset
from agentstream.loops import Wake, current_loop
from agentstream.stream import Audience, LogReader, Page, Seat

__all__ = ("AnswerOptions", "Connection", "Ending", "retry_later")

# With ids this stays below 32 KiB for all but the shortest lines: a page is then one send.
_PAGE_BYTES: Final = 20 * 1024

# How long a send that is under way may take once the process drains: the others are waiting for it.
_LAST_SEND_S: Final = 2.0

_RETRY_MS: Final = (1000, 5000)

Ending: TypeAlias = Literal["done", "gone", "stalled", "draining", "store"]
"""done: the terminal was sent. gone: the client left. The others are cuts."""


class AnswerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of event streams, in seconds.

    Attributes:
        heartbeat: silence after which a comment is sent; proxies close silent connections after 60 s. Jittered by 10 %.
        send_timeout: a client that takes nothing for so long is cut off; it may come back and resumes.
    """

    heartbeat: float = 15.0
    send_timeout: float = 30.0


def retry_later() -> bytes:
    """The line that sends a client away for 1 to 5 s, so that not all come back at once."""
    return wire.retry_line(random.randint(*_RETRY_MS))


class _Gone(Exception):  # a signal inside this module
    """The server says that nobody is there any more."""


class Connection:
    """Streams one run to one client. Used once.

    Args:
        reader, framer: what to send.
        receive, send: the server's.
        options: heartbeat and send timeout.
        drain: ends the stream when it is switched on.
        audience: where this reader is counted, and how far it is.
    """

    def __init__(
        self,
        reader: LogReader,
        framer: Framer,
        receive: Receive,
        send: Send,
        *,
        options: AnswerOptions,
        drain: DrainSwitch,
        audience: Audience | None = None,
    ) -> None:
        self._audience = audience
        self._seat: Seat | None = None
        self._reader = reader
        self._framer = framer
        self._receive = receive
        self._send = send
        self._options = options
        self._drain = drain
        loop = current_loop()
        self._turn, self._time, self._wake = loop.turn, loop.time, loop.wake
        self._ending: Ending | None = None
        self._cut: Ending | None = None
        self._waiting = False  # the pump waits for the log
        self._sending = False  # the pump waits for the server
        self._since = self._time()  # when the last send began
        self._beating: Wake | None = None  # a heartbeat is being sent; set when it is out
        self._reading = anyio.CancelScope()
        self._all = anyio.CancelScope()

    async def run(self, start: Message, opening: Pieces) -> Ending:
        """Send the response's start, the first pieces, then the run's events to their end.

        Raises:
            Exception: what the server raised and is neither an OSError nor the end of its own stream.
        """
        try:
            async with anyio.create_task_group() as group:
                self._all = group.cancel_scope
                group.start_soon(self._watch)
                group.start_soon(self._guard)
                leave = self._drain.listen(self._on_drain)
                if self._audience is not None:
                    self._seat = self._audience.join(self._stall)
                try:
                    await self._talk(start, opening)
                finally:
                    leave()
                    if self._seat is not None:
                        self._seat.leave()
                    group.cancel_scope.cancel()
        except ExceptionGroup as several:
            raise _first_of(several) from several
        return self._ending or self._cut or "gone"

    # --- pump ---------------------------------------------------------------------------------------------------------
    async def _talk(self, start: Message, opening: Pieces) -> None:
        try:
            with self._reading:
                await self._pump(start, opening)
            if self._cut is not None:
                await self._give({"type": "http.response.body", "body": retry_later(), "more_body": True})
            else:
                await self._give({"type": "http.response.body", "body": b"", "more_body": False})
                self._ending = "done"
        except _Gone:
            self._ending = "gone"

    async def _pump(self, start: Message, opening: Pieces) -> None:
        """Return after the terminal event, or between two pages once `_cut` is set."""
        await self._give(start)
        for piece in opening:
            await self._give({"type": "http.response.body", "body": piece, "more_body": True})
        while self._cut is None:
            if self._seat is not None:
                self._seat.reached(self._reader.after)  # it was sent, or filtered away
            page = self._reader.ready(_PAGE_BYTES) or await self._wait()
            if page is None:
                return
            if isinstance(page, Reset):
                pieces = self._framer.notice(self._reader, page)
            else:
                pieces = self._framer.page(self._reader, page)
            for piece in pieces:
                await self._give({"type": "http.response.body", "body": piece, "more_body": True})
                await self._turn()
            if not pieces:
                await self._turn()

    async def _wait(self) -> Page | Reset | None:
        """What follows, as soon as there is anything; None if nothing follows or `_cut` is set."""
        self._waiting = True
        try:
            page = await self._reader.next(_PAGE_BYTES)
        except AgentStreamError:
            # The store is away, or the run was deleted: the next request gets that as its answer.
            self._cut = "store"
            return None
        finally:
            self._waiting = False
        return page if self._cut is None else None

    async def _give(self, message: Message) -> None:
        if self._beating is not None:
            await self._beating
        self._since = self._time()
        self._sending = True
        try:
            await self._send(message)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise _Gone from None
        self._sending = False

    # --- watch --------------------------------------------------------------------------------------------------------
    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            await self._turn()
        self._all.cancel()

    def _on_drain(self) -> None:
        self._cut = self._cut or "draining"
        self._all.deadline = self._time() + _LAST_SEND_S
        if self._waiting:
            self._reading.cancel()

    # --- guard --------------------------------------------------------------------------------------------------------
    async def _guard(self) -> None:
        timeout = self._options.send_timeout
        silence = self._next_silence()
        while True:
            now = self._time()
            stall, beat = self._since + timeout, self._since + silence
            if self._sending and now >= stall:
                self._stall()
                return
            if self._sending:
                # The send may end any moment; the silence counts from its beginning then.
                until = min(stall, beat) if now < beat else stall
            elif now < beat:
                # A send may begin any moment; it is looked at before its time is up.
                until = min(beat, now + timeout)
            else:
                if self._waiting:
                    await self._beat()
                silence = self._next_silence()
                self._since = self._time()
                continue
            await anyio.sleep(until - now)

    async def _beat(self) -> None:
        """Send a heartbeat. The pump waits for its end before it sends, so it never lands inside a frame."""
        self._beating = self._wake()
        scope = anyio.move_on_after(self._options.send_timeout)
        try:
            with scope:
                await self._send({"type": "http.response.body", "body": wire.HEARTBEAT, "more_body": True})
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._all.cancel()
        finally:
            self._beating.set()
            self._beating = None
        if scope.cancelled_caught:
            self._stall()

    def _stall(self) -> None:
        self._cut = "stalled"
        self._all.cancel()

    def _next_silence(self) -> float:
        return self._options.heartbeat * random.uniform(0.9, 1.1)


def _first_of(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error
