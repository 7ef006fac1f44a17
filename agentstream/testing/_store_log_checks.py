"""Checks of the log: create, append, read, tail, changed.

What comes in: a way to open the store under test. What goes out: nothing, or an AssertionError that says which promise
of `ports.EventLog` was broken. It does not know which backend it looks at.
"""

from __future__ import annotations

import anyio
import msgspec

from agentstream.errors import Fenced, InvalidInput, KeyReused, LogFull, RolledBack
from agentstream.ids import new_run_id
from agentstream.ports import Chunk, Created, RunFacts, RunRow, Store, Tail
from agentstream.testing._store_kit import (
    OpenStore,
    chunk,
    history,
    leased,
    limit,
    lines_of,
    new_run,
    refused,
    same,
)

__all__ = ("LOG_CHECKS", "SMALL_LOG_CHECKS")


# --- create -----------------------------------------------------------------------------------------------------------
async def check_create(open: OpenStore) -> None:
    """A created run has its row, its first chunk, epoch 0 and an incarnation at once."""
    async with open() as store:
        run, first = new_run_id(), chunk(1, 3, private=b'{"1":{}}')
        facts = RunFacts(team="analyst", owner="zoë", session="s1", title="two\nlines", created=1_700_000_000_000)
        with limit():
            created = await store.create(run, "", "", first, facts=facts)
            tail, row = await store.tail(run), await store.row(run)
        same(created, Created(run, created.incarnation, True), "a run without a key is fresh")
        same(tail, Tail(created.incarnation, 0, 1, 3, False), "the log begins with the first chunk, under epoch 0")
        size = len(first.lines) + len(first.private)
        same(row, RunRow(run, created.incarnation, "running", 3, facts, 0, size), "the row is written with the run")
        same(await history(store, run), [first], "the first chunk is kept as it was given")


async def check_create_twice(open: OpenStore) -> None:
    """The same run id and first chunk again answer as the first time; another first chunk is refused."""
    async with open() as store:
        run, first = new_run_id(), chunk(1)
        with limit():
            one = await store.create(run, "", "", first, facts=RunFacts())
            two = await store.create(run, "", "", first, facts=RunFacts())
        same(two, one, "a create whose answer was lost may be repeated")
        again = store.create(run, "", "", chunk(1, tag="other"), facts=RunFacts())
        await refused(again, KeyReused, promise="a run id names one run")
        same(await history(store, run), [first], "a repeated create writes nothing")


async def check_create_key(open: OpenStore) -> None:
    """A known idempotency key answers with the run that it made, and is refused with another digest."""
    async with open() as store:
        key, run, other = f"ańna/{new_run_id()}", new_run_id(), new_run_id()
        with limit():
            one = await store.create(run, key, "d1", chunk(1), facts=RunFacts())
            two = await store.create(other, key, "d1", chunk(1), facts=RunFacts())
            three = await store.create(run, key, "d1", chunk(1), facts=RunFacts())
            row = await store.row(other)
        same(two, Created(run, one.incarnation, False), "a known key answers with its run")
        same(three, one, "a create with a key whose answer was lost may be repeated")
        same(row, None, "a known key makes no second run")
        clash = store.create(new_run_id(), key, "d2", chunk(1), facts=RunFacts())
        await refused(clash, KeyReused, promise="a key stands for one request body")
        await new_run(store, key=f"{key}/other")


async def check_create_key_race(open: OpenStore) -> None:
    """Of many creates at once with one key exactly one makes a run, and all answer with it."""
    async with open() as store:
        key, answers = new_run_id(), list[Created]()

        async def create() -> None:
            answers.append(await store.create(new_run_id(), key, "d", chunk(1), facts=RunFacts()))

        with limit():
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(create)
        same(sum(answer.fresh for answer in answers), 1, "one key makes one run")
        same(len({answer.run for answer in answers}), 1, "all who come with one key get the same run")


