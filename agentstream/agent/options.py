"""What may be asked of one run.

What comes in: numbers from Python, a team's definition or a request body. What goes out: checked options. It does not
know who enforces them.
"""

from __future__ import annotations

import pydantic

__all__ = ("RunOptions",)


class RunOptions(pydantic.BaseModel):
    """Limits of one run. A team's options are the defaults of its runs; a run's own options go before them.

    Attributes:
        deadline: seconds for the whole run, then it is stopped with cause `deadline`; None means no limit.
        max_agents: invocations at once; further ones wait and say so (`agent.waiting {on: slot}`).
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    deadline: float | None = pydantic.Field(default=None, gt=0, le=7 * 86_400)
    max_agents: int = pydantic.Field(default=64, ge=1, le=10_000)

    def over(self, defaults: RunOptions) -> RunOptions:
        """These options, with `defaults` for what was not set."""
        return defaults.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})
