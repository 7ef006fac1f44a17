"""The budget for repeats, and what is left of a provider's limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentstream.policy import Allowance, RetryBudget


@given(st.lists(st.booleans(), max_size=400))
def test_repeats_are_bounded_by_successes(outcomes: list[bool]) -> None:
    """Whatever happens, there are at most five repeats more than a tenth of the successes."""
    budget = RetryBudget()
    repeats = successes = 0
    for ok in outcomes:
        if ok:
            budget.succeeded()
            successes += 1
        else:
            budget.failed()
            repeats += budget.allows
        assert 0 <= budget.tokens <= 10
    assert repeats <= 5 + 0.1 * successes


def test_an_outage_uses_it_up_and_successes_bring_it_back() -> None:
    """Four repeats, then none; after that one for each ten successes."""
    budget = RetryBudget()
    allowed = []
    for _ in range(10):
        budget.failed()
        allowed.append(budget.allows)
    assert allowed == [True] * 4 + [False] * 6
    for _ in range(50):
        budget.succeeded()
    assert not budget.allows
    for _ in range(10):
        budget.succeeded()
    assert budget.allows
    budget.failed()
    assert not budget.allows
    budget.succeeded()
    assert budget.allows


def test_an_allowance_blocks_until_it_resets() -> None:
    """Nothing left means waiting; afterwards, and where nothing is known, it does not."""
    allowance = Allowance()
    assert (allowance.blocked_until(5.0), allowance.left(5.0)) == (5.0, 1.0)
    allowance.observe("requests", 10, 0, 7.0, 5.0)
    allowance.observe("tokens", 1_000, 250, 60.0, 5.0)
    assert allowance.blocked_until(5.0) == 12.0
    assert allowance.left(5.0) == 0.0
    assert allowance.left(13.0) == 0.25
    assert allowance.left(66.0) == 1.0
    allowance.observe("requests", 10, 9, 7.0, 13.0)
    assert allowance.blocked_until(13.0) == 13.0


def test_an_allowance_is_bounded() -> None:
    """A provider that invents limits fills nothing."""
    allowance = Allowance()
    for number in range(100):
        allowance.observe(f"limit-{number}", 1, 0, 1_000, 0)
    allowance.observe("limit-0", 1, 1, 0, 0)
    assert len(allowance._left) == 8
