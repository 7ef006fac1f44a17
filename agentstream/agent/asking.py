"""Questions to people: what is asked, and what counts as an answer.

What comes in: a prompt and a type, or a tool call that needs a person's leave. What goes out: a question with its
schema and key, then the typed answer. It does not know how an answer arrives, who may give it, or how long a run waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentstream.agent.schema import DoesNotFit, Form
from agentstream.bus import encode_value
from agentstream.errors import InvalidInput, ToolDeniedError
from agentstream.events import Json

if TYPE_CHECKING:
    from agentstream.agent.context import Context

__all__ = ("Answered", "Question", "allow", "ask")

_MAX_PROMPT: Final = 64_000
_MAX_SHOWN: Final = 2_000
_LONGEST_S: Final = 366 * 86_400.0


class Question(msgspec.Struct, frozen=True):
    """What a person is asked.

    Attributes:
        check: raises `agentstream.agent.schema.DoesNotFit` for a value that is no answer.
        expires: seconds after which the question is closed; None means that it stays open as long as the run.
        kind, call: `approval` of a tool call, or a `question`.
        key: the same question after a crash has the same.
    """

    prompt: str
    schema: Json
    check: Callable[[Json], object]
    key: str
    expires: float | None = None
    kind: str = "question"
    call: str = ""


class Answered(msgspec.Struct, frozen=True):
    """What a person said, as it stands in the log; `by` is who, where that is known."""

    value: Json = None
    by: str = ""


async def ask(ctx: Context, prompt: str, type_: Any, expires: float | None) -> Any:  # Any: whatever type is asked for
    """Ask and wait; the answer as `type_`.

    Raises:
        InputExpiredError: nobody answered in time. InvalidInput: no prompt, a type without a schema, a time that is
            none. EventTooLarge: prompt and schema together are above the bound of an event.
    """
    if not prompt.strip() or len(prompt) > _MAX_PROMPT:
        raise InvalidInput(f"a question has 1 to {_MAX_PROMPT:,} characters")
    if expires is not None and not 0 < expires <= _LONGEST_S:
        raise InvalidInput("expires is a number of seconds above 0, at most a year, or None")
    form = Form(type_)
    key = ctx.keys.current.next("ask", [prompt, form.schema])
    answered = await ctx.put_question(Question(prompt, form.schema, form.check, key, expires))
    return form.check(answered.value)


# --- leave for tool calls ---------------------------------------------------------------------------------------------
_LEAVE: Final[Json] = {
    "anyOf": [
        {"type": "boolean"},
        {
            "type": "object",
            "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string", "maxLength": 2000}},
            "required": ["approved"],
            "additionalProperties": False,
        },
    ]
}
"""`true`, `false`, or `{"approved": false, "reason": "…"}`."""


class _Leave(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    approved: bool
    reason: str = ""


def _leave(value: Json) -> _Leave:
    """The decision on a tool call.

    Raises:
        DoesNotFit: it is none.
    """
    if isinstance(value, bool):
        return _Leave(value)
    try:
        return msgspec.convert(value, _Leave)
    except msgspec.ValidationError as error:
        raise DoesNotFit(str(error)) from None


async def allow(ctx: Context, tool: str, call: str, arguments: Json, key: str) -> None:
    """Ask for leave to make a tool call; returns when it was given.

    Raises:
        ToolDeniedError: it was not; `details` say by whom.
    """
    shown = encode_value(arguments)[: _MAX_SHOWN + 1].decode("utf-8", "ignore")
    prompt = f"Run the tool {tool} with {shown[:_MAX_SHOWN]}{'…' if len(shown) > _MAX_SHOWN else ''}?"
    answered = await ctx.put_question(Question(prompt, _LEAVE, _leave, key, kind="approval", call=call))
    leave = _leave(answered.value)
    if not leave.approved:
        why = f": {leave.reason}" if leave.reason else ""
        details = {"by": answered.by, "reason": leave.reason}
        raise ToolDeniedError(f"the tool {tool} was not allowed to run{why}", details=details)
