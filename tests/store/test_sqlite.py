"""What the SQLite store promises beyond the contract: its file, its threads, and what becomes of trouble."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from agentstream.errors import AgentStreamError, Fenced, InvalidInput, StoreDown
from agentstream.ids import new_run_id
from agentstream.ports import Blob, Chunk, Lease, RunFacts
from agentstream.store import Limits, SqliteStore, _schema, _threads
from agentstream.store import _rules as rules
from agentstream.store import _transactions as writes

pytestmark = pytest.mark.anyio


def _chunk(seq: int, size: int = 3, *, ends: str = "") -> Chunk:
    return Chunk(seq, seq, b"x" * (size - 1) + b"\n", ends=ends)


async def _leased(store: SqliteStore) -> tuple[str, Lease]:
    run = new_run_id()
    await store.create(run, "", "", _chunk(1), facts=RunFacts())
    lease = await store.take(run, "writer", seconds=3_600)
    assert lease is not None
    return run, lease


@contextmanager
def _locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program holds the write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("BEGIN IMMEDIATE")
        yield conn
        if conn.in_transaction:
            conn.execute("ROLLBACK")


# --- the file ---------------------------------------------------------------------------------------------------------
async def test_modes(tmp_path: Path) -> None:
    """What the store makes only its owner may read: the folder 0700, every file 0600."""
    path = tmp_path / "deep" / "er" / "runs.db"
    async with SqliteStore(path) as store:
        await _leased(store)
        assert {name.name for name in path.parent.iterdir()} == {"runs.db", "runs.db-wal", "runs.db-shm"}
        for name in path.parent.iterdir():
            assert stat.S_IMODE(name.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [name.name for name in path.parent.iterdir()] == ["runs.db"]


async def test_places_that_cannot_be(tmp_path: Path) -> None:
    """A place that cannot hold the store is refused at once, with a reason and without its path; no thread is left."""
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one" * 40)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("text", "not a SQLite database"),
        ("text/below", "cannot be written"),
        ("folder", "not a plain file"),
        ("pipe", "not a plain file"),
        ("n" * 300, "cannot be written"),
    ):
        with pytest.raises(StoreDown, match=words) as caught, anyio.fail_after(10):
            async with SqliteStore(tmp_path / name):
                pass
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
async def test_unwritable_folder(tmp_path: Path) -> None:
    """A folder without write permission is refused."""
    await anyio.Path(tmp_path).chmod(0o500)
    with pytest.raises(StoreDown, match="cannot be written"):
        async with SqliteStore(tmp_path / "runs.db"):
            pass


async def test_remote_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system shared between machines is refused: its processes cannot share memory."""
    monkeypatch.setattr(_schema, "_file_system", lambda _: "nfs4")
    with pytest.raises(StoreDown, match="nfs4"):
        async with SqliteStore(tmp_path / "runs.db"):
            pass


async def test_other_schemas(tmp_path: Path) -> None:
    """Another program's database and one of a newer agentstream are refused and left as they are."""
    for name, statements in (
        ("foreign.db", ["CREATE TABLE users (name)"]),
        ("newer.db", [f"PRAGMA application_id = {_schema._APPLICATION}", "PRAGMA user_version = 99"]),
    ):
        with closing(sqlite3.connect(tmp_path / name)) as conn:
            for statement in statements:
                conn.execute(statement)
        with pytest.raises(InvalidInput, match=r"another program|newer agentstream"):
            async with SqliteStore(tmp_path / name):
                pass
        with closing(sqlite3.connect(tmp_path / name)) as conn:
            assert not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchall()


async def test_the_schema_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its runs are found by their sessions, and a process of that version may go on writing."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        old = new_run_id()
        await store.create(old, "", "", Chunk(1, 1, b"{}\n"), facts=RunFacts(owner="o", session="s"))
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(
            "DROP INDEX runs_of_session; ALTER TABLE runs DROP COLUMN session; PRAGMA user_version = 1; VACUUM"
        )
    async with SqliteStore(path) as store:
        assert [row.run for row in await store.page(owner="o", session="s")] == [old]
        with closing(sqlite3.connect(path)) as conn:
            plan = conn.execute(
                "EXPLAIN QUERY PLAN SELECT run FROM runs WHERE owner = ? AND session <> '' AND session = ? AND no < ?"
                " ORDER BY no DESC LIMIT 9",
                ("o", "s", 9),
            ).fetchall()
    assert "runs_of_session" in str(plan) and "TEMP B-TREE" not in str(plan)


