"""What each write does, as plain functions on a connection inside a transaction.

What comes in: the writer's connection and the arguments of one call of a port. What goes out: its answer, or the port's
error, raised before anything was written. It does not know threads, where transactions end, or who waits.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

import msgspec

from agentstream.ids import new_incarnation
from agentstream.ports import Blob, Chunk, Created, Kept, Lease, RunFacts
from agentstream.store import _rules as rules
from agentstream.store._queries import PARTS_SHIFT, SHIFT, missing, run_number

__all__ = (
    "PART_BYTES",
    "Now",
    "Taken",
    "ack",
    "add_part",
    "append",
    "begin_artifact",
    "create",
    "finish_artifact",
    "forget",
    "give_back",
    "keep",
    "ping",
    "post",
    "renew",
    "sweep",
    "take",
)

PART_BYTES: Final = 256 * 1024
"""A piece of an artifact: about a millisecond of one transaction, so appends never wait long behind a large one."""

_SWEEP_ROWS: Final = 128  # deleted in one transaction: 4 ms of short rows, 140 ms of the longest


class Now(NamedTuple):
    """The store's clock when the call was made: wall ms, and seconds that count within `boot`."""

    wall_ms: int
    seconds: float
    boot: str


class Taken(NamedTuple):
    """A lease just given out, and the log that it gives the right to write to."""

    lease: Lease
    incarnation: str
    last: int


# --- log --------------------------------------------------------------------------------------------------------------
def create(
    conn: sqlite3.Connection, run: str, key: tuple[str, str], first: Chunk, facts: RunFacts, now: Now
) -> Created:
    """Make a run; `key` is the idempotency key and the request's digest."""
    name, digest = key
    if name:
        conn.execute("DELETE FROM keys WHERE until <= ?", (now.wall_ms,))
        known = conn.execute("SELECT digest, run, incarnation FROM keys WHERE key = ?", (name,)).fetchone()
        if known is not None:
            if known[0] != digest:
                raise rules.key_reused()
            return Created(known[1], known[2], known[1] == run)
    if (made := _made_before(conn, run, first)) is not None:
        return made
    incarnation = new_incarnation()
    number = conn.execute(
        "INSERT INTO runs"
        " (run, incarnation, owner, session, facts, status, last, size, ended, epoch, letters, holder, until, boot)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '', 0, '')",
        (
            run,
            incarnation,
            facts.owner,
            facts.session,
            msgspec.json.encode(facts),
            first.ends or "running",
            first.last,
            rules.size_of(first),
            now.wall_ms if first.ends else 0,
        ),
    ).lastrowid
    assert number is not None
    _insert_chunk(conn, number, 0, first)
    if name:
        until = now.wall_ms + rules.KEEP_KEYS_MS
        conn.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?)", (name, digest, run, incarnation, until))
    return Created(run, incarnation, True)


def _made_before(conn: sqlite3.Connection, run: str, first: Chunk) -> Created | None:
    found = conn.execute("SELECT no, incarnation FROM runs WHERE run = ?", (run,)).fetchone()
    if found is not None:
        if not _holds(conn, found[0], 0, first):
            raise rules.run_reused()
        return Created(run, found[1], True)
    if conn.execute("SELECT 1 FROM tombs WHERE run = ?", (run,)).fetchone() is not None:
        raise rules.run_reused()
    return None


# Two statements: naming `status` in an update rewrites the index of the running runs as well.
_APPEND: Final = (
    "UPDATE runs SET last = ?, size = size + ?"
    " WHERE no = ? AND epoch = ? AND last = ? AND status = 'running' AND size <= ?"
)
_END: Final = (
    "UPDATE runs SET last = ?, size = size + ?, status = ?, ended = ?"
    " WHERE no = ? AND epoch = ? AND last = ? AND status = 'running'"
)


def append(conn: sqlite3.Connection, run: str, epoch: int, chunk: Chunk, limits: rules.Limits, now_ms: int) -> int:
    """Append after `chunk.first - 1`. The usual case is one guarded update and one insert: every statement gives the
    interpreter's lock away and may wait to get it back."""
    expected = chunk.first - 1
    size = rules.size_of(chunk)
    number = run_number(conn, run)
    if number is not None and (chunk.ends or chunk.last <= limits.max_events):
        guard = (number, epoch, expected)
        if chunk.ends:
            done = conn.execute(_END, (chunk.last, size, chunk.ends, now_ms, *guard)).rowcount
        else:
            done = conn.execute(_APPEND, (chunk.last, size, *guard, limits.max_bytes - size)).rowcount
        if done == 1:
            _insert_chunk(conn, number, epoch, chunk)
            return chunk.last
    row = conn.execute("SELECT no, epoch, last, status, size FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        raise missing(conn, run, now_ms)
    if rules.judge((row[1], row[2], row[3] != "running"), epoch, expected) == "repeat":
        if not _holds(conn, row[0], epoch, chunk):
            raise rules.other_wrote()
        return chunk.last
    rules.check_room(limits, row[4], chunk)
    raise AssertionError("the guarded update refused what the rules allow")


def _insert_chunk(conn: sqlite3.Connection, number: int, epoch: int, chunk: Chunk) -> None:
    conn.execute(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)",
        (number << SHIFT | chunk.first, chunk.last, epoch, chunk.ends, chunk.lines, chunk.private),
    )


