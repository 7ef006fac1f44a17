"""Checks of a store that several handles open at once, in one process or in several.

What comes in: a way to open further handles on one and the same store. What goes out: nothing, or an AssertionError
that says which promise was broken between two handles. It does not know which backend it looks at.
"""

from __future__ import annotations

import anyio

from agentstream.errors import Fenced
from agentstream.ids import new_run_id
from agentstream.ports import Chunk, Created, Kept, Letter, RunFacts, Tail
from agentstream.testing._store_kit import OpenStore, chunk, history, leased, limit, new_run, refused, same, until_gone

__all__ = ("SHARED_CHECKS",)


async def check_shared_reads(open: OpenStore) -> None:
    """What one handle was told is accepted every other handle reads at once."""
    async with open() as writer, open() as reader:
        run = await new_run(writer)
        epoch = (await leased(writer, run)).epoch
        for seq in range(2, 12):
            one = chunk(seq, ends="finished" if seq == 11 else "")
            with limit():
                await writer.append(run, epoch, seq - 1, one)
                same(await reader.read(run, seq - 1), [one], "an accepted event is read through every handle")
                same((await reader.tail(run)).last, seq, "every handle knows the tail")
        with limit():
            same(await reader.tail(run), await writer.tail(run), "all handles know the same log")
            same(await reader.row(run), await writer.row(run), "and the same row")


async def check_shared_changed(open: OpenStore) -> None:
    """A reader of another handle is woken by appends, the end and the deletion, and sees every event once."""
    async with open() as writer, open() as reader:
        run = await new_run(writer)
        epoch = (await leased(writer, run)).epoch
        wanted = [chunk(seq, ends="finished" if seq == 30 else "") for seq in range(1, 31)]
        found = list[Chunk]()

        async def follow() -> None:
            after = 0
            while not (found and found[-1].ends):
                found.extend(piece := await reader.read(run, after))
                after = piece[-1].last if piece else after
                if not piece:
                    await reader.changed(run, after)

        with limit():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                for one in wanted[1:]:
                    await writer.append(run, epoch, one.first - 1, one)
                    if one.first % 10 == 0:
                        await anyio.wait_all_tasks_blocked()
        same(found, wanted, "a tailing reader of another handle sees what a replay sees")


async def check_shared_mail(open: OpenStore) -> None:
    """A letter left through one handle wakes the writer at another, which reads it."""
    async with open() as writer, open() as edge:
        run = await new_run(writer)
        epoch = (await leased(writer, run)).epoch
        with limit():
            async with anyio.create_task_group() as tasks:

                async def work() -> None:
                    while not await writer.letters(run):
                        await writer.mail(run, 0)
                    await writer.ack(run, epoch, "stop")

                tasks.start_soon(work)
                await anyio.wait_all_tasks_blocked()
                same(await edge.post(run, "stop", b"{}"), True, "any handle leaves letters")
            same(await edge.letters(run), [], "an acknowledgement is seen by every handle")
            same(await edge.post(run, "stop", b"{}"), False, "and the key is known to every handle")


async def check_shared_fencing(open: OpenStore) -> None:
    """A writer whose lease lapsed is refused from the moment another handle takes it, and answers from the truth."""
    async with open() as old, open() as new:
        run = await new_run(old)
        first = await leased(old, run, "old", seconds=0.0)
        with limit():
            await old.append(run, first.epoch, 1, chunk(2))
        second = await leased(new, run, "new")
        await refused(old.append(run, first.epoch, 2, chunk(3)), Fenced, promise="an older epoch is refused at once")
        await refused(old.ack(run, first.epoch, "stop"), Fenced, promise="also at the mailbox")
        with limit():
            await new.append(run, second.epoch, 2, chunk(3, tag="new"))
            same(await old.renew(first), False, "the lease is lost")
            same(await old.take(run, "old"), None, "and another's")
            same((await old.tail(run)).last, 3, "the old writer sees where the log stands")
        same(await history(old, run), await history(new, run), "both handles read one log")
        await refused(old.append(run, first.epoch, 3, chunk(4)), Fenced, promise="an older epoch stays refused")


async def check_shared_same_holder(open: OpenStore) -> None:
    """A holder that comes back under its own name fences its former self, which then answers from the truth."""
    async with open() as before, open() as after:
        run = await new_run(before)
        first = await leased(before, run, "me")
        with limit():
            await before.append(run, first.epoch, 1, chunk(2))
        second = await leased(after, run, "me")
        with limit():
            await after.append(run, second.epoch, 2, chunk(3, tag="after"))
        await refused(before.append(run, first.epoch, 2, chunk(3)), Fenced, promise="the former self is fenced")
        with limit():
            same(await before.tail(run), await after.tail(run), "a fenced writer answers from the truth")
            same(await before.renew(first), False, "its lease is lost")