async def test_open_at_once(tmp_path: Path) -> None:
    """Many handles that open a new file at once all find one schema."""
    runs: list[str] = []

    async def use() -> None:
        async with SqliteStore(tmp_path / "runs.db") as store:
            runs.append((await _leased(store))[0])

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(use)
        async with SqliteStore(tmp_path / "runs.db") as store:
            assert {row.run for row in await store.page()} == set(runs)


@pytest.mark.parametrize(("level", "synchronous"), [("process", 1), ("machine", 2)])
async def test_levels(level: str, synchronous: int, tmp_path: Path) -> None:
    """The writer works in WAL mode, synced as its level says."""
    async with SqliteStore(tmp_path / "runs.db", level=level) as store:  # type: ignore[arg-type]
        writer = store._opened()[1]
        assert await writer.call("x", lambda conn: conn.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
        assert await writer.call("x", lambda conn: conn.execute("PRAGMA synchronous").fetchone()) == (synchronous,)


# --- threads ----------------------------------------------------------------------------------------------------------
def _handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


async def test_nothing_leaks(tmp_path: Path) -> None:
    """Opening and closing leaves no thread and no file descriptor, also when opening fails or is cancelled."""
    (tmp_path / "text").write_text("no database" * 400)

    async def once(name: str, *, cancel: bool = False) -> None:
        with anyio.CancelScope() as scope:
            if cancel:
                scope.cancel()
            try:
                async with SqliteStore(tmp_path / name) as store:
                    await _leased(store)
            except StoreDown:
                pass

    await once("runs.db")
    before = threading.active_count(), _handles()
    for _ in range(5):
        await once("runs.db")
        await once("runs.db", cancel=True)
        await once("text")
    assert (threading.active_count(), _handles()) == before


async def test_close_finishes_what_waits(tmp_path: Path) -> None:
    """Appends that were under way when the store was closed are accepted, and their callers told so."""
    answers: list[int] = []
    path = tmp_path / "runs.db"
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks, SqliteStore(path) as store:
            run, lease = await _leased(store)

            async def append(seq: int) -> None:
                answers.append(await store.append(run, lease.epoch, seq - 1, _chunk(seq)))

            with closing(sqlite3.connect(path, isolation_level=None)) as conn:
                conn.execute("BEGIN IMMEDIATE")  # the first append waits for this, the others for the first
                for seq in range(2, 50):
                    tasks.start_soon(append, seq)
                    await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                store._opened()[1].stop()
                conn.execute("ROLLBACK")
    assert sorted(answers) == list(range(2, 50))


async def test_not_over_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child process the parent's connections are not touched."""
    async with SqliteStore(tmp_path / "runs.db") as store:
        run, _ = await _leased(store)
        with monkeypatch.context() as patch:
            patch.setattr(_threads.os, "getpid", lambda: -1)
            with pytest.raises(StoreDown, match="fork"):
                await store.ping()
            with pytest.raises(StoreDown, match="fork"):
                await store.row(run)
        await store.ping()


async def test_poller_rests(tmp_path: Path) -> None:
    """The writer looks for other processes' commits only while somebody waits, and a second after."""
    async with SqliteStore(tmp_path / "runs.db") as store:
        run, _ = await _leased(store)
        thread = store._opened()[1]._thread
        assert thread.parked
        with anyio.move_on_after(0.1):
            await store.changed(run, 1)
        assert not thread.watching
        with closing(_schema.connect(tmp_path / "runs.db", "process", write=True)) as conn:
            for _ in range(_threads._PARK_TICKS + 1):
                thread._look(conn)
        assert thread._park()


# --- groups and memory ------------------------------------------------------------------------------------------------
async def test_one_runs_trouble_is_not_anothers(tmp_path: Path) -> None:
    """In one group commit a run that is fenced and a run that the file refuses fail alone; the others are accepted."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        runs = [await _leased(store) for _ in range(6)]
        with closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON chunks WHEN NEW.private = x'62'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        outcomes: dict[int, object] = {}

        async def append(number: int) -> None:
            run, lease = runs[number]
            epoch = lease.epoch - (number == 2)
            private = b"b" if number == 3 else b""
            try:
                outcomes[number] = await store.append(run, epoch, 1, Chunk(2, 2, b"{}\n", private))
            except AgentStreamError as error:
                outcomes[number] = type(error)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                with _locked(path):  # what comes meanwhile is one group
                    for number in range(6):
                        tasks.start_soon(append, number)
                    await anyio.wait_all_tasks_blocked()
        assert outcomes == {0: 2, 1: 2, 2: Fenced, 3: StoreDown, 4: 2, 5: 2}
    async with SqliteStore(path) as store:  # asks the file, not the memory
        assert [(await store.tail(run)).last for run, _ in runs] == [2, 2, 1, 1, 2, 2]
        assert [len(await store.read(run, 0)) for run, _ in runs] == [2, 2, 1, 1, 2, 2]


async def test_tailing_readers_stay_off_the_disk(tmp_path: Path) -> None:
    """While this store holds the lease its readers are answered from memory; what is older comes from the file."""
    async with SqliteStore(tmp_path / "runs.db", limits=Limits(cache_bytes=10_000)) as store:
        run, lease = await _leased(store)
        for seq in range(2, 40):
            await store.append(run, lease.epoch, seq - 1, _chunk(seq, 1_000))
        readers = store._opened()[2]
        asked: list[object] = []
        call = readers.call

        async def counted(work: object) -> object:
            asked.append(work)
            return await call(work)  # type: ignore[arg-type]

        readers.call = counted  # type: ignore[method-assign, assignment]
        assert await store.read(run, 38) == [_chunk(39, 1_000)]
        assert (await store.tail(run)).last == 39
        await store.changed(run, 38)
        assert not asked
        assert len(await store.read(run, 0)) == 39
        assert len(asked) == 1
        await store.give_back(lease)
        assert await store.read(run, 38) == [_chunk(39, 1_000)]
        assert len(asked) == 2


async def test_large_artifacts_do_not_hold_up_appends(tmp_path: Path) -> None:
    """A large artifact is written in pieces: appends are accepted between them."""
    async with SqliteStore(tmp_path / "runs.db") as store:
        run, lease = await _leased(store)
        order: list[str] = []

        async def put() -> None:
            await store.put(run, bytes(8_000_000), "application/octet-stream")
            order.append("artifact")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(put)
                for seq in range(2, 12):
                    await store.append(run, lease.epoch, seq - 1, _chunk(seq))
                order.append("appends")
        assert order == ["appends", "artifact"]


async def test_deleted_runs_are_swept(tmp_path: Path) -> None:
    """A deleted run leaves no row but its tombstone, also where an earlier deletion was cut off half-way."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        runs: list[str] = []
        for _ in range(2):
            run, lease = await _leased(store)
            runs.append(run)
            async with anyio.create_task_group() as tasks:
                for seq in range(2, 300):
                    tasks.start_soon(store.append, run, lease.epoch, seq - 1, _chunk(seq))
                    await anyio.lowlevel.checkpoint()
            await store.append(run, lease.epoch, 299, _chunk(300, ends="finished"))
            await store.put(run, bytes(600_000), "text/plain")
            await store.put(run, b"short", "text/plain")
            await store.post(run, "key", b"")
        cut_off = partial(writes.forget, run=runs[0], now_ms=0)
        await store._write(runs[0], cut_off)
        assert await store._write("sweep", writes.sweep)
        assert await store.row(runs[0]) is None
        await store.forget(runs[1])
    with closing(sqlite3.connect(path)) as conn:
        for table in ("runs", "chunks", "letters", "artifacts", "parts", "kept"):
            assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert conn.execute("SELECT count(*), sum(swept) FROM tombs").fetchone() == (2, 2)


async def test_half_an_artifact_is_none(tmp_path: Path) -> None:
    """An artifact whose writer died between its pieces is not there; the same bytes put again make it whole."""
    async with SqliteStore(tmp_path / "runs.db") as store:
        run, _ = await _leased(store)
        data = bytes(range(256)) * 4_000
        key = rules.artifact_id(data)
        begin = partial(
            writes.begin_artifact, scope=run, blob=Blob(key, "text/csv", "", data), limits=Limits(), now_ms=0
        )
        number, whole = await store._write(run, begin)
        assert not whole
        await store._write(run, partial(writes.add_part, number=number, part=0, data=memoryview(data)[:1_000]))
        assert await store.get(run, key) is None
        assert await store.put(run, data, "text/plain") == key
        assert await store.get(run, key) == Blob(key, "text/csv", "", data)


# --- trouble ----------------------------------------------------------------------------------------------------------
async def test_locked_by_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program holds the lock writes fail in bounded time, reads go on, and afterwards all is well."""
    monkeypatch.setattr(_schema, "BUSY_S", 0.05)
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        run, lease = await _leased(store)
        with _locked(path), anyio.fail_after(10):
            with pytest.raises(StoreDown, match="locked") as caught:
                await store.append(run, lease.epoch, 1, _chunk(2))
            assert caught.value.retryable
            with pytest.raises(StoreDown, match="locked"):
                await store.ping()
            assert await store.read(run, 0) == [_chunk(1)]
        assert await store.append(run, lease.epoch, 1, _chunk(2)) == 2
        assert await store.read(run, 0) == [_chunk(1), _chunk(2)]


async def test_a_fault_inside_reaches_its_caller(tmp_path: Path) -> None:
    """A fault that nobody foresaw is raised where the call was made, undoes its group, and the threads go on."""
    async with SqliteStore(tmp_path / "runs.db") as store:
        run, lease = await _leased(store)
        _, writer, readers = store._opened()

        def fault(conn: sqlite3.Connection) -> None:
            conn.execute("DELETE FROM runs")
            raise ZeroDivisionError

        with anyio.fail_after(10):
            with pytest.raises(ZeroDivisionError):
                await writer.call("x", fault)
            with pytest.raises(ZeroDivisionError):
                await readers.call(lambda _: 1 // 0)
            with pytest.raises(StoreDown, match="READONLY"):
                await readers.call(lambda conn: conn.execute("DELETE FROM runs"))
            assert await store.append(run, lease.epoch, 1, _chunk(2)) == 2


async def test_damaged_file(tmp_path: Path) -> None:
    """A damaged file is told as such, not as a run that is unknown."""
    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        run, lease = await _leased(store)
        for seq in range(2, 40):
            await store.append(run, lease.epoch, seq - 1, _chunk(seq, 4_000))
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * 200_000)
    async with SqliteStore(path) as store:
        with pytest.raises(StoreDown, match="damaged"):
            await store.read(run, 0)


@contextmanager
def _tiny_disk(place: Path) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, timeout=10, check=False)
    except FileNotFoundError:
        pytest.skip("mount is not on this machine")
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], timeout=10, check=True)


async def test_disk_full(tmp_path: Path) -> None:
    """On a full disk appends fail, reads work, nothing accepted is lost; with room again the same bytes are taken."""
    with _tiny_disk(tmp_path / "disk"):
        path = tmp_path / "disk" / "runs.db"
        filler = tmp_path / "disk" / "filler"
        filler.write_bytes(bytes(600_000))
        async with SqliteStore(path) as store:
            run, lease = await _leased(store)
            last = 1
            with pytest.raises(StoreDown, match="disk is full"), anyio.fail_after(20):  # noqa: PT012  it fills up in between
                while True:
                    last = await store.append(run, lease.epoch, last, _chunk(last + 1, 10_000))
            with pytest.raises(StoreDown, match="disk is full"):
                await store.put(run, bytes(100_000), "text/plain")
            assert last > 20
            assert (await store.tail(run)).last == last
            for from_file in (False, True):
                if from_file:
                    store._recent.drop(run)
                events = 0
                while piece := await store.read(run, events):
                    assert piece[0].first == events + 1
                    events = piece[-1].last
                assert events == last
            filler.unlink()
            assert await store.append(run, lease.epoch, last, _chunk(last + 1, 10_000)) == last + 1
            await store.ping()
        with closing(sqlite3.connect(path)) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert conn.execute("SELECT count(*) FROM chunks").fetchone() == (last + 1,)
