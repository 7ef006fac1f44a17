"""Events as one JSON document, for clients that cannot hold a stream open.

What comes in: a reader and what the request asked for. What goes out: the document `{events, cursor, done, reset?}`. It
does not know HTTP beyond `receive`; `cursor` is the last position scanned, so a poll that shows nothing still moves on.
"""

from __future__ import annotations

from typing import Final

import anyio

from agentstream import wire
from agentstream.answer.asgi import Receive
from agentstream.answer.drain import DrainSwitch
from agentstream.answer.request import Asked
from agentstream.events import Reset
from agentstream.ids import Cursor
from agentstream.stream import LogReader, Page, Start

__all__ = ("MOST_POLLED_BYTES", "Poll")

MOST_POLLED_BYTES: Final = 1 << 20
"""Most bytes of events in one document, unless a single event is longer."""


class Poll:
    """Collects the events of one poll. Used once.

    Args:
        reader, start: where it begins, as `open_reader` gave them.
        asked: view, limit and wait.
    """

    def __init__(self, reader: LogReader, start: Start, asked: Asked) -> None:
        self._reader = reader
        self._asked = asked
        self._known = start.last
        self._lines: list[bytes] = []
        self._size = 0
        self._reset = start.reset
        self._done = start.done
        self._full = False
        self._at = Cursor(reader.run, start.incarnation, start.after)

    async def collect(self, receive: Receive, drain: DrainSwitch) -> bytes | None:
        """The document: what is there; if that is nothing, what comes within `wait` seconds. None if the client left.

        Raises:
            RunGone, RunUnknown, StoreDown: as the store says.
        """
        while self._goes_on() and self._reader.after < self._known:
            await self._read()
        if self._goes_on() and not self._lines and self._asked.wait and not await self._wait(receive, drain):
            return None
        return self._document()

    def _goes_on(self) -> bool:
        return not (self._done or self._full)

    async def _read(self) -> None:
        page = await self._reader.next()
        if page is None:
            self._done = True
        elif isinstance(page, Reset):
            if self._lines:
                # What was collected belongs to the log as it was; the next poll is told.
                self._full = True
                return
            self._reset, self._known = page, page.tail
            self._at = Cursor(self._reader.run, self._reader.incarnation, self._reader.after)
        else:
            self._take(page)

    def _take(self, page: Page) -> None:
        for seq, line in self._asked.view.rows(page):
            size = self._size + len(line)
            if len(self._lines) == self._asked.limit or (self._lines and size > MOST_POLLED_BYTES):
                self._full = True
                return
            self._lines.append(line)
            self._size = size
            self._move(seq)
        self._move(page.last)
        self._done = bool(page.ends)

    def _move(self, seq: int) -> None:
        self._at = Cursor(self._at.run, self._at.incarnation, seq)

    async def _wait(self, receive: Receive, drain: DrainSwitch) -> bool:
        """Read until there is something to show, time is up, or the process drains. False if the client left."""
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                await anyio.lowlevel.checkpoint()
            gone = True
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            with anyio.move_on_after(self._asked.wait) as scope:
                leave = drain.listen(scope.cancel)
                try:
                    while self._goes_on() and not self._lines:
                        await self._read()
                finally:
                    leave()
            group.cancel_scope.cancel()
        return not gone

    def _document(self) -> bytes:
        reset = b"" if self._reset is None else b',"reset":' + wire.encode_event(self._reset)
        done = b"true" if self._done else b"false"
        cursor = str(self._at).encode("ascii")
        return b'{"events":[%b],"cursor":"%b","done":%b%b}' % (b",".join(self._lines), cursor, done, reset)
