"""A model that says one word and then nothing, and notes when its connection is closed.

Comes in: requests. Goes out: one piece each. It deliberately does not end an answer: whoever waits must be stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import anyio

from agentstream.llm.messages import Delta, LLMRequest, LLMResult, TextPart

__all__ = ["HangingModel"]


@dataclass
class HangingModel:
    """A model that says one word and then nothing; notes when its connection is closed."""

    name: str = "hanging"
    closed: list[float] = field(default_factory=list)

    def stream(self, request: LLMRequest) -> _Answer:
        return _Answer(self)

    async def complete(self, request: LLMRequest) -> LLMResult:
        raise NotImplementedError

    async def aclose(self) -> None:
        return


class _Answer:
    def __init__(self, model: HangingModel) -> None:
        self._model = model
        self._said = False

    @property
    def result(self) -> LLMResult:
        return LLMResult("word" if self._said else "")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.closed.append(anyio.current_time())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if self._said:
            await anyio.sleep_forever()
        self._said = True
        return TextPart("word")
