"""What a claim is: an id, one sentence, and a function that measures a figure and holds it against a bound.

Comes in: functions decorated with `@claim`, one module for each family (`resume.py` holds `resume.*`).
Goes out: the claims by id, for `make claims`, `make claim ID=…` and the tests, which run the quick ones.
It deliberately does not know what is measured, nor how a result is printed.

    @claim("order.identical", "Two live readers and a replay get the same bytes", unit="differing frames")
    async def identical(seed: int) -> Figure:
        ...
        return Figure(differing, n=frames, bound=exactly(0), seed=seed)

A claim holds only if its function returned, `n` is above zero, the value is a finite number inside its bound, and
`ok` was left true. A function that misses a real part says so by calling `real("chromium")`, which raises.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from real_parts import MissingPart
from real_parts import find as real

__all__ = [
    "ROOT",
    "Bound",
    "BrokenFamily",
    "Claim",
    "Figure",
    "MissingPart",
    "at_least",
    "at_most",
    "claim",
    "exactly",
    "family_errors",
    "load",
    "real",
    "within",
]

ROOT: Final = Path(__file__).resolve().parents[2]
"""The root of the checkout."""

_ID: Final = re.compile(r"[a-z]+(\.[a-z0-9]+(-[a-z0-9]+)*)+")


@dataclass(frozen=True, slots=True)
class Bound:
    """The closed interval in which a figure must lie."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Tell whether `value` is a finite number inside the bound."""
        return math.isfinite(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return f"= {self.low:g}"
        if math.isinf(self.low):
            return f"≤ {self.high:g}"
        if math.isinf(self.high):
            return f"≥ {self.low:g}"
        return f"{self.low:g} … {self.high:g}"


def at_most(limit: float) -> Bound:
    """Return the bound `value ≤ limit`."""
    return Bound(-math.inf, limit)


def at_least(limit: float) -> Bound:
    """Return the bound `value ≥ limit`."""
    return Bound(limit, math.inf)


def exactly(value: float) -> Bound:
    """Return the bound that only `value` itself meets."""
    return Bound(value, value)


def within(low: float, high: float) -> Bound:
    """Return the bound `low ≤ value ≤ high`."""
    return Bound(low, high)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one claim measured.

    Attributes:
        value: the figure, in the claim's unit.
        n: how many things were really checked; 0 never holds.
        bound: where `value` must lie; None never holds.
        ok: any further condition, named in `detail`.
        seed: what a repetition needs to see the same; None where nothing is drawn by chance.
        detail: further figures, printed before the result.
    """

    value: float
    n: int
    bound: Bound | None
    ok: bool = True
    seed: int | None = None
    detail: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def holds(self) -> bool:
        """Tell whether the claim holds by this figure."""
        return self.ok and self.n > 0 and self.bound is not None and self.bound.holds(self.value)


# Any: nothing travels through the coroutine, and a claim takes either no argument or its seed.
Measure = Callable[..., Figure | Coroutine[Any, Any, Figure]]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim as it was declared.

    Attributes:
        id: `family.name`; the family is the module's name.
        about: one sentence, without the figure.
        unit: what the figure counts or measures.
        quick: run by `make test` too.
        limit: seconds after which it is broken off and does not hold.
        promises: ids of `promises.py` that it shows.
        measure: the function.
    """

    id: str
    about: str
    unit: str
    quick: bool
    limit: float
    promises: tuple[str, ...]
    measure: Measure

    def call(self, seed: int) -> Figure | Coroutine[Any, Any, Figure]:
        """Start the measurement; a function with a parameter `seed` gets it."""
        if "seed" in inspect.signature(self.measure).parameters:
            return self.measure(seed)
        return self.measure()


_claims: Final[dict[str, Claim]] = {}
_broken: Final[dict[str, str]] = {}


def claim(
    id: str,
    about: str,
    *,
    unit: str,
    quick: bool = True,
    limit: float | None = None,
    promises: tuple[str, ...] = (),
) -> Callable[[Measure], Measure]:
    """Declare the decorated function, plain or async, as the measurement of the claim `id`.

    Args:
        id: `family.name`, in a module named like the family.
        about: one sentence that says what is claimed.
        unit: what the figure counts or measures.
        quick: whether `make test` runs it; a claim that needs longer than some seconds is not quick.
        limit: seconds; 60 for a quick one and 1,800 for a long one, if not said.
        promises: ids of `promises.py` that the claim shows.

    Raises:
        ValueError: the id is taken, ill-formed, or of another family; the sentence is not one line.
    """

    def register(measure: Measure) -> Measure:
        family = measure.__module__.rpartition(".")[2]
        if _ID.fullmatch(id) is None or id.partition(".")[0] != family:
            message = f"a claim in {family}.py is called {family}.<words-with-dashes>, not {id}"
            raise ValueError(message)
        if id in _claims or not about or "\n" in about:
            message = f"{id} is declared twice, or not in one line of words"
            raise ValueError(message)
        seconds = limit if limit is not None else 60.0 if quick else 1_800.0
        _claims[id] = Claim(id, about, unit, quick, seconds, promises, measure)
        return measure

    return register


class BrokenFamily(Exception):
    """A claim cannot run because its family's module cannot be imported."""


def load() -> Mapping[str, Claim]:
    """Import every family once and return all claims by id, in alphabetical order.

    A family that cannot be imported hides no other; it is found in `family_errors()`.
    """
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith(("_", "test_")):
            continue
        try:
            importlib.import_module(f"{__name__}.{module.name}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the other families are listed and this one is reported
            _broken[module.name] = f"{type(error).__name__}: {error}"
    return MappingProxyType(dict(sorted(_claims.items())))


def family_errors() -> Mapping[str, str]:
    """Return the families that could not be imported, with the reason."""
    return MappingProxyType(dict(_broken))
