"""The program that dies, or is stopped, in the middle of a run.

Comes in: one argument, the JSON of `Job`. Goes out: the line `run ID`, then whatever its run does to the store; for one
that is stopped and continued, `refused N`: how many of its appends the store refused as fenced.
It deliberately does not know what becomes of its run.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec

sys.path[0] = str(Path(__file__).resolve().parents[1])

from agentstream.errors import Fenced  # noqa: E402 - the path is right only now
from agentstream.ports import Chunk, Store  # noqa: E402
from agentstream.runtime import Runtime, RuntimeOptions  # noqa: E402
from agentstream.store import open_store  # noqa: E402
from claims._crash_team import Task, crash_model, crash_team  # noqa: E402


class Job(msgspec.Struct):
    """What to run. `misses`: a file that gets a line for each kill that would have come too late."""

    store: str
    limits: dict[str, float]
    task: dict[str, Any]  # Any: the fields of `Task`
    misses: str = ""
    seed: int = 0


class _Watched:
    """A store that counts refused appends, and kills the process inside of one where that is wanted."""

    def __init__(self, store: Store, job: Job) -> None:
        self.refused = 0
        self._store = store
        self._job = job
        self._chance = random.Random(job.seed)
        self._armed = job.task.get("place") == "commit"
        self._after = self._chance.randint(5, 60)
        self._inside = False

    def __getattr__(self, name: str) -> Any:  # Any: whatever the store has under this name
        return getattr(self._store, name)

    async def append(self, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
        """As the store's own. An answer that is not waited for any more counts, too."""
        with anyio.CancelScope(shield=True):
            if self._armed and chunk.last >= self._after:
                self._kill_soon()
            self._inside = True
            try:
                last = await self._store.append(run, epoch, expected, chunk)
            except Fenced:
                self.refused += 1
                raise
            finally:
                self._inside = False
        return last

    def _kill_soon(self) -> None:
        wait = self._chance.uniform(0, 0.0006)

        def kill() -> None:
            time.sleep(wait)
            if self._inside:
                os.kill(os.getpid(), signal.SIGKILL)
            with Path(self._job.misses).open("a") as file:
                file.write("miss\n")

        threading.Thread(target=kill, daemon=True).start()


async def main(job: Job) -> None:
    """Run it to its end, if it is let."""
    async with open_store(job.store) as store:
        watched = _Watched(store, job)
        limits = RuntimeOptions.model_validate(job.limits)
        team, models = crash_team(), {"crash": crash_model()}
        async with Runtime(cast("Store", watched), teams=[team], models=models, options=limits) as runtime:
            run = await runtime.start(team, Task.model_validate(job.task))
            print("run", run.id, flush=True)
            while runtime.statistics().runs:  # noqa: ASYNC110  (nobody tells when a run is left)
                await anyio.sleep(0.02)
        print("refused", watched.refused, flush=True)


if __name__ == "__main__":
    anyio.run(main, msgspec.json.decode(sys.argv[1], type=Job))
