"""What each read does, as plain functions on a connection.

What comes in: a connection and the arguments of one call of a port. What goes out: its answer, or the port's error. It
does not know threads, or what is cached above it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from agentstream.errors import AgentStreamError
from agentstream.ports import Blob, Chunk, Kept, Letter, RunFacts, RunRow
from agentstream.store import _rules as rules

__all__ = (
    "PARTS_SHIFT",
    "SHIFT",
    "Standing",
    "Which",
    "artifact",
    "chunks",
    "free",
    "gone",
    "kept",
    "letters",
    "missing",
    "page",
    "row",
    "run_number",
    "standing",
    "standings",
)

SHIFT: Final = 32
"""Bits of the sequence number in the key of `chunks`."""
PARTS_SHIFT: Final = 24
"""Bits of the piece's number in the key of `parts`: 2^24 pieces of 256 KiB are beyond every bound."""

_FACTS: Final = msgspec.json.Decoder(RunFacts)
_ROW: Final = "SELECT run, incarnation, status, last, facts, ended, size FROM runs"


class Standing(NamedTuple):
    """Where a run's log and mailbox stand in the file."""

    incarnation: str
    epoch: int
    last: int
    ended: bool
    letters: int


class Which(NamedTuple):
    """Which runs a page lists: of one owner, of one of its sessions, only those that have not ended."""

    owner: str | None
    session: str | None
    running: bool


def run_number(conn: sqlite3.Connection, run: str) -> int | None:
    """The number under which a run's rows are kept, or None."""
    found = conn.execute("SELECT no FROM runs WHERE run = ?", (run,)).fetchone()
    return None if found is None else int(found[0])


def gone(conn: sqlite3.Connection, run: str, now_ms: int) -> bool:
    """Whether a tombstone of the run is kept."""
    return conn.execute("SELECT 1 FROM tombs WHERE run = ? AND until > ?", (run, now_ms)).fetchone() is not None


def missing(conn: sqlite3.Connection, run: str, now_ms: int) -> AgentStreamError:
    """The error for a run without a row: `RunGone` while a tombstone is kept, else `RunUnknown`."""
    return rules.run_gone() if gone(conn, run, now_ms) else rules.run_unknown()


def chunks(conn: sqlite3.Connection, run: str, after: int, max_bytes: int, now_ms: int) -> list[Chunk]:
    """Whole chunks that hold anything after `after`. One descent into the B-tree, then neighbours."""
    number = run_number(conn, run)
    if number is None:
        raise missing(conn, run, now_ms)
    base = number << SHIFT
    # The chunk that holds after + 1 is the last one that begins at or before it.
    begin = conn.execute(
        "SELECT max(id) FROM chunks WHERE id > ? AND id <= ?", (base, base | min(after + 1, 2**SHIFT - 1))
    ).fetchone()[0]
    found: list[Chunk] = []
    for key, last, ends, lines, private in conn.execute(
        "SELECT id, last, ends, lines, private FROM chunks WHERE id >= ? AND id < ? AND last > ? ORDER BY id",
        (begin or base, (number + 1) << SHIFT, after),
    ):
        max_bytes -= len(lines)
        if max_bytes < 0 and found:
            break
        found.append(Chunk(key - base, last, lines, private, ends))
    return found


def standing(conn: sqlite3.Connection, run: str, now_ms: int) -> Standing:
    """Where one run stands."""
    for found in standings(conn, [run]).values():
        return found
    raise missing(conn, run, now_ms)


def standings(conn: sqlite3.Connection, runs: Iterable[str]) -> dict[str, Standing]:
    """Where several runs stand; a missing one is left out. One lookup in an index each."""
    found: dict[str, Standing] = {}
    for run in runs:
        row = conn.execute(
            "SELECT incarnation, epoch, last, status <> 'running', letters FROM runs WHERE run = ?", (run,)
        ).fetchone()
        if row is not None:
            found[run] = Standing(row[0], row[1], row[2], bool(row[3]), row[4])
    return found


def letters(conn: sqlite3.Connection, run: str, now_ms: int) -> list[Letter]:
    """The letters that still have a body, in the order in which they were left."""
    number = run_number(conn, run)
    if number is None:
        raise missing(conn, run, now_ms)
    rows = conn.execute("SELECT key, body FROM letters WHERE run = ? AND body IS NOT NULL ORDER BY n", (number,))
    return [Letter(key, body) for key, body in rows]


def free(conn: sqlite3.Connection, limit: int, seconds: float, boot: str) -> list[str]:
    """Running runs without a lease that counts, oldest first. Walks the running runs only."""
    rows = conn.execute(
        "SELECT run FROM runs WHERE status = 'running' AND (holder = '' OR boot <> ? OR until <= ?)"
        " ORDER BY no LIMIT ?",
        (boot, seconds, max(0, limit)),
    )
    return [run for (run,) in rows]


def artifact(conn: sqlite3.Connection, scope: str, id: str, now_ms: int) -> Blob | None:
    """An artifact whose pieces are all there."""
    conn.execute("BEGIN")
    try:
        if rules.is_run_scope(scope) and run_number(conn, scope) is None:
            raise missing(conn, scope, now_ms)
        found = conn.execute(
            "SELECT no, mime, name FROM artifacts WHERE scope = ? AND id = ? AND whole = 1", (scope, id)
        ).fetchone()
        if found is None:
            return None
        number, mime, name = found
        parts = conn.execute(
            "SELECT data FROM parts WHERE id >= ? AND id < ? ORDER BY id",
            (number << PARTS_SHIFT, (number + 1) << PARTS_SHIFT),
        )
        return Blob(id, mime, name, b"".join(data for (data,) in parts))
    finally:
        conn.execute("ROLLBACK")


def row(conn: sqlite3.Connection, run: str) -> RunRow | None:
    """The run's row in the index."""
    found = conn.execute(f"{_ROW} WHERE run = ?", (run,)).fetchone()
    return None if found is None else _to_row(*found)


def page(conn: sqlite3.Connection, which: Which, before: str, limit: int) -> list[RunRow]:
    """Rows before one run, newest first, by key."""
    owner, session, running = which
    end = 2**62
    if before:
        found = conn.execute(
            "SELECT no, owner FROM runs WHERE run = ?1 UNION ALL SELECT no, owner FROM tombs WHERE run = ?1", (before,)
        ).fetchone()
        if found is None or owner not in (None, found[1]):
            raise rules.run_unknown()
        end = found[0]
    # The index of sessions leaves out runs of none; the test must say so for SQLite to use it.
    asked: dict[str, object] = {"owner = ?": owner, "session <> '' AND session = ?": session, "no < ?": end}
    given = {test: value for test, value in asked.items() if value is not None}
    tests = " AND ".join([*given, *(["status = 'running'"] if running else [])])
    rows = conn.execute(f"{_ROW} WHERE {tests} ORDER BY no DESC LIMIT ?", (*given.values(), max(0, limit)))
    return [_to_row(*found) for found in rows]


def kept(conn: sqlite3.Connection, run: str, now_ms: int) -> Kept | None:
    """The kept folded state."""
    number = run_number(conn, run)
    if number is None:
        raise missing(conn, run, now_ms)
    found = conn.execute("SELECT seq, state FROM kept WHERE run = ?", (number,)).fetchone()
    return None if found is None else Kept(found[0], found[1])


def _to_row(run: str, incarnation: str, status: str, last: int, facts: bytes, ended: int, size: int) -> RunRow:
    return RunRow(run, incarnation, status, last, _FACTS.decode(facts), ended, size)
