"""The ledger of a run: what its log says was done, so that nobody does it again.

What comes in: the chunks of a log with what was recorded beside them. What goes out: recorded results by key, what is
open, what a new attempt supersedes, and the shared document without it. It knows neither stores nor agents: it is pure.

A unit (a call, step, tool call or question) is found again by its kind, the key of the invocation that it was made in,
and its own key. Ids of invocations are never compared: parallel agents may come back in another order.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from agentstream.bus import Document, encode_value
from agentstream.errors import AgentStreamError
from agentstream.events import (
    AgentFailed,
    AgentFinished,
    AgentStarted,
    AnyEvent,
    ArtifactCreated,
    AttemptSuperseded,
    BudgetUpdated,
    Event,
    InputReceived,
    InputRequested,
    Json,
    RunAttempt,
    RunWaiting,
    StateDelta,
    StateSnapshot,
    StepFailed,
    StepFinished,
    StepStarted,
    TextStarted,
    ThinkingStarted,
    ToolCalled,
    ToolDenied,
    ToolFailed,
    ToolFinished,
    ToolStarted,
    Usage,
)
from agentstream.ids import agent_of
from agentstream.ports import Chunk
from agentstream.runtime.opened import Open
from agentstream.wire import decode_event

__all__ = ("HANDED_OVER", "WORKER_LOST", "Ledger", "Past", "UnitKind")

_log = logging.getLogger("agentstream.runtime")

WORKER_LOST: Final = "worker_lost"
"""The code of what was closed because the process that worked on it is gone."""

HANDED_OVER: Final = "worker"
"""`run.waiting {on: worker}`: the last word of a writer that shuts down and leaves its run to the next process."""

UnitKind: TypeAlias = Literal["agent", "step", "tool", "ask"]

_GENERATE: Final = "generate"  # the step that `ctx.generate` records; its result says what it used


class Past(msgspec.Struct):
    """What is known of one unit.

    Attributes:
        version: of its code when it was last begun. starts: how often it was begun.
        id: invocation, step, call or question as which it was last begun.
        results: the JSON of each recorded result, oldest first: units that a user gave one key may share this place.
        failure: code and message of a call that failed by itself; empty code: none did.
        usage: tokens that a recorded answer of a model took.
    """

    version: str = ""
    starts: int = 0
    id: str = ""
    results: deque[bytes] = msgspec.field(default_factory=deque)
    failure: tuple[str, str] = ("", "")
    usage: Usage = Usage()


class _Unit(msgspec.Struct):
    """One beginning of a unit. `outer`: the unit, of the same invocation, in which it was begun."""

    past: Past
    outer: _Unit | None = None
    finished: bool = False
    name: str = ""


class _Work(msgspec.Struct):
    """One invocation. `made`: blocks, calls and artifacts, each with the unit in which it was made."""

    past: Past
    key: str
    attempt: int
    running: dict[str, _Unit] = {}
    made: dict[str, _Unit | None] = {}


class _Beside(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct):
    usage: Usage = Usage()


_beside = msgspec.json.Decoder(dict[int, _Beside]).decode
_answer = msgspec.json.Decoder(_Answer)


class Ledger:
    """Folds a log.

    Attributes:
        last: seq of the newest event taken.
        origin: what was recorded beside `run.started`: all that it takes to start the run again; empty if nothing was.
        open: what is open at the end.
        attempt: number of the newest attempt. losses: how many attempts ended because their worker died.
        handed_over: the last writer left the run to the next process of its own accord.
        counts: invocations of each agent's name. usage: of all recorded answers of models.
        budget: what was used and reserved of the run's budget, by name.
    """

    def __init__(self) -> None:
        self.budget: dict[str, float] = {}
        self.last = 0
        self.origin = b""
        self.open = Open()
        self.attempt = 1
        self.losses = 0
        self.handed_over = False
        self.counts: Counter[str] = Counter()
        self.usage = Usage()
        self._past: dict[tuple[UnitKind, str, str], Past] = {}
        self._works: dict[str, _Work] = {}
        self._unmarked: dict[str, None] = {}  # closed by a takeover that did not get to marking them
        self._base: Json = None
        self._ops: list[tuple[str, _Unit | None, tuple[dict[str, Json], ...]]] = []

    # --- folding ------------------------------------------------------------------------------------------------------
    def take(self, chunk: Chunk) -> None:
        """Take the next chunk; one that begins before its place is cut.

        Raises:
            WireError: a line is not an event.
        """
        beside = _beside(chunk.private) if chunk.private else {}
        for seq, line in enumerate(chunk.lines.split(b"\n")[:-1], chunk.first):
            if seq <= self.last:
                continue
            event = decode_event(line)
            record = bytes(beside[seq].value) if seq in beside else b""
            if seq == 1:
                self.origin = record
            elif isinstance(event, Event):
                self._take(event, record)
            self.open.see(event)
            self._see_handover(event)
            self.last = seq

    def _see_handover(self, event: AnyEvent) -> None:
        if not event.inv:
            self.handed_over = isinstance(event, RunWaiting) and event.on == HANDED_OVER

    def _take(self, event: Event, record: bytes) -> None:
        work = self._works.get(event.inv)
        if work is not None:
            self._take_of_agent(work, event, record)
            return
        match event:
            case AgentStarted():
                self._start_agent(event)
            case RunAttempt():
                self.attempt = event.attempt
                self.losses += event.reason == WORKER_LOST
            case BudgetUpdated():
                # What was reserved when its process died may have been spent: it counts.
                self.budget = {of: event.used[of] + event.reserved.get(of, 0.0) for of in event.used}
            case AttemptSuperseded():
                self._unmarked.pop(event.of, None)
            case StateSnapshot():
                self._base = event.state
                self._ops.clear()
            case StateDelta():
                self._ops.append(("", None, event.ops))
            case _:
                pass

    def _start_agent(self, event: AgentStarted) -> None:
        within = self._works[event.parent].key if event.parent in self._works else ""
        past = self._begin("agent", within, event.key, event.version, event.inv)
        self._works[event.inv] = _Work(past, event.key, event.attempt, {}, {})
        number = event.inv.rpartition(".")[2]
        name = agent_of(event.inv)
        self.counts[name] = max(self.counts[name], int(number) if number.isdigit() else 0)

    def _begin(self, kind: UnitKind, within: str, key: str, version: str, id_: str) -> Past:
        past = self._past.setdefault((kind, within, key), Past())
        past.version, past.id = version, id_
        past.starts += 1
        return past

    def _take_of_agent(self, work: _Work, event: Event, record: bytes) -> None:  # noqa: C901, PLR0912  (a table)
        running = work.running
        match event:
            case AgentFinished():
                work.past.results.append(record or encode_value(event.result))
            case AgentFailed(code=code):
                if code == WORKER_LOST:
                    self._unmarked[event.inv] = None
                else:
                    work.past.failure = code, event.message
            case StepStarted():
                past = self._begin("step", work.key, event.key, event.version, event.step)
                running[event.step] = _Unit(past, _innermost(running), name=event.name)
            case StepFinished(step=id_):
                self._finish(running.pop(id_, None), record)
            case StepFailed(step=id_) | ToolFailed(call=id_) | ToolDenied(call=id_):
                running.pop(id_, None)
            case ToolStarted(call=id_):
                work.made[id_] = _innermost(running)
            case ToolCalled(call=id_):
                past = self._begin("tool", work.key, event.key, event.version, id_)
                outer = work.made.get(id_)
                running[id_] = work.made[id_] = _Unit(past, outer)
            case ToolFinished(call=id_):
                self._finish(running.pop(id_, None), record)
            case InputRequested():
                past = self._begin("ask", work.key, event.key, event.version, event.request)
                running[event.request] = _Unit(past, _innermost(running))
            case InputReceived():
                self._finish(running.pop(event.request, None), record or encode_value(event.value))
            case TextStarted(block=id_) | ThinkingStarted(block=id_) | ArtifactCreated(id=id_):
                unit = _innermost(running)
                if not _is_kept(work.made.get(id_)):  # the same artifact may be made twice
                    work.made[id_] = unit
            case StateDelta():
                self._ops.append((event.inv, _innermost(running), event.ops))
            case _:
                pass

    def _finish(self, unit: _Unit | None, record: bytes) -> None:
        if unit is None or not record:
            return
        unit.finished = True
        unit.past.results.append(record)
        if unit.name == _GENERATE:
            try:
                unit.past.usage = _answer.decode(record).usage
            except msgspec.ValidationError:  # a step of a user's own by that name, or one kept as an artifact
                return
            self.usage += unit.past.usage

    # --- asking -------------------------------------------------------------------------------------------------------
    def past(self, kind: UnitKind, within: str, key: str) -> Past | None:
        """What is known of a unit, by the key of its invocation and its own."""
        return self._past.get((kind, within, key))

    @property
    def superseded(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """Every invocation that a new attempt replaces: its id, its attempt, and what of it does not count any more."""
        found: list[tuple[str, int, tuple[str, ...]]] = []
        for inv in (*self._unmarked, *self.open.invocations):
            work = self._works.get(inv)
            if work is not None:
                ids = tuple(id_ for id_, unit in work.made.items() if not _is_kept(unit))
                found.append((inv, work.attempt, ids))
        return found

    def document(self) -> tuple[Json, bool]:
        """The shared document without what superseded invocations changed outside of finished units, and whether they
        did change anything."""
        lost = {inv for inv, _, _ in self.superseded}
        document, changed = Document(self._base), False
        for inv, unit, ops in self._ops:
            if inv in lost and not _is_kept(unit):
                changed = True
                continue
            _apply(document, ops)
        return document.value, changed


def _apply(document: Document, ops: Iterable[dict[str, Json]]) -> None:
    for op in ops:
        try:
            document.change(op, len(encode_value(op)))
        except AgentStreamError as error:  # its place was made by what does not count any more
            _log.warning("a change of the shared state at %s was left out: %s", op.get("path"), error)


def _innermost(running: dict[str, _Unit]) -> _Unit | None:
    """The newest unit that is open. Of several that one invocation has open at once it may be the wrong one, which
    marks too little or too much of what was said, and changes no result."""
    return next(reversed(running.values()), None)


def _is_kept(unit: _Unit | None) -> bool:
    """Whether it was made inside of something whose result is recorded."""
    while unit is not None:
        if unit.finished:
            return True
        unit = unit.outer
    return False
