"""What a model is to the rest of the library.

What comes in: an `LLMRequest`. What goes out: its deltas as they arrive, or the whole result. It does not know any
provider; a client of a provider, a pool of endpoints, rules without a model and a script for tests all look like this.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from agentstream.llm.messages import Delta, LLMRequest, LLMResult

__all__ = ("LLM", "LLMStream")


class LLMStream(Protocol):
    """The deltas of one answer, in order; the last is `Finish`. Read by one task.

    Iterating raises an `LLMError`: `StreamBroken` where the answer ended early. Nothing is tried again underneath once
    a delta was given out, so what was read is always the beginning of one answer.
    """

    @property
    def result(self) -> LLMResult:
        """What was read so far, joined; whole once the iteration has ended."""
        ...

    def __aiter__(self) -> LLMStream: ...

    async def __anext__(self) -> Delta: ...


@runtime_checkable
class LLM(Protocol):
    """A model that answers. Safe to share between tasks of one event loop."""

    @property
    def name(self) -> str:
        """What it is called in configuration and errors."""
        ...

    def stream(self, request: LLMRequest) -> AbstractAsyncContextManager[LLMStream]:
        """Ask, and read the answer while it comes. Leaving the context ends the answer and frees what carried it.

        Raises:
            LLMError: on entering, where the request could not be sent or was refused.
        """
        ...

    async def complete(self, request: LLMRequest) -> LLMResult:
        """Ask, and wait for the whole answer; raises as `stream` does."""
        ...

    async def aclose(self) -> None:
        """Free connections that it opened itself."""
        ...
