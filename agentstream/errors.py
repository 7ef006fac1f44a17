"""The error tree.

What comes in: the facts of one failure. What goes out: one exception that says what went wrong and what to do, with a
stable `code` for programs, an HTTP `status` for the edge and `retryable` for policies. It does not know where an error
is shown: `detail` never holds a secret, a prompt or a traceback, so every edge may print it.

    AgentStreamError
    ├── UsageError                    the caller can mend it
    │   ├── InvalidInput              (also ValueError) a value does not fit; `details` says where
    │   ├── InvalidCursor             (also ValueError) not a cursor at all
    │   ├── UnknownTeam               no team of that name
    │   ├── DuplicateTeam             two teams with one name
    │   ├── EmitAfterEnd              the emitter's invocation, run or bus has ended
    │   ├── EventTooLarge             one event above its bound
    │   ├── NotSerializable           (also TypeError) a value that JSON cannot hold
    │   ├── StateTooLarge             the run's shared document above its bound
    │   ├── BodyTooLarge              a request body or file above its bound
    │   ├── KeyReused                 an idempotency key came back with another body
    │   ├── RuntimeNotRunning         the runtime was not entered
    │   ├── NoModelConfigured         a model name that nobody configured
    │   ├── NoSandbox                 generated code was to run and no sandbox is named
    │   └── MissingExtra              an optional library is not installed
    ├── RunError
    │   ├── RunUnknown                no such run, or not yours: alike on purpose
    │   ├── RunGone                   the run was deleted by retention; a tombstone remains
    │   ├── RunLost                   the run's record is gone or cannot be continued
    │   ├── RunFailedError            the run ended in `run.failed`
    │   ├── RunStoppedError           the run ended in `run.stopped`
    │   ├── AgentFailedError          an agent that was called failed; raised at the caller
    │   ├── StepChanged               code changed between two attempts of the run
    │   ├── InputUnknown              the run asked no such question
    │   ├── InputAnswered             the question was answered before
    │   └── InputExpiredError         the question is closed: nobody answered in time, or the run has ended
    │   ├── BudgetExceededError       a budget has nothing left for what an agent wanted to spend
    │   ├── StepTimeout               (also TimeoutError) a recorded unit took too long
    ├── Overloaded                    a bounded place is full; try later
    ├── SessionBusy                   another run of the session is not over
    ├── ServerUnreachable             a client gave up: no usable answer for as long as it was told to try
    ├── StoreError
    │   ├── StoreDown                 the store cannot be reached or refuses to write
    │   ├── Fenced                    another writer holds a newer epoch
    │   ├── RolledBack                the log is shorter than what was accepted
    │   └── LogFull                   the run's log reached its bound
    ├── WireError                     bytes that break the wire's rules
    │   ├── FrameTooLarge             a line or event above the decoder's bound
    │   ├── InvalidField              a field that would break the frame
    │   └── PatchError                a state operation that does not apply
    ├── StreamAborted                 raised by an answer so that its server cuts the connection
    ├── ToolError                     a tool failed; the model and the caller may see `detail`
    │   ├── ToolDeniedError           a person did not allow the call
    │   └── ToolTimeout               (also TimeoutError)
    └── LLMError                      one request to a model failed
        ├── LLMConnectionError        no connection
        ├── LLMTimeout                (also TimeoutError) no answer within the limit
        ├── LLMServerError            the provider failed
        ├── LLMRateLimited            too many requests; `retry_after` may say how long
        ├── LLMQuotaExceeded          the account has no quota left
        ├── LLMAuthError              the key was refused
        ├── LLMRequestError           the request itself is wrong
        ├── LLMContentRefused         the provider refused the content
        ├── LLMParseError             the answer is not in the provider's format
        ├── LLMValidationError        the answer does not fit the asked-for type
        └── StreamBroken              the stream ended before the provider's terminal marker
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import override

__all__ = (
    "AgentFailedError",
    "AgentStreamError",
    "BodyTooLarge",
    "BudgetExceededError",
    "DuplicateTeam",
    "EmitAfterEnd",
    "EventTooLarge",
    "Fenced",
    "FrameTooLarge",
    "InputAnswered",
    "InputExpiredError",
    "InputUnknown",
    "InvalidCursor",
    "InvalidField",
    "InvalidInput",
    "KeyReused",
    "LLMAuthError",
    "LLMConnectionError",
    "LLMContentRefused",
    "LLMError",
    "LLMParseError",
    "LLMQuotaExceeded",
    "LLMRateLimited",
    "LLMRequestError",
    "LLMServerError",
    "LLMTimeout",
    "LLMValidationError",
    "LogFull",
    "MissingExtra",
    "NoModelConfigured",
    "NoSandbox",
    "NotSerializable",
    "Overloaded",
    "PatchError",
    "RolledBack",
    "RunError",
    "RunFailedError",
    "RunGone",
    "RunLost",
    "RunStoppedError",
    "RunUnknown",
    "RuntimeNotRunning",
    "ServerUnreachable",
    "SessionBusy",
    "StateTooLarge",
    "StepChanged",
    "StepTimeout",
    "StoreDown",
    "StoreError",
    "StreamAborted",
    "StreamBroken",
    "ToolDeniedError",
    "ToolError",
    "ToolTimeout",
    "UnknownTeam",
    "UsageError",
    "WireError",
)


class AgentStreamError(Exception):
    """Parent of every error that agentstream raises on purpose.

    Args:
        detail: one sentence that is safe to show anywhere.
        details: further facts (plain JSON values), safe to show as well.

    Attributes:
        code: stable snake_case word for programs; never changes between releases.
        status: the HTTP status that an edge answers with.
        retryable: whether the same call may succeed later without a change.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.details: Mapping[str, object] = dict(details or {})

    @property
    def name(self) -> str:
        """The class name, for logs and problem documents."""
        return type(self).__name__


