"""Servers whose `send` neither waits nor fails once the client has left: the loop must not go silent."""

from __future__ import annotations

import anyio
import pytest

from agentstream.answer import EventStreamAnswer, FrameCache
from agentstream.store import MemoryStore
from answer.asking import Exchange, scope_of
from stream.logs import RUN, Script, Writer, chunks_of

pytestmark = pytest.mark.anyio


@pytest.mark.promise("P8", "P9")
@pytest.mark.parametrize("query", ["coalesce=0", "", "types=nothing", "batch=1"])
async def test_replay_into_nowhere(query: str) -> None:
    """A client that leaves during the replay of a long log is noticed between two pages, whatever the view shows."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 1000] * 4000).add("run.finished")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            if turns == 10:
                got.leave()
            await anyio.lowlevel.checkpoint()

    async with MemoryStore() as store:
        await Writer(store, chunks_of(script.lines, [16] * 250)).write()
        answer = EventStreamAnswer(store, RUN, frames=FrameCache())
        got = Exchange(answer, scope_of(f"/?{query}"))
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(others)
                await got.run()
                group.cancel_scope.cancel()
        assert (got.error, got.clean) == (None, False)
        assert len(got.body) < 1_000_000
        whole = await Exchange(answer, scope_of("/?coalesce=0")).run()
        assert len(whole.body) > 4_000_000
        assert max(map(len, whole.pieces)) <= 32 * 1024
