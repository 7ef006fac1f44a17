"""Checks of everything beside the log: mailbox, leases, artifacts, index, and what every call answers alike.

What comes in: a way to open the store under test. What goes out: nothing, or an AssertionError that says which promise
of `ports` was broken. It does not know which backend it looks at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from agentstream.errors import (
    AgentStreamError,
    BodyTooLarge,
    Fenced,
    InvalidInput,
    KeyReused,
    LogFull,
    Overloaded,
    RunGone,
    RunUnknown,
    StoreDown,
    UsageError,
)
from agentstream.ids import new_run_id
from agentstream.ports import UPLOADS, Blob, Kept, Lease, Letter, RunFacts, Store
from agentstream.testing._store_kit import OpenStore, chunk, leased, limit, new_run, refused, same, until_gone

__all__ = ("OTHER_CHECKS", "SMALL_OTHER_CHECKS")


# --- mailbox ----------------------------------------------------------------------------------------------------------
async def check_mailbox(open: OpenStore) -> None:
    """A letter is left once per key, read in order until it is acknowledged, and its key is known ever after."""
    async with open() as store:
        run, other = await new_run(store), await new_run(store)
        epoch = (await leased(store, run)).epoch
        with limit():
            same(await store.post(run, "stop-1", b'{"mode":"run"}'), True, "a first letter is left")
            same(await store.post(run, "input/żółw", b"\x00\xff"), True, "another key is another letter")
            same(await store.post(run, "stop-1", b"other"), False, "a key is left once")
            same(await store.post(other, "stop-1", b""), True, "keys belong to a run")
            wanted = [Letter("stop-1", b'{"mode":"run"}'), Letter("input/żółw", b"\x00\xff")]
            same(await store.letters(run), wanted, "letters are read in the order in which they were left")
            await store.ack(run, epoch, "stop-1")
            await store.ack(run, epoch, "stop-1")
            await store.ack(run, epoch, "never left")
            same(await store.letters(run), wanted[1:], "an acknowledged letter is read no more")
            same(await store.post(run, "stop-1", b""), False, "nor can it be left again")
            same(await store.letters(other), [Letter("stop-1", b"")], "an empty letter is one")
        await refused(store.post(run, "", b""), InvalidInput, promise="a letter has a key")
        await refused(store.post(run, "k", b"x" * 300_000), BodyTooLarge, promise="a letter's body is bounded")


async def check_mailbox_fenced(open: OpenStore) -> None:
    """Only the newest epoch acknowledges; what it did not acknowledge the next writer reads again."""
    async with open() as store:
        run = await new_run(store)
        old = await leased(store, run, "old", seconds=0.0)
        with limit():
            await store.post(run, "stop", b"{}")
        new = await leased(store, run, "new")
        await refused(store.ack(run, old.epoch, "stop"), Fenced, promise="an older epoch acknowledges nothing")
        with limit():
            same(await store.letters(run), [Letter("stop", b"{}")], "a refused acknowledgement changes nothing")
            await store.ack(run, new.epoch, "stop")
            same(await store.letters(run), [], "the newest epoch acknowledges")


async def check_mail(open: OpenStore) -> None:
    """`mail` returns the number of letters ever left once it is more than the caller has seen."""
    async with open() as store:
        run = await new_run(store)
        counts = list[int]()

        async def wait() -> None:
            count = 0
            while count < 1:
                count = await store.mail(run, 0)
            counts.append(count)

        with limit():
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await store.post(run, "one", b"")
            same(counts, [1, 1, 1], "everyone who waits for mail is woken")
            await store.post(run, "two", b"")
            same(await store.mail(run, 1), 2, "mail that is there is told at once")


# --- leases -----------------------------------------------------------------------------------------------------------
async def check_leases(open: OpenStore) -> None:
    """A lease is one holder's until it lapses or is given back; the next one fences it."""
    async with open() as store:
        run = await new_run(store)
        first = await leased(store, run, "one")
        with limit():
            same(await store.take(run, "two"), None, "a held lease is not given away")
            same(await store.renew(first, seconds=3_600.0), True, "a holder extends its lease")
            same(await store.take(run, "two"), None, "an extended lease is not given away")
            await store.give_back(first)
            same(await store.renew(first), False, "a lease given back cannot be extended")
        second = await leased(store, run, "two")
        same(second.epoch > first.epoch, True, "a lease given back is given out under a higher epoch")
        with limit():
            await store.give_back(first)
            same(await store.take(run, "one"), None, "giving back an old lease changes nothing")
            same(await store.renew(first), False, "an old lease cannot be extended")