# --- the caller can mend it -------------------------------------------------------------------------------------------
class UsageError(AgentStreamError):
    """Something the caller can mend."""

    code = "usage"
    status = 400


class InvalidInput(UsageError, ValueError):
    """A value does not fit what is asked for; `details` says where."""

    code = "invalid_input"
    status = 422


class InvalidCursor(UsageError, ValueError):
    """Text that is not a cursor (longer than 128 bytes or not printable)."""

    code = "invalid_cursor"


class UnknownTeam(UsageError):
    """No team of that name is known here."""

    code = "unknown_team"
    status = 404


class DuplicateTeam(UsageError):
    """Two teams carry one name."""

    code = "duplicate_team"
    status = 500


class EmitAfterEnd(UsageError):
    """The emitter's invocation, run or bus has ended: the event was not accepted."""

    code = "emit_after_end"
    status = 409


class EventTooLarge(UsageError):
    """One event above its bound; the emitter names it before anything was numbered."""

    code = "event_too_large"
    status = 413


class NotSerializable(UsageError, TypeError):
    """A value that JSON cannot hold."""

    code = "not_serializable"
    status = 422


class StateTooLarge(UsageError):
    """The run's shared document would grow above its bound."""

    code = "state_too_large"
    status = 413


class BodyTooLarge(UsageError):
    """A request body or file above its bound."""

    code = "body_too_large"
    status = 413


class KeyReused(UsageError):
    """An idempotency key came back with another body."""

    code = "key_reused"
    status = 422


class RuntimeNotRunning(UsageError):
    """The runtime was used before `async with runtime` (or its lifespan) was entered."""

    code = "runtime_not_running"
    status = 503


class NoModelConfigured(UsageError):
    """A model name that nobody configured; the message names the variable to set."""

    code = "no_model_configured"
    status = 503


class NoSandbox(UsageError):
    """Code written by a model was to run and no sandbox is named."""

    code = "no_sandbox"
    status = 503


class MissingExtra(UsageError):
    """An optional library is not installed; the message names the extra to install."""

    code = "missing_extra"
    status = 500


# --- runs -------------------------------------------------------------------------------------------------------------
class RunError(AgentStreamError):
    """The state of a run does not allow what was asked."""

    code = "run"


class RunUnknown(RunError):
    """No such run, or not yours: both answer alike, so that nobody can probe for runs."""

    code = "run_unknown"
    status = 404


class RunGone(RunError):
    """The run was deleted by retention; a tombstone remains."""

    code = "run_gone"
    status = 410


class RunLost(RunError):
    """The run's record is gone, or its stream cannot be continued."""

    code = "run_lost"
    status = 404


class RunFailedError(RunError):
    """The run ended in `run.failed`; `failure` is the code of that event."""

    code = "run_failed"

    def __init__(self, failure: str, message: str = "") -> None:
        super().__init__(f"the run failed ({failure}): {message}" if message else f"the run failed ({failure})")
        self.failure = failure
        self.message = message


class RunStoppedError(RunError):
    """The run ended in `run.stopped`; `cause` is the cause of that event."""

    code = "run_stopped"
    status = 409

    def __init__(self, cause: str, reason: str = "") -> None:
        super().__init__(f"the run was stopped ({cause}): {reason}" if reason else f"the run was stopped ({cause})")
        self.cause = cause
        self.reason = reason


class AgentFailedError(RunError):
    """An agent that was called failed; raised at its caller, which may handle it.

    Attributes:
        inv: the invocation that failed. failure: the code of its `agent.failed`.
    """

    code = "agent_failed"

    def __init__(self, inv: str, failure: str, message: str) -> None:
        super().__init__(f"{inv} failed ({failure}): {message}")
        self.inv = inv
        self.failure = failure
        self.message = message


class StepChanged(RunError):
    """What a run recorded before its worker died was recorded by other code: it is not continued."""

    code = "step_changed"
    status = 409


class InputUnknown(RunError):
    """The run asked no such question."""

    code = "input_unknown"
    status = 404


