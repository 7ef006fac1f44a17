"""What a run amounts to so far.

What comes in: lines of a log. What goes out: a `RunState`, small whatever the length of the log. It does not know who
asks, and it keeps no text: the blocks of a run are for readers of its events.

Folding is a pure function of the log's prefix: folding in one go, in parts, or on top of a kept state gives the same.
Deltas, which are nearly all of a log, are passed over by a look at their type.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from agentstream import events as ev
from agentstream.wire import decode_event

__all__ = (
    "AgentState",
    "AgentStatus",
    "ArtifactState",
    "AskState",
    "Failure",
    "RunState",
    "RunStatus",
    "VerdictState",
    "fold",
)

AgentStatus: TypeAlias = Literal["running", "finished", "failed", "superseded"]
RunStatus: TypeAlias = Literal["running", "waiting", "finished", "failed", "stopped"]

_MOST_LISTED: Final = 1000
"""Artifacts and verdicts beyond the newest thousand are left out, so that the state has a bound."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a run or an invocation failed; safe to show."""

    code: str
    message: str = ""
    retryable: bool = False


class AgentState(msgspec.Struct, frozen=True, omit_defaults=True):
    """One invocation. `waiting_on` is llm, tool, human, slot or agent while it waits, else empty."""

    inv: str
    name: str
    role: str = ""
    status: AgentStatus = "running"
    parent: str = ""
    waiting_on: str = ""
    attempt: int = 1
    replaces: str = ""
    message: str = ""
    done: float | None = None
    total: float | None = None
    failure: Failure | None = None


class ArtifactState(msgspec.Struct, frozen=True, omit_defaults=True):
    """An artifact without its bytes."""

    id: str
    mime: str
    name: str = ""
    size: int = 0
    inv: str = ""


class VerdictState(msgspec.Struct, frozen=True, omit_defaults=True):
    """One verdict: who gave it, on what, and how it went."""

    inv: str
    ok: bool
    feedback: str = ""
    score: float | None = None
    step: str = ""


class AskState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question to a person. What was asked is kept while it is open; `expires` is wall milliseconds."""

    request: str
    status: Literal["open", "answered", "expired", "stopped", "invalid"]
    kind: str = "question"
    inv: str = ""
    call: str = ""
    prompt: str = ""
    schema: ev.Json = None
    expires: int | None = None
    key: str = ""


class RunState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run, folded from its events up to `seq`.

    Attributes:
        agents: by invocation, in the order in which they started.
        plan: the newest plan.
        asks: questions to people: the open ones, and how others were closed.
        failure: of a failed run. cause, detail: of a stopped run.
        resume: what a client that finds the run should do: `auto`, attach by itself; `no`, nothing: it ended as it was
            meant to; `ask` its user whether to start it again: a time was up, nobody read it, or it failed for a while.
        halted: `store` while the run does nothing because its store did not take its events; it goes on, or ends, when
            the store does. Known to the process that ran it.
        cursor: the id of position `seq`, where known: events after it are all that this state lacks.
    """

    run: str = ""
    team: str = ""
    status: RunStatus = "running"
    seq: int = 0
    attempt: int = 1
    input: ev.Json = None
    agents: dict[str, AgentState] = {}
    plan: tuple[ev.PlanItem, ...] = ()
    output: ev.Json = None
    usage: ev.Usage = ev.Usage()
    artifacts: tuple[ArtifactState, ...] = ()
    verdicts: tuple[VerdictState, ...] = ()
    asks: tuple[AskState, ...] = ()
    failure: Failure | None = None
    cause: str = ""
    detail: str = ""
    resume: Literal["no", "auto", "ask"] = "auto"
    halted: Literal["", "store"] = ""
    cursor: str = ""
    started: int = 0
    ended: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the run's terminal event is in."""
        return self.ended > 0


# The beginning of what stands behind `"type":"` on the events that change nothing here.
_PASSED_OVER: Final = (
    b'text.delta"',
    b'thinking.delta"',
    b'tool.delta"',
    b'tool.output"',
    b"state.",
    b'custom"',
    b"budget.",
)
_TYPE: Final = b',"type":"'


def fold(state: RunState, lines: bytes) -> RunState:
    """The state after these lines, of which the first is event `state.seq + 1`.

    Args:
        state: where the lines go on; `RunState()` before the first event.
        lines: whole lines, each ended by LF.

    Raises:
        WireError: a line is not an event.

    Bounds: about 0.2 µs a delta, a few µs another event.
    """
    rows = lines.split(b"\n")
    rows.pop()
    changes = [line for line in rows if not line.startswith(_PASSED_OVER, line.find(_TYPE) + len(_TYPE))]
    draft = _Draft(state)
    for line in changes:
        draft.take(decode_event(line))
    return draft.finish(state.seq + len(rows))


def _may_be_repeated(event: ev.Event) -> bool:
    if isinstance(event, ev.RunStopped):
        return event.cause in ("client_gone", "deadline", "idle", "shutdown")
    return isinstance(event, ev.RunFailed) and event.retryable


