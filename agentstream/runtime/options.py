"""The numbers that bound a runtime.

What comes in: settings. What goes out: checked options with the defaults that `docs/guarantees.md` prints. It does not
know who enforces them.
"""

from __future__ import annotations

from typing import Self

import pydantic

__all__ = ("RuntimeOptions",)


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
        max_file_bytes: one uploaded file.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    max_runs: int = pydantic.Field(default=64, ge=1, le=100_000)
    max_waiting: int = pydantic.Field(default=256, ge=0, le=100_000)
    lease: float = pydantic.Field(default=15.0, gt=0)
    renew: float = pydantic.Field(default=5.0, gt=0)
    poll: float = pydantic.Field(default=2.0, gt=0)
    stop_grace: float = pydantic.Field(default=5.0, gt=0)
    emit_timeout: float = pydantic.Field(default=5.0, gt=0)
    max_file_bytes: int = pydantic.Field(default=64 * 1024 * 1024, ge=1)

    @pydantic.model_validator(mode="after")
    def _fits_the_lease(self) -> Self:
        # A writer that could not renew must be quiet one stop grace before another may write (DESIGN §9).
        if self.emit_timeout > self.lease - self.renew - self.stop_grace + 1e-9:
            raise ValueError(
                f"emit_timeout ({self.emit_timeout}) must not exceed lease - renew - stop_grace "
                f"({self.lease - self.renew - self.stop_grace:g})"
            )
        return self
