"""Emitting from worker threads.

What comes in: the emitter's verbs, called on any thread but the loop's. What goes out: drafts, left with the source;
each verb returns when the bus has taken its event. It does not number anything: `agent_seq` is given on the loop's
thread only (two threads appending to a list that is being swapped lose events: measured).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentstream.bus.encode import MAX_TEXT_CHARS, encode_event, plain_text
from agentstream.bus.source import Draft, Source
from agentstream.errors import EmitAfterEnd
from agentstream.events import (
    AgentProgress,
    Custom,
    Event,
    TextDelta,
    TextFinished,
    TextStarted,
    ThinkingDelta,
    ThinkingFinished,
    ThinkingStarted,
)

if TYPE_CHECKING:
    from agentstream.bus.emitter import _Form

__all__ = ("BlockingBlock", "BlockingEmitter")


class BlockingEmitter:
    """The verbs of an emitter for worker threads. Made by `Emitter.blocking()`; any number of threads may share it.

    Bounds: a call returns when the bus has taken the event, or raises `EmitAfterEnd` when the invocation ends first.
    Calling it on the loop's own thread would wait for itself: `RuntimeError`.
    """

    def __init__(
        self,
        source: Source,
        form: Callable[[type[Event]], _Form],
        new_id: Callable[[], str],
        track: Callable[[Event], None],
    ) -> None:
        self._source = source
        self._form = form
        self._new_id = new_id
        self._track = track
        self._forms: dict[type[Event], _Form] = {}

    def emit(self, event: Event) -> None:
        """Emit any event that is not the runtime's own.

        Raises:
            EmitAfterEnd, EventTooLarge, NotSerializable, InvalidInput: as `Emitter.emit`.
        """
        if threading.get_ident() == self._source.loop_thread:
            raise RuntimeError("`blocking()` is for worker threads; on the loop's thread use `await emitter.emit(…)`")
        form = self._forms.get(type(event))
        if form is None:
            form = self._forms[type(event)] = self._form(type(event))
        taken = threading.Event()
        # What opens and closes is tracked on the loop's thread, where the invocation's end looks at it.
        hook = partial(self._track, event) if form.tracked else None
        draft = Draft(form.line, encode_event(event)[form.cut :], taken.set, hook=hook)
        self._source.hand_over(draft)
        taken.wait()  # bounded: a drain, or the end of the invocation, sets it
        if draft.error is not None:
            raise draft.error.with_traceback(None)

    def say(self, text: str) -> None:
        """Emit `text` as one whole block."""
        with self.text() as block:
            block.write(text)

    def think(self, text: str) -> None:
        """Emit `text` as one block of reasoning."""
        with self.thinking() as block:
            block.write(text)

    def text(self, *, role: str = "assistant") -> BlockingBlock:
        """A block of text to write into."""
        id_ = self._new_id()
        return BlockingBlock(self, TextStarted(id_, role=role), TextFinished(id_), TextDelta)

    def thinking(self) -> BlockingBlock:
        """A block of reasoning to write into."""
        id_ = self._new_id()
        return BlockingBlock(self, ThinkingStarted(id_), ThinkingFinished(id_), ThinkingDelta)

    def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        """Say how far the work is."""
        self.emit(AgentProgress(message, done=done, total=total))

    def custom(self, name: str, value: object) -> None:
        """Emit an event of your own."""
        self.emit(Custom(name, value=value))


class BlockingBlock:
    """A block of text or reasoning, written from a thread."""

    def __init__(
        self,
        emitter: BlockingEmitter,
        opens: Event,
        closes: TextFinished | ThinkingFinished,
        delta: type[TextDelta | ThinkingDelta],
    ) -> None:
        self.id = closes.block
        self._emitter = emitter
        self._opens = opens
        self._closes = closes
        self._delta = delta
        self._is_open = False

    def write(self, text: str) -> None:
        """Emit more text; an empty one emits nothing.

        Raises:
            EmitAfterEnd: the block, invocation or run has ended. NotSerializable: it is no text.
        """
        if not self._is_open:
            raise EmitAfterEnd("this block is not open: write inside `with emitter.text() as block`")
        text = plain_text(text)
        for start in range(0, len(text), MAX_TEXT_CHARS):
            self._emitter.emit(self._delta(self.id, text[start : start + MAX_TEXT_CHARS]))

    def __enter__(self) -> Self:
        self._emitter.emit(self._opens)
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        try:
            self._emitter.emit(self._closes)
        except EmitAfterEnd:
            # The end of the invocation has closed it; a failure inside the block says more than this one.
            if error is None:
                raise
