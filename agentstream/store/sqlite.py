"""The store in one SQLite file, shared by the processes of one machine.

What comes in: calls of the ports, on one event loop. What goes out: answers that survive this process, or a loss of
power too (level `machine`). It does not know what a run is for; the file is described in `_schema`, its threads in
`_threads`.

One thread writes, in groups; a few read. Readers of runs that are written here never touch the disk: they are woken by
the commit and read recent chunks from memory. Runs that another process writes are noticed every 20 ms while somebody
waits. Local file systems only. A process that is stopped *inside* a commit blocks the writers of all others until it
goes on or dies; they get `StoreDown` after 2 s.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal, Self, TypeVar, final

import anyio

from agentstream.clock import Clock
from agentstream.errors import AgentStreamError, Fenced, InvalidInput
from agentstream.ids import check_run_id
from agentstream.loops import Loop, Wake, current_loop
from agentstream.ports import Blob, Chunk, Created, Kept, Lease, Letter, RunFacts, RunRow, Tail
from agentstream.store import _queries as queries
from agentstream.store import _rules as rules
from agentstream.store import _transactions as writes
from agentstream.store._boot import BootClock, boot_of
from agentstream.store._recent import EVERYONE, Recent, Watch, wake
from agentstream.store._schema import LEVELS
from agentstream.store._threads import Readers, Writer

__all__ = ("SqliteStore",)

T = TypeVar("T")

_LOG = logging.getLogger("agentstream.store")

_READERS: Final = 2
_HASH_INLINE: Final = 64 * 1024  # hashing so much takes 30 µs; a trip to a thread takes longer


@final
class SqliteStore:
    """A store in a SQLite file (`sqlite:PATH`). Use it on one event loop, within `async with`.

    Args:
        path: of the file; it and its folder are made (0600, 0700) where they are missing.
        level: `process`: what was accepted survives kill -9; `machine`: the loss of power too, for one fsync a group.
        limits: bounds per run, and of the memory for recent chunks.
        clock: leases and the 24 h of keys and tombstones; by default `CLOCK_BOOTTIME`, which all processes share.

    Raises:
        InvalidInput: the path or the level cannot be one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        level: Literal["process", "machine"] = "process",
        limits: rules.Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        text = os.fspath(path)
        if not text or text.startswith(("//", ":")) or "?" in text or "\0" in text:
            raise InvalidInput("a SQLite store's path is `folder/file.db` or `/folder/file.db`")
        if level not in LEVELS:
            raise InvalidInput("level is `process` or `machine`", details={"level": level})
        self._path = Path(text).expanduser()
        self._level = level
        self._limits = limits or rules.Limits()
        self._clock = clock or BootClock()
        self._boot = boot_of(self._clock)
        self._open: tuple[Loop, Writer, Readers] | None = None
        self._recent = Recent(0)
        self._watches: dict[str, Watch] = {}
        self._waiting = 0
        self._looking = False
        self._look_again = False

    @property
    def address(self) -> str:
        """`sqlite:PATH` and the options that differ from the defaults."""
        more = {} if self._level == "process" else {"level": self._level}
        return f"sqlite:{self._path}{rules.query_of(self._limits, more)}"

    @property
    def level(self) -> str:
        """What an accepted event survives: `process` or `machine`."""
        return self._level

    async def __aenter__(self) -> Self:
        loop = current_loop()
        writer = Writer(loop, self._path, self._level, self._on_foreign)
        readers = Readers(loop, self._path, _READERS)
        try:
            await writer.start()
            await readers.start()
        except BaseException:
            await _stop(writer, readers)
            raise
        self._recent = Recent(self._limits.cache_bytes)
        self._looking = self._look_again = False
        self._open = loop, writer, readers
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._open is not None:
            _, writer, readers = self._open
            self._open = None
            for watch in self._watches.values():
                watch.wake_all()
            await _stop(writer, readers)

    async def ping(self) -> None:
        """Write a row: a full disk and a read-only file are found only so."""
        await self._write("ping", writes.ping)

    # --- log ----------------------------------------------------------------------------------------------------------
    async def create(self, run: str, key: str, digest: str, first: Chunk, *, facts: RunFacts) -> Created:
        """See `ports.EventLog.create`. The same run id and chunk again answer as the first time.

        Raises:
            KeyReused: the key came with another digest, or the run id with another first chunk.
        """
        check_run_id(run)
        rules.check_create(key, digest, first, facts)
        work = partial(writes.create, run=run, key=(key, digest), first=first, facts=facts, now=self._now())
        return await self._write(run, work, size=rules.size_of(first))

    async def append(self, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
        """See `ports.EventLog.append`. Returns once the chunk's group is committed; appends of one run that are under
        way together are done in the order of the calls.

        If it is cancelled the chunk may or may not be accepted: the same call again tells.
        """
        check_run_id(run)
        rules.check_chunk(expected, chunk)
        work = partial(
            writes.append, run=run, epoch=epoch, chunk=chunk, limits=self._limits, now_ms=self._clock.wall_ms()
        )
        try:
            return await self._write(
                run, work, learn=partial(self._appended, run, epoch, chunk), size=rules.size_of(chunk)
            )
        except Fenced:
            self._recent.drop(run)
            raise

    async def read(self, run: str, after: int, *, max_bytes: int = 262_144) -> list[Chunk]:
        """See `ports.EventLog.read`."""
        found = self._recent.read(run, after, max_bytes, self._clock.monotonic())
        if found is None:
            found = await self._read(run, partial(queries.chunks, after=after, max_bytes=max_bytes))
        return found

    async def tail(self, run: str) -> Tail:
        """See `ports.EventLog.tail`."""
        return self._recent.tail(run, self._clock.monotonic()) or _tail(await self._read(run, queries.standing))

    async def changed(self, run: str, after: int) -> None:
        """See `ports.EventLog.changed`. A waiter is one entry of a dict; commits of this process wake it directly."""
        watch, waiter = self._wait(run)
        watch.log[waiter] = after
        try:
            # The waiter is in its place before the look, so whatever comes after the look wakes it.
            tail = await self.tail(run)
            watch.incarnation = watch.incarnation or tail.incarnation
            if tail.last <= after and not tail.ended:
                await waiter
        finally:
            watch.log.pop(waiter, None)
            self._waited(run, watch)

    # --- mailbox ------------------------------------------------------------------------------------------------------
    async def post(self, run: str, key: str, body: bytes) -> bool:
        """See `ports.Mailbox.post`.

        Raises:
            Overloaded: `max_letters` were left. BodyTooLarge: the body is too long.
        """
        check_run_id(run)
        rules.check_letter(key, body)
        work = partial(writes.post, run=run, key=key, body=body, limits=self._limits, now_ms=self._clock.wall_ms())
        return bool(await self._write(run, work, learn=partial(self._posted, run), size=len(body)))

    async def letters(self, run: str) -> list[Letter]:
        """See `ports.Mailbox.letters`."""
        return await self._read(run, queries.letters)

    async def ack(self, run: str, epoch: int, key: str) -> None:
        """See `ports.Mailbox.ack`; a letter that is not there is no error."""
        check_run_id(run)
        await self._write(run, partial(writes.ack, run=run, epoch=epoch, key=key, now_ms=self._clock.wall_ms()))

    async def mail(self, run: str, seen: int) -> int:
        """See `ports.Mailbox.mail`."""
        watch, waiter = self._wait(run)
        watch.mail[waiter] = seen
        try:
            standing = await self._read(run, queries.standing)
            watch.letters = max(watch.letters, standing.letters)
            if watch.letters <= seen:
                await waiter
            return watch.letters
        finally:
            watch.mail.pop(waiter, None)
            self._waited(run, watch)

    # --- leases -------------------------------------------------------------------------------------------------------
    async def take(self, run: str, holder: str, *, seconds: float = 15.0) -> Lease | None:
        """See `ports.Leases.take`; None as well for a run that has ended."""
        check_run_id(run)
        rules.check_text("a holder", holder, empty=False)
        work = partial(writes.take, run=run, holder=holder, seconds=seconds, now=self._now())
        taken = await self._write(run, work, learn=self._recent.taken)
        return None if taken is None else taken.lease

    async def renew(self, lease: Lease, *, seconds: float = 15.0) -> bool:
        """See `ports.Leases.renew`; a lapsed lease that nobody took meanwhile is extended."""
        check_run_id(lease.run)
        work = partial(writes.renew, lease=lease, seconds=seconds, now=self._now())
        learn = partial(self._recent.renewed, lease.run, lease.epoch)
        return bool(await self._write(lease.run, work, learn=learn))

    async def give_back(self, lease: Lease) -> None:
        """See `ports.Leases.give_back`."""
        check_run_id(lease.run)
        # Forgotten before the file knows: from then on another process may take it.
        self._recent.renewed(lease.run, lease.epoch, 0.0)
        await self._write(lease.run, partial(writes.give_back, lease=lease))

    async def free(self, limit: int) -> list[str]:
        """See `ports.Leases.free`. O(running runs)."""
        seconds, boot = self._clock.monotonic(), self._boot
        return await self._ask(partial(queries.free, limit=limit, seconds=seconds, boot=boot))

    # --- artifacts ----------------------------------------------------------------------------------------------------
    async def put(self, run: str, data: bytes, mime: str, *, name: str = "") -> str:
        """See `ports.Artifacts.put`. Bytes that are there already keep the type and name that they came with; long ones
        are written in pieces, between other runs' appends, and can be had when the last piece is there.

        Raises:
            BodyTooLarge, LogFull: the artifact, or all of its run or owner, would be too large.
        """
        rules.check_scope(run)
        rules.check_text("a type", mime)
        rules.check_text("a name", name)
        rules.check_blob(self._limits, 0, len(data))
        data = bytes(data)
        key = rules.artifact_id(data) if len(data) <= _HASH_INLINE else await self._ask(partial(_hash, data))
        blob, now_ms = Blob(key, mime, name, data), self._clock.wall_ms()
        begin = partial(writes.begin_artifact, scope=run, blob=blob, limits=self._limits, now_ms=now_ms)
        number, whole = await self._write(run, begin, size=min(len(data), writes.PART_BYTES))
        if not whole:
            view = memoryview(data)
            for part, start in enumerate(range(0, len(data), writes.PART_BYTES)):
                piece = view[start : start + writes.PART_BYTES]
                await self._write(run, partial(writes.add_part, number=number, part=part, data=piece), size=len(piece))
            await self._write(run, partial(writes.finish_artifact, number=number))
        return key

    async def get(self, run: str, id: str) -> Blob | None:
        """See `ports.Artifacts.get`."""
        rules.check_scope(run)
        rules.check_artifact_id(id)
        return await self._ask(partial(queries.artifact, scope=run, id=id, now_ms=self._clock.wall_ms()))

    # --- index --------------------------------------------------------------------------------------------------------
    async def row(self, run: str) -> RunRow | None:
        """See `ports.RunIndex.row`."""
        return await self._ask(partial(queries.row, run=check_run_id(run)))

    async def gone(self, run: str) -> bool:
        """See `ports.RunIndex.gone`."""
        return await self._ask(partial(queries.gone, run=check_run_id(run), now_ms=self._clock.wall_ms()))

    async def page(
        self,
        *,
        owner: str | None = None,
        session: str | None = None,
        running: bool = False,
        before: str = "",
        limit: int = 50,
    ) -> list[RunRow]:
        """See `ports.RunIndex.page`. O(log runs + limit); `running` without a session walks the running runs.

        Raises:
            RunUnknown: `before` is no run, or not one of this owner. InvalidInput: a session without an owner.
        """
        rules.check_page(owner, session)
        if before:
            check_run_id(before)
        which = queries.Which(owner, session, running)
        return await self._ask(partial(queries.page, which=which, before=before, limit=limit))

    async def forget(self, run: str) -> None:
        """See `ports.RunIndex.forget`. The run is gone at once; its bytes go in pieces, between other runs' appends.

        A log of 240 MiB takes one to three seconds. Cancelled in between, the next `forget` of any run goes on with it.
        """
        check_run_id(run)
        work = partial(writes.forget, run=run, now_ms=self._clock.wall_ms())
        await self._write(run, work, learn=lambda _: self._forgotten(run))
        while await self._write("sweep", writes.sweep):
            pass

    async def keep(self, run: str, kept: Kept) -> None:
        """See `ports.RunIndex.keep`; a state of an earlier seq than the kept one changes nothing."""
        check_run_id(run)
        work = partial(writes.keep, run=run, kept=kept, now_ms=self._clock.wall_ms())
        await self._write(run, work, size=len(kept.state))

    async def kept(self, run: str) -> Kept | None:
        """See `ports.RunIndex.kept`."""
        return await self._read(run, queries.kept)

    # --- to the threads -----------------------------------------------------------------------------------------------
    def _opened(self) -> tuple[Loop, Writer, Readers]:
        if self._open is None:
            raise rules.not_open()
        return self._open

    async def _write(
        self,
        run: str,
        work: Callable[[sqlite3.Connection], T],
        *,
        learn: Callable[[T], None] | None = None,
        size: int = 0,
    ) -> T:
        return await self._opened()[1].call(run, work, learn=learn, size=size)

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._opened()[2].call(work)

    async def _read(self, run: str, work: Callable[..., T]) -> T:
        # Callable[...]: the queries of one run share their first and last arguments; partial hides the ones between.
        return await self._ask(partial(work, run=check_run_id(run), now_ms=self._clock.wall_ms()))

    def _now(self) -> writes.Now:
        return writes.Now(self._clock.wall_ms(), self._clock.monotonic(), self._boot)

    # --- what the store learns, on the loop ---------------------------------------------------------------------------
    def _appended(self, run: str, epoch: int, chunk: Chunk, _last: int) -> None:
        self._recent.appended(run, epoch, chunk)
        watch = self._watches.get(run)
        if watch is not None:
            wake(watch.log, EVERYONE if chunk.ends else chunk.last)

    def _posted(self, run: str, letters: int) -> None:
        watch = self._watches.get(run)
        if watch is not None and letters:
            watch.letters = max(watch.letters, letters)
            wake(watch.mail, letters)

    def _forgotten(self, run: str) -> None:
        self._recent.drop(run)
        watch = self._watches.get(run)
        if watch is not None:
            watch.wake_all()

    # --- who waits ----------------------------------------------------------------------------------------------------
    def _wait(self, run: str) -> tuple[Watch, Wake]:
        loop, writer, _ = self._opened()
        watch = self._watches.get(check_run_id(run))
        if watch is None:
            watch = self._watches[run] = Watch()
        self._waiting += 1
        if self._waiting == 1:
            writer.watch(True)
        return watch, loop.wake()

    def _waited(self, run: str, watch: Watch) -> None:
        if not watch.log and not watch.mail and self._watches.get(run) is watch:
            del self._watches[run]
        self._waiting -= 1
        if self._waiting == 0 and self._open is not None:
            self._open[1].watch(False)

    def _on_foreign(self) -> None:
        """Another process committed: see what that means to the runs somebody waits for."""
        if self._open is None or not self._watches:
            return
        if self._looking:
            self._look_again = True
            return
        self._looking = True
        asked = list(self._watches)
        self._open[2].send(partial(_look, asked), partial(self._looked, asked))

    def _looked(self, asked: list[str], found: dict[str, queries.Standing] | None) -> None:
        self._looking = False
        for run in asked:
            watch = self._watches.get(run)
            if watch is None:
                continue
            standing = None if found is None else found.get(run)
            if standing is None or standing.incarnation != (watch.incarnation or standing.incarnation):
                watch.wake_all()  # deleted, made anew, or unreadable: whoever waited finds out by asking
                continue
            self._recent.drop_older(run, standing.epoch)
            wake(watch.log, EVERYONE if standing.ended else standing.last)
            self._posted(run, standing.letters)
        if self._look_again:
            self._look_again = False
            self._on_foreign()


def _tail(standing: queries.Standing) -> Tail:
    return Tail(standing.incarnation, standing.epoch, 1, standing.last, standing.ended)


def _hash(data: bytes, _conn: sqlite3.Connection) -> str:
    return rules.artifact_id(data)


def _look(runs: list[str], conn: sqlite3.Connection) -> dict[str, queries.Standing] | None:
    try:
        return queries.standings(conn, runs)
    except (sqlite3.Error, AgentStreamError):
        return None


async def _stop(writer: Writer, readers: Readers) -> None:
    """End all threads; each has a deadline of its own, so the shield cannot hold for ever."""
    readers.stop()
    writer.stop()
    with anyio.CancelScope(shield=True):
        if not (await readers.join() and await writer.join()):
            _LOG.warning("a thread of the store did not end in time; it holds the file until it does")
