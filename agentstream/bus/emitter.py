"""The emitter: the one vocabulary in which agents and users speak.

What comes in: text, values and events of one invocation. What goes out: encoded bodies, handed to the invocation's
source. It does not know what a run is, who reads, or how an event is kept; artifacts go to a `Keeper` that it is given.

Every verb is `async`; underneath it is a plain call that suspends only when the bus is full. The awaited emit is the
backpressure. An emit that was cancelled while it waited counts if its event had its number already.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, NoReturn, Protocol, Self

import msgspec

from agentstream.bus.artifacts import inline, to_bytes
from agentstream.bus.encode import MAX_TEXT_CHARS, encode_event, encode_fast, encode_text, encode_value, plain_text
from agentstream.bus.source import Source
from agentstream.bus.state import Document, State
from agentstream.bus.threads import BlockingEmitter
from agentstream.errors import EmitAfterEnd, InvalidInput, NotSerializable
from agentstream.events import (
    AgentProgress,
    ArtifactCreated,
    Custom,
    Event,
    StateDelta,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    TextFinished,
    TextStarted,
    ThinkingDelta,
    ThinkingFinished,
    ThinkingStarted,
    ToolDelta,
    ToolDenied,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from agentstream.order import Extra, line_form

__all__ = ("MAX_PRIVATE_BYTES", "Block", "Emitter", "Keeper")

_RESERVED: Final = ("run.", "agent.started", "agent.finished", "agent.failed", "attempt.", "budget.", "input.")
"""Types that only the runtime emits: the order of a run's life is its promise (P7)."""

MAX_PRIVATE_BYTES: Final = 128 * 1024
"""A larger recorded value travels as an artifact (DESIGN §6)."""


class Keeper(Protocol):
    """Keeps the bytes of an artifact; returns its id and the address to fetch it from."""

    async def __call__(self, data: bytes, mime: str, name: str) -> tuple[str, str]:
        """Keep `data`."""
        ...


class _Form(NamedTuple):
    """What one event type costs to emit, worked out once an emitter: the form of its line, and where the payload begins
    in the encoded event."""

    line: bytes
    cut: int
    tracked: bool
    quiet: bool


def _form(type_: type[Event], agent: str, inv: str) -> _Form:
    name = str(type_.__struct_config__.tag)
    return _Form(line_form(name, agent, inv), len(name) + 10, name in _TRACKED, type_ in _QUIET)


class _Forms(dict[type[Event], _Form]):
    """The forms of one emitter, made at first use: a look-up that hits costs half of `get` with a fallback."""

    def __init__(self, agent: str, inv: str) -> None:
        super().__init__()
        self._agent = agent
        self._inv = inv

    def __missing__(self, type_: type[Event]) -> _Form:
        if type_ is Event or not issubclass(type_, Event):
            raise InvalidInput(f"emit takes an event of agentstream.events, not {type_.__name__}")
        name = str(type_.__struct_config__.tag)
        if name.startswith(_RESERVED):
            raise InvalidInput(f"{name} is emitted by the runtime only; use `custom` for events of your own")
        form = self[type_] = _form(type_, self._agent, self._inv)
        return form


