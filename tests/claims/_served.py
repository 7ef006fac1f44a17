"""The program that claims start: a real server with a few teams, ended by a signal or by the end of its standard input.

Comes in: one argument, the JSON of `Job`. Goes out: the line `ready URL` on standard output; then HTTP.
It deliberately does not know what is measured. It listens as `agentstream serve` does, with the same code.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast

import msgspec

sys.path[0] = str(Path(__file__).resolve().parents[1])

from agentstream.ports import Store  # noqa: E402 - the path is right only now
from agentstream.runtime import Runtime, RuntimeOptions  # noqa: E402
from agentstream.runtime.teams import load_teams  # noqa: E402
from agentstream.store import open_store  # noqa: E402
from agentstream.web import Settings  # noqa: E402
from agentstream.web.server import Serving, run_server  # noqa: E402
from claims._crash_team import crash_model, crash_team  # noqa: E402
from claims._stamps import StampedStore  # noqa: E402
from claims._teams import teams  # noqa: E402


class Job(msgspec.Struct):
    """What to serve.

    Attributes:
        limits: fields of `RuntimeOptions`.
        stamps: where to write when each chunk was appended.
        teams: folders of teams, besides those of `_teams`.
    """

    store: str
    port: int = 0
    send_timeout: float = 30.0
    limits: dict[str, float] = {}
    stamps: str = ""
    log_level: Literal["info", "warning"] = "warning"
    teams: list[str] = []


class _StampedRuntime(Runtime):
    """Opens the store that it was given: a runtime opens only what it was given an address of."""

    def __init__(self, store: StampedStore, settings: Settings) -> None:
        kept = cast("Store", store)
        super().__init__(kept, teams=teams(), options=settings.limits, answers=settings.answers())
        self._stamped = store

    async def __aenter__(self) -> Self:
        await self._stamped.__aenter__()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            await self._stamped.__aexit__(kind, error, trace)


def _end_with_parent() -> None:
    """A parent that dies, however, closes our standard input: nothing that a claim started may outlive it."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def main() -> int:
    """Serve until told to stop."""
    job = msgspec.json.decode(sys.argv[1], type=Job)
    _end_with_parent()
    limits = RuntimeOptions.model_validate(job.limits)
    settings = Settings(port=job.port, drain=0.0, log_level=job.log_level, send_timeout=job.send_timeout, limits=limits)
    if job.stamps:
        runtime: Runtime = _StampedRuntime(StampedStore(open_store(job.store), Path(job.stamps)), settings)
    else:
        served = [*teams(), crash_team(), *load_teams(job.teams)]
        models = {"crash": crash_model()}  # the other teams have none
        runtime = Runtime(job.store, teams=served, models=models, options=settings.limits, answers=settings.answers())

    def ready(server: Serving) -> None:
        print("ready", server.url, flush=True)

    return run_server(runtime, settings, ready=ready)


if __name__ == "__main__":
    sys.exit(main())
