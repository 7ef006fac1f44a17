"""What the agents of one run may spend on models: its budget, and those of its calls.

What comes in: budgets, prices, and models that agents ask for. What goes out: the same models, metered where anything
limits them, and the events of the budgets. It does not know how a model is asked, nor how a run is stopped.

A reservation is made in the ledger at once, so nobody can come in between, and then told to the log; only when the log
has accepted it is anything spent. A process that takes the run over finds in the log what was open, and counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio

from agentstream.agent import Budget, Price, RunOptions
from agentstream.bus import Emitter
from agentstream.errors import BudgetExceededError, EmitAfterEnd, InvalidInput, StoreError
from agentstream.events import BudgetExceeded, BudgetLow, BudgetUpdated, Event
from agentstream.llm import LLM
from agentstream.policy import Exhausted, Ledger, Reservation, WaitForOthers
from agentstream.runtime.invocation import Failure, Invocation
from agentstream.runtime.metering import Metered, Rate, TokenTimes

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Account", "Purse", "Spending")

_SETTLING_S: Final = 1.0
"""A stopped call says what it spent; the log may take so long to hear it."""


class Purse:
    """A ledger, and who tells the log about it."""

    def __init__(self, ledger: Ledger, emitter: Emitter, above: Purse | None = None) -> None:
        self.ledger = ledger
        self.emitter = emitter
        self.above = above
        self.told = False  # that it is exhausted

    async def tell(self) -> None:
        """Put where it stands into the stream; the same for those above."""
        purse: Purse | None = self
        while purse is not None:
            ledger = purse.ledger
            await purse.emit(BudgetUpdated(dict(ledger.used), dict(ledger.reserved), dict(ledger.limit)))
            for name in ledger.newly_low():
                await purse.emit(BudgetLow(name, ledger.used[name] + ledger.reserved[name], ledger.limit[name]))
            purse = purse.above

    async def tell_exhausted(self, of: str) -> None:
        """Say, once, that nothing is left of `of`."""
        if not self.told:
            self.told = True
            await self.emit(BudgetExceeded(of, self.ledger.used.get(of, 0.0), self.ledger.limit[of]))

    async def emit(self, event: Event) -> None:
        """Emit an event that only the runtime may."""
        waiting = self.emitter.put_reserved(event)
        if waiting is not None:
            await waiting


class Spending:
    """The purses of one run, by the invocations that spend from them.

    Args:
        options: of the run. prices: by model, of the runtime.
        stop: called when the run's own budget is exhausted, with a sentence that says how.
    """

    def __init__(self, options: RunOptions, prices: Mapping[str, Price], stop: Callable[[str], None]) -> None:
        self._budget = options.budget
        self._times = TokenTimes(options.first_token, options.between_tokens)
        self._prices = prices
        self._stop = stop
        self._root: Purse | None = None
        self._purses: dict[str, Purse] = {}
        self._expected: dict[tuple[str, str], Budget] = {}
        self._settled = anyio.Event()

    def begin(self, root: Emitter, used: Mapping[str, float] | None = None) -> None:
        """The run begins, or goes on with what was `used` before; `root` emits its run-level events."""
        if self._budget is not None:
            self._root = Purse(Ledger(self._budget.limits(), soft=self._budget.soft, used=used), root)

    def join(self, inv: str, parent: str, key: str, emitter: Emitter) -> None:
        """Invocation `inv` spends from its caller's purse, or from one of its own inside that."""
        budget = self._expected.pop((parent, key), None)
        purse = self._purses.get(parent, self._root)
        if budget is not None:
            above = purse.ledger if purse is not None else None
            purse = Purse(Ledger(budget.limits(), soft=budget.soft, above=above), emitter, purse)
        if purse is not None:
            self._purses[inv] = purse

    def expect(self, caller: str, key: str, budget: Budget | None) -> None:
        """The call of `caller` with this key has a budget of its own."""
        if budget is not None:
            self._expected[caller, key] = budget

    async def wait_for(self, call: Invocation[Any, Any], budget: Budget | None) -> None:
        """Wait for the end of a call, and end it when the seconds of its budget are over."""
        seconds = budget.seconds if budget is not None else None
        with anyio.move_on_after(seconds):
            await call.ended()
            return
        purse = self._purses.get(call.inv)
        if purse is not None and seconds is not None:
            await purse.emit(BudgetExceeded("seconds", seconds, seconds))
        call.cancel(Failure(BudgetExceededError.code, f"its budget of {seconds:g} seconds is used up"))
        await call.ended()

    def leave(self, inv: str) -> None:
        """The invocation has ended."""
        self._purses.pop(inv, None)

    def metered(self, llm: LLM, name: str, inv: str) -> LLM:
        """The model as `inv` may use it: itself where nothing limits it.

        Raises:
            InvalidInput: a budget of cost, and no price of the model.
        """
        purse = self._purses.get(inv, self._root)
        if purse is None:
            return Metered(llm, self._times, None) if self._times else llm
        price = self._prices.get(name) or self._prices.get(llm.name)
        if price is None and "cost" in purse.ledger.names():
            raise InvalidInput(
                f"the budget limits cost, and model {name!r} has no price: "
                f"name it in RuntimeOptions(prices={{{name!r}: Price(input=…, output=…)}})"
            )
        rate = Rate(price.input, price.output) if price is not None else Rate()
        return Metered(llm, self._times, Account(self, purse), rate)

    # --- for accounts -------------------------------------------------------------------------------------------------
    async def reserve(self, purse: Purse, amounts: Mapping[str, float]) -> Reservation:
        """Set `amounts` aside and return when the log has accepted that.

        Raises:
            BudgetExceededError: a budget has not so much left. What the append raised.
        """
        while True:
            found = purse.ledger.reserve(amounts)
            if isinstance(found, Reservation):
                break
            if isinstance(found, Exhausted):
                raise await self._exhausted(purse, found)
            assert isinstance(found, WaitForOthers)
            await self._settled.wait()
        try:
            await purse.tell()
            await purse.emitter.flush()
        except BaseException:
            self._settle(found, {})  # nobody has spent anything of it
            raise
        return found

    async def settle(self, purse: Purse, reservation: Reservation, actual: Mapping[str, float] | None) -> None:
        """Count what was spent, None if that is not known, and say so."""
        self._settle(reservation, actual)
        with anyio.move_on_after(_SETTLING_S, shield=True):
            try:
                await purse.tell()
            except (EmitAfterEnd, StoreError):
                pass  # the invocation or the run has ended: nobody spends any more

    def _settle(self, reservation: Reservation, actual: Mapping[str, float] | None) -> None:
        reservation.settle(actual)
        settled, self._settled = self._settled, anyio.Event()
        settled.set()

    async def _exhausted(self, purse: Purse, found: Exhausted) -> BudgetExceededError:
        ledger, of = found.ledger, found.of
        detail = f"the budget of {ledger.limit[of]:g} {of} has not enough left ({ledger.used[of]:g} used)"
        owner = purse
        while owner.ledger is not ledger and owner.above is not None:
            owner = owner.above
        try:
            await owner.tell_exhausted(of)
        finally:
            self._settled.set()  # who waits for others learns it too
            self._settled = anyio.Event()
            if owner is self._root:
                self._stop(detail)
        return BudgetExceededError(detail)


class Account:
    """What one metered model spends from."""

    def __init__(self, spending: Spending, purse: Purse) -> None:
        self._spending = spending
        self._purse = purse

    def left(self, name: str) -> float | None:
        """What is neither used nor reserved; None where there is no limit."""
        return self._purse.ledger.left(name)

    async def reserve(self, amounts: Mapping[str, float]) -> Reservation:
        """See `Spending.reserve`."""
        return await self._spending.reserve(self._purse, amounts)

    async def settle(self, reservation: Reservation, actual: Mapping[str, float] | None) -> None:
        """See `Spending.settle`."""
        await self._spending.settle(self._purse, reservation, actual)
