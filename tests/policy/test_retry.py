"""Pauses, and what a failure means."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream import errors
from agentstream.errors import InvalidInput, LLMError
from agentstream.policy import MAX_WAIT_S, Fault, Reconnect, Retry, backoff, fault_of, wait_after, worth_another

CHANCE = st.floats(0, 1, exclude_max=True)


@given(failures=st.integers(1, 10_000), random=CHANCE)
def test_backoff_is_a_share_of_a_bounded_power(failures: int, random: float) -> None:
    """However often a call failed, its pause is the drawn share of at most 8 s, and of 0.5 s at first."""
    pause = backoff(failures, random)
    assert pause == pytest.approx(random * min(8.0, 0.5 * 2.0 ** min(failures - 1, 10)))


@given(failures=st.integers(1, 100), random=CHANCE, asked=st.floats(0, 1_000))
def test_what_the_provider_asked_for_goes_before(failures: int, random: float, asked: float) -> None:
    """A pause that was asked for is kept, and made longer by at most a tenth; above a minute nobody waits."""
    pause = wait_after(failures, random, asked)
    if asked > MAX_WAIT_S:
        assert pause is None
    else:
        assert pause is not None
        assert asked <= pause <= asked * 1.1
    assert wait_after(failures, random, None) == backoff(failures, random)


@pytest.mark.parametrize(
    ("kind", "pauses"),
    [("exponential", [5, 10, 20, 40, 80, 160, 300, 300]), ("linear", [5, 10, 15, 20]), ("fixed", [5, 5, 5])],
)
def test_reconnect_policies(kind: str, pauses: list[float]) -> None:
    """Each policy grows as its name says, and no further than its bound."""
    policy = Reconnect(kind=kind)  # type: ignore[arg-type]
    assert [policy.delay(times, 0.5) for times in range(1, len(pauses) + 1)] == pytest.approx(pauses)


@given(
    kind=st.sampled_from(["exponential", "linear", "fixed", "adaptive"]),
    times=st.integers(1, 5_000),
    random=CHANCE,
    outage=st.none() | st.floats(0, 1e6),
)
def test_reconnect_stays_within_its_bounds(kind: str, times: int, random: float, outage: float | None) -> None:
    """Whatever the history, a pause is positive and at most the longest, jitter apart."""
    pause = Reconnect(kind=kind).delay(times, random, outage=outage)  # type: ignore[arg-type]
    assert 0 < pause <= 300 * 1.2
    assert math.isfinite(pause)


def test_adaptive_learns_from_outages() -> None:
    """After short outages an endpoint is tried again soon, after long ones later; without any it doubles."""
    policy = Reconnect(kind="adaptive", jitter=0)
    assert policy.delay(1, 0, outage=2.0) == 1.0
    assert policy.delay(2, 0, outage=2.0) == 1.5
    assert policy.delay(1, 0, outage=100.0) == 50.0
    assert policy.delay(1, 0, outage=0.0) == 0.5
    assert [policy.delay(times, 0) for times in (1, 2, 3)] == [5, 10, 20]


@pytest.mark.parametrize(
    "values",
    [{"kind": "never"}, {"first": 0.0}, {"first": 10.0, "longest": 5.0}, {"longest": math.inf}, {"jitter": 1.0}],
)
def test_reconnect_refuses_nonsense(values: dict[str, object]) -> None:
    """A policy that could not work is refused when it is made."""
    with pytest.raises(InvalidInput):
        Reconnect(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"attempts": 0}, {"max_wait": -1.0}, {"first": math.nan}, {"budget": math.inf}])
def test_retry_refuses_nonsense(values: dict[str, object]) -> None:
    """So is a way to try again."""
    with pytest.raises(InvalidInput):
        Retry(**values)  # type: ignore[arg-type]


FAULTS = [
    (errors.LLMConnectionError, Fault.TRANSPORT),
    (errors.LLMTimeout, Fault.TRANSPORT),
    (errors.LLMServerError, Fault.SERVER),
    (errors.LLMParseError, Fault.SERVER),
    (errors.LLMValidationError, Fault.SERVER),
    (errors.LLMRateLimited, Fault.RATE),
    (errors.LLMQuotaExceeded, Fault.ACCOUNT),
    (errors.LLMAuthError, Fault.AUTH),
    (errors.LLMRequestError, Fault.REQUEST),
    (errors.LLMContentRefused, Fault.REQUEST),
    (errors.StreamBroken, Fault.MIDSTREAM),
    (LLMError, Fault.REQUEST),
]


def test_every_error_of_a_model_has_a_fault() -> None:
    """The table names each class of the tree, so a new one cannot be forgotten."""
    classes = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, LLMError)}
    assert classes == {class_ for class_, _ in FAULTS}


@pytest.mark.parametrize(("class_", "fault"), FAULTS)
def test_faults(class_: type[LLMError], fault: Fault) -> None:
    """Each error has its fault; the provider's advice goes before the rule, unless the request is wrong."""
    assert fault_of(class_("x")) is fault
    assert worth_another(class_("x"), fault) is fault.again
    for advice in (True, False):
        told = class_("x", details={"should_retry": advice})
        assert worth_another(told, fault) is (advice if fault is not Fault.REQUEST else False)


def test_only_what_the_endpoint_did_counts_against_it() -> None:
    """Limits, accounts, keys and wrong requests say nothing about an endpoint's health."""
    counting = {fault for fault in Fault if fault.counts}
    assert counting == {Fault.TRANSPORT, Fault.SERVER, Fault.MIDSTREAM}
