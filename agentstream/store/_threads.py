"""The threads of a store on disk: one that writes, in groups, and a few that read.

What comes in: functions to run on a connection, from one event loop. What goes out: their results, given to the loop in
one call a group. It does not know what the functions do, only which run each belongs to.

A group is everything that waited while the last one was committed. Each run's writes in it stand in a savepoint of
their own, so that one run's trouble is not another's. A call whose caller was cancelled is done all the same.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar, cast, final

import anyio

from agentstream.errors import AgentStreamError, StoreDown
from agentstream.loops import Loop, Wake
from agentstream.store._rules import not_open
from agentstream.store._schema import connect, down, prepare_file

__all__ = ("POLL_S", "Readers", "Writer")

POLL_S: Final = 0.020
"""How often the writer looks for other processes' commits while somebody waits for some (DESIGN §9)."""
_PARK_TICKS: Final = 50  # ticks without a waiter before it stops looking: a tailing reader comes and goes per event
_GROUP_JOBS: Final = 256
_GROUP_BYTES: Final = 8 * 1024 * 1024
_MAX_JOBS: Final = 10_000
_MAX_BYTES: Final = 256 * 1024 * 1024
_CLOSE_S: Final = 10.0

_LOG = logging.getLogger("agentstream.store")

T = TypeVar("T")


@final
class _Job(Generic[T]):
    """One call: what to do in the thread, and what the loop does with the answer before the caller goes on."""

    __slots__ = ("error", "learn", "result", "run", "size", "wake", "work")

    def __init__(
        self, run: str, work: Callable[[sqlite3.Connection], T], wake: Wake, learn: Callable[[T], None] | None
    ) -> None:
        self.run = run
        self.work = work
        self.wake = wake
        self.learn = learn
        self.size = 0
        self.result: T | None = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        """On the loop."""
        if self.error is None and self.learn is not None:
            self.learn(cast("T", self.result))
        self.wake.set()


