"""A function that emits, as the response of a web handler.

What comes in: a request, and a coroutine function that takes a bus. What goes out: a response that streams what it
emits. It does not know teams or runtimes. The function lives as long as its response; its log is kept for a while
after.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.lowlevel

from agentstream.answer import (
    EventStreamAnswer,
    FrameCache,
    ProblemAnswer,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    as_response,
    read_request,
    send_whole,
)
from agentstream.bus import DEFAULT_CAPACITY
from agentstream.clock import SYSTEM_CLOCK
from agentstream.errors import AgentStreamError, RunGone, RunUnknown, StoreError, StreamAborted
from agentstream.events import RunFinished, RunStopped
from agentstream.ids import Cursor
from agentstream.ports import Store
from agentstream.runtime.bare import Bus
from agentstream.store import open_store

__all__ = ("KEEP_SECONDS", "Produce", "sse")

_log = logging.getLogger("agentstream.runtime")

Produce = Callable[[Bus], Awaitable[None]]

KEEP_SECONDS: Final = 60.0
"""How long the log of an ended response is kept for a client that comes back."""

_MOST_KEPT: Final = 1000
_CLOSING: Final = 10.0


def sse(
    request: Request, produce: Produce, *, capacity: int = DEFAULT_CAPACITY, store: Store | None = None
) -> Response:
    """Stream what `produce` emits: `return sse(request, produce)`.

    A client that lost its connection comes back with `Last-Event-ID` and gets the rest of the log, which is kept for
    60 s after its end; an id of a log that is not kept answers 404. `produce` is never run again for a reconnect. It is
    cancelled when its client goes away; the log then ends in `run.stopped {cause: client_gone}`.

    Args:
        produce: emits, through `bus.emitter(…)`; what it raises ends the stream in `run.failed`.
        capacity: events that may wait between its emitters and the log.
        store: an opened store; the process's memory by default.
    """
    return as_response(_Produced(produce, capacity, store), request)


class _Kept:
    """The logs of ended responses, in the memory of this event loop."""

    def __init__(self) -> None:
        self.store = open_store("memory:")
        self.frames = FrameCache()
        self._ended: dict[str, float] = {}

    async def tidy(self) -> None:
        """Forget what ended long ago, or is beyond the bound."""
        now = SYSTEM_CLOCK.monotonic()
        for run, ended in list(self._ended.items()):
            if now - ended < KEEP_SECONDS and len(self._ended) <= _MOST_KEPT:
                break
            del self._ended[run]
            try:
                await self.store.forget(run)
            except (AgentStreamError, StoreError) as error:
                _log.debug("the log of %s stays: %s", run, error)

    def ended(self, run: str) -> None:
        self._ended[run] = SYSTEM_CLOCK.monotonic()


# One memory a loop: what is kept for reconnects must be found by a later request, whatever app or handler made it.
_kept: anyio.lowlevel.RunVar[_Kept] = anyio.lowlevel.RunVar("agentstream_kept")


async def _this_loops() -> _Kept:
    try:
        return _kept.get()
    except LookupError:
        kept = _Kept()
        await kept.store.__aenter__()  # memory only: nothing is to be released at the loop's end
        _kept.set(kept)
        return kept


class _Produced:
    """The answer: produces and streams, or attaches to what was produced."""

    def __init__(self, produce: Produce, capacity: int, store: Store | None) -> None:
        self._produce = produce
        self._capacity = capacity
        self._given = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = await _this_loops()
        store = self._given or kept.store
        await kept.tidy()
        try:
            asked = read_request(scope)
            if asked.cursor and asked.cursor != "tail":
                run = await _known(store, asked.cursor)
                await EventStreamAnswer(store, run, frames=kept.frames)(scope, receive, send)
                return
            if scope["method"] == "HEAD":  # starts nothing
                await send_whole(scope, send, 200, ((b"content-type", b"text/event-stream"),))
                return
            aborted = await self._stream(store, kept, scope, receive, send)
        except StreamAborted:
            raise
        except AgentStreamError as error:
            await ProblemAnswer(error)(scope, receive, send)
            return
        if aborted is not None:
            raise aborted

    async def _stream(
        self, store: Store, kept: _Kept, scope: Scope, receive: Receive, send: Send
    ) -> StreamAborted | None:
        """Produce beside the answer. A cut stream is returned, not raised: a task group would wrap it."""
        aborted = None
        async with Bus(store=store, capacity=self._capacity) as bus:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._run, bus)
                    try:
                        await EventStreamAnswer(store, bus.run_id, frames=kept.frames)(scope, receive, send)
                    except StreamAborted as error:
                        aborted = error
                    group.cancel_scope.cancel()
            finally:
                with anyio.move_on_after(_CLOSING, shield=True):
                    await bus.end(RunStopped("client_gone", detail="the client closed the connection"))
                kept.ended(bus.run_id)
        return aborted

    async def _run(self, bus: Bus) -> None:
        try:
            await self._produce(bus)
        except Exception as error:  # noqa: BLE001  (the one door where a producer's errors end)
            await bus.fail(error)
        else:
            await bus.end(RunFinished())


async def _known(store: Store, cursor: str) -> str:
    parsed = Cursor.parse(cursor)
    if parsed is not None and await store.row(parsed.run) is not None:
        return parsed.run
    if parsed is not None and await store.gone(parsed.run):
        raise RunGone("this stream has ended and is not kept any more")
    raise RunUnknown("there is no such stream here (any more): start again without Last-Event-ID")