async def check_shared_race(open: OpenStore) -> None:
    """Two handles that append after the same event: one is accepted, the other fenced."""
    async with open() as one, open() as two:
        run = await new_run(one)
        epoch = (await leased(one, run)).epoch
        lost = list[str]()
        for seq in range(2, 12):

            async def append(handle: int, seq: int = seq) -> None:
                try:
                    await (one, two)[handle].append(run, epoch, seq - 1, chunk(seq, tag=f"of {handle}"))
                except Fenced:
                    lost.append(f"{handle}")

            with limit():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(append, 0)
                    tasks.start_soon(append, 1)
            same(len(lost), seq - 1, "one place in the log has one winner")
        async with open() as reader:
            same(len(await history(reader, run)), 11, "no loser's bytes are in the log")


async def check_shared_ambiguous(open: OpenStore) -> None:
    """An append whose answer was lost is repeated through another handle: accepted once, whatever had become of it."""
    for seq in range(2, 8):
        async with open() as first:
            run = await new_run(first)
            epoch = (await leased(first, run)).epoch
            with anyio.CancelScope() as scope:
                if seq % 2:
                    scope.cancel()
                await first.append(run, epoch, 1, chunk(2, seq))
        async with open() as second:
            with limit():
                got = await second.append(run, epoch, 1, chunk(2, seq))
                same(got, seq + 1, "the repeated append answers as the first would have")
            same(await history(second, run), [chunk(1), chunk(2, seq)], "nothing is lost or doubled")


async def check_shared_keys(open: OpenStore) -> None:
    """Creates with one key through several handles at once make one run."""
    async with open() as one, open() as two:
        for _ in range(5):
            key, answers = new_run_id(), list[Created]()

            async def create(handle: int, key: str = key, answers: list[Created] = answers) -> None:
                store = (one, two)[handle]
                answers.append(await store.create(new_run_id(), key, "d", chunk(1), facts=RunFacts()))

            with limit():
                async with anyio.create_task_group() as tasks:
                    for handle in (0, 1, 0, 1):
                        tasks.start_soon(create, handle)
            same(sum(answer.fresh for answer in answers), 1, "one key makes one run")
            same(len({answer.run for answer in answers}), 1, "all who come with one key get the same run")


async def check_shared_leases(open: OpenStore) -> None:
    """A lease held through one handle is held for all; given back, any may take it."""
    async with open() as one, open() as two:
        run = await new_run(one)
        lease = await leased(one, run, "one")
        with limit():
            same(await two.take(run, "two"), None, "a lease is held for all handles")
            same(run in await two.free(10_000), False, "and known as held")
            await one.give_back(lease)
            same(run in await two.free(10_000), True, "a lease given back is free for all")
        same((await leased(two, run, "two")).epoch, lease.epoch + 1, "epochs are counted by the store")


async def check_shared_forget(open: OpenStore) -> None:
    """A run deleted through one handle is gone for all, and its waiting readers are woken."""
    async with open() as one, open() as two:
        run = await new_run(one, ends="finished")
        with limit():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until_gone, two, run)
                await anyio.wait_all_tasks_blocked()
                await one.forget(run)
            same((await two.row(run), await two.gone(run)), (None, True), "a deleted run is gone for all handles")


async def check_reopen(open: OpenStore) -> None:
    """Everything accepted is there when the store is opened again."""
    owner, key = f"owner-{new_run_id()}", new_run_id()
    async with open() as store:
        run = await new_run(store, owner=owner, key=key)
        lease = await leased(store, run)
        with limit():
            await store.append(run, lease.epoch, 1, chunk(2, 50))
            await store.post(run, "a", b"1")
            await store.post(run, "b", b"2")
            await store.ack(run, lease.epoch, "a")
            await store.keep(run, Kept(51, b"state"))
            artifact = await store.put(run, b"data" * 200_000, "text/csv", name="n")
            before = (
                await store.tail(run),
                await store.row(run),
                await store.page(owner=owner),
                await store.get(run, artifact),
            )
        log = await history(store, run)
    async with open() as store:
        with limit():
            after = (
                await store.tail(run),
                await store.row(run),
                await store.page(owner=owner),
                await store.get(run, artifact),
            )
            same(after, before, "tail, row, page and artifacts outlive the handle")
            same(after[0], Tail(before[0].incarnation, lease.epoch, 1, 51, False), "so does the incarnation")
            same(await store.letters(run), [Letter("b", b"2")], "so do letters")
            same(await store.mail(run, 1), 2, "and their number")
            same(await store.kept(run), Kept(51, b"state"), "so does the kept state")
            same(await store.take(run, "other"), None, "so do leases")
            known = await store.create(new_run_id(), key, "digest", chunk(1), facts=RunFacts())
            same((known.run, known.fresh), (run, False), "so do idempotency keys")
        same(await history(store, run), log, "so does the log")


SHARED_CHECKS = (
    check_shared_reads,
    check_shared_changed,
    check_shared_mail,
    check_shared_fencing,
    check_shared_same_holder,
    check_shared_race,
    check_shared_ambiguous,
    check_shared_keys,
    check_shared_leases,
    check_shared_forget,
    check_reopen,
)