# --- append -----------------------------------------------------------------------------------------------------------
async def check_append(open: OpenStore) -> None:
    """Chunks of any size follow one another without gaps, byte for byte as they were given."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        wanted, last = [chunk(1)], 1
        for count in (1, 10, 1, 100, 7):
            one = chunk(last + 1, count, private=b'{"%d":{"after":"planner.1"}}' % (last + 1))
            with limit():
                got = await store.append(run, epoch, last, one)
            last = one.last
            same(got, last, "an append answers with the new last seq")
            wanted.append(one)
        with limit():
            tail, row = await store.tail(run), await store.row(run)
        same((tail.epoch, tail.first, tail.last, tail.ended), (epoch, 1, last, False), "the tail is where the log ends")
        same(row is not None and row.last, last, "the row is written with the chunk")
        same(await history(store, run), wanted, "chunks are kept as they were given")


async def check_append_form(open: OpenStore) -> None:
    """A chunk that does not begin after `expected`, or does not hold a line for each number, is refused."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        for wrong in (
            chunk(3),
            chunk(1),
            Chunk(2, 1, b""),
            Chunk(2, 3, b"{}\n"),
            Chunk(2, 2, b"{}\n{}\n"),
            Chunk(2, 2, b"{}"),
            Chunk(2, 2, b"{}\n", ends="done"),
        ):
            await refused(store.append(run, epoch, 1, wrong), InvalidInput, promise="a malformed chunk is refused")
        same(await history(store, run), [chunk(1)], "a refused chunk leaves nothing")


async def check_append_large(open: OpenStore) -> None:
    """A chunk of 512 KiB, the largest that the bus makes, is kept whole."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        large = Chunk(2, 3, b"x" * 262_143 + b"\n" + "ż".encode() * 131_071 + b"\n", b"y" * 100_000)
        with limit():
            await store.append(run, epoch, 1, large)
        same(await history(store, run) == [chunk(1), large], True, "a large chunk is kept whole")


async def check_append_compares(open: OpenStore) -> None:
    """An append is accepted only where the log ends; before it is fenced, beyond it is a log that lost its tail."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        with limit():
            await store.append(run, epoch, 1, chunk(2, 3))
        await refused(store.append(run, epoch, 1, chunk(2)), Fenced, promise="nothing is written over")
        await refused(store.append(run, epoch, 2, chunk(3, 2)), Fenced, promise="nothing is written into a chunk")
        await refused(store.append(run, epoch, 9, chunk(10)), RolledBack, promise="a shorter log is told as such")
        same(await history(store, run), [chunk(1), chunk(2, 3)], "a refused append leaves nothing")


async def check_append_repeats(open: OpenStore) -> None:
    """The same chunk again under the same epoch answers as the first time, also when more have followed it."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        second, third = chunk(2, 2, private=b"{}"), chunk(4)
        with limit():
            await store.append(run, epoch, 1, second)
            same(await store.append(run, epoch, 1, second), 3, "a repeated append answers as the first time")
            await store.append(run, epoch, 3, third)
            same(await store.append(run, epoch, 1, second), 3, "also when more have followed")
            loud = msgspec.structs.replace(second, quiet=True)
            same(await store.append(run, epoch, 1, loud), 3, "`quiet` is no part of what is kept")
        for other in (
            chunk(2, 2, tag="other", private=b"{}"),
            chunk(2, 2, private=b"[]"),
            chunk(2, 3, private=b"{}"),
            chunk(2, 1, private=b"{}"),
            msgspec.structs.replace(second, ends="failed"),
        ):
            await refused(store.append(run, epoch, 1, other), Fenced, promise="only the same bytes are a repeat")
        same(await history(store, run), [chunk(1), second, third], "a repeated append writes nothing")


async def check_append_race(open: OpenStore) -> None:
    """Of many appends at once after the same event exactly one is accepted."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        won = list[str]()

        async def append(tag: str) -> None:
            try:
                await store.append(run, epoch, 1, chunk(2, tag=tag))
            except Fenced:
                return
            won.append(tag)

        with limit():
            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(append, f"n{number}")
        same(len(won), 1, "one place in the log has one winner")
        same(await history(store, run), [chunk(1), chunk(2, tag=won[0])], "the winner's bytes are in the log")


async def check_append_in_flight(open: OpenStore) -> None:
    """Appends of one run that are under way together are accepted in the order of the calls."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        with limit():
            async with anyio.create_task_group() as tasks:
                for seq in range(2, 34):
                    tasks.start_soon(store.append, run, epoch, seq - 1, chunk(seq))
                    await anyio.lowlevel.checkpoint()
        same(await history(store, run), [chunk(seq) for seq in range(1, 34)], "a run's appends keep their order")


async def check_append_cancelled(open: OpenStore) -> None:
    """A cancelled append is accepted or not, never in part; the same call again settles it."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        for seq in range(2, 22):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await store.append(run, epoch, seq - 1, chunk(seq))
            with limit():
                same(await store.append(run, epoch, seq - 1, chunk(seq)), seq, "the same bytes again are accepted once")
        same(await history(store, run), [chunk(seq) for seq in range(1, 22)], "nothing is lost or doubled")


