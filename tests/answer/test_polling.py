"""Events as one JSON document."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
import trio

from agentstream.answer import DrainSwitch, EventStreamAnswer
from agentstream.store import MemoryStore
from answer.asking import Exchange, ask, scope_of
from stream.logs import RUN, LossyLog, Script, Writer, chunks_of, small_run

LINES = small_run()
LAST = len(LINES)

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("trio", {"clock": "virtual"}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Real time on asyncio, virtual time on trio."""
    name, options = request.param
    if options:
        return name, {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return name, options


async def poll(answer: EventStreamAnswer, path: str = "/", cursor: str = "") -> dict[str, Any]:
    """One poll, decoded."""
    got = await ask(answer, path, Accept="application/json", Last_Event_ID=cursor)
    assert got.status == 200
    assert int(got.headers["content-length"]) == len(got.body)
    document: dict[str, Any] = json.loads(got.body)
    return document


def seqs(document: dict[str, Any]) -> list[int]:
    """The numbers of its events."""
    return [event["seq"] for event in document["events"]]


@pytest.mark.promise("W-poll", "P5")
@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_polling_through_a_run(limit: int) -> None:
    """Poll after poll with the last cursor gives every event once, and `done` with the last one; never 204."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4, 3]))
        await writer.write()
        answer = EventStreamAnswer(store, RUN)
        found: list[int] = []
        cursor, done = "", False
        while not done:
            document = await poll(answer, f"/?coalesce=0&limit={limit}", cursor)
            assert len(document["events"]) <= limit
            found += seqs(document)
            cursor, done = document["cursor"], document["done"]
            assert done == (found[-1] == LAST)
        assert found == list(range(1, LAST + 1))
        assert cursor == writer.cursor(LAST)
        again = await poll(answer, cursor=cursor)
    assert again == {"events": [], "cursor": cursor, "done": True}


@pytest.mark.promise("W-poll", "W-filter")
async def test_cursor_is_what_was_scanned() -> None:
    """A poll that shows nothing still moves on."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [7]))
        await writer.write(1)
        document = await poll(EventStreamAnswer(store, RUN), "/?types=nothing", writer.cursor(1))
    assert document == {"events": [], "cursor": writer.cursor(7), "done": False}


@pytest.mark.promise("W-poll")
async def test_waiting() -> None:
    """With `wait` an empty poll waits for the first event that the view shows, for so long and no longer."""
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4, 1, 1]))
        await writer.write(1)
        answer = EventStreamAnswer(store, RUN)
        empty = await poll(answer, "/?after=tail&wait=0.05")
        assert empty == {"events": [], "cursor": writer.cursor(4), "done": False}
        found: list[dict[str, Any]] = []

        async def wait() -> None:
            found.append(await poll(answer, "/?after=tail&wait=5&coalesce=0&agents=verifier"))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                for _ in range(2):
                    await anyio.wait_all_tasks_blocked()
                    await writer.write(1)
        assert [(event["seq"], event["inv"]) for event in found[0]["events"]] == [(6, "verifier.1")]


async def test_waiting_ends_early() -> None:
    """A poll that waits ends with nothing when the process drains, and without an answer when the client leaves."""
    drain = DrainSwitch()
    async with MemoryStore() as store:
        writer = Writer(store, chunks_of(LINES, [4]))
        await writer.write(1)
        headers = {"accept": "application/json"}
        got = Exchange(EventStreamAnswer(store, RUN, drain=drain), scope_of("/?after=tail&wait=60", headers=headers))
        left = Exchange(EventStreamAnswer(store, RUN), scope_of("/?after=tail&wait=60", headers=headers))
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(got.run)
                group.start_soon(left.run)
                await anyio.wait_all_tasks_blocked()
                drain.drain()
                left.leave()
    assert json.loads(got.body) == {"events": [], "cursor": writer.cursor(4), "done": False}
    assert (left.sent, left.error) == ([], None)


@pytest.mark.promise("W-poll", "W-resume")
async def test_reset() -> None:
    """A cursor that the table does not keep gives `reset` beside the events from the first one."""
    async with MemoryStore() as store:
        await Writer(store, chunks_of(LINES, [4])).write()
        document = await poll(EventStreamAnswer(store, RUN), "/?coalesce=0", "17")
    assert document["reset"] == {"type": "reset", "reason": "unknown-cursor", "first": 1, "tail": LAST}
    assert seqs(document) == list(range(1, LAST + 1))


@pytest.mark.promise("P6")
async def test_reset_in_the_middle() -> None:
    """A log that is replaced while it is read: what was read, with its own cursor; the next poll is told."""

    class Replaced(LossyLog):
        async def read(self, run: str, after: int, *, max_bytes: int = 262_144) -> Any:
            found = await super().read(run, after, max_bytes=max_bytes)
            if after == 4:
                self.chunks, self.incarnation, self.ended = chunks_of(LINES, []), "bbbbbb", True
            return found

    answer = EventStreamAnswer(Replaced(chunks_of(LINES, [4, 3])[:2]), RUN)
    first = await poll(answer, "/?coalesce=0")
    assert (seqs(first), first["cursor"], first["done"]) == ([1, 2, 3, 4], f"{RUN}.aaaaaa.4", False)
    second = await poll(answer, "/?coalesce=0", first["cursor"])
    assert second["reset"]["reason"] == "new-log"
    assert seqs(second) == list(range(1, LAST + 1))


@pytest.mark.promise("W-poll", "P9")
async def test_bound_in_bytes() -> None:
    """A document holds about 1 MiB of events at most, and always at least one event."""
    script = Script().add("run.started", run=RUN, team="t").text("a.1", *["x" * 200_000] * 12).add("run.finished")
    async with MemoryStore() as store:
        await Writer(store, chunks_of(script.lines, [2] * 7)).write()
        document = await poll(EventStreamAnswer(store, RUN), "/?coalesce=0")
        assert seqs(document) == [1, 2, 3, 4, 5, 6]
        rest = await poll(EventStreamAnswer(store, RUN), "/?coalesce=0", document["cursor"])
    assert seqs(rest)[0] == 7
