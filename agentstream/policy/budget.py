"""A budget as a ledger: what was used, what is reserved, and what may still be begun.

What comes in: limits by name (tokens, cost, calls), wishes to spend, and what was spent in the end. What goes out:
reservations, or why there is none. It does not know models, prices, events or time; whoever reserves makes the
reservation known before anything is spent.

A wish counts in a ledger and in all those above it, or in none of them. What is reserved counts like what is used, so
calls that are under way at once cannot pass a limit together: a call that would is told to wait while somebody else's
reservation may still be given back, and that the budget is exhausted when that could not help. 0 means none left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ("Exhausted", "Ledger", "Reservation", "WaitForOthers")

_SLACK: Final = 1e-9
"""Costs are sums of small fractions, which do not add up exactly."""


class Exhausted:
    """No more may be begun: `of` is the limit's name, `ledger` the one that is used up."""

    __slots__ = ("ledger", "of")

    def __init__(self, ledger: Ledger, of: str) -> None:
        self.ledger = ledger
        self.of = of


class WaitForOthers:
    """It does not fit while others have reserved so much; ask again when one of them has settled."""

    __slots__ = ()


class Reservation:
    """An amount that counts as spent until it is settled, which happens once."""

    __slots__ = ("_ledger", "amounts", "settled")

    def __init__(self, ledger: Ledger, amounts: Mapping[str, float]) -> None:
        self._ledger = ledger
        self.amounts = dict(amounts)
        self.settled = False

    def settle(self, actual: Mapping[str, float] | None = None) -> None:
        """Say what was spent; None where that is not known, and then all of it counts."""
        if self.settled:
            return
        self.settled = True
        spent = self.amounts if actual is None else actual
        for ledger in self._ledger.chain():
            ledger._move(self.amounts, spent)


class Ledger:
    """One budget, maybe a part of another.

    Args:
        limit: by name; what is not named has no limit here (but maybe above).
        soft: the share of a limit at which it is low.
        above: the ledger that this one is a part of.
        used: what was spent before, for instance by a process that died.

    Attributes:
        used, reserved: by name, of the names in `limit`.
        closed: it was exhausted; nothing is reserved any more.
    """

    __slots__ = ("_above", "_told", "closed", "limit", "reserved", "soft", "used")

    def __init__(
        self,
        limit: Mapping[str, float],
        *,
        soft: float = 0.8,
        above: Ledger | None = None,
        used: Mapping[str, float] | None = None,
    ) -> None:
        self.limit = dict(limit)
        self.soft = soft
        self.used = {name: (used or {}).get(name, 0.0) for name in self.limit}
        self.reserved = dict.fromkeys(self.limit, 0.0)
        self.closed: Exhausted | None = None
        self._above = above
        self._told: set[str] = set()

    def chain(self) -> Iterator[Ledger]:
        """This ledger and those above it."""
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger
            ledger = ledger._above

    def names(self) -> set[str]:
        """Everything that has a limit, here or above."""
        return {name for ledger in self.chain() for name in ledger.limit}

    def reserve(self, amounts: Mapping[str, float]) -> Reservation | WaitForOthers | Exhausted:
        """Set `amounts` aside, here and above, or say why not. Nothing changes unless a reservation is returned,
        but that a ledger found exhausted stays so: nothing starts afterwards."""
        wait = False
        for ledger in self.chain():
            if ledger.closed is not None:
                return ledger.closed
            for name, limit in ledger.limit.items():
                wish = amounts.get(name, 0.0)
                if ledger.used[name] + wish > limit + _SLACK or (wish <= 0 and ledger.used[name] > limit + _SLACK):
                    ledger.closed = Exhausted(ledger, name)
                    return ledger.closed
                wait = wait or ledger.used[name] + ledger.reserved[name] + wish > limit + _SLACK
        if wait:
            return WaitForOthers()
        for ledger in self.chain():
            for name in ledger.limit:
                ledger.reserved[name] += amounts.get(name, 0.0)
        return Reservation(self, amounts)

    def newly_low(self) -> list[str]:
        """The limits whose soft share is reached by what is used and reserved; each is named once."""
        low = [
            name
            for name, limit in self.limit.items()
            if name not in self._told and self.used[name] + self.reserved[name] >= self.soft * limit - _SLACK
        ]
        self._told.update(low)
        return low

    def left(self, name: str) -> float | None:
        """The least that is neither used nor reserved, here and above; None where there is no limit."""
        rests = [
            ledger.limit[name] - ledger.used[name] - ledger.reserved[name]
            for ledger in self.chain()
            if name in ledger.limit
        ]
        return max(0.0, min(rests)) if rests else None

    def _move(self, reserved: Mapping[str, float], spent: Mapping[str, float]) -> None:
        for name in self.limit:
            rest = self.reserved[name] - reserved.get(name, 0.0)
            self.reserved[name] = rest if rest > _SLACK else 0.0
            self.used[name] += spent.get(name, 0.0)
