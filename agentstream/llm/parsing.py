"""Reading one answer, whatever its format: the part that all adapters share.

What comes in: the answer's bytes, cut anywhere. What goes out: deltas, the last of which is `Finish`; or the error that
the bytes hold. It does not know any provider, HTTP, time or retries; a format says what one message means.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from agentstream.errors import FrameTooLarge, LLMError, LLMParseError, StreamBroken
from agentstream.events import Usage
from agentstream.llm.messages import Delta, Finish
from agentstream.wire import sse

__all__ = ("UNREADABLE", "AnswerParser", "Frames", "Lines", "Resumption")

UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoding bytes of somebody else's may raise; the second comes of JSON nested a thousand deep."""

_CALLS: Final = "tool_calls"


class Frames(Protocol):
    """Cuts a body into messages."""

    def feed(self, data: bytes) -> list[sse.Message]:
        """The messages that `data` completes; raises `FrameTooLarge` where one is above its bound."""
        ...


class Lines:
    """JSON lines as messages: blank lines are skipped, a last line without its end counts when `feed` gets LF.

    Args:
        max_line: longest line in bytes.
    """

    __slots__ = ("_failed", "_held", "_max")

    def __init__(self, *, max_line: int = sse.MAX_EVENT_BYTES) -> None:
        self._held = bytearray()
        self._max = max_line
        self._failed = False

    def feed(self, data: bytes) -> list[sse.Message]:
        """The messages that `data` completes; those before a line above the bound are given out first."""
        if self._failed:
            raise FrameTooLarge(f"a line has more than {self._max} bytes")
        *whole, rest = data.split(b"\n")
        if whole and self._held:
            whole[0] = bytes(self._held + whole[0])
            self._held.clear()
        self._held += rest
        messages: list[sse.Message] = []
        for line in whole:
            if len(line) > self._max:
                self._failed = True
                break
            if line and not line.isspace():
                messages.append(sse.Message("message", line, ""))
        if self._failed or len(self._held) > self._max:
            self._failed = True
            self._held.clear()
            if not messages:
                return self.feed(b"")
        return messages


class Resumption(msgspec.Struct, frozen=True):
    """Where an answer goes on that a provider keeps: paths below the base address.

    Attributes:
        path: fetched to read on. cancel: posted to, to end it.
    """

    path: str
    cancel: str


class AnswerParser:
    """One answer: `feed` its bytes, then `end`; both give deltas, the last of which is `Finish`.

    A format derives from it and says in `_take` what a message means. It calls `_finish` once the answer is whole.

    Args:
        provider: the name that errors carry.
        frames: how the body is cut; server-sent events where nothing else is said.

    Attributes:
        finished: whether `Finish` was given out.
        model: the name of the model that the provider gave.
        error: the failure that the bytes hold, found behind the deltas that `feed` returned; raise it after them.

    Bounds: those of `frames`; time linear in the bytes fed.
    """

    __slots__ = ("_calls", "_frames", "_provider", "_reason", "_usage", "error", "finished", "model")

    def __init__(self, provider: str = "", frames: Frames | None = None) -> None:
        self._provider = provider
        self._frames: Frames = frames or sse.Decoder()
        self._reason = ""  # as the provider said it, or in our words; empty until it did
        self._usage = Usage(calls=1)
        self._calls = 0  # tool calls that were begun
        self.finished = False
        self.model = ""
        self.error: LLMError | None = None

    @property
    def resumption(self) -> Resumption | None:
        """Where the rest can be had after a lost connection; None where it cannot."""
        return None

    def resume(self) -> None:
        """A new connection goes on where the last one was lost; only after `resumption` gave a place."""
        self._frames = sse.Decoder()
        self.error = None

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas that `data` completes. After `Finish`, and after an error, further bytes are ignored."""
        deltas: list[Delta] = []
        if self.finished or self.error is not None:
            return deltas
        try:
            for message in self._frames.feed(data):
                if self._take(message, deltas):
                    break
        except FrameTooLarge:
            self.error = LLMParseError("a line of the answer is too long", provider=self._provider)
        except LLMError as error:
            self.error = error
        return deltas

    def end(self) -> list[Delta]:
        """The stream has ended in order: what that completes. An answer that is not whole is a `StreamBroken`."""
        deltas = self.feed(b"")  # a line that was too long is told by the next call
        if self.finished or self.error is not None:
            return deltas
        try:
            self._close(deltas)
        except LLMError as error:
            self.error = error
        return deltas

    def _take(self, message: sse.Message, deltas: list[Delta]) -> bool:
        """Read one message; whether it was the last. Raises the `LLMError` that it holds."""
        raise NotImplementedError

    def _close(self, deltas: list[Delta]) -> None:  # noqa: ARG002 - for formats whose end completes an answer
        """The body has ended in order before the answer said that it is whole."""
        raise StreamBroken("the answer ended before its end was said", provider=self._provider)

    def _finish(self, deltas: list[Delta]) -> None:
        """The answer is whole."""
        reason = self._reason or "stop"
        if reason == "stop" and self._calls:
            reason = _CALLS  # some servers stop in order to have tools called, and say only that they stopped
        self.finished = True
        deltas.append(Finish(reason, self._usage))

    def _unreadable(self) -> LLMParseError:
        return LLMParseError("an event of the answer is not in the provider's format", provider=self._provider)
