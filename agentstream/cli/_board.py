"""What a run looks like to a person: a fold of events into items to print and lanes to watch.

What comes in: events, in order. What goes out: `Item`s, each once, when it is complete enough to stand for good; and at
any moment the plan and a `Lane` for each invocation that works. It does not know terminals, colours, files or time.

All text in items and lanes is safe for a terminal (`_safe`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from agentstream import events as ev
from agentstream.cli._safe import one_line, safe

__all__ = ("Board", "Item", "Kind", "Lane", "answer_of", "rows_of")

Kind: TypeAlias = Literal[
    "start", "plan", "step", "text", "thinking", "code", "call", "output", "errors", "table", "file", "verdict",
    "notice", "failure", "end",
]  # fmt: skip

_MOST_KEPT: Final = 200_000
"""Characters of one block that are kept to be printed as a whole; the rest of a longer one is not shown."""

_TAIL: Final = 4_000
_CODE_KEYS: Final = ("code", "source", "script", "program", "python", "sql", "command", "query")
_ANSWER_KEYS: Final = ("reply", "answer", "text", "summary", "message", "result", "output")
_MOST_ANSWER: Final = 20_000
_WATCHED_ROLES: Final = frozenset({"structured", "response"})
"""Blocks that are not printed: JSON that a model writes for its program, and the answer, which comes at the end."""


class Item(msgspec.Struct, frozen=True):
    """Something to print.

    Attributes:
        kind: what it is. agent, inv: whose it is; empty where it is the run's.
        text: what to print; of `table` CSV, of `code` source, of `file` the artifact's name.
        title: of `code` and `call` the tool's name, of `step` and `verdict` the step's title.
        ok: how it went, where that is a question.
        artifact: of `file` and `table`, the event.
        steps: of `plan`.
    """

    kind: Kind
    text: str = ""
    agent: str = ""
    inv: str = ""
    title: str = ""
    ok: bool = True
    artifact: ev.ArtifactCreated | None = None
    steps: tuple[ev.PlanItem, ...] = ()


class Lane(msgspec.Struct):
    """One invocation at work. `doing` says what it does or waits for, `tail` is the end of what it writes now."""

    inv: str
    agent: str
    role: str = ""
    parent: str = ""
    doing: str = ""
    tail: str = ""
    is_code: bool = False
    shown: bool = False


class _Block(msgspec.Struct):
    kind: Kind
    inv: str
    agent: str
    role: str = ""
    name: str = ""
    text: str = ""
    output: str = ""
    errors: str = ""
    made_table: bool = False
    shown_code: bool = False


class Board:
    """Takes events one after the other.

    Args:
        by_line: give text out line by line as it comes, for output that nobody redraws; else block by block.

    Attributes:
        team, run, question: of the run. plan: the newest. lanes: invocations at work, by id.
        events: how many the run has so far. verdicts: accepted and all. terminal: the run's last event.
        held: the entry agent's last words: where they are the answer, they are printed at the end and not before.
    """

    def __init__(self, *, by_line: bool = False) -> None:
        self.team = ""
        self.run = ""
        self.question = ""
        self.plan: tuple[ev.PlanItem, ...] = ()
        self.lanes: dict[str, Lane] = {}
        self.events = 0
        self.tokens = ev.Usage()
        self.verdicts = [0, 0]
        self.terminal: ev.RunFinished | ev.RunFailed | ev.RunStopped | None = None
        self._by_line = by_line
        self._blocks: dict[str, _Block] = {}
        self._entry = ""
        self.held: Item | None = None

    def take(self, event: ev.AnyEvent | ev.Reset) -> list[Item]:
        """The items that this event completes."""
        if isinstance(event, ev.Reset):
            self._blocks.clear()
            self.lanes.clear()
            return [Item("notice", f"the position was lost ({safe(event.reason)}); from event {event.first} on again")]
        self.events = event.seq
        if isinstance(event, ev.UnknownEvent):
            return []
        held, self.held = self.held, None
        items = list(self._of_agent(event) if event.inv else self._of_run(event))
        if held is not None and not items and self.held is None:
            self.held = held
        elif held is not None and (self.terminal is None or held.text != _answered(self.terminal)):
            items.insert(0, held)
        return items

    def let_go(self) -> list[Item]:
        """What was held back, because nothing has followed it for a while."""
        held, self.held = self.held, None
        return [] if held is None else [held]

    def _hold(self, items: Iterator[Item]) -> Iterator[Item]:
        """Hold back the entry agent's last words until something follows: often they are the answer."""
        for item in items:
            if item.kind == "text" and item.inv == self._entry:
                self.held = item
            else:
                yield item

    # --- the run ------------------------------------------------------------------------------------------------------
    def _of_run(self, event: ev.Event) -> Iterator[Item]:
        match event:
            case ev.RunStarted():
                self.team, self.run = safe(event.team), event.run
                self.question = event.input if isinstance(event.input, str) else _json(event.input)
                self.question = safe(self.question)
                yield Item("start", self.question, title=self.team)
            case ev.RunWaiting():
                place = f", {event.position} before it" if event.position else ""
                yield Item("notice", f"waiting for {one_line(event.on)}{place}")
            case ev.RunAttempt():
                yield Item("notice", f"attempt {event.attempt}: {one_line(event.reason)}")
            case ev.RunFinished() | ev.RunFailed() | ev.RunStopped():
                yield from self._rest()
                self.lanes.clear()
                self.terminal = event
                yield Item("end")
            case ev.AttemptSuperseded():
                yield Item("notice", f"attempt {event.attempt} of {one_line(event.of)} does not count; another follows")
            case _:
                pass

    def _rest(self) -> Iterator[Item]:
        """What was still open: on a stopped run it is all there is."""
        for id_ in list(self._blocks):
            block = self._blocks.pop(id_)
            block.role = ""
            yield from self._whole(block)

    # --- agents -------------------------------------------------------------------------------------------------------
    def _of_agent(self, event: ev.Event) -> Iterator[Item]:
        lane = self.lanes.get(event.inv)
        match event:
            case ev.AgentStarted():
                self._entry = self._entry or event.inv
                self.lanes[event.inv] = Lane(event.inv, event.agent, event.role, event.parent, doing="starting")
            case ev.AgentFinished():
                self.lanes.pop(event.inv, None)
            case ev.AgentFailed(code="stopped"):  # how the run ends says it once for all
                self.lanes.pop(event.inv, None)
            case ev.AgentFailed():
                self.lanes.pop(event.inv, None)
                yield _item(event, "failure", f"{safe(event.code)}: {safe(event.message)}".rstrip(": "), ok=False)
            case ev.AgentWaiting():
                _show(lane, _WAITS.get(event.on, f"waiting for {one_line(event.on, 20)}"))
            case ev.AgentProgress():
                _show(lane, _progress(event.message, event.done, event.total))
            case ev.PlanUpdated() | ev.StepStarted() | ev.StepFailed() | ev.VerdictGiven():
                yield from self._stepped(event, lane)
            case ev.ArtifactCreated():
                yield from self._made(event)
            case _:
                yield from self._written(event, lane)

    def _stepped(self, event: ev.Event, lane: Lane | None) -> Iterator[Item]:
        match event:
            case ev.PlanUpdated():
                yield from self._planned(event)
            case ev.StepStarted():
                _show(lane, one_line(event.name, 40))
            case ev.StepFailed():
                yield _item(event, "failure", f"step failed: {safe(event.message) or safe(event.code)}", ok=False)
            case ev.VerdictGiven():
                self.verdicts[0] += event.ok
                self.verdicts[1] += 1
                title = next((step.title for step in self.plan if step.id == event.step), event.step)
                yield _item(event, "verdict", safe(event.feedback), title=one_line(title), ok=event.ok)
            case _:
                pass

    def _planned(self, event: ev.PlanUpdated) -> Iterator[Item]:
        steps = tuple(msgspec.structs.replace(step, title=one_line(step.title)) for step in event.steps)
        before, self.plan = {step.id: step for step in self.plan}, steps
        if not steps:
            return
        if set(before) != {step.id for step in steps}:
            yield _item(event, "plan", steps=steps)
            return
        for step in steps:
            if step.status != before[step.id].status and step.status in ("done", "failed", "skipped"):
                yield _item(event, "step", step.status, title=step.title, ok=step.status == "done")

    def _made(self, event: ev.ArtifactCreated) -> Iterator[Item]:
        if event.mime == "text/csv" and event.data:
            for block in self._blocks.values():
                if block.kind == "code" and block.inv == event.inv:
                    block.made_table = True
                    yield from self._code(block)
            yield _item(event, "table", event.data, title=one_line(event.name), artifact=event)
        else:
            yield _item(event, "file", one_line(event.name), artifact=event)

    # --- what agents write --------------------------------------------------------------------------------------------
    def _written(self, event: ev.Event, lane: Lane | None) -> Iterator[Item]:
        match event:
            case ev.TextStarted(block=id_):
                self._blocks[id_] = _Block("text", event.inv, event.agent, role=event.role)
                _show(lane, "writing")
            case ev.ThinkingStarted(block=id_):
                self._blocks[id_] = _Block("thinking", event.inv, event.agent)
                _show(lane, "thinking")
            case ev.TextDelta(block=id_, text=text) | ev.ThinkingDelta(block=id_, text=text):
                if (block := self._blocks.get(id_)) is not None:
                    _grow(block, text, lane)
                    yield from self._lines(block)
            case ev.TextFinished(block=id_) | ev.ThinkingFinished(block=id_):
                if (block := self._blocks.pop(id_, None)) is not None:
                    _show(lane, "")
                    yield from self._hold(self._whole(block))
            case ev.LLMTryFailed():
                self._blocks.pop(event.block, None)
                yield _item(event, "notice", f"try {event.try_} of the model failed: {one_line(event.reason)}")
            case _:
                yield from self._called(event, lane)

    def _called(self, event: ev.Event, lane: Lane | None) -> Iterator[Item]:
        match event:
            case ev.ToolStarted(call=id_):
                self._blocks[id_] = _Block("code", event.inv, event.agent, name=one_line(event.name, 40))
                _show(lane, f"writing for {one_line(event.name, 40)}", is_code=True)
            case ev.ToolDelta(call=id_):
                if (block := self._blocks.get(id_)) is not None:
                    _grow(block, event.text, lane)
            case ev.ToolCalled(call=id_):
                if (block := self._blocks.get(id_)) is not None:
                    block.kind, block.text = _code_of(event.arguments)
                    _show(lane, f"running {block.name}")
                    yield from self._code(block)
            case _:
                yield from self._came_back(event, lane)

    def _came_back(self, event: ev.Event, lane: Lane | None) -> Iterator[Item]:
        match event:
            case ev.ToolProgress():
                _show(lane, _progress(event.message, event.done, event.total))
            case ev.ToolOutput(call=id_):
                if (block := self._blocks.get(id_)) is not None:
                    _put_out(block, event)
                    if lane is not None:
                        lane.tail = (lane.tail + safe(event.text))[-_TAIL:]
            case ev.ToolFinished(call=id_) | ev.ToolFailed(call=id_) | ev.ToolDenied(call=id_):
                _show(lane, "")
                if (block := self._blocks.pop(id_, None)) is not None:
                    yield from self._ended(block, event)
            case _:
                pass

    def _ended(self, block: _Block, event: ev.Event) -> Iterator[Item]:
        yield from self._whole(block)
        match event:
            case ev.ToolFinished(result=result):
                if result is not None and not (block.output or block.made_table) and block.kind == "call":
                    yield _item(event, "output", one_line(result if isinstance(result, str) else _json(result), 400))
            case ev.ToolFailed():
                yield _item(event, "failure", f"{block.name}: {safe(event.message) or safe(event.code)}", ok=False)
            case ev.ToolDenied():
                yield _item(event, "failure", f"{block.name} was not allowed: {safe(event.reason)}", ok=False)
            case _:
                pass

    def _code(self, block: _Block) -> Iterator[Item]:
        """The call itself, once, as soon as its arguments are complete."""
        if not block.shown_code:
            block.shown_code = True
            yield Item(block.kind, safe(block.text).strip("\n"), block.agent, block.inv, block.name)

    def _lines(self, block: _Block) -> Iterator[Item]:
        if self._by_line and block.role not in _WATCHED_ROLES and "\n" in block.text:
            text, _, block.text = block.text.rpartition("\n")
            yield Item(block.kind, safe(text), block.agent, block.inv)

    def _whole(self, block: _Block) -> Iterator[Item]:
        if block.kind in ("code", "call"):
            if block.text:
                yield from self._code(block)
            if block.output.strip() and not (block.made_table and not self._by_line):
                yield Item("output", safe(block.output).strip("\n"), block.agent, block.inv)
            if block.errors.strip():
                yield Item("errors", safe(block.errors).strip("\n"), block.agent, block.inv, ok=False)
        elif block.role not in _WATCHED_ROLES and block.text.strip():
            yield Item(block.kind, safe(block.text).strip("\n"), block.agent, block.inv)


