"""What a server says of itself: its teams, whether it lives, whether it is ready.

What comes in: a runtime. What goes out: JSON documents. It does not know runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import pydantic

from agentstream.errors import InvalidInput, Overloaded, StoreDown
from agentstream.llm.pool import EndpointPool
from agentstream.web.exchange import HttpRequest, JsonAnswer

if TYPE_CHECKING:
    from agentstream.agent import Team
    from agentstream.answer import ASGIApp
from agentstream.runtime import Runtime

__all__ = ("FactRoutes",)

_PING_S: Final = 2.0


class FactRoutes:
    """Handlers of `/teams`, `/health` and `/ready`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # A schema of a large model takes milliseconds to make. Any: teams of all types.
        self._known: dict[str, tuple[Team[Any, Any], dict[str, object]]] = {}

    async def teams(self, request: HttpRequest) -> ASGIApp:  # noqa: ARG002  # the shape of a handler
        """`GET /teams`: name, version, description, and the JSON schemas of input and output."""
        return JsonAnswer({"teams": [self._team(team) for team in self._runtime.teams.values()]})

    async def endpoints(self, request: HttpRequest) -> ASGIApp:  # noqa: ARG002  # the shape of a handler
        """`GET /endpoints`: health, breakers, load and reconnects of each pool of models, without keys."""
        pools = [model for model in self._runtime.models.values() if isinstance(model, EndpointPool)]
        return JsonAnswer({"pools": [pool.statistics() for pool in pools]})

    async def health(self, request: HttpRequest) -> ASGIApp:  # noqa: ARG002  # the shape of a handler
        """`GET /health`: 200 while the process answers at all."""
        return JsonAnswer({"status": "ok"})

    async def ready(self, request: HttpRequest) -> ASGIApp:  # noqa: ARG002  # the shape of a handler
        """`GET /ready`: 200 while new runs are taken.

        Raises:
            Overloaded: draining. StoreDown: the store does not answer. RuntimeNotRunning: it was not entered.
        """
        if self._runtime.draining:
            raise Overloaded("this server is shutting down")
        with anyio.move_on_after(_PING_S) as waiting:
            await self._runtime.store.ping()
        if waiting.cancelled_caught:
            raise StoreDown(f"the store did not answer within {_PING_S:g} s")
        return JsonAnswer({"status": "ready"})

    def _team(self, team: Team[Any, Any]) -> dict[str, object]:  # Any: teams of all types
        known = self._known.get(team.name)
        if known is None or known[0] is not team:
            facts: dict[str, object] = {
                "name": team.name,
                "version": team.version,
                "description": team.description,
                "input": _schema(lambda: team.input_adapter, "validation"),
                "output": _schema(lambda: team.output_adapter, "serialization"),
            }
            known = self._known[team.name] = (team, facts)
        return known[1]


def _schema(adapter: Callable[[], pydantic.TypeAdapter[Any]], mode: Literal["validation", "serialization"]) -> object:
    """The JSON schema of a type; `{}`, which is any value, where it has none."""
    try:
        return adapter().json_schema(mode=mode)
    except (InvalidInput, pydantic.PydanticUserError, NameError):
        return {}