# --- epochs and the end -----------------------------------------------------------------------------------------------
async def check_fencing(open: OpenStore) -> None:
    """Once a newer epoch was given out an older one writes nothing more, not even what was accepted before."""
    async with open() as store:
        run = await new_run(store)
        old = await leased(store, run, "old", seconds=0.0)
        with limit():
            await store.append(run, old.epoch, 1, chunk(2))
        new = await leased(store, run, "new")
        same(new.epoch > old.epoch, True, "each lease has a higher epoch")
        await refused(store.append(run, old.epoch, 2, chunk(3)), Fenced, promise="an older epoch is fenced at once")
        await refused(
            store.append(run, old.epoch, 1, chunk(2)), Fenced, promise="an older epoch is told, repeat or not"
        )
        with limit():
            await store.append(run, new.epoch, 2, chunk(3, tag="new"))
        await refused(store.append(run, old.epoch, 3, chunk(4)), Fenced, promise="an older epoch stays fenced")
        await refused(store.append(run, new.epoch, 1, chunk(2)), Fenced, promise="another epoch's chunk is no repeat")
        same(await history(store, run), [chunk(1), chunk(2), chunk(3, tag="new")], "a fenced writer leaves nothing")


async def check_epochs(open: OpenStore) -> None:
    """Every lease of a run has a higher epoch, its holder's own as well; one never given out is refused."""
    async with open() as store:
        run = await new_run(store)
        epochs = [(await leased(store, run, "one")).epoch for _ in range(3)]
        same(epochs, sorted(set(epochs)), "epochs only grow")
        with limit():
            same((await store.tail(run)).epoch, epochs[-1], "the tail knows the epoch that was given out last")
        call = store.append(run, epochs[-1] + 1, 1, chunk(2))
        await refused(call, Fenced, RolledBack, promise="an epoch that was not given out writes nothing")
        with limit():
            await store.append(run, epochs[-1], 1, chunk(2))


async def check_end(open: OpenStore) -> None:
    """A terminal chunk sets the row's status, is itself repeatable, and nothing follows it."""
    async with open() as store:
        for ends in ("finished", "failed", "stopped"):
            run = await new_run(store)
            epoch = (await leased(store, run)).epoch
            end = chunk(2, 2, ends=ends)
            with limit():
                await store.append(run, epoch, 1, end)
                same(await store.append(run, epoch, 1, end), 3, "the terminal chunk may be repeated")
                tail, row = await store.tail(run), await store.row(run)
            same((tail.last, tail.ended), (3, True), "the tail knows the end")
            same(row and (row.status, row.last, row.ended > 0), (ends, 3, True), "the row is closed with the log")
            await refused(store.append(run, epoch, 3, chunk(4)), Fenced, promise="nothing follows the terminal event")
            same(await history(store, run), [chunk(1), end], "the end is kept as it was given")


# --- read -------------------------------------------------------------------------------------------------------------
async def _filled(store: Store) -> tuple[str, list[Chunk]]:
    run = await new_run(store)
    epoch = (await leased(store, run)).epoch
    chunks, last = [chunk(1)], 1
    with limit():
        for count in (4, 1, 20, 3):
            chunks.append(chunk(last + 1, count))
            last = await store.append(run, epoch, last, chunks[-1])
    return run, chunks


async def check_read(open: OpenStore) -> None:
    """A read gives the whole chunks that hold anything after the position, and nothing else, from every position."""
    async with open() as store:
        run, chunks = await _filled(store)
        last = chunks[-1].last
        with limit():
            for after in range(last + 3):
                wanted = [one for one in chunks if one.last > after]
                same(await store.read(run, after), wanted, f"a read after {after} of {last} begins with its chunk")


async def check_read_bound(open: OpenStore) -> None:
    """`max_bytes` bounds the lines of one read, but one chunk always comes; reading on gives everything."""
    async with open() as store:
        run, chunks = await _filled(store)
        for max_bytes in (0, 1, 50, 100, 500, 10**6):
            after, found = 0, list[Chunk]()
            with limit():
                while piece := await store.read(run, after, max_bytes=max_bytes):
                    fits = len(piece) == 1 or len(lines_of(piece)) <= max_bytes
                    same(fits, True, f"{max_bytes} bytes bound a read of several chunks")
                    more = [one for one in chunks if one.first > piece[-1].last]
                    if more and len(lines_of(piece)) + len(more[0].lines) <= max_bytes:
                        same(len(piece), len(piece) + 1, "a read is not cut before its bound")
                    found, after = found + piece, piece[-1].last
            same(found, chunks, "reading on gives everything once")