async def check_leases_lapse(open: OpenStore) -> None:
    """A lapsed lease is free; until somebody takes it, its holder may still extend it."""
    async with open() as store:
        run = await new_run(store)
        first = await leased(store, run, "one", seconds=0.0)
        with limit():
            same(await store.renew(first, seconds=0.0), True, "a lapsed lease that nobody took can be extended")
        second = await leased(store, run, "two")
        with limit():
            same(await store.renew(first), False, "a lapsed lease that another took cannot")
            same(await store.take(run, "one"), None, "the new holder has it")
            again = await store.take(run, "two")
        same(again is not None and again.epoch > second.epoch, True, "a holder takes its own lease under a new epoch")


async def check_leases_race(open: OpenStore) -> None:
    """Of many who take one free lease at once exactly one gets it."""
    async with open() as store:
        run = await new_run(store)
        taken = list[Lease | None]()

        async def take(holder: str) -> None:
            taken.append(await store.take(run, holder, seconds=3_600.0))

        with limit():
            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(take, f"holder {number}")
        same(sum(lease is not None for lease in taken), 1, "one lease has one holder")


async def check_leases_free(open: OpenStore) -> None:
    """`free` lists running runs without a live lease, oldest first, and no ended ones."""
    async with open() as store:
        never, held, back, lapsed, ended = [await new_run(store) for _ in range(5)]
        await leased(store, held)
        with limit():
            await store.give_back(await leased(store, back))
            await leased(store, lapsed, seconds=0.0)
            epoch = (await leased(store, ended)).epoch
            await store.append(ended, epoch, 1, chunk(2, ends="finished"))
            await store.give_back(Lease(ended, "writer", epoch, 0.0))
            mine = {never, held, back, lapsed, ended}
            found = [run for run in await store.free(10_000) if run in mine]
            same(found, [never, back, lapsed], "free runs are those that run and that nobody holds")
            same(len(await store.free(2)), 2, "a list of free runs is bounded")
            same(await store.free(0), [], "by zero too")
            same(await store.take(ended, "late"), None, "a run that has ended has no lease")


# --- artifacts --------------------------------------------------------------------------------------------------------
async def check_artifacts(open: OpenStore) -> None:
    """Bytes come back as they were put, with type and name; the same bytes under one scope are kept once."""
    async with open() as store:
        run, other = await new_run(store), await new_run(store)
        with limit():
            key = await store.put(run, b"\x89PNG\x00", "image/png", name="wykres ż.png")
            wanted = Blob(key, "image/png", "wykres ż.png", b"\x89PNG\x00")
            same(await store.get(run, key), wanted, "an artifact comes back as it was put")
            same(await store.put(run, b"\x89PNG\x00", "text/plain", name="b"), key, "an id is a hash of the content")
            same(await store.get(run, key), wanted, "the same bytes are kept once, as they came first")
            same(await store.get(other, key), None, "a scope sees only its own")
            empty = await store.put(run, b"", "text/plain")
            same(await store.get(run, empty), Blob(empty, "text/plain", "", b""), "no bytes are bytes too")
            same(empty == key, False, "other bytes have another id")
        await refused(store.get(run, "../../etc/passwd"), InvalidInput, promise="an id is only ever a hash")


async def check_artifacts_large(open: OpenStore) -> None:
    """An artifact of 3 MB is kept whole, once, though it is put many times at once."""
    async with open() as store:
        run = await new_run(store)
        data = bytes(range(256)) * 12_000 + b"end"
        ids = list[str]()

        async def put() -> None:
            ids.append(await store.put(run, data, "application/octet-stream"))

        with limit():
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(put)
            blob = await store.get(run, ids[0])
        same(len(set(ids)), 1, "the same bytes have one id")
        same(blob is not None and blob.data == data, True, "a large artifact is kept whole")