class Emitter:
    """Emits the events of one invocation.

    Attributes:
        agent, inv, role: whose events these are.
        state: the run's shared document.
    """

    def __init__(
        self, source: Source, *, agent: str, inv: str, keeper: Keeper, document: Document, role: str = ""
    ) -> None:
        self.agent = agent
        self.inv = inv
        self.role = role
        self._source = source
        self._keeper = keeper
        self._forms = _Forms(agent, inv)
        self._ids = itertools.count(1)  # its `next` is one step for threads too
        self._open: dict[str, Event] = {}  # what must still be closed, by id: the event that closes it
        self.state = State(document, self._put_state)

    # --- the verbs ----------------------------------------------------------------------------------------------------
    async def emit(self, event: Event) -> None:
        """Emit any event that is not the runtime's own; its envelope is filled in here.

        Raises:
            EmitAfterEnd: the invocation or run has ended. EventTooLarge: above 256 KiB.
            NotSerializable: a value that JSON cannot hold. InvalidInput: a type that only the runtime emits.
        """
        line, cut, tracked, quiet = self._forms[type(event)]
        rest = encode_event(event)[cut:]
        if quiet:
            waiting = self._source.put_delta(line, rest)
        elif tracked:
            waiting = self._source.put_with(partial(self._track, event), line, rest)
        else:
            waiting = self._source.put(line, rest)
        if waiting is not None:
            await self._source.wait(waiting)

    async def say(self, text: str) -> None:
        """Emit `text` as one whole block; long text goes out as several deltas."""
        async with self.text() as block:
            await block.write(text)

    async def think(self, text: str) -> None:
        """Emit `text` as one block of reasoning."""
        async with self.thinking() as block:
            await block.write(text)

    def text(self, *, role: str = "assistant") -> Block:
        """A block of text to write into: `async with emitter.text() as block: await block.write(…)`."""
        block = self.new_id()
        return Block(self, TextStarted(block, role=role), TextFinished(block), "text.delta")

    def thinking(self) -> Block:
        """A block of reasoning to write into."""
        block = self.new_id()
        return Block(self, ThinkingStarted(block), ThinkingFinished(block), "thinking.delta")

    async def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        """Say how far the work is."""
        await self.emit(AgentProgress(message, done=done, total=total))

    async def custom(self, name: str, value: object) -> None:
        """Emit an event of your own; `value` may be anything that JSON can hold."""
        await self.emit(Custom(name, value=value))

    async def artifact(self, name: str, data: str | bytes | object, *, mime: str | None = None) -> str:
        """Keep a picture, table, file or piece of code and tell readers about it.

        Args:
            data: bytes, text, or a JSON value. Up to 64 KiB travel inside the event as well.
            mime: guessed from the name and the data where it is not given.

        Returns:
            The artifact's id, a hash of its content.
        """
        raw, mime = to_bytes(name, data, mime)
        id_, uri = await self._keeper(raw, mime, name)
        carried = inline(raw, mime)
        await self.emit(ArtifactCreated(id_, mime, name=name, size=len(raw), data=carried, uri=uri))
        return id_

    def blocking(self) -> BlockingEmitter:
        """The same verbs for worker threads; each waits until the loop has taken the event."""
        return BlockingEmitter(self._source, self._forms.__getitem__, self.new_id, self._track)

    # --- for library code ---------------------------------------------------------------------------------------------
    def new_id(self) -> str:
        """An id that is unique in the run: `executor.2.7`."""
        return f"{self.inv}.{next(self._ids)}"

    async def record(self, event: Event, private: object) -> None:
        """Emit `event` with a recorded value beside it, which only recovery reads; above 128 KiB as an artifact."""
        form = self._forms[type(event)]
        rest = encode_event(event)[form.cut :]
        beside = encode_value(private)
        if len(beside) > MAX_PRIVATE_BYTES:
            id_, uri = await self._keeper(beside, "application/json", "value.json")
            beside = encode_value({"artifact": id_, "uri": uri, "size": len(beside)})
        self._source.weigh(beside)
        extra = Extra(private=beside)
        if form.tracked:
            waiting = self._source.put_with(partial(self._track, event), form.line, rest, extra)
        else:
            waiting = self._source.put(form.line, rest, extra)
        if waiting is not None:
            await self._source.wait(waiting)

    async def flush(self) -> None:
        """Return once the log has accepted everything emitted so far.

        Raises:
            What the append raised.
        """
        await self._source.flush()

    # --- inside -------------------------------------------------------------------------------------------------------
    def put_reserved(self, event: Event, extra: Extra | None = None) -> Awaitable[None] | None:
        """Number and hand in an event that only the runtime emits; returns what to await, if anything."""
        form = _form(type(event), self.agent, self.inv)
        if not self.inv:
            extra = msgspec.structs.replace(extra or Extra(), bare=True)
        return self._source.put(form.line, encode_event(event)[form.cut :], extra)

    def open_reserved(self, id_: str, event: Event, closes: Event) -> Awaitable[None] | None:
        """As `put_reserved`, for what must be closed: `closes` is emitted if the invocation ends before."""
        return self._put_reserved_with(partial(self._open.__setitem__, id_, closes), event)

    def close_reserved(self, id_: str, event: Event, extra: Extra | None = None) -> Awaitable[None] | None:
        """As `put_reserved`, for what closes `id_`."""
        return self._put_reserved_with(partial(self._open.pop, id_, None), event, extra)

    def adopt(self, id_: str, closes: Event) -> None:
        """Close what an earlier attempt opened, if this invocation ends before it does."""
        self._open[id_] = closes

    def _put_reserved_with(
        self, hook: Callable[[], object], event: Event, extra: Extra | None = None
    ) -> Awaitable[None] | None:
        form = _form(type(event), self.agent, self.inv)
        return self._source.put_with(hook, form.line, encode_event(event)[form.cut :], extra)

    async def _put_state(self, ops: tuple[dict[str, object], ...], change: Callable[[], None]) -> None:
        """Change the document when the event gets its number: both then have one order, whoever else changes it."""
        form = self._forms[StateDelta]
        waiting = self._source.put_with(change, form.line, encode_event(StateDelta(ops))[form.cut :])
        if waiting is not None:
            await self._source.wait(waiting)

    def _track(self, event: Event) -> None:
        match event:
            case TextStarted(block=block):
                self._open[block] = TextFinished(block)
            case ThinkingStarted(block=block):
                self._open[block] = ThinkingFinished(block)
            case ToolStarted(call=call):
                self._open[call] = ToolFailed(call, code="stopped", message="the invocation ended before the tool did")
            case StepStarted(step=step):
                self._open[step] = StepFailed(step, code="stopped", message="the invocation ended before the step did")
            case TextFinished(block=id_) | ThinkingFinished(block=id_):
                self._open.pop(id_, None)
            case ToolFinished(call=id_) | ToolFailed(call=id_) | ToolDenied(call=id_):
                self._open.pop(id_, None)
            case StepFinished(step=id_) | StepFailed(step=id_):
                self._open.pop(id_, None)
            case _:
                raise NotSerializable(f"{event.type} opens and closes nothing")

    def end(self) -> None:
        """Let nothing more through: the invocation is over."""
        who = self.inv or "the run"
        self._source.close(EmitAfterEnd(f"{who} has ended: this event was not accepted"))

    def close_open(self) -> None:
        """Close what is open, newest first, without waiting: the invocation is over."""
        for id_ in reversed(list(self._open)):
            self.close_one(id_)

    def close_one(self, id_: str) -> None:
        """Close this block, call or step without waiting, if it is open: who opened it was cancelled."""
        event = self._open.pop(id_, None)
        if event is not None:
            form = _form(type(event), self.agent, self.inv)
            self._source.put_closing(form.line, encode_event(event)[form.cut :])

    def finish(self, event: Event, extra: Extra | None = None) -> Awaitable[None] | None:
        """Close what is open, hand in the event that ends the invocation, and let nothing more through.

        It never waits for a number; returns what to await until the event was taken, if anything.
        """
        form = _form(type(event), self.agent, self.inv)
        try:
            self.close_open()
            return self._source.put_closing(form.line, encode_event(event)[form.cut :], extra)
        finally:
            self.end()


