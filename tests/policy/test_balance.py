"""Whoever is chosen was handed in, is of the first tier, and is chosen as often as the strategy says."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import InvalidInput
from agentstream.policy import STRATEGIES, Balancer, Strategy


@dataclass(frozen=True)
class One:
    """A candidate with a fixed cost."""

    name: str
    tier: int = 0
    weight: float = 1.0
    price: float = 1.0

    def cost(self, now: float) -> float:
        """As given."""
        return self.price


def drawn(seed: int = 1) -> random.Random:
    """Chance that is the same each time."""
    return random.Random(seed)


CANDIDATES = st.lists(
    st.builds(
        One,
        st.text("abc", min_size=1, max_size=3),
        st.integers(0, 2),
        st.sampled_from([0.5, 1.0, 3.0]),
        st.sampled_from([0.01, 1.0, 5.0]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.name,
)


@given(
    strategy=st.sampled_from(STRATEGIES),
    rounds=st.lists(CANDIDATES, min_size=1, max_size=8),
    key=st.text("k", max_size=1),
)
def test_any_history(strategy: Strategy, rounds: list[list[One]], key: str) -> None:
    """With candidates that come and go, the choice is always one of the first tier that was handed in."""
    balancer = Balancer(strategy)
    chance = drawn().random
    for candidates in rounds:
        chosen = balancer.choose(candidates, 0.0, chance, key=key)
        assert chosen in candidates
        assert chosen.tier == min(one.tier for one in candidates)


@given(candidates=CANDIDATES, draws=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)))
def test_health_never_takes_the_dearest_of_several(candidates: list[One], draws: tuple[float, float]) -> None:
    """Of two the cheaper is taken, so the dearest of all is never chosen unless another costs the same."""
    tier = [one for one in candidates if one.tier == min(other.tier for other in candidates)]
    values = iter(draws)
    chosen = Balancer("health").choose(candidates, 0.0, lambda: next(values))
    dearest = max(one.price for one in tier)
    assert chosen.price < dearest or len(tier) == 1 or [one.price for one in tier].count(dearest) > 1


def test_round_robin_visits_all() -> None:
    """One after another, also when one leaves and comes back."""
    balancer = Balancer("round_robin")
    a, b, c = One("a"), One("b"), One("c")
    chance = drawn().random
    assert [balancer.choose([c, a, b], 0, chance).name for _ in range(4)] == ["a", "b", "c", "a"]
    assert [balancer.choose([a, c], 0, chance).name for _ in range(2)] == ["c", "a"]
    assert balancer.choose([a, b, c], 0, chance).name == "b"


def test_weights_are_exact_and_smooth() -> None:
    """Five to one to one means exactly that, and the heavy one is not asked five times in a row."""
    balancer = Balancer("weighted")
    candidates = [One("a", weight=5), One("b"), One("c")]
    names = "".join(balancer.choose(candidates, 0, drawn().random).name for _ in range(14))
    assert names == "aabacaa" * 2


def test_random_takes_all_alike() -> None:
    """Each of four gets about a quarter."""
    balancer, chance = Balancer("random"), drawn().random
    count = Counter(balancer.choose([One(name) for name in "abcd"], 0, chance).name for _ in range(4_000))
    assert all(850 < count[name] < 1_150 for name in "abcd")


def test_health_shares_among_equals() -> None:
    """Equals share; a dear one gets nothing from three."""
    balancer, chance = Balancer("health"), drawn().random
    candidates = [One("a", price=1), One("b", price=1), One("c", price=10)]
    count = Counter(balancer.choose(candidates, 0, chance).name for _ in range(3_000))
    assert count["c"] == 0
    assert abs(count["a"] - count["b"]) < 300


def test_a_key_stays() -> None:
    """A key keeps its place while others come and go, and keys spread by weight."""
    balancer, chance = Balancer("random"), drawn().random
    five = [One(name) for name in "abcde"]
    homes = {key: balancer.choose(five, 0, chance, key=key).name for key in map(str, range(1_000))}
    assert all(balancer.choose(five, 0, chance, key=key).name == home for key, home in homes.items())
    four = [one for one in five if one.name != "c"]
    moved = [key for key, home in homes.items() if balancer.choose(four, 0, chance, key=key).name != home]
    assert all(homes[key] == "c" for key in moved)
    assert 130 < len(moved) < 270
    uneven = [One("a", weight=3), One("b")]
    heavy = sum(balancer.choose(uneven, 0, chance, key=str(key)).name == "a" for key in range(1_000))
    assert 690 < heavy < 810


def test_the_strategy_may_change() -> None:
    """It is set while in use; an unknown one is refused and changes nothing."""
    balancer = Balancer()
    balancer.strategy = "round_robin"
    with pytest.raises(InvalidInput, match="round_robin"):
        balancer.strategy = "best"  # type: ignore[assignment]
    assert balancer.strategy == "round_robin"