async def check_uploads(open: OpenStore) -> None:
    """Uploads of an owner need no run; scopes of any other form are refused."""
    async with open() as store:
        for owner in ("", "zoë@example.org", "../..", "a'b\"; --"):
            with limit():
                key = await store.put(UPLOADS + owner, f"of {owner}".encode(), "text/csv", name="data.csv")
                blob = await store.get(UPLOADS + owner, key)
                elsewhere = await store.get(UPLOADS + owner + "x", key)
            same(blob, Blob(key, "text/csv", "data.csv", f"of {owner}".encode()), "uploads are kept under their owner")
            same(elsewhere, None, "and under no other")
        for scope in ("", "uploads", "other:me", UPLOADS + "a\nb", UPLOADS + "x" * 2_000):
            await refused(store.put(scope, b"", "text/plain"), InvalidInput, promise=f"{scope[:20]!r} is no scope")
            await refused(store.get(scope, "0" * 64), InvalidInput, promise=f"{scope[:20]!r} is no scope")


# --- index ------------------------------------------------------------------------------------------------------------
async def check_pages(open: OpenStore) -> None:
    """Pages list runs newest first, of one owner or of all, each once, also while runs come and go."""
    async with open() as store:
        owner, other = f"owner-{new_run_id()}", f"other-{new_run_id()}"
        runs = [await new_run(store, owner=owner, ends="finished") for _ in range(7)]
        foreign = await new_run(store, owner=other)
        newest = runs[::-1]
        with limit():
            got = [row.run for row in await store.page(owner=owner)]
            same(got, newest, "a page lists an owner's runs, newest first")
            first = await store.page(owner=owner, limit=3)
            await store.forget(newest[2])
            await new_run(store, owner=owner)
            second = await store.page(owner=owner, before=first[-1].run, limit=10)
            same([row.run for row in first], newest[:3], "a page is bounded")
            same([row.run for row in second], newest[3:], "the next page goes on, though its anchor was deleted")
            same((await store.page(limit=2))[1].run, foreign, "without an owner all runs are listed")
            same(await store.page(owner=owner, limit=0), [], "a page of none is empty")
            same(await store.page(owner="nobody"), [], "an owner without runs has an empty page")
            same(second[0], await store.row(newest[3]), "a page holds whole rows")
        for unknown in (new_run_id(), foreign):
            call = store.page(owner=owner, before=unknown)
            await refused(call, RunUnknown, promise="another owner's run is as unknown as one that never was")


async def check_sessions(open: OpenStore) -> None:
    """Pages of one session of one owner, whole or only what has not ended; a session needs its owner."""
    async with open() as store:
        owner, other = f"owner-{new_run_id()}", f"other-{new_run_id()}"
        ended = await new_run(store, owner=owner, session="s", ends="finished")
        running = await new_run(store, owner=owner, session="s")
        await new_run(store, owner=owner, session="t")
        await new_run(store, owner=owner)
        await new_run(store, owner=other, session="s")
        with limit():
            whole = await store.page(owner=owner, session="s")
            same([row.run for row in whole], [running, ended], "a session lists its runs, newest first")
            same(whole[0].facts.session, "s", "a row names its session")
            open_ = await store.page(owner=owner, session="s", running=True)
            same([row.run for row in open_], [running], "only runs that have not ended, where that is asked for")
            earlier = await store.page(owner=owner, session="s", before=running, limit=10)
            same([row.run for row in earlier], [ended], "what came before a run of the session")
            same(await store.page(owner=owner, session="s", running=True, before=running), [], "none before the first")
            same(len(await store.page(owner=owner, running=True)), 3, "running runs of an owner")
            await store.forget(ended)
            same(
                [row.run for row in await store.page(owner=owner, session="s")], [running], "a deleted run is left out"
            )
            same(await store.page(owner=owner, session="nobody's"), [], "an unknown session is empty")
        for call in (store.page(session="s"), store.page(owner=owner, session="")):
            await refused(call, InvalidInput, promise="a session needs its owner and a name")