class _Thread:
    """A thread with a connection of its own, a queue, and an end that the loop can await."""

    def __init__(self, name: str, loop: Loop, open_connection: Callable[[], sqlite3.Connection]) -> None:
        self._loop = loop
        self._open = open_connection
        self._queue: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._ready = loop.wake()
        self._ended = loop.wake()
        self._failure: BaseException | None = None
        self._conn: sqlite3.Connection | None = None
        # A daemon: a program that ends without closing its store is not held up; a commit is atomic anyway.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def start(self) -> None:
        """Start, and wait until the connection is open.

        Raises:
            StoreDown, InvalidInput: it could not be opened.
        """
        self._thread.start()
        await self._ready
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Everything in the queue is still done, then the thread ends."""
        self._queue.put(None)

    async def join(self, deadline: float) -> bool:
        """Wait for the end; True if it came before `deadline` (monotonic seconds)."""
        if self._thread.ident is None:
            return True
        with anyio.move_on_after(deadline - time.monotonic(), shield=True):
            await self._ended
        if self._conn is not None and self._thread.is_alive():
            self._conn.interrupt()
        # The thread has told its end: what is left of it are microseconds.
        self._thread.join(max(0.05, min(1.0, deadline - time.monotonic())))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._conn = self._open()
        except sqlite3.Error as error:
            self._failure = down(error)
            self._failure.__cause__ = error
        except (AgentStreamError, OSError) as error:
            self._failure = error
        self._loop.call_soon(self._ready.set)
        try:
            if self._conn is not None:
                self._work(self._conn)
        finally:
            conn, self._conn = self._conn, None
            if conn is not None:
                conn.close()
            self._loop.call_soon(self._ended.set)

    def _work(self, conn: sqlite3.Connection) -> None:
        raise NotImplementedError

    def put(self, job: _Job[object]) -> None:
        self._queue.put(job)


def _fail(jobs: Iterable[_Job[object]], error: BaseException) -> None:
    """Give every job without an error one of its own: an exception raised twice would grow two tracebacks."""
    for job in jobs:
        if job.error is None:
            mine = down(error) if isinstance(error, sqlite3.Error) else error
            if mine is not error:
                mine.__cause__ = error
            job.error = mine


@final
class _WriterThread(_Thread):
    """Takes what waits, commits it as one transaction, and looks for other processes' commits in between."""

    def __init__(
        self,
        loop: Loop,
        open_connection: Callable[[], sqlite3.Connection],
        settle: Callable[[list[_Job[object]]], None],
        foreign: Callable[[], None],
    ) -> None:
        super().__init__("agentstream-store-writer", loop, open_connection)
        self._settle = settle
        self._foreign = foreign
        # Unknown, so the first look reports a change: one read at the start of the thread might come too late already.
        self._version = -1
        self._due = 0.0
        self._unwatched = 0
        # One is written by the loop and read here, the other the reverse; each access is atomic.
        self.watching = False
        self.parked = True

    def nudge(self) -> None:
        """Look for other processes' commits again."""
        if self.parked:
            self.put(_Job("", lambda _: None, self._ended, None))

    def _work(self, conn: sqlite3.Connection) -> None:
        while (jobs := self._take()) is not None:
            if jobs:
                self._commit(conn, jobs)
                self._loop.call_soon(partial(self._settle, jobs))
            if not self.parked and time.monotonic() >= self._due:
                self._look(conn)

    def _take(self) -> list[_Job[object]] | None:
        """What waits now, at least one job; empty when it is time to look; None at the end."""
        try:
            job = self._queue.get(timeout=None if self._park() else max(0.0, self._due - time.monotonic()))
        except Empty:
            return []
        jobs: list[_Job[object]] = []
        size = 0
        while job is not None:
            if job.run:
                jobs.append(job)
                size += job.size
            if self._queue.empty() or len(jobs) >= _GROUP_JOBS or size >= _GROUP_BYTES:
                return jobs
            job = self._queue.get_nowait()
        if jobs:
            self._queue.put(None)
            return jobs
        return None

    # --- other processes ----------------------------------------------------------------------------------------------
    def _park(self) -> bool:
        """Whether nobody has waited for a while.

        `parked` is written before `watching` is read, and the loop does the reverse: one of the two sees the other.
        """
        if self._unwatched >= _PARK_TICKS:
            self.parked = True
        if self.watching:
            self._unwatched = 0
            self.parked = False
        return self.parked

    def _look(self, conn: sqlite3.Connection) -> None:
        """This connection's own commits do not change its data version, so a change is somebody else's."""
        self._due = time.monotonic() + POLL_S
        self._unwatched = 0 if self.watching else self._unwatched + 1
        try:
            version = conn.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            version = -1  # readers find out what is wrong when they read
        if version != self._version:
            self._version = version
            self._loop.call_soon(self._foreign)

    # --- the group ----------------------------------------------------------------------------------------------------
    def _commit(self, conn: sqlite3.Connection, jobs: list[_Job[object]]) -> None:
        """Do all jobs in one transaction; afterwards each has a result that is in the file, or an error."""
        runs: dict[str, list[_Job[object]]] = {}
        for job in jobs:
            runs.setdefault(job.run, []).append(job)
        try:
            conn.execute("BEGIN IMMEDIATE")
            if len(runs) == 1:
                _do(conn, jobs)
            else:
                for group in runs.values():
                    _do_apart(conn, group)
            conn.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001  a fault in one call must reach its caller, not end the thread
            _fail(jobs, error)
            _roll_back(conn)


def _do(conn: sqlite3.Connection, jobs: list[_Job[object]]) -> None:
    for job in jobs:
        try:
            job.result = job.work(conn)
        except AgentStreamError as refused:  # raised before anything was written
            job.error = refused


def _do_apart(conn: sqlite3.Connection, jobs: list[_Job[object]]) -> None:
    """One run's jobs: if the file fails them, what they wrote is undone and the group goes on."""
    conn.execute("SAVEPOINT run")
    try:
        _do(conn, jobs)
    except Exception as error:  # see _commit
        if not conn.in_transaction:
            raise  # SQLite itself gave up the whole transaction, as it may on a full disk
        _fail(jobs, error)
        conn.execute("ROLLBACK TO run")
    conn.execute("RELEASE run")


def _roll_back(conn: sqlite3.Connection) -> None:
    if conn.in_transaction:
        try:
            conn.execute("ROLLBACK")
        except sqlite3.Error as error:
            _LOG.warning("the store could not roll back: %s", down(error).detail)


