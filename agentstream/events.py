"""Every event type: the envelope and the payloads.

What comes in: plain facts (names, ids, numbers, text, JSON values). What goes out: frozen structs of one tagged union,
one class a type. It does not know who emits, numbers, stores or shows an event, and holds no live object.

An event travels as one flat JSON object: the envelope `seq at type agent inv agent_seq`, then the payload; a field that
is absent has its default. Run-level events carry no agent. Ids of blocks, calls, steps and artifacts are unique in the
run. Types and fields that this version does not know survive: relays pass bytes, and typed decoding gives an
`UnknownEvent` that keeps the whole object (msgspec's rules of schema evolution: new fields only with defaults).
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

__all__ = (
    "EVENT_TYPES",
    "TERMINAL_TYPES",
    "AgentFailed",
    "AgentFinished",
    "AgentProgress",
    "AgentStarted",
    "AgentWaiting",
    "AnyEvent",
    "ArtifactCreated",
    "AttemptSuperseded",
    "BudgetExceeded",
    "BudgetLow",
    "BudgetUpdated",
    "Custom",
    "Event",
    "InputExpired",
    "InputReceived",
    "InputRequested",
    "Json",
    "LLMTryFailed",
    "PlanItem",
    "PlanUpdated",
    "Reset",
    "ResetReason",
    "RunAttempt",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "RunStopped",
    "RunWaiting",
    "StateDelta",
    "StateSnapshot",
    "StepFailed",
    "StepFinished",
    "StepStarted",
    "StopCause",
    "TextDelta",
    "TextFinished",
    "TextStarted",
    "ThinkingDelta",
    "ThinkingFinished",
    "ThinkingStarted",
    "ToolCalled",
    "ToolDelta",
    "ToolDenied",
    "ToolFailed",
    "ToolFinished",
    "ToolOutput",
    "ToolProgress",
    "ToolStarted",
    "UnknownEvent",
    "UpToDate",
    "Usage",
    "VerdictGiven",
    "WaitingOn",
    "is_terminal",
)

# Any: what JSON holds is only known where it is used.
Json: TypeAlias = Any
"""Any value that JSON can hold. `Any` because a recursive alias makes every user narrow what he knows already."""

T = TypeVar("T")

WaitingOn: TypeAlias = Literal["llm", "tool", "human", "slot", "agent"]
StopCause: TypeAlias = Literal["user_stop", "client_gone", "deadline", "idle", "budget", "replaced", "shutdown"]
ResetReason: TypeAlias = Literal["new-log", "rollback", "trimmed", "unknown-cursor"]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="type"):
    """The envelope. Emitters leave it at its defaults: the bus fills in what is missing.

    Attributes:
        seq: place in the run's log, from 1; 0 before it has one.
        at: milliseconds since the epoch at which it got its place.
        agent, inv: name of the agent and id of its invocation (`executor.2`); empty on run-level events.
        agent_seq: place among the events of its invocation, from 1.
        first_seq: on a coalesced delta only, the seq of the first event that it stands for. Never in the log.
    """

    seq: int = 0
    at: int = 0
    agent: str = ""
    inv: str = ""
    agent_seq: int = 0
    first_seq: int = 0

    @property
    def type(self) -> str:
        """The wire's name of the type, for instance `text.delta`."""
        return str(self.__struct_config__.tag)


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of model calls. Cached and reasoning tokens are parts of input and output, not additions."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.calls + other.calls,
        )


# --- run --------------------------------------------------------------------------------------------------------------
class RunStarted(Event, frozen=True, tag="run.started"):
    """The run exists. First event of every log."""

    run: str
    team: str
    input: Json = None
    attempt: int = 1
    traceparent: str = ""


class RunWaiting(Event, frozen=True, tag="run.waiting"):
    """The run waits for a place (`on`: what for; `position`: how many are before it)."""

    on: str
    position: int | None = None


class RunAttempt(Event, frozen=True, tag="run.attempt"):
    """Another worker goes on with the run."""

    attempt: int
    reason: str


class RunFinished(Event, frozen=True, tag="run.finished"):
    """Terminal: the run ended with `output`."""

    output: Json = None
    usage: Usage = Usage()


class RunFailed(Event, frozen=True, tag="run.failed"):
    """Terminal: the run failed. `message` is safe to show; the cause is in the process's log."""

    code: str
    message: str = ""
    retryable: bool = False


