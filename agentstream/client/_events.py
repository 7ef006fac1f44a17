"""The events of one run, over as many connections as it takes.

What comes in: a server, a run and a cursor. What goes out: each event once and in order, and at any moment a cursor
that goes on behind the last one. It does not know what an event means, except which ones end a run.

The rules (DESIGN §7): a frame whose id is not above the last one is dropped; ids rise within an incarnation and only a
`reset` changes it; a number that is missing is never waited for, because filters and coalescing hide numbers; a stream
that ends before the terminal event was cut, however clean the end looked, and is taken up again.

There is no task and no queue behind it: an iterator over one connection. A reader that stops reading is cut off by the
server some time, and resumes when it reads on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NoReturn, Self, final

import anyio
import msgspec

from agentstream.client._http import Body, Door, Dropped, Refused
from agentstream.client._retry import Phase, Status
from agentstream.errors import (
    AgentStreamError,
    InvalidCursor,
    InvalidInput,
    RunGone,
    RunLost,
    RunUnknown,
    UsageError,
    WireError,
)
from agentstream.events import AnyEvent, Reset, UpToDate, is_terminal
from agentstream.ids import Cursor
from agentstream.wire import Decoder, Message, decode_sent

__all__ = ("RemoteEvents", "lost")

_TAIL: Final = "tail"
_STEADY_S: Final = 15.0
"""A connection that lived for so long was a good one, even if its run said nothing (a heartbeat came)."""


class _Received(msgspec.Struct, frozen=True, gc=False):
    """One frame that was accepted; `event` is None where it only moves the position."""

    at: Cursor
    line: bytes
    event: AnyEvent | Reset | None


@final
class RemoteEvents:
    """Iterate over a run's events: `async with run.events() as events: async for event in events`.

    Made by `RemoteRun.events`. The iteration ends after the run's terminal event, and only then. It resumes by itself;
    what was missed meanwhile comes first. One task reads at a time.

    Attributes:
        status: how the connection stands; for people who wait.
        line: the JSON of the event handed out last, byte by byte as the log holds it (where nothing was coalesced).

    Raises:
        InvalidCursor, InvalidInput: on entering; `after` or a filter does not fit.
        RunLost: the run is not there (any more).
        ServerUnreachable: no usable answer for `Retry.give_up` seconds; a new subscription may go on at `cursor`.
        WireError: the server breaks the rules of the wire.
    """

    def __init__(
        self, door: Door, run: str, *, after: str | None, agents: Sequence[str], types: Sequence[str], coalesce: bool
    ) -> None:
        self.status = Status()
        self.line = b""
        self._door = door
        self._run = run
        self._after = after or ""
        self._query = _query(agents, types, coalesce=coalesce)
        self._decoder = Decoder()
        self._outage = door.outage()
        self._body: Body | None = None
        self._opened: float | None = None  # when the connection that is open, or was the last, gave its first answer
        self._resumes = -1
        self._ready: deque[_Received] = deque()
        self._last: Cursor | None = None  # the position received; `cursor` is the one handed out
        self._cursor = "" if after == _TAIL else self._after
        self._ended = False
        self._guard = anyio.ResourceGuard("iterating over")

    @property
    def cursor(self) -> str:
        """Where another subscription goes on: behind everything that was handed out so far. Empty: from the start."""
        return self._cursor

    async def __aenter__(self) -> Self:
        if self._after and self._after != _TAIL:
            self._last = Cursor.parse(self._after)
        with self._guard:
            await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave. The cursor stays valid."""
        self._ended = True
        self._ready.clear()
        await self._disconnect()
        self._show("closed")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyEvent | Reset:
        while True:
            while not self._ready:
                if self._ended:
                    raise StopAsyncIteration
                with self._guard:
                    await self._receive()
            received = self._ready.popleft()
            self._cursor = str(received.at)
            if received.event is not None:
                self.line = received.line
                return received.event

    # --- the connection -----------------------------------------------------------------------------------------------
    async def _receive(self) -> None:
        """Take the next bytes, or come back where the connection ended."""
        if self._body is None:
            await self._connect()
            return
        try:
            data = await self._body.next(self._door.retry.silence)
            if data is None:
                raise Dropped("the stream ended before the run did")
        except Dropped as failure:
            await self._disconnect()
            await self._wait(failure)
            return
        for message in self._decoder.feed(data):
            self._take(message)
        if self._ended:
            await self._disconnect()
            self._show("closed")

    async def _connect(self) -> None:
        """Try until a stream is open, or the server says that nothing is left to send."""
        while True:
            self._show("connecting", reason=self.status.reason)
            try:
                self._body = await self._open()
            except Refused as refusal:
                raise lost(self._run, refusal) from None
            except Dropped as failure:
                await self._wait(failure)
                continue
            self._opened = anyio.current_time()
            self._resumes += 1
            self._ended = self._body is None
            self._show("closed" if self._ended else "live")
            return

    async def _open(self) -> Body | None:
        """One try; None where the run has ended and everything was received."""
        headers = {"accept": "text/event-stream", "cache-control": "no-cache"}
        query = self._query
        if self._last is not None:
            headers["last-event-id"] = str(self._last)
        elif self._after:
            query = [*query, ("after", self._after)]
        body = await self._door.open("GET", f"/runs/{self._run}/events", query=query, headers=headers)
        if body.status == 204:
            await body.aclose()
            return None
        kind = body.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body.status != 200 or kind != "text/event-stream":
            await body.aclose()
            raise WireError(f"{self._door.base} answered {body.status} {kind or 'without a type'}, not an event stream")
        self._decoder.reset()
        return body

    async def _disconnect(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def _wait(self, failure: Dropped) -> None:
        """Wait before the next try.

        Raises:
            ServerUnreachable: it has been long enough.
        """
        now = anyio.current_time()
        if self._opened is not None and now - self._opened >= _STEADY_S:
            self._outage.over()
        self._opened = None
        retry_ms = self._decoder.retry_ms
        base = None if retry_ms is None else retry_ms / 1000
        wait = self._outage.failed(now, base=base, at_least=failure.at_least)
        if wait is None:
            self._ended = True
            raise self._door.unreachable(failure) from failure.error
        self._show("waiting", reason=failure.reason, wait=wait)
        await anyio.sleep(wait)

    def _show(self, phase: Phase, *, reason: str = "", wait: float = 0.0) -> None:
        self.status = Status(phase, self._outage.failures, max(0, self._resumes), reason, wait)

    # --- what comes ---------------------------------------------------------------------------------------------------
    def _take(self, message: Message) -> None:
        """Accept a frame, or drop it because it was received before."""
        if self._ended or message.event != "message":
            return
        at = self._position(message.id)
        sent = decode_sent(message.data)
        last = self._last
        if isinstance(sent, Reset):
            self._accept(_Received(at, message.data, sent))
            return
        if last is not None and at.incarnation != last.incarnation:
            self._broken("another log begins without a reset")
        if last is not None and at <= last:
            return
        if isinstance(sent, UpToDate):
            self._accept(_Received(at, message.data, None))
            return
        if last is not None and 0 < sent.first_seq <= last.seq:
            self._broken(f"event {at.seq} repeats events that were sent before")
        self._accept(_Received(at, message.data, sent))
        self._ended = is_terminal(sent)

    def _accept(self, received: _Received) -> None:
        self._last = received.at
        self._ready.append(received)
        self._outage.over()

    def _position(self, id_: str) -> Cursor:
        try:
            at = Cursor.parse(id_)
        except InvalidCursor:
            at = None
        if at is None or at.run != self._run:
            self._broken("a frame has no id of this run")
        return at

    def _broken(self, what: str) -> NoReturn:
        raise WireError(f"the stream of run {self._run} breaks the rules of the wire: {what}")


def lost(run: str, refusal: Refused) -> AgentStreamError:
    """What a refusal means to somebody who holds a run: that there is none is `RunLost` (P6), the rest is itself."""
    says_what = "code" in refusal.error.details or type(refusal.error) not in (UsageError, RunUnknown, RunGone)
    if refusal.status in (404, 410) and not says_what:
        gone = "was deleted" if refusal.status == 410 else "is not there (any more)"
        return RunLost(f"run {run} {gone}: {refusal.error.detail}", details={"status": refusal.status})
    return refusal.error


def _query(agents: Sequence[str], types: Sequence[str], *, coalesce: bool) -> list[tuple[str, str]]:
    query: list[tuple[str, str]] = []
    for name, patterns in (("agents", agents), ("types", types)):
        if isinstance(patterns, str):
            raise InvalidInput(f"{name} is a sequence of patterns, not one text: write {name}=({patterns[:64]!r},)")
        query += [(name, pattern) for pattern in patterns]
    return query if coalesce else [*query, ("coalesce", "0")]