_QUIET: Final = frozenset({TextDelta, ThinkingDelta, ToolDelta})
"""Deltas of blocks: they change no folded state (`ports.Chunk.quiet`)."""

_TRACKED: Final = frozenset(
    str(type_.__struct_config__.tag)
    for type_ in (
        *(TextStarted, TextFinished, ThinkingStarted, ThinkingFinished),
        *(ToolStarted, ToolFinished, ToolFailed, ToolDenied, StepStarted, StepFinished, StepFailed),
    )
)
"""What opens and closes: what is open when an invocation ends is closed for it."""


class Block:
    """A block of text or reasoning. Opens on entering, closes on leaving, also when the body fails or is cancelled.

    Attributes:
        id: the block's id.
    """

    def __init__(self, emitter: Emitter, opens: Event, closes: TextFinished | ThinkingFinished, delta: str) -> None:
        self.id = closes.block
        self._emitter = emitter
        self._source = emitter._source
        self._put: Callable[[bytes, bytes], Awaitable[None] | None] = _not_open
        self._opens = opens
        self._closes = closes
        self._line = line_form(delta, emitter.agent, emitter.inv, b',"block":"%b","text":%%b}' % self.id.encode())
        self._parts: list[str] = []

    @property
    def value(self) -> str:
        """The text so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    async def write(self, text: str) -> None:
        """Emit more text; an empty one emits nothing.

        Raises:
            EmitAfterEnd: the block, invocation or run has ended. NotSerializable: it is no text.
        """
        if type(text) is str and 0 < len(text) <= MAX_TEXT_CHARS:
            try:
                encoded = encode_fast(text)
            except UnicodeEncodeError:
                encoded = encode_text(text)
            waiting = self._put(self._line, encoded)
            self._parts.append(text)
            if waiting is not None:
                await self._source.wait(waiting)
        else:
            text = plain_text(text)
            for start in range(0, len(text), MAX_TEXT_CHARS):
                await self.write(text[start : start + MAX_TEXT_CHARS])

    async def write_all(self, texts: AsyncIterable[str]) -> None:
        """Write every text of an asynchronous iterable."""
        async for text in texts:
            await self.write(text)

    async def __aenter__(self) -> Self:
        try:
            await self._emitter.emit(self._opens)
        except BaseException:
            self._emitter.close_one(self.id)  # cancelled, but numbered: it is open
            raise
        self._put = self._source.put_delta
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put = _not_open
        emitter = self._emitter
        try:
            # Whoever ends the invocation may have closed it already.
            if error is None and self.id in emitter._open:
                await emitter.emit(self._closes)
        finally:
            emitter.close_one(self.id)


def _not_open(_form: bytes, _rest: bytes) -> NoReturn:
    raise EmitAfterEnd("this block is not open: write inside `async with emitter.text() as block`")
