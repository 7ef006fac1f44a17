"""What a log has open at its end.

What comes in: the events of a log, one after the other. What goes out: the invocations, blocks, calls and steps that
were opened and not closed, and what closes each. It does not know why the log ends there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from agentstream.events import (
    AgentFailed,
    AgentFinished,
    AgentStarted,
    AnyEvent,
    Event,
    StepFailed,
    StepFinished,
    StepStarted,
    TextFinished,
    TextStarted,
    ThinkingFinished,
    ThinkingStarted,
    ToolDenied,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)

__all__ = ("Open",)

_Closing: TypeAlias = type[TextFinished | ThinkingFinished | ToolFailed | StepFailed]


class Open:
    """What is open at a log's end: invocations, with their last number, and what each of them opened and did not
    close."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.invocations: dict[str, str] = {}  # inv → agent
        self.things: dict[str, dict[str, _Closing]] = {}  # inv → id → what closes it

    @property
    def count(self) -> int:
        """How many events close all of it."""
        return len(self.invocations) + sum(map(len, self.things.values()))

    def see(self, event: AnyEvent) -> None:  # noqa: C901  (a table: one short case a kind of event)
        """Take the next event of the log."""
        if event.inv:
            self.numbers[event.inv] = max(self.numbers.get(event.inv, 0), event.agent_seq)
        things = self.things.setdefault(event.inv, {})
        match event:
            case AgentStarted():
                self.invocations[event.inv] = event.agent
            case AgentFinished() | AgentFailed():
                self.invocations.pop(event.inv, None)
                self.things.pop(event.inv, None)
            case TextStarted(block=id_):
                things[id_] = TextFinished
            case ThinkingStarted(block=id_):
                things[id_] = ThinkingFinished
            case ToolStarted(call=id_):
                things[id_] = ToolFailed
            case StepStarted(step=id_):
                things[id_] = StepFailed
            case TextFinished(block=id_) | ThinkingFinished(block=id_):
                things.pop(id_, None)
            case ToolFinished(call=id_) | ToolFailed(call=id_) | ToolDenied(call=id_):
                things.pop(id_, None)
            case StepFinished(step=id_) | StepFailed(step=id_):
                things.pop(id_, None)
            case _:
                pass

    def closing(self, code: str, message: str) -> Iterator[tuple[str, str, list[Event]]]:
        """What closes all of it, innermost first: each invocation with its agent and its events."""
        for inv, agent in reversed(self.invocations.items()):
            events: list[Event] = []
            for id_, closing in reversed(self.things.get(inv, {}).items()):
                if issubclass(closing, ToolFailed | StepFailed):
                    events.append(closing(id_, code=code, message=message))
                else:
                    events.append(closing(id_))
            yield inv, agent, [*events, AgentFailed(code, message)]