async def check_forget(open: OpenStore) -> None:
    """A finished run is deleted whole and answers `RunGone`; a running one is not; its id is never used again."""
    async with open() as store:
        run = await new_run(store, key=(key := new_run_id()))
        epoch = (await leased(store, run)).epoch
        with limit():
            await store.post(run, "k", b"letter")
            artifact = await store.put(run, b"artifact", "text/plain")
            await store.keep(run, Kept(1, b"state"))
        await refused(store.forget(run), UsageError, promise="a running run is not deleted")
        with limit():
            await store.append(run, epoch, 1, chunk(2, ends="finished"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until_gone, store, run)
                await anyio.wait_all_tasks_blocked()
                await store.forget(run)
            same((await store.row(run), await store.gone(run)), (None, True), "a tombstone is kept instead of the row")
        for name, call in _calls(store, run, epoch, artifact):
            await refused(call(), RunGone, promise=f"`{name}` on a deleted run")
        again = store.create(run, "", "", chunk(1), facts=RunFacts())
        await refused(again, KeyReused, promise="a deleted run's id is not used again")
        with limit():
            known = await store.create(new_run_id(), key, "digest", chunk(1), facts=RunFacts())
            same((known.run, known.fresh), (run, False), "an idempotency key outlives its run")


async def check_kept(open: OpenStore) -> None:
    """A kept state is replaced by a later one and never by an earlier one."""
    async with open() as store:
        run = await new_run(store)
        with limit():
            same(await store.kept(run), None, "at first no state is kept")
            await store.keep(run, Kept(1_000, b"\x00one"))
            await store.keep(run, Kept(2_000, b"two"))
            await store.keep(run, Kept(1_500, b"late"))
            same(await store.kept(run), Kept(2_000, b"two"), "the latest state is kept")


# --- alike everywhere -------------------------------------------------------------------------------------------------
def _calls(store: Store, run: str, epoch: int, id: str) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
    """Every call that is about a run which must be there."""
    return [
        ("append", lambda: store.append(run, epoch, 1, chunk(2))),
        ("read", lambda: store.read(run, 0)),
        ("tail", lambda: store.tail(run)),
        ("changed", lambda: store.changed(run, 0)),
        ("post", lambda: store.post(run, "key", b"")),
        ("letters", lambda: store.letters(run)),
        ("ack", lambda: store.ack(run, epoch, "key")),
        ("mail", lambda: store.mail(run, 0)),
        ("take", lambda: store.take(run, "holder")),
        ("renew", lambda: store.renew(Lease(run, "holder", epoch, 0.0))),
        ("put", lambda: store.put(run, b"", "text/plain")),
        ("get", lambda: store.get(run, id)),
        ("forget", lambda: store.forget(run)),
        ("keep", lambda: store.keep(run, Kept(1, b""))),
        ("kept", lambda: store.kept(run)),
    ]


async def check_unknown(open: OpenStore) -> None:
    """Every call about a run that never was raises `RunUnknown`; `row` and `gone` say no."""
    async with open() as store:
        run = new_run_id()
        for name, call in _calls(store, run, 1, "0" * 64):
            await refused(call(), RunUnknown, promise=f"`{name}` on an unknown run")
        with limit():
            same((await store.row(run), await store.gone(run)), (None, False), "an unknown run has no row or tombstone")
            await store.give_back(Lease(run, "holder", 1, 0.0))


async def check_ids(open: OpenStore) -> None:
    """Text that is no run id reaches no key and no path: `InvalidInput` from every call."""
    async with open() as store:
        for bad in ("", "a/../b", "-" + "a" * 21, "a" * 21, "a" * 23, "a" * 21 + "\n", "ż" * 22, "a" * 21 + "\0"):
            for name, call in _calls(store, bad, 1, "0" * 64):
                await refused(call(), InvalidInput, promise=f"`{name}` of {bad!r}")
            await refused(store.row(bad), InvalidInput, promise=f"`row` of {bad!r}")
            await refused(store.gone(bad), InvalidInput, promise=f"`gone` of {bad!r}")
            create = store.create(bad, "", "", chunk(1), facts=RunFacts())
            await refused(create, InvalidInput, promise=f"`create` of {bad!r}")


async def check_lone_surrogates(open: OpenStore) -> None:
    """Text that UTF-8 cannot hold is refused with a typed error, wherever it comes in."""
    bad = "\ud800"
    async with open() as store:
        run = await new_run(store)
        for facts in (RunFacts(owner=bad), RunFacts(team=bad), RunFacts(title=bad), RunFacts(session=bad)):
            call = store.create(new_run_id(), "", "", chunk(1), facts=facts)
            await refused(call, InvalidInput, promise="facts are text")
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.create(new_run_id(), bad, "", chunk(1), facts=RunFacts()),
            lambda: store.create(new_run_id(), "k", bad, chunk(1), facts=RunFacts()),
            lambda: store.post(run, bad, b""),
            lambda: store.take(run, bad),
            lambda: store.put(run, b"", bad),
            lambda: store.put(run, b"", "text/plain", name=bad),
            lambda: store.put(UPLOADS + bad, b"", "text/plain"),
        ]
        for each in calls:
            await refused(each(), InvalidInput, promise="keys, holders, types and names are text")