_WAITS: Final[Mapping[str, str]] = {
    "llm": "waiting for the model",
    "tool": "waiting for a tool",
    "human": "waiting for a person",
    "slot": "waiting for a place",
    "agent": "waiting for an agent",
}


def answer_of(output: ev.Json) -> str:
    """What a run's output says, for people: its text, or the JSON that it is."""
    if isinstance(output, dict):
        fields = cast("dict[str, ev.Json]", output)
        output = next((fields[key] for key in _ANSWER_KEYS if isinstance(fields.get(key), str)), fields)
    text = output if isinstance(output, str) else _json(output, indent=2)
    return safe(text[:_MOST_ANSWER]).strip()


def _answered(terminal: ev.RunFinished | ev.RunFailed | ev.RunStopped) -> str:
    return answer_of(terminal.output) if isinstance(terminal, ev.RunFinished) else ""


def rows_of(text: str, most: int) -> tuple[list[list[str]], int]:
    """The first rows of a CSV text, header included, and how many there are."""
    try:
        rows = [[one_line(cell, 60) for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error:  # a field above its limit, or a NUL: it is said to be there, and not shown
        return [], 0
    return rows[:most], len(rows)


def _item(event: ev.Event, kind: Kind, text: str = "", **more: Any) -> Item:  # Any: fields of Item of all types
    return Item(kind, text, event.agent, event.inv, **more)


def _show(lane: Lane | None, doing: str, *, is_code: bool = False) -> None:
    if lane is not None:
        lane.doing, lane.tail, lane.is_code = doing, "", is_code
        lane.shown = True


def _grow(block: _Block, text: str, lane: Lane | None) -> None:
    if len(block.text) < _MOST_KEPT:
        block.text += text
    if lane is not None:
        lane.tail = (lane.tail + safe(text))[-_TAIL:]


def _put_out(block: _Block, event: ev.ToolOutput) -> None:
    if event.channel == "stderr":
        block.errors = (block.errors + event.text)[:_MOST_KEPT]
    else:
        block.output = (block.output + event.text)[:_MOST_KEPT]


def _code_of(arguments: ev.Json) -> tuple[Kind, str]:
    """The program in a call's arguments, or the arguments themselves."""
    if isinstance(arguments, dict):
        fields = cast("dict[str, ev.Json]", arguments)
        for key in _CODE_KEYS:
            if isinstance(text := fields.get(key), str) and "\n" in text:
                return "code", text
        return "call", ", ".join(f"{key}={_short(value)}" for key, value in fields.items())
    return "call", _short(arguments)


def _short(value: ev.Json) -> str:
    return one_line(_json(value), 80)


def _json(value: ev.Json, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _progress(message: str, done: float | None, total: float | None) -> str:
    parts = [one_line(message, 60)]
    if done is not None:
        parts.append(f"{done:g} of {total:g}" if total is not None else f"{done:g}")
    return " · ".join(filter(None, parts))
