"""The numbers that bound a runtime.

What comes in: settings. What goes out: checked options with the defaults that `docs/guarantees.md` prints. It does not
know who enforces them.
"""

from __future__ import annotations

from typing import Self

import pydantic

from agentstream.agent import Price

__all__ = ("Retention", "RuntimeOptions")


class Retention(pydantic.BaseModel):
    """Which finished runs are kept; without a number, all. What goes, goes whole; runs that are not over always stay.

    Attributes:
        age: seconds since their end. runs: how many, the newest. size: bytes of their logs together, the newest.
        every: seconds between two looks.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    age: float | None = pydantic.Field(default=None, ge=0)
    runs: int | None = pydantic.Field(default=None, ge=0)
    size: int | None = pydantic.Field(default=None, ge=0)
    every: float = pydantic.Field(default=60.0, gt=0)

    @property
    def keeps_all(self) -> bool:
        """Whether nothing ever goes."""
        return self.age is None and self.runs is None and self.size is None


class RuntimeOptions(pydantic.BaseModel):
    """Limits of one runtime. All times in seconds.

    Attributes:
        max_runs: runs at once; further ones wait and say so (`run.waiting {on: slot}`).
        max_waiting: runs that may wait; one more is refused with `Overloaded`.
        lease: how long a writer may be silent before another may take its run.
        renew: how often the lease is renewed.
        poll: how often runs without a writer are looked for.
        stop_grace: how long a cancelled agent may take to end before it is abandoned.
        emit_timeout: how long the store may refuse before the run is given up.
        orphan_after: how long a run without a writer waits for a process that has its team, before it is failed.
        max_file_bytes: one uploaded file.
        max_detached: runs that may work while nobody reads them; at more, a new run is refused with `Overloaded`.
        max_detached_age: how long a run may be without a reader; then it is stopped with cause `deadline`.
        prices: what models cost, by their names, for budgets of cost.
        retention: which finished runs are kept.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    max_runs: int = pydantic.Field(default=64, ge=1, le=100_000)
    max_waiting: int = pydantic.Field(default=256, ge=0, le=100_000)
    lease: float = pydantic.Field(default=15.0, gt=0)
    renew: float = pydantic.Field(default=5.0, gt=0)
    poll: float = pydantic.Field(default=2.0, gt=0)
    stop_grace: float = pydantic.Field(default=5.0, gt=0)
    emit_timeout: float = pydantic.Field(default=5.0, gt=0)
    orphan_after: float = pydantic.Field(default=600.0, ge=0)
    max_file_bytes: int = pydantic.Field(default=64 * 1024 * 1024, ge=1)
    max_detached: int | None = pydantic.Field(default=None, ge=1)
    max_detached_age: float | None = pydantic.Field(default=None, gt=0)
    prices: dict[str, Price] = {}
    retention: Retention = Retention()

    @pydantic.model_validator(mode="after")
    def _fits_the_lease(self) -> Self:
        # A writer that could not renew must be quiet one stop grace before another may write (DESIGN §9).
        if self.emit_timeout > self.lease - self.renew - self.stop_grace + 1e-9:
            raise ValueError(
                f"emit_timeout ({self.emit_timeout}) must not exceed lease - renew - stop_grace "
                f"({self.lease - self.renew - self.stop_grace:g})"
            )
        return self
