"""Averages, counts, costs: they follow what happened, and forget it in time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.policy import Decayed, Ewma, Health, PeakEwma, Window


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 60)), min_size=1))
def test_averages_stay_between_what_they_saw(seen: list[tuple[float, float]]) -> None:
    """No average leaves the range of its observations; a peak average is never below the last one."""
    now = 0.0
    ewma, peak = Ewma(seen[0][0], 30.0), PeakEwma()
    for x, pause in seen:
        now += pause
        ewma.add(x, now)
        peak.add(x, now)
        values = [one for one, _ in seen]
        assert min(values) - 1e-9 <= ewma.value <= max(values) + 1e-9
        assert x - 1e-9 <= peak.value <= max(values) + 1e-9


def test_a_peak_rises_at_once_and_falls_with_its_time() -> None:
    """A slow answer counts at once; ten seconds later a fast one takes most of it away."""
    peak = PeakEwma()
    assert not peak.known
    assert peak.value == 1.0
    peak.add(0.1, 0.0)
    peak.add(2.0, 0.0)
    assert peak.value == 2.0
    peak.add(0.1, 10.0)
    assert peak.value == pytest.approx(2.0 + (1 - math.exp(-1)) * (0.1 - 2.0))


def test_counts_fade() -> None:
    """A minute later a count is worth a third, and it never goes back in time."""
    count = Decayed(60.0)
    for _ in range(10):
        count.add(100.0)
    assert count.value(100.0) == 10.0
    assert count.value(160.0) == pytest.approx(10 / math.e)


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60))
def test_a_window_counts_its_seconds(steps: list[tuple[int, bool]]) -> None:
    """On whole seconds a window of 30 s is exact."""
    window, now, seen = Window(30.0), 0, list[tuple[int, bool]]()
    for pause, failed in steps:
        now += pause
        window.add(now, failed=failed)
        seen.append((now, failed))
        inside = [failure for at, failure in seen if at > now - 30]
        assert window.totals(now) == (len(inside), sum(inside))


def test_cost_grows_with_calls_and_with_waiting() -> None:
    """More calls cost more, weight costs less, and a call that waits longer than usual is noticed while it waits."""
    health = Health()
    assert health.cost(0.0) < 1e-6  # nobody knows it: one call may find out
    first = health.began(0.0)
    assert health.cost(0.0) == pytest.approx(2.0)  # unknown: a second each
    assert health.first(first, 0.1) == pytest.approx(0.1)
    assert health.cost(0.1) == pytest.approx(0.2)
    assert health.cost(0.1, weight=2.0) == pytest.approx(0.1)
    health.began(0.2)
    assert health.cost(10.2) == pytest.approx(30.0)


def test_failures_cost_up_to_twenty_times() -> None:
    """What always fails costs twenty times as much, never infinitely; a hang counts with its length."""
    health = Health()
    for now in range(0, 600, 10):
        number = health.began(now)
        health.gave_up(number, now + 5.0)
        health.observe(False, now + 5.0)
        health.ended(number)
    assert health.success.value < 0.01
    assert health.first_token.value == pytest.approx(5.0)
    number = health.began(600.0)
    assert health.cost(600.0) == pytest.approx(5.0 * 2 / 0.05)
    assert health.score(600.0) < 0.01


def test_an_idle_endpoint_is_forgiven_by_one_call_at_a_time() -> None:
    """After minutes without a call a slow endpoint looks cheap, but only until a call is on its way to it."""
    health = Health()
    number = health.began(0.0)
    health.first(number, 5.0)
    health.observe(True, 5.0)
    health.ended(number)
    assert health.cost(5.0) == pytest.approx(5.0)
    assert health.cost(185.0) == pytest.approx(5.0 / 64)
    health.began(185.0)
    assert health.cost(185.0) == pytest.approx(10.0)


def test_an_endpoint_that_failed_first_is_not_forgotten() -> None:
    """One that has never answered is judged like a slow one, and is tried again some time later."""
    health = Health()
    number = health.began(0.0)
    health.gave_up(number, 0.1)
    health.observe(False, 0.1)
    health.ended(number)
    assert health.cost(0.1) > 1.0
    assert health.cost(300.1) < 0.002


def test_the_score_sees_a_hang() -> None:
    """A call that waits ten times as long as usual lowers the score before it fails."""
    health = Health()
    health.first(health.began(0.0), 1.0)
    assert health.score(1.0) == 1.0
    health.began(1.0)
    assert health.score(2.0) == 1.0
    assert health.score(11.0) == pytest.approx(0.3)
