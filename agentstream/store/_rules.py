"""What every backend judges alike, as plain functions: bounds, well-formed arguments, and who may append what.

What comes in: arguments of the ports and where a log stands. What goes out: a verdict, or the typed error that the port
promises. It does not know how a log is kept; no input or output happens here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from agentstream.errors import (
    BodyTooLarge,
    Fenced,
    InvalidInput,
    KeyReused,
    LogFull,
    Overloaded,
    RolledBack,
    RunGone,
    RunUnknown,
    StoreDown,
    UsageError,
)
from agentstream.ids import check_run_id, is_run_id
from agentstream.ports import UPLOADS, Chunk, RunFacts

__all__ = (
    "KEEP_KEYS_MS",
    "KEEP_TOMBSTONES_MS",
    "Limits",
    "artifact_id",
    "check_artifact_id",
    "check_blob",
    "check_chunk",
    "check_create",
    "check_letter",
    "check_page",
    "check_room",
    "check_scope",
    "check_text",
    "is_run_scope",
    "judge",
    "key_reused",
    "limits_of",
    "mailbox_full",
    "not_open",
    "other_wrote",
    "query_of",
    "run_gone",
    "run_reused",
    "run_unknown",
    "same_chunk",
    "size_of",
    "stale_ack",
    "still_running",
)

KEEP_KEYS_MS: Final = 24 * 3_600_000
"""How long an idempotency key is remembered (DESIGN §7: 24 h, as the large payment APIs do)."""
KEEP_TOMBSTONES_MS: Final = 24 * 3_600_000
"""How long a deleted run answers `RunGone` before it is unknown."""
MAX_LETTER_BYTES: Final = 256 * 1024
"""Longest body of a letter: as long as the longest event that it may cause."""
MAX_TEXT: Final = 1_024
"""Longest name, key, holder or owner, in characters."""
MAX_TITLE: Final = 4_096
"""Longest title of a run, in characters; it may hold line ends."""
_MAX_SEQ: Final = 2**32 - 1

_ENDS: Final = frozenset({"", "finished", "failed", "stopped"})
_ARTIFACT = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The bounds of a store; every field may stand in an address (`memory:?max_events=1000`).

    Attributes:
        max_events: events in one run's log. A terminal chunk is taken even above it, so that a full run can end.
        max_bytes: bytes of lines and recorded results in one run's log; terminal chunks as above.
        max_letters: letters ever left for one run.
        max_artifact_bytes: bytes of one artifact.
        max_scope_bytes: bytes of all artifacts of one run, or of one owner's uploads.
        cache_bytes: recent chunks of active runs that a store on disk keeps in memory, all runs together.
    """

    max_events: int = 1_000_000
    max_bytes: int = 256 * 1024 * 1024
    max_letters: int = 10_000
    max_artifact_bytes: int = 64 * 1024 * 1024
    max_scope_bytes: int = 512 * 1024 * 1024
    cache_bytes: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: int = getattr(self, name)
            floor = 0 if name == "cache_bytes" else 1
            if not floor <= value <= (_MAX_SEQ if name == "max_events" else 2**53):
                raise InvalidInput(f"{name}={value} is out of range", details={"name": name})


# --- arguments --------------------------------------------------------------------------------------------------------
def check_text(what: str, text: str, *, empty: bool = True) -> str:
    """`text` if it can be kept: at most 1,024 characters, no lone surrogates or control characters.

    Raises:
        InvalidInput: it cannot.
    """
    if not text and not empty:
        raise InvalidInput(f"{what} must not be empty")
    if len(text) > MAX_TEXT or (not text.isprintable() and any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in text)):
        raise InvalidInput(f"{what} has at most {MAX_TEXT} characters, no control characters and no lone surrogates")
    return text


def check_create(key: str, digest: str, first: Chunk, facts: RunFacts) -> None:
    """Whether a run may be made of these.

    Raises:
        InvalidInput: a text is malformed, or `first` does not begin at 1.
    """
    check_text("an idempotency key", key)
    check_text("a request's digest", digest)
    for name in ("team", "owner", "session"):
        check_text(f"a run's {name}", getattr(facts, name))
    if len(facts.title) > MAX_TITLE or any(0xD800 <= ord(c) < 0xE000 for c in facts.title):
        raise InvalidInput(f"a run's title has at most {MAX_TITLE} characters and no lone surrogates")
    check_chunk(0, first)


def check_page(owner: str | None, session: str | None) -> None:
    """Whether a page may be asked for by these.

    Raises:
        InvalidInput: a session without its owner, or an empty one, which is none.
    """
    if session is not None and (owner is None or not session):
        raise InvalidInput("a session belongs to an owner and has a name: give both")


def check_chunk(expected: int, chunk: Chunk) -> None:
    """Whether `chunk` is one: it begins after `expected` and holds a line for each number.

    Raises:
        InvalidInput: it is not. The writer is wrong, not the log.
    """
    lines = chunk.lines
    if (
        chunk.first != expected + 1
        or chunk.last < chunk.first
        or lines[-1:] != b"\n"
        or lines.count(b"\n") != chunk.last - expected
        or chunk.ends not in _ENDS
    ):
        raise InvalidInput(
            "a chunk begins right after the log's last event and holds one line, ended by LF, for each of its numbers",
            details={"expected": expected, "first": chunk.first, "last": chunk.last},
        )


def check_scope(scope: str) -> str:
    """`scope` if artifacts may be kept under it: a run id, or `uploads:` and an owner's name (which may be empty).

    Raises:
        InvalidInput: neither.
    """
    if scope.startswith(UPLOADS):
        return check_text("the owner of uploads", scope)
    return check_run_id(scope)


