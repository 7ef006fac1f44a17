"""Claims about budgets: however many agents spend at once, what is spent stays inside the limit.

Comes in: a seed. Goes out: the worst overrun of a budget beyond what its calls spent above their own reservations.
It deliberately counts at the model, not in the ledger: what was asked there was spent.
"""

from __future__ import annotations

import random
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel

from agentstream.agent import Budget, Context, RunOptions, as_agent
from agentstream.errors import BudgetExceededError, RunStoppedError
from agentstream.events import BudgetExceeded, Usage
from agentstream.llm.messages import Delta, Finish, LLMRequest, LLMResult, Message, TextPart
from agentstream.runtime import Runtime
from agentstream.runtime.metering import estimate_tokens
from claims import Figure, at_most, claim
from run_kit import events_of

_TRIALS: Final = 1_000
_AGENTS: Final = 16
_PROMPT: Final = "How much is it?"


class _Meter:
    """A model that spends what chance says: at most what was asked for, or, if it may, more."""

    name = "meter"

    def __init__(self, seed: str, *, exceeds: bool) -> None:
        self.random = random.Random(seed)
        self.exceeds = exceeds
        self.spent = 0
        self.above = 0  # Σ (actual − reserved) of the calls that passed their reservation
        self.after = 0  # calls that began after the budget was found exhausted
        self.calls = 0
        self.closed = False

    def stream(self, request: LLMRequest) -> _Call:
        return _Call(self, request)

    async def complete(self, request: LLMRequest) -> LLMResult:
        raise NotImplementedError

    async def aclose(self) -> None:
        return


class _Call:
    def __init__(self, meter: _Meter, request: LLMRequest) -> None:
        self._meter = meter
        self._left = meter.random.randint(1, 4)
        assert request.max_tokens is not None  # a call without a bound got one
        most = request.max_tokens * (2 if meter.exceeds and meter.random.random() < 0.2 else 1)
        self._usage = Usage(meter.random.randint(1, estimate_tokens(request)), meter.random.randint(1, most), calls=1)
        self._reserved = estimate_tokens(request) + request.max_tokens

    @property
    def result(self) -> LLMResult:
        return LLMResult("word", usage=self._usage, finish_reason="stop")

    async def __aenter__(self) -> Self:
        meter = self._meter
        meter.calls += 1
        meter.after += meter.closed
        spent = self._usage.input_tokens + self._usage.output_tokens
        meter.spent += spent  # asked is spent, also where the answer is not waited for
        meter.above += max(0, spent - self._reserved)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if self._left == 0:
            raise StopAsyncIteration
        self._left -= 1
        for _ in range(self._meter.random.randint(0, 3)):
            await anyio.lowlevel.checkpoint()
        return TextPart("word") if self._left else Finish("stop", self._usage)


async def _trial(seed: int, number: int) -> tuple[int, int, int, bool]:
    """Overrun beyond what calls spent above their reservations, calls, calls that began too late, exhausted."""
    chance = random.Random(f"{seed}:{number}")
    meter = _Meter(f"{seed}:{number}", exceeds=number % 2 == 1)
    limit = chance.randint(3_000, 60_000)

    @as_agent
    async def spender(ctx: Context, task: int) -> int:
        """Ask, raw or by `generate`, until the budget says no."""
        try:
            while True:
                if task % 2:
                    await ctx.generate(_PROMPT)
                else:
                    asked = LLMRequest((Message("user", _PROMPT),), max_tokens=100 + task)
                    async with ctx.llm.stream(asked) as stream:
                        async for _ in stream:
                            pass
        except BudgetExceededError:
            meter.closed = True
            raise

    @as_agent
    async def boss(ctx: Context, task: int) -> list[int]:
        try:
            return await ctx.map(spender, range(_AGENTS))
        except Exception:
            try:
                await ctx.generate(_PROMPT)
            except BudgetExceededError:
                pass
            raise

    async with Runtime(models=meter) as runtime:
        run = await runtime.start(boss, number, options=RunOptions(budget=Budget(tokens=limit)))
        stopped = False
        try:
            await run.result()
        except RunStoppedError as error:
            stopped = error.cause == "budget"
        events = await events_of(run)
        told = [index for index, event in enumerate(events) if isinstance(event, BudgetExceeded)]
    return max(0, meter.spent - limit) - meter.above, meter.calls, meter.after, stopped and len(told) == 1


@claim(
    "budget.concurrent",
    "Sixteen agents that spend at once never pass their budget by more than calls spent above their reservations",
    unit="tokens over",
    quick=False,
    limit=600,
    promises=("P9",),
)
async def concurrent(seed: int) -> Figure:
    """Half of the trials with a model that keeps to what was asked, half with one that sometimes does not."""
    worst, calls, late, exhausted, strict = 0, 0, 0, 0, 0
    for number in range(_TRIALS):
        over, asked, after, ended = await _trial(seed, number)
        worst, calls, late, exhausted = max(worst, over), calls + asked, late + after, exhausted + ended
        strict += number % 2 == 0 and over > 0
    return Figure(
        worst,
        n=exhausted,
        bound=at_most(0),
        ok=exhausted == _TRIALS and late == 0 and strict == 0,
        seed=seed,
        detail={"calls": calls, "began after exhaustion": late, "exhausted": exhausted, "over without excess": strict},
    )
