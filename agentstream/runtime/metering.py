"""A model that counts what it costs before it is asked, and that may not be silent for too long.

What comes in: a model, an account, time limits. What goes out: the same model; each request is reserved before it is
sent and settled when its answer has ended. It does not know budgets, runs or events.

The reservation of a request is the estimate of its prompt plus the most that its answer may have; a request that does
not say gets a bound. Providers count with tokenizers of their own: the estimate is one token for three bytes of text,
which is above what common tokenizers make of prose and of most code.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

import anyio
import msgspec

from agentstream.errors import LLMTimeout
from agentstream.events import Usage
from agentstream.llm import LLM
from agentstream.llm.contract import LLMStream
from agentstream.llm.messages import Delta, LLMRequest, LLMResult
from agentstream.policy import Reservation

__all__ = ("MAX_OUTPUT", "Metered", "Rate", "Spender", "TokenTimes", "estimate_tokens")

_BYTES_A_TOKEN: Final = 3
_A_MESSAGE: Final = 8
_AN_IMAGE: Final = 1600
_MILLION: Final = 1_000_000

MAX_OUTPUT: Final = 4096
"""Most tokens of an answer whose request does not say; less where less is left, but not below the next number."""
_LEAST_OUTPUT: Final = 256


class TokenTimes(NamedTuple):
    """Seconds of silence, before the first piece of an answer and between two; None for the endpoint's own limits."""

    first: float | None = None
    between: float | None = None

    def __bool__(self) -> bool:
        return self.first is not None or self.between is not None


class Rate(NamedTuple):
    """Prices per million tokens."""

    input: float = 0.0
    output: float = 0.0

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / _MILLION


class Spender(Protocol):
    """Where a metered model spends from."""

    def left(self, name: str) -> float | None:
        """What is neither used nor reserved; None where there is no limit."""
        ...

    async def reserve(self, amounts: Mapping[str, float]) -> Reservation:
        """Set aside; returns when that is accepted."""
        ...

    async def settle(self, reservation: Reservation, actual: Mapping[str, float] | None) -> None:
        """Count what was spent; None if that is not known."""
        ...


def estimate_tokens(request: LLMRequest) -> int:
    """An upper estimate of the tokens of a request's prompt, tools and schema included."""
    texts = 0
    for message in request.messages:
        texts += len(message.content.encode("utf-8", "replace"))
        texts += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        texts += sum(len(thought.text) + len(thought.signature) for thought in message.thoughts)
    if request.tools:
        texts += len(msgspec.json.encode(request.tools))
    if request.schema is not None:
        texts += len(msgspec.json.encode(request.schema))
    images = sum(len(message.images) for message in request.messages)
    return -(-texts // _BYTES_A_TOKEN) + _A_MESSAGE * len(request.messages) + _AN_IMAGE * images


class Metered:
    """An `LLM` like the one it is made of. See the module."""

    def __init__(self, llm: LLM, times: TokenTimes, spender: Spender | None, rate: Rate | None = None) -> None:
        self._llm = llm
        self._times = times
        self._spender = spender
        self._rate = rate or Rate()

    @property
    def name(self) -> str:
        """The model's own."""
        return self._llm.name

    def stream(self, request: LLMRequest) -> AbstractAsyncContextManager[LLMStream]:
        """As the model's own.

        Raises:
            BudgetExceededError: on entering; nothing was sent. LLMTimeout: it was silent for too long.
        """
        return _MeteredStream(self._llm, request, self._times, self._spender, self._rate)

    async def complete(self, request: LLMRequest) -> LLMResult:
        """As the model's own; streamed, so that the limits hold."""
        async with self.stream(request) as stream:
            async for _ in stream:
                pass
            return stream.result

    async def aclose(self) -> None:
        """Closed by who made it: here nothing is."""


class _MeteredStream:
    """One request: reserve, ask, pass the deltas on, settle."""

    def __init__(self, llm: LLM, request: LLMRequest, times: TokenTimes, spender: Spender | None, rate: Rate) -> None:
        self._llm = llm
        self._request = request
        self._times = times
        self._spender = spender
        self._rate = rate
        self._reservation: Reservation | None = None
        self._prompt = 0
        self._inner: AbstractAsyncContextManager[LLMStream] | None = None
        self._stream: LLMStream | None = None
        self._deadline: float = 0.0
        self._limit = times.first

    # --- the stream ---------------------------------------------------------------------------------------------------
    @property
    def result(self) -> LLMResult:
        """What was read so far."""
        assert self._stream is not None
        return self._stream.result

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        assert self._stream is not None
        delta: Delta | None = None
        if self._limit is None:
            delta = await self._stream.__anext__()
        else:
            with anyio.CancelScope(deadline=self._deadline):
                delta = await self._stream.__anext__()
        if delta is None:
            raise self._too_slow()
        self._limit = self._times.between
        if self._limit is not None:
            self._deadline = anyio.current_time() + self._limit
        return delta

    def _too_slow(self) -> LLMTimeout:
        return LLMTimeout(f"no further piece of the answer came for {self._limit:g} s", provider=self._llm.name)

    # --- the context --------------------------------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        request = self._request
        if self._spender is not None:
            request = await self._reserve(self._spender)
        try:
            self._inner = self._llm.stream(request)
            if self._limit is None:
                self._stream = await self._inner.__aenter__()
            else:
                self._deadline = anyio.current_time() + self._limit
                with anyio.CancelScope(deadline=self._deadline) as scope:
                    self._stream = await self._inner.__aenter__()
                if scope.cancelled_caught:
                    raise self._too_slow()
        except Exception:
            await self._settle({"calls": 1.0})  # it could not be sent, or was refused
            raise
        except BaseException:
            await self._settle(None)  # cancelled while it was sent: it may be answered all the same
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._inner is not None
        try:
            return await self._inner.__aexit__(kind, error, trace)
        finally:
            await self._settle(self._spent(error))

    # --- what it costs ------------------------------------------------------------------------------------------------
    async def _reserve(self, spender: Spender) -> LLMRequest:
        request = self._request
        self._prompt = estimate_tokens(request)
        most = request.max_tokens
        if most is None:
            left = spender.left("tokens")
            most = MAX_OUTPUT if left is None else min(MAX_OUTPUT, max(_LEAST_OUTPUT, int(left) - self._prompt))
            request = msgspec.structs.replace(request, max_tokens=most)
        self._reservation = await spender.reserve(self._amounts(self._prompt, most))
        return request

    def _amounts(self, input_tokens: float, output_tokens: float) -> dict[str, float]:
        cost = self._rate.cost(input_tokens, output_tokens)
        return {"tokens": float(input_tokens + output_tokens), "cost": cost, "calls": 1.0}

    def _spent(self, error: BaseException | None) -> dict[str, float] | None:
        if self._stream is None:
            return None
        result = self._stream.result
        usage: Usage = result.usage
        if usage.input_tokens or usage.output_tokens:
            return self._amounts(usage.input_tokens, usage.output_tokens)
        if error is not None:
            return None  # broken off: the provider goes on counting for a while, so all of it counts
        said = len((result.text + result.thinking).encode("utf-8", "replace"))
        said += sum(len(call.arguments) + len(call.name) for call in result.tool_calls)
        return self._amounts(self._prompt, -(-said // _BYTES_A_TOKEN))  # a server that does not count

    async def _settle(self, actual: Mapping[str, float] | None) -> None:
        if self._spender is not None and self._reservation is not None:
            await self._spender.settle(self._reservation, actual)
            self._reservation = None