class RunStopped(Event, frozen=True, tag="run.stopped"):
    """Terminal: the run was stopped for `cause`."""

    cause: str
    detail: str = ""


# --- agent ------------------------------------------------------------------------------------------------------------
class AgentStarted(Event, frozen=True, tag="agent.started"):
    """An invocation begins. `parent` is the calling invocation, empty for the entry agent."""

    parent: str = ""
    role: str = ""
    task: Json = None
    attempt: int = 1
    replaces: str = ""
    key: str = ""
    version: str = ""


class AgentFinished(Event, frozen=True, tag="agent.finished"):
    """An invocation ended with `result`."""

    result: Json = None


class AgentFailed(Event, frozen=True, tag="agent.failed"):
    """An invocation failed."""

    code: str
    message: str = ""


class AgentWaiting(Event, frozen=True, tag="agent.waiting"):
    """Liveness: what the invocation waits for."""

    on: str


class AgentProgress(Event, frozen=True, tag="agent.progress"):
    """How far the invocation is."""

    message: str = ""
    done: float | None = None
    total: float | None = None


# --- plan -------------------------------------------------------------------------------------------------------------
class PlanItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of a plan as people see it."""

    id: str
    title: str
    status: Literal["pending", "active", "done", "failed", "skipped"] = "pending"


class PlanUpdated(Event, frozen=True, tag="plan.updated"):
    """The whole plan, as it is now."""

    steps: tuple[PlanItem, ...]


class StepStarted(Event, frozen=True, tag="step.started"):
    """A recorded unit of work begins; `key` and `version` identify it for recovery."""

    step: str
    name: str = ""
    key: str = ""
    version: str = ""
    attempt: int = 1


class StepFinished(Event, frozen=True, tag="step.finished"):
    """The step ended well; its result travels beside the line."""

    step: str


class StepFailed(Event, frozen=True, tag="step.failed"):
    """The step failed."""

    step: str
    code: str = ""
    message: str = ""


class VerdictGiven(Event, frozen=True, tag="verdict.given"):
    """A verifier's judgement of a step or of the whole."""

    ok: bool
    feedback: str = ""
    score: float | None = None
    step: str = ""


# --- text and thinking ------------------------------------------------------------------------------------------------
class TextStarted(Event, frozen=True, tag="text.started"):
    """A block of text opens."""

    block: str
    role: str = "assistant"


class TextDelta(Event, frozen=True, tag="text.delta"):
    """More text of a block."""

    block: str
    text: str


class TextFinished(Event, frozen=True, tag="text.finished"):
    """The block is complete."""

    block: str


class ThinkingStarted(Event, frozen=True, tag="thinking.started"):
    """A block of reasoning opens."""

    block: str
    role: str = "assistant"


class ThinkingDelta(Event, frozen=True, tag="thinking.delta"):
    """More reasoning of a block."""

    block: str
    text: str


class ThinkingFinished(Event, frozen=True, tag="thinking.finished"):
    """The block of reasoning is complete."""

    block: str


# --- tools ------------------------------------------------------------------------------------------------------------
class ToolStarted(Event, frozen=True, tag="tool.started"):
    """A tool call opens; its arguments may still be streaming."""

    call: str
    name: str


class ToolDelta(Event, frozen=True, tag="tool.delta"):
    """More of the call's argument text (streamed code, partial JSON)."""

    call: str
    text: str


class ToolCalled(Event, frozen=True, tag="tool.called"):
    """The arguments are complete; accepted by the log before the function runs."""

    call: str
    arguments: Json = None
    key: str = ""
    version: str = ""


class ToolProgress(Event, frozen=True, tag="tool.progress"):
    """How far the call is."""

    call: str
    done: float | None = None
    total: float | None = None
    message: str = ""


class ToolOutput(Event, frozen=True, tag="tool.output"):
    """Live output of the call: `channel` is stdout, stderr or a name of the tool's own."""

    call: str
    channel: str
    text: str


class ToolFinished(Event, frozen=True, tag="tool.finished"):
    """The call ended well."""

    call: str
    result: Json = None


class ToolFailed(Event, frozen=True, tag="tool.failed"):
    """The call failed."""

    call: str
    code: str = ""
    message: str = ""


