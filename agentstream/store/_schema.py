"""The SQLite file: how it is opened, what its tables are, and how its errors are told.

What comes in: a path and a durability level. What goes out: a connection whose schema is ours, or `StoreDown` with a
sentence that names the fault but neither paths nor contents. It does not know what the rows mean to a run.

    chunks      a row a chunk. Its key is `run number << 32 | first seq`: one B-tree, every run's chunks side by side in
                order, found without an index. So a file holds 2^31 runs of 2^32 events.
    runs        a row a run; `last`, `size` and `status` change in the transaction of the append; `no` is used once.
    letters     the mailbox; an acknowledged letter keeps its key and loses its body.
    artifacts   what was kept under a run or under an owner's uploads; `parts` has the bytes, in pieces, so that a large
    parts       one is written in several short transactions between the appends. It counts once `whole` is set.
    keys        idempotency keys, until `until` (wall ms).
    tombs       deleted runs, until `until`; their chunks and artifacts go in pieces, until `swept` is set.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from pathlib import Path
from typing import Final

from agentstream.errors import InvalidInput, StoreDown

__all__ = ("BUSY_S", "LEVELS", "connect", "down", "prepare_file")

LEVELS: Final = {"process": "NORMAL", "machine": "FULL"}
"""`PRAGMA synchronous` by level. NORMAL with WAL may lose the last commits with the power, never with the process."""

BUSY_S: Final = 2.0
"""How long a write waits for another process. Twice that stays below the 5 s in which a run must learn of trouble."""

_VERSION: Final = 2
_APPLICATION: Final = 0x61677374  # "agst": tells our files from other programs' databases

_TABLES: Final = """
CREATE TABLE runs (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE,
    incarnation TEXT NOT NULL,
    owner TEXT NOT NULL,
    facts BLOB NOT NULL,
    status TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    last INTEGER NOT NULL,
    size INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    letters INTEGER NOT NULL,
    holder TEXT NOT NULL,
    until REAL NOT NULL,
    boot TEXT NOT NULL,
    session TEXT NOT NULL DEFAULT ''
);
CREATE INDEX runs_of_session ON runs (owner, session, no) WHERE session <> '';
CREATE INDEX runs_of_owner ON runs (owner, no);
CREATE INDEX runs_running ON runs (no) WHERE status = 'running';
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    ends TEXT NOT NULL,
    lines BLOB NOT NULL,
    private BLOB NOT NULL
);
CREATE TABLE letters (
    run INTEGER NOT NULL,
    n INTEGER NOT NULL,
    key TEXT NOT NULL,
    body BLOB,
    PRIMARY KEY (run, n),
    UNIQUE (run, key)
) WITHOUT ROWID;
CREATE TABLE artifacts (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    mime TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    whole INTEGER NOT NULL,
    UNIQUE (scope, id)
);
CREATE TABLE parts (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE kept (run INTEGER PRIMARY KEY, seq INTEGER NOT NULL, state BLOB NOT NULL);
CREATE TABLE keys (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    run TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_until ON keys (until);
CREATE TABLE tombs (
    run TEXT PRIMARY KEY,
    no INTEGER NOT NULL,
    owner TEXT NOT NULL,
    until INTEGER NOT NULL,
    swept INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tombs_until ON tombs (until);
CREATE INDEX tombs_unswept ON tombs (no) WHERE swept = 0;
CREATE TABLE pings (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
INSERT INTO pings VALUES (1, 0);
"""

# From a version to the next. A process of the older version goes on writing: it fills no new column.
_STEPS: Final = {
    1: """
ALTER TABLE runs ADD COLUMN session TEXT NOT NULL DEFAULT '';
UPDATE runs SET session = coalesce(json_extract(CAST(facts AS TEXT), '$.session'), '');
CREATE INDEX runs_of_session ON runs (owner, session, no) WHERE session <> '';
""",
}

# File systems that are shared between machines: WAL needs memory that all its processes share (sqlite.org/wal.html §1).
_REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "lustre"}
)

_WORDS: Final = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "the database is read-only",
    "SQLITE_BUSY": f"another process has locked the database for more than {BUSY_S:.0f} s",
    "SQLITE_LOCKED": "the database is locked",
    "SQLITE_CANTOPEN": "the database cannot be opened",
    "SQLITE_CORRUPT": "the database is damaged",
    "SQLITE_NOTADB": "the file is not a SQLite database",
    "SQLITE_IOERR": "the disk does not read or write",
    "SQLITE_NOMEM": "there is no memory left",
    "SQLITE_INTERRUPT": "the store is closing",
    "SQLITE_TOOBIG": "the value is larger than SQLite can hold",
}


def down(error: sqlite3.Error) -> StoreDown:
    """The `StoreDown` for an error of SQLite: names the fault and SQLite's own code, nothing of ours."""
    name: str = getattr(error, "sqlite_errorname", "") or type(error).__name__
    for prefix, words in _WORDS.items():
        if name.startswith(prefix):
            return StoreDown(f"{words} ({name})", details={"sqlite": name})
    return StoreDown(f"SQLite refused ({name})", details={"sqlite": name})


# --- the file ---------------------------------------------------------------------------------------------------------
def prepare_file(path: Path) -> None:
    """Make the file (0600) and its folder (0700) where they are missing; SQLite gives its own files the same mode.

    An existing file is never opened here: closing any handle on it would drop the locks that other connections of this
    process hold (sqlite.org/howtocorrupt.html §2.2).

    Raises:
        StoreDown: the place cannot be written, is no plain file, or lies on a file system shared between machines.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make_file(path)
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise StoreDown(f"the store's place cannot be written: {error.strerror}") from error
    if not regular:
        raise StoreDown("the store's place is not a plain file")
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StoreDown("the store's place cannot be written: the file and its folder must be writable")
    if (kind := _file_system(path.parent)) in _REMOTE:
        raise StoreDown(f"SQLite stores need a local file system, this one is {kind}")


def _make_file(path: Path) -> None:
    """An empty file with mode 0600 that nobody ever had open under this name."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass  # another process was faster
    finally:
        fresh.unlink(missing_ok=True)


def _file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`, where the kernel tells (Linux); else empty."""
    best, kind = -1, ""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
        place = folder.resolve()
    except OSError:
        return ""
    for fields in (line.split(" ") for line in mounts):
        point = Path(fields[1].replace("\\040", " "))
        # A later mount on the same point hides the earlier one.
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def connect(path: Path, level: str, *, write: bool) -> sqlite3.Connection:
    """A connection for the calling thread alone; the writing one makes the schema first.

    Raises:
        sqlite3.Error: see `down`.
        StoreDown: the file system cannot do write-ahead logging.
        InvalidInput: the file is another program's, or of a newer agentstream.
    """
    conn = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        if write:
            mode: str = conn.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StoreDown("this file system cannot keep SQLite's write-ahead log")
            conn.execute(f"PRAGMA synchronous = {LEVELS[level]}")
            # Apple's fsync does not empty the drive's cache without these; elsewhere they change nothing.
            conn.execute("PRAGMA fullfsync = ON")
            conn.execute("PRAGMA checkpoint_fullfsync = ON")
            conn.execute("PRAGMA wal_autocheckpoint = 2000")
            # Savepoints then keep their undo pages in memory: no temporary files, which a full disk would refuse.
            conn.execute("PRAGMA temp_store = MEMORY")
            conn.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
            _make_schema(conn)
        else:
            conn.execute("PRAGMA query_only = ON")
    except BaseException:
        conn.close()
        raise
    return conn


def _make_schema(conn: sqlite3.Connection) -> None:
    if _check_version(conn) == _VERSION:
        return
    # Two processes may come at once: the second finds the first one's tables.
    conn.execute("BEGIN IMMEDIATE")
    try:
        if (found := _check_version(conn)) != _VERSION:
            # An empty file is made as it is today; an older one goes step by step.
            for script in [_TABLES] if not found else [_STEPS[old] for old in range(found, _VERSION)]:
                for statement in script.split(";"):
                    conn.execute(statement)
            conn.execute(f"PRAGMA application_id = {_APPLICATION}")
            conn.execute(f"PRAGMA user_version = {_VERSION}")
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def _check_version(conn: sqlite3.Connection) -> int:
    """The schema's version, 0 for an empty file."""
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    application: int = conn.execute("PRAGMA application_id").fetchone()[0]
    tables: int = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != _APPLICATION and (tables or version or application):
        raise InvalidInput("the file is a database of another program: choose another path")
    if version > _VERSION:
        raise InvalidInput(
            f"the store was written by a newer agentstream (schema {version}, known is {_VERSION}): update it here"
        )
    return version
