"""What a fake provider is told to do: answers, and what goes wrong with them.

What comes in: plain values. What goes out: frozen descriptions. It does not know formats, HTTP or sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeAlias

from agentstream.events import Json, Usage
from agentstream.llm.messages import ToolCall

__all__ = ("FakeAnswer", "FakeRequest", "Fault", "ProviderItem", "pieces")

_Kind = Literal["refusal", "hang", "cut", "error", "drip", "broken_json", "no_end", "gzip_bomb", "wrong_type"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with an answer; made by the methods below.

    Attributes:
        after: frames of the answer that come whole before it happens.
        status, headers: of a refusal. code: the provider's own word in an error, its usual one where empty.
        reset: whether a cut is a reset (RST) and not an end (FIN). seconds: between two pieces of a drip.
        size: bytes of a piece of a drip, or of a bomb when it is unpacked. content_type: the wrong one.
    """

    kind: _Kind
    after: int = 0
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()
    code: str = ""
    reset: bool = False
    seconds: float = 0.0
    size: int = 1
    content_type: str = "text/html"

    @classmethod
    def refusal(cls, status: int, *, retry_after: str = "", code: str = "") -> Self:
        """A status other than 200, with an error as the provider writes it; `retry_after` in any form."""
        headers = (("retry-after", retry_after),) if retry_after else ()
        return cls(kind="refusal", status=status, headers=headers, code=code)

    @classmethod
    def redirect(cls, location: str) -> Self:
        """307 to another address."""
        return cls(kind="refusal", status=307, headers=(("location", location),))

    @classmethod
    def hang(cls, *, after: int = 0) -> Self:
        """Silence until the client leaves."""
        return cls(kind="hang", after=after)

    @classmethod
    def cut(cls, *, after: int = 0, reset: bool = False) -> Self:
        """The connection ends in the middle of a frame."""
        return cls(kind="cut", after=after, reset=reset)

    @classmethod
    def error(cls, *, after: int = 0, code: str = "") -> Self:
        """An error inside the stream, as the provider writes it."""
        return cls(kind="error", after=after, code=code)

    @classmethod
    def drip(cls, seconds: float, *, size: int = 1) -> Self:
        """The whole answer, in pieces of `size` bytes with `seconds` between them."""
        return cls(kind="drip", seconds=seconds, size=size)

    @classmethod
    def broken_json(cls, *, after: int = 0) -> Self:
        """A frame whose JSON is cut, and an answer that goes on as if nothing were."""
        return cls(kind="broken_json", after=after)

    @classmethod
    def no_end(cls) -> Self:
        """The body ends in order without the mark that the format ends an answer with."""
        return cls(kind="no_end")

    @classmethod
    def gzip_bomb(cls, size: int = 64 << 20) -> Self:
        """A packed body that nobody asked for; `size` bytes when it is unpacked."""
        return cls(kind="gzip_bomb", size=size)

    @classmethod
    def wrong_type(cls, content_type: str = "text/html") -> Self:
        """Status 200 with a web page."""
        return cls(kind="wrong_type", content_type=content_type)


DEFAULT_USAGE: Final = Usage(11, 7, calls=1)


@dataclass(frozen=True, slots=True)
class FakeAnswer:
    """One answer, the same in every format.

    Attributes:
        usage: as `LLMResult.usage` reads it: cached and reasoning tokens are parts of input and output.
        finish_reason: stop, length or tool_calls; empty for what the content says.
        fault: what goes wrong with it.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = DEFAULT_USAGE
    finish_reason: Literal["", "stop", "length", "tool_calls"] = ""
    fault: Fault | None = None

    @property
    def reason(self) -> str:
        """Why it ends."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """One request as it came.

    Attributes:
        provider: the format that was asked in; empty for a path that belongs to none, such as a list of models.
        path: with the query. headers: names in lower case, values as they were sent, keys included.
        body: the JSON, None where there was none.
    """

    provider: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Json = None

    def __repr__(self) -> str:
        """Keys are left out: this is what a failing test prints."""
        shown = {name: "…" if name in KEY_HEADERS else value for name, value in self.headers.items()}
        return f"FakeRequest({self.provider!r}, {self.method} {self.path}, headers={shown}, body={self.body!r})"


KEY_HEADERS: Final = frozenset({"authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"})

ProviderItem: TypeAlias = (
    str | ToolCall | Sequence[ToolCall] | FakeAnswer | Fault | Callable[[FakeRequest], "ProviderItem"]
)
"""One request's answer: text; one call or several; a whole `FakeAnswer`; a fault of an answer that would have said
`Hello.`; or a function of the request that gives one of these."""


def pieces(text: str, size: int) -> list[str]:
    """`text` in pieces of at most `size` characters."""
    return [text[start : start + size] for start in range(0, len(text), size)]