class ToolDenied(Event, frozen=True, tag="tool.denied"):
    """The call was not allowed."""

    call: str
    by: str = ""
    reason: str = ""


# --- artifacts and state ----------------------------------------------------------------------------------------------
class ArtifactCreated(Event, frozen=True, tag="artifact.created"):
    """A picture, table, file or piece of code. Small ones carry `data` (text as it is, bytes as base64), others
    `uri`."""

    id: str
    mime: str
    name: str = ""
    size: int = 0
    data: str | None = None
    uri: str | None = None


class StateSnapshot(Event, frozen=True, tag="state.snapshot"):
    """The run's shared document, whole."""

    state: Json = None


class StateDelta(Event, frozen=True, tag="state.delta"):
    """Changes of the run's shared document: RFC 6902 operations."""

    ops: tuple[dict[str, Json], ...]


# --- people -----------------------------------------------------------------------------------------------------------
class InputRequested(Event, frozen=True, tag="input.requested"):
    """A person is asked."""

    request: str
    kind: Literal["question", "approval"] = "question"
    call: str = ""
    prompt: str = ""
    schema: Json = None
    expires: int | None = None
    key: str = ""
    version: str = ""


class InputReceived(Event, frozen=True, tag="input.received"):
    """The person answered."""

    request: str
    value: Json = None
    by: str = ""


class InputExpired(Event, frozen=True, tag="input.expired"):
    """The question is closed without an answer; after `invalid` it is asked again, with what did not fit."""

    request: str
    reason: Literal["expired", "stopped", "invalid"] = "expired"


# --- attempts and limits ----------------------------------------------------------------------------------------------
class LLMTryFailed(Event, frozen=True, tag="llm.try_failed"):
    """One try of a model request failed; what it wrote into `block` does not count."""

    block: str = ""
    reason: str = ""
    # `try` is a keyword in Python and the field's name on the wire.
    try_: int = msgspec.field(name="try", default=1)


class AttemptSuperseded(Event, frozen=True, tag="attempt.superseded"):
    """What attempt `attempt` of invocation `of` made (`ids`) does not count any more; another attempt follows."""

    of: str
    attempt: int
    ids: tuple[str, ...] = ()


class BudgetUpdated(Event, frozen=True, tag="budget.updated"):
    """What is used and reserved of a budget."""

    used: dict[str, float]
    reserved: dict[str, float]
    limit: dict[str, float]


class BudgetLow(Event, frozen=True, tag="budget.low"):
    """The soft threshold of a budget was reached."""

    of: str
    used: float
    limit: float


class BudgetExceeded(Event, frozen=True, tag="budget.exceeded"):
    """A budget is used up."""

    of: str
    used: float
    limit: float


class Custom(Event, frozen=True, tag="custom"):
    """An event of the user's own."""

    name: str
    value: Json = None

    def value_as(self, type_: type[T]) -> T:
        """The value as `type_` (a dataclass, Struct, TypedDict or built-in).

        Raises:
            msgspec.ValidationError: the value does not fit.
        """
        return msgspec.convert(self.value, type_)


# --- transport only: never in a log -----------------------------------------------------------------------------------
class Reset(msgspec.Struct, frozen=True, tag_field="type", tag="reset"):
    """The reader's position could not be kept: what follows starts at `first`, the first retained event.

    It carries the id of position `first - 1`; a reader drops what it had and folds anew.
    """

    reason: str
    first: int
    tail: int


class UpToDate(msgspec.Struct, frozen=True, tag_field="type", tag="up-to-date"):
    """Everything up to `seq` was scanned for this reader; it carries the id of that position."""

    seq: int


class UnknownEvent(msgspec.Struct, frozen=True):
    """An event of a type, or with a payload, that this version does not know; `fields` is the whole object."""

    type: str
    fields: dict[str, Json]
    seq: int = 0
    at: int = 0
    agent: str = ""
    inv: str = ""
    agent_seq: int = 0
    first_seq: int = 0


AnyEvent: TypeAlias = Event | UnknownEvent

EVENT_TYPES: Final[tuple[type[Event], ...]] = tuple(Event.__subclasses__())
"""Every event class, in the order of this file."""

TERMINAL_TYPES: Final = frozenset({"run.finished", "run.failed", "run.stopped"})


def is_terminal(event: AnyEvent) -> bool:
    """Whether nothing follows this event in its run."""
    return event.type in TERMINAL_TYPES
