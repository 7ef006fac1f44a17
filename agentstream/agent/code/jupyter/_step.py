"""What one step shows while it runs, folded into a result.

What comes in: messages of a kernel about one step. What goes out: output for whoever follows, and at the end a
`CodeResult` or the reason of a failure. It does not know where messages come from; every part of it is bounded.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from time import monotonic
from typing import Final

import msgspec

from agentstream.agent.code._reasons import explain, of_exception
from agentstream.agent.code.contract import PLOTLY, CodeResult, Limits, OutputCallback, Reason, RichOutput, mime_of
from agentstream.agent.code.jupyter._messages import Display, Files, Incoming, Raised, Status, Streamed
from agentstream.agent.code.jupyter._zmtp import BrokenPeer

__all__ = ("Step",)

_LEFT_OUT: Final = "application/x-left-out"
_BEST_FIRST: Final = (
    (PLOTLY, "figure", "plotly.json"),
    ("image/png", "picture", "png"),
    ("image/jpeg", "picture", "jpg"),
    ("image/svg+xml", "picture", "svg"),
    ("text/html", "table", "html"),
)
_BINARY: Final = ("image/png", "image/jpeg")
_MAX_OUTPUTS: Final = 64
_TEXT_CHARS: Final = 20_000


class Step:
    """One step: its request's id, what it raised, whether it is over and answered, and what came of it so far."""

    def __init__(self, id_: str, limits: Limits, output: OutputCallback | None) -> None:
        self.id = id_
        self.raised: Raised | None = None
        self.over = self.answered = False
        self._limits = limits
        self._output = output
        self._began = monotonic()
        self._printed: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._output_left = limits.output_bytes
        self._text: list[str] = []
        self._outputs: list[RichOutput] = []
        self._bytes_left = 4 * limits.result_bytes
        self._left_out: list[str] = []

    @property
    def too_loud(self) -> bool:
        """Whether it printed more than it may."""
        return self._output_left < 0

    def mute(self) -> None:
        """Nobody follows any more."""
        self._output = None

    async def take(self, message: Incoming) -> None:
        """Take a message in.

        Raises:
            BrokenPeer: it is none. Whatever the follower of the output raises.
        """
        if message.parent != self.id:
            return  # a thread of an earlier step
        match message.kind:
            case "stream":
                await self._stream(message.as_(Streamed))
            case "execute_result" | "display_data":
                self._shown(message.as_(Display))
            case "error":
                self.raised = message.as_(Raised)
            case "status":
                self.over = message.as_(Status).execution_state == "idle"
            case _:
                pass

    async def _stream(self, streamed: Streamed) -> None:
        room = max(0, self._output_left)
        data = streamed.text.encode("utf-8", "replace")
        self._output_left -= len(data)
        text = streamed.text if len(data) <= room else data[:room].decode("utf-8", "ignore")
        if text:
            self._printed[streamed.name].append(text)
            if self._output is not None:
                await self._output(streamed.name, text)

    def _shown(self, display: Display) -> None:
        if _LEFT_OUT in display.data:
            self._left_out.append(_string(display.data[_LEFT_OUT])[:200])
        for mime, stem, ending in _BEST_FIRST:
            if (raw := display.data.get(mime)) is not None:
                name = f"{stem}-{1 + sum(output.mime == mime for output in self._outputs)}.{ending}"
                self._keep(RichOutput(name, mime, _bytes(mime, raw)))
                if mime != "text/html":  # of a picture the text only says that it is one
                    return
                break
        if (text := display.data.get("text/plain")) is not None:
            self._text.append(_string(text)[:_TEXT_CHARS])

    def _keep(self, output: RichOutput) -> None:
        size = len(output.data)
        if size > self._limits.result_bytes or size > self._bytes_left or len(self._outputs) >= _MAX_OUTPUTS:
            if len(self._left_out) < _MAX_OUTPUTS:
                self._left_out.append(output.name)
            return
        self._bytes_left -= size
        self._outputs.append(output)

    def files(self, files: Files, parts: Sequence[bytes]) -> None:
        """Take in the files that the step wrote."""
        for name, data in zip(files.names, parts, strict=False):
            plain = "-".join(part for part in name.split("/") if part.strip("."))[-120:]
            if plain:
                self._keep(RichOutput(plain, mime_of(plain), data, "file"))
        self._left_out += [name[:200] for name in files.left_out[:_MAX_OUTPUTS]]

    def result(self) -> CodeResult:
        """What there is so far."""
        return CodeResult(
            text="\n".join(self._text)[:_TEXT_CHARS],
            stdout="".join(self._printed["stdout"]),
            stderr="".join(self._printed["stderr"]),
            outputs=tuple(self._outputs),
            left_out=tuple(self._left_out),
            seconds=round(monotonic() - self._began, 3),
        )

    def failure(self) -> tuple[Reason, str] | None:
        """The reason of a failure of the code, and what to tell; None where it did well."""
        if self.too_loud:
            return "output", f"the code printed more than {self._limits.output_bytes:,} bytes and was interrupted"
        if self.raised is None:
            return None
        reason = of_exception(self.raised.ename, self.raised.evalue)
        traceback = "\n".join(self.raised.traceback) or f"{self.raised.ename}: {self.raised.evalue}"
        return reason, explain(reason, traceback)


def _string(raw: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except ValueError:
        return bytes(raw).decode("utf-8", "replace")


def _bytes(mime: str, raw: msgspec.Raw) -> bytes:
    if mime == PLOTLY:
        return bytes(raw)
    text = _string(raw)
    if mime not in _BINARY:
        return text.encode("utf-8", "replace")
    try:
        return binascii.a2b_base64(text)
    except ValueError as error:
        raise BrokenPeer(f"the kernel sent a picture that is none: {error}") from None
