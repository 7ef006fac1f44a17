"""Runs every quick claim, and holds the runner to its own rules.

Comes in: all claims. Goes out: a failure with the claim's own story; a visible skip where a real part is missing.
It deliberately does not know what a claim measures.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import coverage
import pytest

import claims
import real_parts
from claims import Bound, Claim, Figure, MissingPart
from claims._runner import Outcome, main, run

_QUICK = [pytest.param(one, id=one.id) for one in claims.load().values() if one.quick]


@contextmanager
def _unmeasured() -> Iterator[None]:
    """Pause the measurement of coverage: it slows what a claim of speed compares."""
    measuring = coverage.Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()


@pytest.mark.timeout(0)  # the claim has a limit of its own
@pytest.mark.parametrize("one", _QUICK)
def test_quick_claim(one: Claim) -> None:
    """Each quick claim holds."""
    with _unmeasured():
        outcome = run(one, seed=1)
    if isinstance(outcome.error, MissingPart) and not real_parts.required():
        pytest.skip(str(outcome.error))
    print(outcome.story())
    assert outcome.ok, outcome.story()


def test_every_family_can_be_imported() -> None:
    """No family of claims is hidden by an error of its own."""
    claims.load()
    assert dict(claims.family_errors()) == {}


def _outcome(measured: Figure | Exception, limit: float = 5.0) -> Outcome:
    def measure() -> Figure:
        if isinstance(measured, Exception):
            raise measured
        return measured

    return run(Claim("self.test", "Tests the runner.", "things", True, limit, (), measure), seed=7)


_HOLDS = Figure(1.5, n=3, bound=claims.at_most(2), seed=7)


@pytest.mark.parametrize(
    ("measured", "ok"),
    [
        pytest.param(_HOLDS, True, id="inside its bound"),
        pytest.param(Figure(2.1, n=3, bound=claims.at_most(2)), False, id="outside"),
        pytest.param(Figure(1.5, n=0, bound=claims.at_most(2)), False, id="nothing checked"),
        pytest.param(Figure(1.5, n=3, bound=None), False, id="no bound"),
        pytest.param(Figure(1.5, n=3, bound=claims.at_most(2), ok=False), False, id="further condition"),
        pytest.param(Figure(math.nan, n=3, bound=claims.at_most(2)), False, id="not a number"),
        pytest.param(Figure(math.inf, n=3, bound=claims.at_least(2)), False, id="not finite"),
        pytest.param(RuntimeError("broken"), False, id="exception"),
        pytest.param(MissingPart("chromium is not on this machine"), False, id="missing part"),
    ],
)
def test_what_holds(measured: Figure | Exception, ok: bool) -> None:
    """Only a finite figure inside its bound, with something checked, holds; the line of JSON says the same."""
    outcome = _outcome(measured)
    line = outcome.line()
    assert "\n" not in line
    result = json.loads(line)
    assert list(result) == ["id", "ok", "figure", "unit", "n", "seed", "seconds"]
    assert (outcome.ok, result["ok"]) == (ok, ok)
    assert outcome.story()


def test_line_of_a_claim_that_holds() -> None:
    """The line carries the figure, its unit, what was checked, and the seed."""
    result = json.loads(_outcome(_HOLDS).line())
    assert (result["id"], result["figure"], result["unit"], result["n"], result["seed"]) == (
        "self.test",
        1.5,
        "things",
        3,
        7,
    )


@pytest.mark.parametrize(
    ("bound", "inside", "outside", "words"),
    [
        (claims.at_most(2), (2.0, -9.0), (2.1,), "≤ 2"),
        (claims.at_least(2), (2.0, 9.0), (1.9,), "≥ 2"),
        (claims.exactly(0), (0.0,), (1e-9, -1e-9), "= 0"),
        (claims.within(1, 2), (1.0, 2.0), (0.9, 2.1), "1 … 2"),
    ],
)
def test_bounds(bound: Bound, inside: tuple[float, ...], outside: tuple[float, ...], words: str) -> None:
    """A bound is closed and says itself in words."""
    assert all(bound.holds(value) for value in inside)
    assert not any(bound.holds(value) for value in outside)
    assert str(bound) == words


def test_plain_and_async_functions_get_their_seed() -> None:
    """A measurement may be async, and gets the seed if it asks for it."""

    async def measure(seed: int) -> Figure:
        return Figure(seed, n=1, bound=claims.exactly(7), seed=seed)

    assert run(Claim("self.async", "Tests the runner.", "things", True, 5.0, (), measure), seed=7).ok


def test_time_limit_ends_plain_code() -> None:
    """A claim that does not return is broken off after its limit and does not hold."""

    def hang() -> Figure:
        while True:
            time.sleep(0.01)

    outcome = run(Claim("self.hang", "Tests the runner.", "things", True, 0.05, (), hang), seed=1)
    assert isinstance(outcome.error, TimeoutError)
    assert not outcome.ok
    assert outcome.seconds < 5.0


def test_unknown_claim(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown id ends with a line that does not hold, exit status 1, and where to look."""
    assert main(["no.such-claim"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1])["ok"] is False
    assert "make claims" in shown.err


def test_the_list_names_every_claim(capsys: pytest.CaptureFixture[str]) -> None:
    """`make claims` prints one line for each claim, with its sentence."""
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(claims.load())


def test_a_claim_is_declared_in_its_family() -> None:
    """An id of another family, or one that is taken, is refused when it is declared."""
    with pytest.raises(ValueError, match=r"a claim in test_claims\.py"):
        claims.claim("order.identical", "In the wrong module.", unit="frames")(lambda: _HOLDS)