class InputAnswered(RunError):
    """The question was answered before; the first answer counts."""

    code = "input_answered"
    status = 409


class InputExpiredError(RunError):
    """The question is closed without an answer: its time ran out, or the run has ended."""

    code = "input_expired"
    status = 410


class BudgetExceededError(RunError):
    """A budget has nothing left for this; raised where an agent wanted to spend. Nothing was spent."""

    code = "budget"
    status = 409


class StepTimeout(RunError, TimeoutError):
    """A recorded unit did not end within the run's limit for one."""

    code = "step_timeout"
    status = 504


class Overloaded(AgentStreamError):
    """A bounded place is full; try later."""

    code = "overloaded"
    status = 503
    retryable = True


class SessionBusy(AgentStreamError):
    """Another run of the session is not over, and the session takes one at a time; `details["run"]` names it."""

    code = "session_busy"
    status = 409


class ServerUnreachable(AgentStreamError):
    """A client gave up: no usable answer for as long as it was told to try. What it has received stays valid."""

    code = "server_unreachable"
    status = 503
    retryable = True


# --- the store --------------------------------------------------------------------------------------------------------
class StoreError(AgentStreamError):
    """The store did not take or give what was asked."""

    code = "store"
    status = 503


class StoreDown(StoreError):
    """The store cannot be reached or refuses to write."""

    code = "store_down"
    retryable = True


class Fenced(StoreError):
    """Another writer holds a newer epoch: this one may never write to the run again."""

    code = "fenced"
    status = 409


class RolledBack(StoreError):
    """The log is shorter than what it had accepted."""

    code = "rolled_back"


class LogFull(StoreError):
    """The run's log reached its bound of events or bytes."""

    code = "log_full"
    status = 507


# --- the wire ---------------------------------------------------------------------------------------------------------
class WireError(AgentStreamError):
    """Bytes or values that break the wire's rules."""

    code = "wire"
    status = 400


class FrameTooLarge(WireError):
    """A line or event above the decoder's bound; the decoder refuses further bytes until it is reset."""

    code = "frame_too_large"
    status = 413


class InvalidField(WireError):
    """A field whose text would break the frame."""

    code = "invalid_field"


class PatchError(WireError):
    """A state operation that does not apply to the document."""

    code = "patch"


class StreamAborted(AgentStreamError):
    """Raised by an answer before its last body, so that the server cuts the connection instead of ending it cleanly."""

    code = "stream_aborted"


# --- tools ------------------------------------------------------------------------------------------------------------
class ToolError(AgentStreamError):
    """A tool failed; `detail` may be shown to the model and to people."""

    code = "tool_error"


class ToolDeniedError(ToolError):
    """A person did not allow the call; the tool did not run."""

    code = "tool_denied"


class ToolTimeout(ToolError, TimeoutError):
    """A tool did not end within its limit."""

    code = "tool_timeout"


# --- models -----------------------------------------------------------------------------------------------------------
class LLMError(AgentStreamError):
    """One request to a model failed.

    Args:
        detail: safe to show: never a key, a prompt or the provider's body.
        provider: the provider's name, for instance `openai`.
        http_status: the provider's HTTP status, where there was one.
        retry_after: seconds the provider asked to wait, where it did.
    """

    code = "llm"
    status = 502

    def __init__(
        self,
        detail: str,
        *,
        provider: str = "",
        http_status: int | None = None,
        retry_after: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail, details=details)
        self.provider = provider
        self.http_status = http_status
        self.retry_after = retry_after

    @override
    def __str__(self) -> str:
        return f"{self.provider}: {self.detail}" if self.provider else self.detail


class LLMConnectionError(LLMError):
    """No connection to the provider."""

    code = "llm_connection"
    retryable = True


class LLMTimeout(LLMError, TimeoutError):
    """No answer, first token or further byte within the limit."""

    code = "llm_timeout"
    status = 504
    retryable = True


class LLMServerError(LLMError):
    """The provider failed (5xx, or an error inside the stream)."""

    code = "llm_server"
    retryable = True


class LLMRateLimited(LLMError):
    """Too many requests; `retry_after` says how long to wait where the provider does."""

    code = "llm_rate_limited"
    retryable = True


class LLMQuotaExceeded(LLMError):
    """The account has no quota left."""

    code = "llm_quota"


class LLMAuthError(LLMError):
    """The key was refused."""

    code = "llm_auth"


class LLMRequestError(LLMError):
    """The request itself is wrong (unknown model, context too long, bad schema)."""

    code = "llm_request"


class LLMContentRefused(LLMError):
    """The provider refused the content."""

    code = "llm_content"


class LLMParseError(LLMError):
    """The answer is not in the provider's format."""

    code = "llm_parse"
    retryable = True


class LLMValidationError(LLMError):
    """The answer does not fit the asked-for type, after the bounded repair rounds."""

    code = "llm_validation"


class StreamBroken(LLMError):
    """The stream ended before the provider's terminal marker."""

    code = "llm_stream_broken"
    retryable = True
