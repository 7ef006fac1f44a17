"""An invocation that writes down what tools and models make it say.

Comes in: what library code emits. Goes out: the events in order, with what was recorded beside them and where the log
was waited for. It deliberately is no bus: what is looked at here is what is emitted, not how it travels.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio.from_thread
import msgspec

from agentstream.agent import Recalled
from agentstream.agent.keys import Keys
from agentstream.agent.tools import Tool
from agentstream.bus import encode_value
from agentstream.errors import ToolDeniedError
from agentstream.events import (
    ArtifactCreated,
    Event,
    StepFailed,
    StepFinished,
    StepStarted,
    TextDelta,
    TextFinished,
    TextStarted,
    ThinkingDelta,
    ThinkingFinished,
    ThinkingStarted,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from agentstream.llm import LLM

__all__ = ["RecordingHost", "Threads"]

S = TypeVar("S")
E = TypeVar("E", bound=Event)


class Threads:
    """The verbs for worker threads."""

    def __init__(self, host: RecordingHost) -> None:
        self._host = host

    def emit(self, event: Event) -> None:
        """Emit on the loop's thread, and wait for it."""
        anyio.from_thread.run(self._host.emit, event)


class _Block(AbstractAsyncContextManager["_Block"]):
    def __init__(
        self, host: RecordingHost, opens: Event, closes: Event, delta: type[TextDelta | ThinkingDelta]
    ) -> None:
        self.id: str = opens.block  # type: ignore[attr-defined]
        self._host, self._opens, self._closes, self._delta = host, opens, closes, delta

    async def __aenter__(self) -> Self:
        await self._host.emit(self._opens)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.events.append(self._closes)

    async def write(self, text: str) -> None:
        """More text."""
        await self._host.emit(self._delta(self.id, text))


class RecordingHost:
    """Everything that tools and generation ask of an invocation, without a run.

    Attributes:
        events: what was emitted. recorded: what was recorded, by place in `events`. accepted: how many events were
            there when the log was last waited for.
    """

    def __init__(self, *models: LLM, tools: Sequence[Tool[..., Any]] = ()) -> None:
        self.events: list[Event] = []
        self.recorded: dict[int, Any] = {}
        self.artifacts: dict[str, Any] = {}
        self.accepted = 0
        self.keys = Keys("root")
        self.agent_tools = tools
        self._models = {model.name: model for model in models}
        self._default = models[0] if models else None
        self._ids = 0

    def model(self, name: str = "") -> LLM:
        """The model of that name, the first without one."""
        found = self._models[name] if name else self._default
        assert found is not None
        return found

    def new_id(self) -> str:
        """Numbers in order."""
        self._ids += 1
        return f"a.1.{self._ids}"

    async def emit(self, event: Event) -> None:
        """Write the event down; it is encoded as the bus would."""
        await anyio.lowlevel.checkpoint()
        msgspec.json.encode(event)
        self.events.append(event)

    async def record(self, event: Event, private: object) -> None:
        """Write the event down with what only recovery reads."""
        self.recorded[len(self.events)] = msgspec.json.decode(encode_value(private))
        await self.emit(event)

    async def allow(self, tool: str, call: str, arguments: object, key: str) -> None:
        """Nobody is there to ask."""
        raise ToolDeniedError(f"the tool {tool} was not allowed to run", details={"by": "nobody", "reason": "alone"})

    async def recall(self, kind: str, key: str, version: str) -> Recalled:
        """Nothing was done before."""
        return Recalled()

    async def flush(self) -> None:
        """Everything so far is accepted."""
        await anyio.lowlevel.checkpoint()
        self.accepted = len(self.events)

    async def artifact(self, name: str, data: object, *, mime: str | None = None) -> str:
        """Keep the data by a number."""
        id_ = f"art-{len(self.artifacts) + 1}"
        self.artifacts[id_] = data
        await self.emit(ArtifactCreated(id_, mime or "", name=name))
        return id_

    def blocking(self) -> Threads:
        """The verbs for worker threads."""
        return Threads(self)

    def text(self, *, role: str = "assistant") -> _Block:
        """A block of text."""
        id_ = self.new_id()
        return _Block(self, TextStarted(id_, role=role), TextFinished(id_), TextDelta)

    def thinking(self) -> _Block:
        """A block of reasoning."""
        id_ = self.new_id()
        return _Block(self, ThinkingStarted(id_), ThinkingFinished(id_), ThinkingDelta)

    async def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[S]],
        *args: object,
        key: str | None = None,
        version: str | None = None,
    ) -> S:
        """A recorded unit."""
        key = key or self.keys.current.next(name, list(args))
        step = self.new_id()
        await self.emit(StepStarted(step, name=name, key=key, version=version or ""))
        await self.flush()
        try:
            with self.keys.within(key):
                result = await fn(*args)
        except Exception:
            await self.emit(StepFailed(step))
            raise
        await self.record(StepFinished(step), result)
        return result

    # --- for asserts --------------------------------------------------------------------------------------------------
    def of(self, type_: type[E]) -> list[E]:
        """The events of one type."""
        return [event for event in self.events if isinstance(event, type_)]

    def outline(self) -> list[str]:
        """The types in order, a run of one type once."""
        types = [event.type for event in self.events]
        return [type_ for number, type_ in enumerate(types) if number == 0 or types[number - 1] != type_]

    def text_of(self, block: str) -> str:
        """The text of one block."""
        deltas = (*self.of(TextDelta), *self.of(ThinkingDelta))
        return "".join(delta.text for delta in deltas if delta.block == block)

    def assert_closed(self, *, but: tuple[type[Event], ...] = ()) -> None:
        """Everything that was opened was closed once, behind its opening; `but` names openings that may be open."""
        opened: dict[str, Event] = {}
        for event in self.events:
            match event:
                case (
                    TextStarted(block=id_) | ThinkingStarted(block=id_) | ToolStarted(call=id_) | StepStarted(step=id_)
                ):
                    assert id_ not in opened
                    opened[id_] = event
                case (
                    TextFinished(block=id_)
                    | ThinkingFinished(block=id_)
                    | ToolFinished(call=id_)
                    | ToolFailed(call=id_)
                ):
                    del opened[id_]
                case StepFinished(step=id_) | StepFailed(step=id_):
                    del opened[id_]
                case _:
                    pass
        assert [event for event in opened.values() if not isinstance(event, but)] == []
