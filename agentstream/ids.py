"""Names and identities: runs, incarnations, agents, invocations, cursors.

What comes in: randomness as a function, or text from outside. What goes out: well-formed ids, or `InvalidCursor` and
`InvalidInput`. It does not know what an id stands for, whether it exists, or who may see it.

Grammar (DESIGN §6, §7; the reasons are in the field's own traps: a colon is not CORS-safelisted, native EventSource
keeps ids as text, and Redis keys and NATS subjects have reserved characters):

    run          22 characters of base64url, the first a letter or digit (128 random bits)
    incarnation  6 characters of base64url without `-` and `_`
    cursor       <run>.<incarnation>.<seq>  or  <run>.<incarnation>.<seq>.<k>   (k frames of event seq+1 were seen)
    agent        [a-z][a-z0-9_-]{0,31}
    invocation   <agent>.<n>       block, call, artifact:  <invocation>.<n>
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from agentstream.errors import InvalidCursor, InvalidInput

__all__ = (
    "MAX_CURSOR_BYTES",
    "Cursor",
    "agent_of",
    "check_agent_name",
    "check_run_id",
    "is_run_id",
    "new_incarnation",
    "new_run_id",
    "snake_case",
)

MAX_CURSOR_BYTES: Final = 128
"""Longest text that is looked at as a cursor; browsers preflight headers above 128 bytes (Fetch standard)."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{21}", re.ASCII)
_INCARNATION = re.compile(r"[A-Za-z0-9]{6}", re.ASCII)
_AGENT = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_ALNUM: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def new_run_id(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """22 base64url characters from 128 random bits, the first never `-` or `_` (a leading dash looks like a CLI
    option)."""
    while True:
        text = base64.urlsafe_b64encode(random(16)).decode("ascii").rstrip("=")
        if text[0] not in "-_":
            return text


def new_incarnation(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Six letters and digits that name one life of a run's log (about 35 bits: told apart, not secret)."""
    return "".join(_ALNUM[byte % len(_ALNUM)] for byte in random(6))


def is_run_id(text: str) -> bool:
    """Whether `text` is well-formed as a run id; says nothing about its existence."""
    return _RUN.fullmatch(text) is not None


def check_run_id(text: str) -> str:
    """`text` itself if it is well-formed.

    Raises:
        InvalidInput: it is not; stores call this again, so that no foreign text reaches a key or a path.
    """
    if not is_run_id(text):
        raise InvalidInput("a run id has 22 characters out of A-Z a-z 0-9 _ -")
    return text


def check_agent_name(name: str) -> str:
    """`name` itself if it is well-formed.

    Raises:
        InvalidInput: it is not.
    """
    if _AGENT.fullmatch(name) is None:
        raise InvalidInput(
            f"{name!r} is not an agent name: a lower-case letter, then up to 31 of a-z 0-9 _ -",
            details={"name": name[:64]},
        )
    return name


def snake_case(name: str) -> str:
    """`FactChecker` → `fact_checker`: the default name of an agent class."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9_-]", "_", spaced.lower()).strip("_")[:32]


def agent_of(inv: str) -> str:
    """The agent's name in an invocation id: `executor.2` → `executor`."""
    return inv.rpartition(".")[0]


class Cursor(msgspec.Struct, frozen=True, order=True):
    """A position in one incarnation of a run's log: everything up to `seq` was received.

    `part` counts the frames of event `seq + 1` that were received too, where one event renders to several frames.
    """

    run: str
    incarnation: str
    seq: int
    part: int = 0

    def __str__(self) -> str:
        tail = f".{self.part}" if self.part else ""
        return f"{self.run}.{self.incarnation}.{self.seq}{tail}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor in `text`, or None where it is printable but not one of ours (the reader then gets a `reset`).

        Raises:
            InvalidCursor: longer than 128 bytes, empty, or not printable ASCII.
        """
        if not text or len(text) > MAX_CURSOR_BYTES or not (text.isascii() and text.isprintable()):
            raise InvalidCursor("a cursor is the `id` of an event: at most 128 printable ASCII characters")
        run, *rest = text.split(".")
        if len(rest) not in (2, 3) or not is_run_id(run) or _INCARNATION.fullmatch(rest[0]) is None:
            return None
        if any(_NUMBER.fullmatch(number) is None for number in rest[1:]):
            return None
        return cls(run, rest[0], int(rest[1]), int(rest[2]) if len(rest) == 3 else 0)