async def check_open(open: OpenStore) -> None:
    """An open store answers pings and says where and how it keeps; a closed one answers `StoreDown`."""
    async with open() as store:
        run = await new_run(store)
        with limit():
            await store.ping()
        same(isinstance(store, Store), True, "a store has every call of the port")
        same(store.level in ("memory", "process", "machine"), True, "a level is one of three")
        same(store.address.partition(":")[1], ":", "an address begins with its kind and a colon")
    await refused(store.ping(), StoreDown, promise="a closed store is down")
    call = store.create(new_run_id(), "", "", chunk(1), facts=RunFacts())
    await refused(call, StoreDown, promise="a closed store makes no runs")
    await refused(store.changed(run, 99), StoreDown, promise="nobody waits on a closed store")


async def check_close_wakes(open: OpenStore) -> None:
    """Closing the store ends every wait."""
    ended = list[str]()

    async def wait(name: str, call: Awaitable[object]) -> None:
        try:
            await call
        except AgentStreamError:
            pass  # `changed` may return or say that the store is down
        ended.append(name)

    with limit():
        async with anyio.create_task_group() as tasks, open() as store:
            run = await new_run(store)
            tasks.start_soon(wait, "changed", store.changed(run, 1))
            tasks.start_soon(wait, "mail", store.mail(run, 0))
            await anyio.wait_all_tasks_blocked()
    same(sorted(ended), ["changed", "mail"], "closing ends every wait")


# --- bounds -----------------------------------------------------------------------------------------------------------
async def check_bounds(open: OpenStore) -> None:
    """Mailboxes and artifacts are bounded as the log is."""
    async with open() as store:
        run = await new_run(store)
        with limit():
            for number in range(10):
                await store.post(run, f"letter {number}", b"")
            same(await store.post(run, "letter 1", b""), False, "a letter left before is no new one")
        await refused(store.post(run, "one more", b""), Overloaded, promise="a mailbox is bounded")
        await refused(store.put(run, b"x" * 10_001, "text/plain"), BodyTooLarge, promise="an artifact is bounded")
        with limit():
            await store.put(run, b"x" * 10_000, "text/plain")
            await store.put(run, b"x" * 10_000, "text/plain")
            await store.put(run, b"y" * 10_000, "text/plain")
        await refused(store.put(run, b"z", "text/plain"), LogFull, promise="a run's artifacts are bounded together")


OTHER_CHECKS = (
    check_mailbox,
    check_mailbox_fenced,
    check_mail,
    check_leases,
    check_leases_lapse,
    check_leases_race,
    check_leases_free,
    check_artifacts,
    check_artifacts_large,
    check_uploads,
    check_pages,
    check_sessions,
    check_forget,
    check_kept,
    check_unknown,
    check_ids,
    check_lone_surrogates,
    check_open,
    check_close_wakes,
)
SMALL_OTHER_CHECKS = (check_bounds,)