class _Draft:
    """A state that may be changed while lines are folded into it: containers are copied once per fold, when needed."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.fields: dict[str, Any] = {}  # Any: fields of RunState of all types, for `replace`
        self.agents: dict[str, AgentState] | None = None

    def finish(self, seq: int) -> RunState:
        if self.agents is not None:
            self.fields["agents"] = self.agents
        return msgspec.structs.replace(self.state, seq=seq, **self.fields)

    def get(self, field: str) -> Any:  # Any: see `fields`
        return self.fields.get(field, getattr(self.state, field))

    def _change(self, inv: str, **changes: object) -> None:
        """Change one invocation."""
        if self.agents is None:
            self.agents = dict(self.state.agents)
        known = self.agents.get(inv)
        if known is not None:
            self.agents[inv] = msgspec.structs.replace(known, **changes)

    def take(self, event: ev.AnyEvent) -> None:
        """Fold one event in."""
        if isinstance(event, ev.UnknownEvent):
            return
        if event.inv:
            self._take_of_agent(event)
        else:
            self._take_of_run(event)

    def _take_of_run(self, event: ev.Event) -> None:
        fields = self.fields
        match event:
            case ev.RunStarted():
                fields.update(
                    run=event.run, team=event.team, input=event.input, attempt=event.attempt, started=event.at
                )
            case ev.RunWaiting():
                fields["status"] = "waiting"
            case ev.RunAttempt():
                fields.update(attempt=event.attempt, status="running")
            case ev.RunFinished():
                self._end(event, "finished", output=event.output, usage=event.usage)
            case ev.RunFailed():
                self._end(event, "failed", failure=Failure(event.code, event.message, event.retryable))
            case ev.RunStopped():
                self._end(event, "stopped", cause=event.cause, detail=event.detail)
            case ev.AttemptSuperseded():
                self._change(event.of, status="superseded")
                lost = frozenset(event.ids)
                fields["artifacts"] = tuple(known for known in self.get("artifacts") if known.id not in lost)
            case ev.PlanUpdated():
                fields["plan"] = event.steps
            case ev.InputExpired():
                self._close(event.request, event.reason)
            case _:
                pass

    def _end(self, event: ev.Event, status: RunStatus, **facts: object) -> None:
        resume = "ask" if _may_be_repeated(event) else "no"
        self.fields.update(facts, status=status, resume=resume, ended=event.at or 1)
        for ask in self.get("asks"):
            if ask.status == "open":
                self._close(ask.request, "stopped")

    def _take_of_agent(self, event: ev.Event) -> None:
        match event:
            case ev.AgentStarted():
                self._start(event)
            case ev.AgentWaiting():
                self._change(event.inv, waiting_on=event.on)
            case ev.AgentProgress():
                self._change(event.inv, waiting_on="", message=event.message, done=event.done, total=event.total)
            case ev.AgentFinished():
                self._change(event.inv, status="finished", waiting_on="")
            case ev.AgentFailed():
                self._change(event.inv, status="failed", waiting_on="", failure=Failure(event.code, event.message))
            case _:
                self._take_work(event)
                if (known := self._agents().get(event.inv)) is not None and known.waiting_on:
                    self._change(event.inv, waiting_on="")

    def _take_work(self, event: ev.Event) -> None:
        match event:
            case ev.PlanUpdated():
                self.fields["plan"] = event.steps
            case ev.ArtifactCreated():
                made = ArtifactState(event.id, event.mime, event.name, event.size, event.inv)
                self.fields["artifacts"] = (*self.get("artifacts"), made)[-_MOST_LISTED:]
            case ev.VerdictGiven():
                given = VerdictState(event.inv, event.ok, event.feedback, event.score, event.step)
                self.fields["verdicts"] = (*self.get("verdicts"), given)[-_MOST_LISTED:]
            case ev.InputRequested():
                self._ask(event)
            case ev.InputReceived():
                self._close(event.request, "answered")
            case ev.InputExpired():
                self._close(event.request, event.reason)
            case _:
                pass

    def _ask(self, event: ev.InputRequested) -> None:
        asked = AskState(
            event.request,
            "open",
            kind=event.kind,
            inv=event.inv,
            call=event.call,
            prompt=event.prompt,
            schema=event.schema,
            expires=event.expires,
            key=event.key,
        )
        self.fields["asks"] = (*self.get("asks"), asked)[-_MOST_LISTED:]

    def _close(self, request: str, status: Literal["answered", "expired", "stopped", "invalid"]) -> None:
        """Close a question; a thousand prompts and schemas would make a state without a bound."""
        closed = AskState(request, status)
        asks: tuple[AskState, ...] = self.get("asks")
        self.fields["asks"] = tuple(
            ask
            if ask.request != request
            else msgspec.structs.replace(closed, kind=ask.kind, inv=ask.inv, call=ask.call)
            for ask in asks
        )

    def _agents(self) -> dict[str, AgentState]:
        return self.state.agents if self.agents is None else self.agents

    def _start(self, event: ev.AgentStarted) -> None:
        if self.get("status") == "waiting":
            self.fields["status"] = "running"
        if self.agents is None:
            self.agents = dict(self.state.agents)
        self.agents[event.inv] = AgentState(
            event.inv,
            event.agent,
            event.role,
            parent=event.parent,
            attempt=event.attempt,
            replaces=event.replaces,
        )