def check_artifact_id(id: str) -> str:
    """`id` if it is well-formed.

    Raises:
        InvalidInput: it is not.
    """
    if _ARTIFACT.fullmatch(id) is None:
        raise InvalidInput("an artifact's id is 64 characters out of 0-9 a-f")
    return id


def artifact_id(data: bytes) -> str:
    """SHA-256 in hex: lower case only, so that it is one name on every file system and in every URL."""
    return hashlib.sha256(data).hexdigest()


def is_run_scope(scope: str) -> bool:
    """Whether artifacts under `scope` belong to a run, which must then exist."""
    return is_run_id(scope)


# --- bounds -----------------------------------------------------------------------------------------------------------
def size_of(chunk: Chunk) -> int:
    """What a chunk counts against `max_bytes`."""
    return len(chunk.lines) + len(chunk.private)


def check_room(limits: Limits, size: int, chunk: Chunk) -> None:
    """Whether a log of `size` bytes may take `chunk`; a terminal one always.

    Raises:
        LogFull: it may not.
    """
    if chunk.ends:
        return
    if chunk.last > limits.max_events:
        raise LogFull(f"the run's log is full: at most {limits.max_events} events")
    if size + size_of(chunk) > limits.max_bytes:
        raise LogFull(f"the run's log is full: at most {limits.max_bytes} bytes")


def check_blob(limits: Limits, held: int, size: int) -> None:
    """Whether a scope that holds `held` bytes may take `size` more.

    Raises:
        BodyTooLarge: the artifact alone is too large.
        LogFull: the scope would hold too much.
    """
    if size > limits.max_artifact_bytes:
        raise BodyTooLarge(f"an artifact has at most {limits.max_artifact_bytes} bytes")
    if held + size > limits.max_scope_bytes:
        raise LogFull(f"the artifacts kept under one run or owner have at most {limits.max_scope_bytes} bytes")


def check_letter(key: str, body: bytes) -> None:
    """Whether a letter may be left.

    Raises:
        InvalidInput: its key is malformed. BodyTooLarge: its body is too long.
    """
    check_text("a letter's key", key, empty=False)
    if len(body) > MAX_LETTER_BYTES:
        raise BodyTooLarge(f"a letter has at most {MAX_LETTER_BYTES} bytes")


def mailbox_full(limits: Limits) -> Overloaded:
    """What a mailbox that holds `max_letters` answers."""
    return Overloaded(f"at most {limits.max_letters} letters can be left for one run")


def same_chunk(one: Chunk, other: Chunk) -> bool:
    """Whether both are the same to the log; `quiet` is the writer's own business."""
    return (one.first, one.last, one.ends, one.lines, one.private) == (
        other.first,
        other.last,
        other.ends,
        other.lines,
        other.private,
    )


# --- who may append ---------------------------------------------------------------------------------------------------
def judge(held: tuple[int, int, bool], epoch: int, expected: int) -> Literal["append", "repeat"]:
    """Judge an append by where the log stands: `held` is its epoch, last seq, and whether it has ended.

    `repeat` means that the log already goes on after `expected`: the append is answered as the first time if what
    stands there was written under this epoch and has the same bytes, else it is fenced. The epoch is judged first: a
    writer that lost its lease learns that, even if its last append was accepted.

    Raises:
        Fenced: a newer epoch was given out, or the run has ended.
        RolledBack: the log, or the memory of epochs given out, is shorter than what the writer knows.
    """
    current, last, ended = held
    if epoch < current:
        raise Fenced(f"epoch {epoch} may not write any more: epoch {current} was given out")
    if epoch > current:
        raise RolledBack(f"the store knows epoch {current} only, not {epoch}: it lost what it had accepted")
    if expected > last:
        raise RolledBack(f"the log ends at {last}, the writer knows {expected}: it lost what it had accepted")
    if expected < last:
        return "repeat"
    if ended:
        raise Fenced("the run has ended: nothing follows its last event")
    return "append"


# --- refusals, worded once --------------------------------------------------------------------------------------------
def other_wrote() -> Fenced:
    """What an append gets that finds something else where it wants to write."""
    return Fenced("another writer went on from there")


def stale_ack(epoch: int, current: int) -> Fenced:
    """What an acknowledgement under another epoch gets."""
    return Fenced(f"epoch {epoch} may not acknowledge letters: the store is at epoch {current}")


def key_reused() -> KeyReused:
    """What a known idempotency key with another digest gets."""
    return KeyReused("this idempotency key was used for another request in the last 24 hours")


def run_reused() -> KeyReused:
    """What a known run id with another beginning gets."""
    return KeyReused("this run id belongs to another run")


def run_unknown() -> RunUnknown:
    """What a run that is not there gets."""
    return RunUnknown("no such run")


def run_gone() -> RunGone:
    """What a deleted run gets while its tombstone is kept."""
    return RunGone("the run was deleted")


def still_running() -> UsageError:
    """What deleting a run that has not ended gets."""
    return UsageError("a run that is still running cannot be deleted: stop it first")


def not_open() -> StoreDown:
    """What a call outside `async with` gets."""
    return StoreDown("the store is not open: use it within `async with store`")


# --- addresses --------------------------------------------------------------------------------------------------------
def query_of(limits: Limits, more: Mapping[str, str] | None = None) -> str:
    """The part of an address from `?` on: `more`, and the bounds that differ from the defaults."""
    pairs = dict(more or {}) | {name: str(value) for name, value in msgspec.to_builtins(limits).items()}
    return "?" + "&".join(f"{name}={value}" for name, value in pairs.items()) if pairs else ""


def limits_of(query: Mapping[str, str]) -> Limits:
    """The bounds in an address.

    Raises:
        InvalidInput: an unknown name, or not a whole number in range.
    """
    try:
        return msgspec.convert(dict(query), Limits, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the store's address: {error}") from error