# --- changed ----------------------------------------------------------------------------------------------------------
async def check_changed_before(open: OpenStore) -> None:
    """`changed` returns at once where the log already goes on, or has ended."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        with limit():
            await store.changed(run, 0)
            await store.append(run, epoch, 1, chunk(2, ends="finished"))
            await store.changed(run, 1)
            await store.changed(run, 2)


async def check_changed_wakes(open: OpenStore) -> None:
    """An append and the end wake everyone who waits for them; a waiter that was cancelled harms nobody."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        woken = list[int]()

        async def wait(after: int) -> None:
            while (await store.tail(run)).last <= after:
                await store.changed(run, after)
            woken.append(after)

        with limit():
            async with anyio.create_task_group() as tasks:
                async with anyio.create_task_group() as doomed:
                    for after in (1, 1, 2):
                        doomed.start_soon(wait, after)
                    for after in [1] * 20 + [2] * 5:
                        tasks.start_soon(wait, after)
                    await anyio.wait_all_tasks_blocked()
                    doomed.cancel_scope.cancel()
                await store.append(run, epoch, 1, chunk(2))
                await store.append(run, epoch, 2, chunk(3, ends="stopped"))
        same(sorted(woken), [1] * 20 + [2] * 5, "everyone who waited was woken")


async def check_changed_concurrent(open: OpenStore) -> None:
    """Readers that read and wait while a writer appends see everything, in order, once, and the end."""
    async with open() as store:
        run = await new_run(store)
        epoch = (await leased(store, run)).epoch
        wanted = [chunk(seq, ends="finished" if seq == 120 else "") for seq in range(1, 121)]
        seen: list[list[Chunk]] = [[] for _ in range(4)]

        async def follow(found: list[Chunk]) -> None:
            after = 0
            while True:
                found += (piece := await store.read(run, after))
                after = piece[-1].last if piece else after
                if not piece:
                    tail = await store.tail(run)
                    if tail.ended and tail.last == after:
                        return
                    await store.changed(run, after)

        with limit():
            async with anyio.create_task_group() as tasks:
                for found in seen:
                    tasks.start_soon(follow, found)
                for one in wanted[1:]:
                    await store.append(run, epoch, one.first - 1, one)
                    if one.first % 10 == 0:
                        await anyio.lowlevel.checkpoint()
        for found in seen:
            same(found, wanted, "a tailing reader sees what a replay sees")


# --- bounds -----------------------------------------------------------------------------------------------------------
async def check_full(open: OpenStore) -> None:
    """A log at its bound of events or bytes refuses more, keeps what it has, and still takes its terminal event."""
    async with open() as store:
        for big in (chunk(51, 51), Chunk(51, 51, b"x" * 100_000 + b"\n")):
            run = await new_run(store)
            epoch = (await leased(store, run)).epoch
            with limit():
                await store.append(run, epoch, 1, chunk(2, 49))
            await refused(store.append(run, epoch, 50, big), LogFull, promise="a full log refuses more")
            with limit():
                same((await store.tail(run)).last, 50, "a full log keeps what it has")
                if big.last > big.first:
                    await store.append(run, epoch, 50, chunk(51, 50))
                    call = store.append(run, epoch, 100, chunk(101))
                    await refused(call, LogFull, promise="the bound is exact")
                last = (await store.tail(run)).last
                await store.append(run, epoch, last, chunk(last + 1, 3, ends="failed"))
                same((await store.tail(run)).ended, True, "a full run can end")


LOG_CHECKS = (
    check_create,
    check_create_twice,
    check_create_key,
    check_create_key_race,
    check_append,
    check_append_form,
    check_append_large,
    check_append_compares,
    check_append_repeats,
    check_append_race,
    check_append_in_flight,
    check_append_cancelled,
    check_fencing,
    check_epochs,
    check_end,
    check_read,
    check_read_bound,
    check_changed_before,
    check_changed_wakes,
    check_changed_concurrent,
)
SMALL_LOG_CHECKS = (check_full,)
