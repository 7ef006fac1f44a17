"""Which of several equals is asked next.

What comes in: those that may be asked, the time, randomness and perhaps a key that should stay with one of them. What
goes out: one of them. It does not know who may be asked and why; tiers are strict: a later tier is looked at only if no
one of an earlier tier is handed in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

from agentstream.errors import InvalidInput

__all__ = ("STRATEGIES", "Balancer", "Candidate", "Strategy")

Strategy: TypeAlias = Literal["health", "round_robin", "random", "weighted"]
"""How one is chosen.

health: of two at random the one whose next answer is expected sooner. round_robin: one after another. random: any, all
alike. weighted: as often as its weight says, evenly spread.
"""

STRATEGIES: Final[tuple[Strategy, ...]] = ("health", "round_robin", "random", "weighted")


class Candidate(Protocol):
    """One that may be asked."""

    @property
    def name(self) -> str:
        """Unlike any other's."""
        ...

    @property
    def tier(self) -> int:
        """Lower ones first."""
        ...

    @property
    def weight(self) -> float:
        """Above 0."""
        ...

    def cost(self, now: float) -> float:
        """What asking it now is expected to cost; above 0."""
        ...


C = TypeVar("C", bound=Candidate)


class Balancer:
    """Chooses; remembers what round-robin and weights need, by name, so candidates may come and go.

    Bounds: memory for the names handed in last. Time linear in them.
    """

    __slots__ = ("_credit", "_last", "_strategy")

    def __init__(self, strategy: Strategy = "health") -> None:
        self._credit: dict[str, float] = {}
        self._last = ""
        self._strategy: Strategy = "health"
        self.strategy = strategy

    @property
    def strategy(self) -> Strategy:
        """How one is chosen; may be set at any time.

        Raises:
            InvalidInput: (setting) no such strategy.
        """
        return self._strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        if strategy not in STRATEGIES:
            raise InvalidInput(f"a strategy is one of {', '.join(STRATEGIES)}")
        self._strategy = strategy
        self._credit.clear()

    def choose(self, candidates: Sequence[C], now: float, random: Callable[[], float], *, key: str = "") -> C:
        """One of `candidates`, which is not empty.

        Args:
            random: draws from [0, 1).
            key: where not empty, the same key gets the same one as long as that one is handed in; when one comes or
                goes, only that one's keys move.
        """
        first = min(candidate.tier for candidate in candidates)
        tier = [candidate for candidate in candidates if candidate.tier == first]
        if len(tier) == 1:
            return tier[0]
        if key:
            return max(tier, key=lambda candidate: _affinity(key, candidate))
        match self._strategy:
            case "round_robin":
                return self._after_last(tier)
            case "weighted":
                return self._by_weight(tier)
            case "random":
                return tier[int(random() * len(tier))]
            case "health":
                return _better_of_two(tier, now, random)

    def _after_last(self, tier: Sequence[C]) -> C:
        """The next in the order of names, beginning anew after the last."""
        chosen = min(tier, key=lambda candidate: (candidate.name <= self._last, candidate.name))
        self._last = chosen.name
        return chosen

    def _by_weight(self, tier: Sequence[C]) -> C:
        """Smooth weighted round-robin: everybody earns its weight, the richest pays for all.

        Source: nginx's upstream module.
        """
        credit: Mapping[str, float] = self._credit
        self._credit = {one.name: credit.get(one.name, 0.0) + one.weight for one in tier}
        chosen = max(tier, key=lambda candidate: self._credit[candidate.name])
        self._credit[chosen.name] -= sum(candidate.weight for candidate in tier)
        return chosen


def _better_of_two(tier: Sequence[C], now: float, random: Callable[[], float]) -> C:
    """Of two at random the cheaper one; the heavier one where they cost the same.

    Two choices avoid both the slow ones and the rush of everybody to the one that looked best a moment ago.
    """
    first = int(random() * len(tier))
    second = int(random() * (len(tier) - 1))
    second += second >= first
    return min(tier[first], tier[second], key=lambda candidate: (candidate.cost(now), -candidate.weight))


def _affinity(key: str, candidate: Candidate) -> float:
    """Weighted rendezvous hashing: the largest wins, and each wins as often as its weight says."""
    digest = hashlib.blake2b(f"{key}\0{candidate.name}".encode("utf-8", "replace"), digest_size=8).digest()
    share = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)  # in (0, 1)
    return -candidate.weight / math.log(share)
