"""What is said to a model and what comes back, the same for every provider.

What comes in: text, images and tool descriptions as plain values. What goes out: frozen structs for one request, its
deltas and its result, and `Assembly`, which joins deltas to a result. It does not know providers, HTTP, time or events.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from agentstream.events import Json, Usage

__all__ = (
    "Assembly",
    "Delta",
    "Finish",
    "LLMRequest",
    "LLMResult",
    "Message",
    "Role",
    "TextPart",
    "ThinkingPart",
    "Thought",
    "ToolCall",
    "ToolCallPart",
    "ToolSpec",
)

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


# --- the request ------------------------------------------------------------------------------------------------------
class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that a model asks for.

    Attributes:
        id: the model's name for the call; the answer carries it back.
        arguments: JSON text as the model wrote it, not checked: it may be broken.
        signature: what the provider wants back with the call, unread (Gemini); empty where it wants nothing.
    """

    id: str = ""
    name: str = ""
    arguments: str = "{}"
    signature: str = ""


class Thought(msgspec.Struct, frozen=True, omit_defaults=True):
    """A finished piece of thinking that its provider wants back, unchanged, with the calls that followed it.

    Attributes:
        kind: the provider's own word for it. An adapter sends only kinds of its own, so a conversation may go on with
            another provider.
        text: what could be read of it; may be empty.
        signature: what the provider signed or encrypted, unread.
        id: the provider's name for it, where it has one.
    """

    kind: str
    text: str = ""
    signature: str = ""
    id: str = ""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation.

    Attributes:
        tool_calls: on an assistant's message, the calls it asks for.
        tool_call_id, name: on a tool's message, which call it answers and the tool's name.
        images: on a user's message, addresses of pictures (`https:` or `data:image/png;base64,…`).
        thoughts: on an assistant's message, the thoughts of the `LLMResult` that it was made of.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    images: tuple[str, ...] = ()
    thoughts: tuple[Thought, ...] = ()


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool as a model sees it; `parameters` is the JSON schema of an object."""

    name: str
    description: str = ""
    parameters: dict[str, Json] = {}


class LLMRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to a model.

    Attributes:
        model: the provider's name for the model; empty for the one that the client was made with.
        max_tokens: most tokens of the answer, None for the provider's own limit.
        schema: JSON schema (of an object) that the answer must follow; `schema_name` names it to the provider.
        thinking: how much the model should think before it answers; empty for the model's own way. A model that cannot
            do what is asked refuses the request.
        background: the provider works on after a lost connection, and the stream goes on where it was; it keeps the
            answer for a while (OpenAI's responses; others ignore it).
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    schema: dict[str, Json] | None = None
    schema_name: str = ""
    thinking: Literal["", "off", "low", "medium", "high"] = ""
    background: bool = False


# --- the answer -------------------------------------------------------------------------------------------------------
class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text"):
    """More text of the answer."""

    text: str


class ThinkingPart(msgspec.Struct, frozen=True, gc=False, tag="thinking"):
    """More of what the model says it thinks.

    Attributes:
        text: may be empty where `thought` is there. thought: at the end of a piece that must go back, the whole of it.
    """

    text: str
    thought: Thought | None = None


class ToolCallPart(msgspec.Struct, frozen=True, gc=False, tag="tool_call"):
    """More of a call: parts with one `index` (from 0) belong together; `id` and `name` come once, in the first."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    signature: str = ""


class Finish(msgspec.Struct, frozen=True, gc=False, tag="finish"):
    """The answer is complete; always the last delta.

    Attributes:
        reason: stop, length (it was cut at a limit), tool_calls, or a provider's own word for another.
    """

    reason: str
    usage: Usage = Usage()


Delta: TypeAlias = TextPart | ThinkingPart | ToolCallPart | Finish


class LLMResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A whole answer. `model` is the name that the provider gave, empty where it gave none."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    finish_reason: str = ""
    model: str = ""
    thoughts: tuple[Thought, ...] = ()


_NO_ARGUMENTS: Final = "{}"


class Assembly:
    """Joins the deltas of one answer: `add` each, then `result`.

    Bounds: as much memory as the answer is long; time linear in it.
    """

    __slots__ = ("_calls", "_finish", "_text", "_thinking", "_thoughts")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._thoughts: list[Thought] = []
        self._calls: dict[int, list[ToolCallPart]] = {}
        self._finish: Finish | None = None

    @property
    def finished(self) -> bool:
        """Whether the last delta was seen."""
        return self._finish is not None

    def add(self, delta: Delta) -> None:
        """Take the next delta."""
        if isinstance(delta, TextPart):
            self._text.append(delta.text)
        elif isinstance(delta, ThinkingPart):
            self._thinking.append(delta.text)
            if delta.thought is not None:
                self._thoughts.append(delta.thought)
        elif isinstance(delta, ToolCallPart):
            self._calls.setdefault(delta.index, []).append(delta)
        else:
            self._finish = delta

    def result(self, model: str = "") -> LLMResult:
        """What was added so far as a result; calls stand in the order of their index."""
        calls = tuple(_join(self._calls[index]) for index in sorted(self._calls))
        finish = self._finish or Finish("")
        return LLMResult(
            "".join(self._text),
            "".join(self._thinking),
            calls,
            finish.usage,
            finish.reason,
            model,
            tuple(self._thoughts),
        )


def _join(parts: list[ToolCallPart]) -> ToolCall:
    return ToolCall(
        id=next((part.id for part in parts if part.id), ""),
        name=next((part.name for part in parts if part.name), ""),
        arguments="".join(part.arguments for part in parts) or _NO_ARGUMENTS,
        signature=next((part.signature for part in parts if part.signature), ""),
    )