@final
class Writer:
    """The one thread that writes.

    Args:
        foreign: called on the loop when another process has committed something.
    """

    def __init__(self, loop: Loop, path: Path, level: str, foreign: Callable[[], None]) -> None:
        self._loop = loop
        self._pid = os.getpid()
        self._jobs = 0
        self._bytes = 0
        self._open = False

        def open_connection() -> sqlite3.Connection:
            prepare_file(path)
            return connect(path, level, write=True)

        self._thread = _WriterThread(loop, open_connection, self._settle, foreign)

    async def start(self) -> None:
        """See `_Thread.start`."""
        await self._thread.start()
        self._open = True

    async def call(
        self,
        run: str,
        work: Callable[[sqlite3.Connection], T],
        *,
        learn: Callable[[T], None] | None = None,
        size: int = 0,
    ) -> T:
        """Do `work` in a transaction and return its result once that is committed.

        Args:
            run: whose work it is; work of one run is done in the order of the calls.
            learn: called on the loop with the result, before the caller goes on, and even if the caller was cancelled.
            size: bytes that wait with it.

        Raises:
            StoreDown: SQLite refused, too much waits, or the store is closed.
        """
        _check_process(self._pid)
        if not self._open:
            raise not_open()
        if self._jobs >= _MAX_JOBS or self._bytes + size > _MAX_BYTES:
            raise StoreDown(f"{self._jobs} writes of {self._bytes} bytes wait for the disk: no more are taken")
        job = _Job(run, work, self._loop.wake(), learn)
        job.size = size
        self._jobs += 1
        self._bytes += size
        self._thread.put(cast("_Job[object]", job))
        await job.wake
        if job.error is not None:
            raise job.error
        return cast("T", job.result)

    def watch(self, on: bool) -> None:
        """Say whether anybody waits for other processes' commits."""
        self._thread.watching = on
        if on:
            self._thread.nudge()

    def stop(self) -> None:
        """Take no more; what waits is still done."""
        self._open = False
        self._thread.stop()

    async def join(self) -> bool:
        """Wait until the thread has ended; False if it did not within `_CLOSE_S`."""
        return await self._thread.join(time.monotonic() + _CLOSE_S)

    def _settle(self, jobs: list[_Job[object]]) -> None:
        for job in jobs:
            self._jobs -= 1
            self._bytes -= job.size
            job.settle()


@final
class _ReaderThread(_Thread):
    """Does one read after another."""

    def __init__(self, loop: Loop, path: Path, queue: SimpleQueue[_Job[object] | None]) -> None:
        super().__init__("agentstream-store-reader", loop, partial(connect, path, "process", write=False))
        self._queue = queue

    def _work(self, conn: sqlite3.Connection) -> None:
        while (job := self._queue.get()) is not None:
            try:
                job.result = job.work(conn)
            except BaseException as error:  # noqa: BLE001  a fault in one call must reach its caller, not end the thread
                _fail((job,), error)
            self._loop.call_soon(job.settle)


@final
class Readers:
    """A few threads that read, each with its own connection: a long read does not stop the others."""

    def __init__(self, loop: Loop, path: Path, count: int) -> None:
        self._loop = loop
        self._pid = os.getpid()
        self._open = False
        self._waiting = 0
        queue: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._queue = queue
        self._threads = [_ReaderThread(loop, path, queue) for _ in range(count)]

    async def start(self) -> None:
        """See `_Thread.start`."""
        for thread in self._threads:
            await thread.start()
        self._open = True

    def send(self, work: Callable[[sqlite3.Connection], T], learn: Callable[[T], None]) -> None:
        """Do `work`, which must not raise, without anybody waiting for it."""
        self._queue.put(cast("_Job[object]", _Job("", work, self._loop.wake(), learn)))

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on a reading connection.

        Raises:
            StoreDown: SQLite refused, too many wait, or the store is closed.
        """
        _check_process(self._pid)
        if not self._open:
            raise not_open()
        if self._waiting >= _MAX_JOBS:
            raise StoreDown(f"{self._waiting} reads wait for the disk: no more are taken")
        job = _Job("", work, self._loop.wake(), None)
        self._waiting += 1
        self._queue.put(cast("_Job[object]", job))
        try:
            await job.wake
        finally:
            self._waiting -= 1
        if job.error is not None:
            raise job.error
        return cast("T", job.result)

    def stop(self) -> None:
        """Take no more; what waits is still done."""
        self._open = False
        for thread in self._threads:
            thread.stop()

    async def join(self) -> bool:
        """Wait until all threads have ended; False if one did not within `_CLOSE_S`."""
        deadline = time.monotonic() + _CLOSE_S
        return all([await thread.join(deadline) for thread in self._threads])


def _check_process(pid: int) -> None:
    if os.getpid() != pid:
        raise StoreDown("the store was opened before a fork: open another one in the child")