def _holds(conn: sqlite3.Connection, number: int, epoch: int, chunk: Chunk) -> bool:
    """Whether exactly this chunk stands in the log, written under this epoch."""
    row = conn.execute(
        "SELECT last, epoch, ends, lines, private FROM chunks WHERE id = ?", (number << SHIFT | chunk.first,)
    ).fetchone()
    return bool(row == (chunk.last, epoch, chunk.ends, chunk.lines, chunk.private))


# --- mailbox ----------------------------------------------------------------------------------------------------------
def post(conn: sqlite3.Connection, run: str, key: str, body: bytes, limits: rules.Limits, now_ms: int) -> int:
    """Leave a letter; returns how many were ever left, 0 if this one was there."""
    row = conn.execute("SELECT no, letters FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        raise missing(conn, run, now_ms)
    number, count = row
    if conn.execute("SELECT 1 FROM letters WHERE run = ? AND key = ?", (number, key)).fetchone() is not None:
        return 0
    if count >= limits.max_letters:
        raise rules.mailbox_full(limits)
    conn.execute("INSERT INTO letters VALUES (?, ?, ?, ?)", (number, count + 1, key, body))
    conn.execute("UPDATE runs SET letters = ? WHERE no = ?", (count + 1, number))
    return int(count) + 1


def ack(conn: sqlite3.Connection, run: str, epoch: int, key: str, now_ms: int) -> None:
    """Mark a letter as done: its key stays, its body goes."""
    row = conn.execute("SELECT no, epoch FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        raise missing(conn, run, now_ms)
    if row[1] != epoch:
        raise rules.stale_ack(epoch, row[1])
    conn.execute("UPDATE letters SET body = NULL WHERE run = ? AND key = ?", (row[0], key))


# --- leases -----------------------------------------------------------------------------------------------------------
def take(conn: sqlite3.Connection, run: str, holder: str, seconds: float, now: Now) -> Taken | None:
    """Give the lease out under the next epoch, which the run's row knows from this transaction on."""
    row = conn.execute(
        "SELECT no, incarnation, epoch, last, status, holder, until, boot FROM runs WHERE run = ?", (run,)
    ).fetchone()
    if row is None:
        raise missing(conn, run, now.wall_ms)
    number, incarnation, epoch, last, status, held_by, until, boot = row
    held = bool(held_by) and boot == now.boot and until > now.seconds
    if status != "running" or (held and held_by != holder):
        return None
    lease = Lease(run, holder, epoch + 1, now.seconds + seconds)
    conn.execute(
        "UPDATE runs SET epoch = ?, holder = ?, until = ?, boot = ? WHERE no = ?",
        (lease.epoch, holder, lease.until, now.boot, number),
    )
    return Taken(lease, incarnation, last)


def renew(conn: sqlite3.Connection, lease: Lease, seconds: float, now: Now) -> float:
    """Extend a lease that nobody took meanwhile; returns its new end, or 0."""
    until = now.seconds + seconds
    changed = conn.execute(
        "UPDATE runs SET until = ?, boot = ? WHERE run = ? AND epoch = ? AND holder = ?",
        (until, now.boot, lease.run, lease.epoch, lease.holder),
    ).rowcount
    if not changed and run_number(conn, lease.run) is None:
        raise missing(conn, lease.run, now.wall_ms)
    return until if changed else 0.0


def give_back(conn: sqlite3.Connection, lease: Lease) -> None:
    """Let go of a lease, if it is still this one."""
    conn.execute(
        "UPDATE runs SET holder = '', until = 0 WHERE run = ? AND epoch = ? AND holder = ?",
        (lease.run, lease.epoch, lease.holder),
    )


# --- artifacts --------------------------------------------------------------------------------------------------------
def begin_artifact(
    conn: sqlite3.Connection, scope: str, blob: Blob, limits: rules.Limits, now_ms: int
) -> tuple[int, bool]:
    """Make the artifact's row; returns its number and whether its bytes are there. A short one is written whole."""
    if rules.is_run_scope(scope) and run_number(conn, scope) is None:
        raise missing(conn, scope, now_ms)
    row = conn.execute("SELECT no, whole FROM artifacts WHERE scope = ? AND id = ?", (scope, blob.id)).fetchone()
    if row is not None:
        return row[0], bool(row[1])
    size = len(blob.data)
    held: int = conn.execute("SELECT coalesce(sum(size), 0) FROM artifacts WHERE scope = ?", (scope,)).fetchone()[0]
    rules.check_blob(limits, held, size)
    short = size <= PART_BYTES
    number = conn.execute(
        "INSERT INTO artifacts (scope, id, mime, name, size, whole) VALUES (?, ?, ?, ?, ?, ?)",
        (scope, blob.id, blob.mime, blob.name, size, short),
    ).lastrowid
    assert number is not None
    if short:
        conn.execute("INSERT INTO parts VALUES (?, ?)", (number << PARTS_SHIFT, blob.data))
    return number, short


def add_part(conn: sqlite3.Connection, number: int, part: int, data: memoryview) -> None:
    """Write one piece; a second `put` of the same bytes writes the same pieces again."""
    conn.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (number << PARTS_SHIFT | part, data))


def finish_artifact(conn: sqlite3.Connection, number: int) -> None:
    """Say that all pieces are there; if the run was deleted meanwhile, nobody else knows of pieces written since."""
    if not conn.execute("UPDATE artifacts SET whole = 1 WHERE no = ?", (number,)).rowcount:
        conn.execute("DELETE FROM parts WHERE id >= ? AND id < ?", (number << PARTS_SHIFT, (number + 1) << PARTS_SHIFT))


# --- index ------------------------------------------------------------------------------------------------------------
def forget(conn: sqlite3.Connection, run: str, now_ms: int) -> None:
    """Delete the row of a run that has ended; a tombstone stays, and names what `sweep` has to do."""
    row = conn.execute("SELECT no, status, owner FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        raise missing(conn, run, now_ms)
    number, status, owner = row
    if status == "running":
        raise rules.still_running()
    conn.execute("DELETE FROM tombs WHERE until <= ? AND swept = 1", (now_ms,))
    conn.execute("INSERT INTO tombs VALUES (?, ?, ?, ?, 0)", (run, number, owner, now_ms + rules.KEEP_TOMBSTONES_MS))
    conn.execute("DELETE FROM letters WHERE run = ?", (number,))
    conn.execute("DELETE FROM kept WHERE run = ?", (number,))
    conn.execute("DELETE FROM runs WHERE no = ?", (number,))


_SWEEP_CHUNKS: Final = "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE id >= ? AND id < ? LIMIT ?)"
_SWEEP_PARTS: Final = "DELETE FROM parts WHERE id IN (SELECT id FROM parts WHERE id >= ? AND id < ? LIMIT ?)"


def sweep(conn: sqlite3.Connection) -> bool:
    """Delete one piece of what deleted runs left; True while there may be more.

    A large log takes seconds: in one transaction it would hold up every other run's appends. Whoever deletes next goes
    on where a killed process stopped.
    """
    row = conn.execute("SELECT run, no FROM tombs WHERE swept = 0 LIMIT 1").fetchone()
    if row is None:
        return False
    run, number = row
    if _sweep_range(conn, _SWEEP_CHUNKS, number, SHIFT):
        return True
    artifact = conn.execute("SELECT no FROM artifacts WHERE scope = ? LIMIT 1", (run,)).fetchone()
    if artifact is None:
        conn.execute("UPDATE tombs SET swept = 1 WHERE run = ?", (run,))
    elif not _sweep_range(conn, _SWEEP_PARTS, artifact[0], PARTS_SHIFT):
        conn.execute("DELETE FROM artifacts WHERE no = ?", artifact)
    return True


def _sweep_range(conn: sqlite3.Connection, statement: str, number: int, shift: int) -> int:
    return conn.execute(statement, (number << shift, (number + 1) << shift, _SWEEP_ROWS)).rowcount


def keep(conn: sqlite3.Connection, run: str, kept: Kept, now_ms: int) -> None:
    """Keep a folded state unless a later one is kept."""
    number = run_number(conn, run)
    if number is None:
        raise missing(conn, run, now_ms)
    conn.execute(
        "INSERT INTO kept VALUES (?, ?, ?) ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, state = excluded.state"
        " WHERE excluded.seq >= kept.seq",
        (number, kept.seq, kept.state),
    )


def ping(conn: sqlite3.Connection) -> None:
    """Write something: a full disk and a read-only file are found only so."""
    conn.execute("UPDATE pings SET n = n + 1")
