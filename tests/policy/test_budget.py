"""The ledger: all or nothing, reservations count, waits are told from exhaustion, and 0 means none left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentstream.policy import Exhausted, Ledger, Reservation, WaitForOthers


def _reserved(found: Reservation | WaitForOthers | Exhausted) -> Reservation:
    assert isinstance(found, Reservation)
    return found


def test_what_is_reserved_counts_until_it_is_settled() -> None:
    """A second call waits for the first; after the settlement what was not spent is there again."""
    ledger = Ledger({"tokens": 100})
    first = _reserved(ledger.reserve({"tokens": 80}))
    assert isinstance(ledger.reserve({"tokens": 30}), WaitForOthers)
    assert ledger.left("tokens") == 20
    first.settle({"tokens": 10})
    first.settle({"tokens": 10})
    assert (ledger.used, ledger.reserved) == ({"tokens": 10.0}, {"tokens": 0.0})
    second = _reserved(ledger.reserve({"tokens": 90}))
    second.settle(None)
    assert ledger.used == {"tokens": 100.0}


def test_nothing_starts_after_exhaustion() -> None:
    """A wish that could not be met even alone closes the ledger, for smaller wishes too."""
    ledger = Ledger({"calls": 1})
    _reserved(ledger.reserve({"calls": 1})).settle(None)
    assert isinstance(ledger.reserve({"calls": 1}), Exhausted)
    assert isinstance(ledger.reserve({"calls": 0}), Exhausted)


def test_zero_means_none_left() -> None:
    """A limit of 0 is not the same as no limit."""
    assert isinstance(Ledger({"tokens": 0}).reserve({"tokens": 1}), Exhausted)
    assert isinstance(Ledger({}).reserve({"tokens": 10**9}), Reservation)


def test_a_part_spends_from_the_whole() -> None:
    """What does not fit above is not reserved below either; each part keeps its own limit."""
    whole = Ledger({"tokens": 100, "cost": 1.0})
    part = Ledger({"calls": 2, "tokens": 60}, above=whole)
    other = Ledger({"tokens": 60}, above=whole)
    _reserved(part.reserve({"tokens": 60, "calls": 1, "cost": 0.5}))
    assert isinstance(other.reserve({"tokens": 60, "cost": 0.1}), WaitForOthers)
    assert other.reserved == {"tokens": 0.0}
    assert whole.reserved == {"tokens": 60.0, "cost": 0.5}
    found = part.reserve({"tokens": 61})
    assert isinstance(found, Exhausted)
    assert (found.of, found.ledger) == ("tokens", part)
    assert isinstance(other.reserve({"tokens": 40}), Reservation)


def test_the_soft_share_is_told_once() -> None:
    """What is reserved counts for it; later there is silence."""
    ledger = Ledger({"tokens": 100, "calls": 10}, soft=0.5)
    _reserved(ledger.reserve({"tokens": 50, "calls": 1}))
    assert ledger.newly_low() == ["tokens"]
    assert ledger.newly_low() == []


def test_what_was_spent_before_counts() -> None:
    """A run that is taken over goes on with what its log says."""
    assert isinstance(Ledger({"tokens": 100}, used={"tokens": 95, "cost": 1}).reserve({"tokens": 6}), Exhausted)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1), st.booleans()), max_size=60))
def test_calls_that_keep_to_their_reservations_never_pass_a_limit(wishes: list[tuple[int, float, bool]]) -> None:
    """Whatever is reserved and settled in any order: used and reserved together stay within the limit."""
    whole = Ledger({"tokens": 100})
    part = Ledger({"tokens": 70}, above=whole)
    open_: list[Reservation] = []
    for wish, share, below in wishes:
        found = (part if below else whole).reserve({"tokens": wish})
        if isinstance(found, Reservation):
            open_.append(found)
        elif open_:
            first = open_.pop(0)
            first.settle({"tokens": first.amounts["tokens"] * share})
        for ledger in (whole, part):
            assert ledger.used["tokens"] + ledger.reserved["tokens"] <= ledger.limit["tokens"] + 1e-6
