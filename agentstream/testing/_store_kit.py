"""What the store checks share: making runs and chunks, expecting refusals, and bounding every wait.

What comes in: a store under test. What goes out: chunks with text that breaks careless encoders, and an AssertionError
that says what was promised. It does not know which backend it looks at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, TypeAlias

import anyio

from agentstream.errors import AgentStreamError, RunGone
from agentstream.ids import new_run_id
from agentstream.ports import Chunk, Lease, RunFacts, Store

__all__ = (
    "LIMIT_S",
    "OpenStore",
    "chunk",
    "history",
    "leased",
    "limit",
    "lines_of",
    "new_run",
    "refused",
    "same",
    "until_gone",
)

OpenStore: TypeAlias = Callable[[], AbstractAsyncContextManager[Store]]
"""Opens a handle: `async with open() as store`. Shared checks call it twice and expect one and the same store."""

LIMIT_S: Final = 20.0
"""No promise below may take longer than this, however slow the machine."""

# The last three are not JSON: a store keeps bytes and must not look into them.
_TEXTS: Final = (b"{}", '{"text":"zażółć 日本語 🧵"}'.encode(), b"\x00", b"\xff\xfe", b'it\'s; "quoted" -- %s {0}\\')


@contextmanager
def limit() -> Generator[None]:
    """Fail rather than wait for ever."""
    with anyio.fail_after(LIMIT_S):
        yield


def same(got: object, wanted: object, promise: str) -> None:
    """Raise unless both are equal.

    Raises:
        AssertionError: with the promise that was broken.
    """
    if got != wanted:
        message = f"{promise}: wanted {wanted!r:.500}, got {got!r:.500}"
        raise AssertionError(message)


async def refused(call: Awaitable[object], *errors: type[AgentStreamError], promise: str) -> AgentStreamError:
    """The error that `call` must raise.

    Raises:
        AssertionError: it did not raise one of `errors`.
    """
    names = " or ".join(error.__name__ for error in errors)
    try:
        with limit():
            got = await call
    except errors as error:
        return error
    except Exception as error:
        message = f"{promise}: wanted {names}, got {type(error).__name__}: {error}"
        raise AssertionError(message) from error
    message = f"{promise}: wanted {names}, but it answered {got!r:.200}"
    raise AssertionError(message)


def chunk(first: int, count: int = 1, *, tag: str = "", ends: str = "", private: bytes = b"") -> Chunk:
    """`count` events from `first` on; `tag` makes the same events differ."""
    text = tag.encode()
    lines = b"".join(_TEXTS[seq % len(_TEXTS)] + b" %d %b\n" % (seq, text) for seq in range(first, first + count))
    return Chunk(first, first + count - 1, lines, private, ends)


async def new_run(store: Store, *, owner: str = "", session: str = "", key: str = "", ends: str = "") -> str:
    """A fresh run with one event."""
    run = new_run_id()
    with limit():
        facts = RunFacts(owner=owner, session=session)
        created = await store.create(run, key, "digest", chunk(1, ends=ends), facts=facts)
    same((created.run, created.fresh), (run, True), "a new run is created under its id")
    return run


async def leased(store: Store, run: str, holder: str = "writer", *, seconds: float = 3_600.0) -> Lease:
    """A lease that must be free."""
    with limit():
        lease = await store.take(run, holder, seconds=seconds)
    if lease is None:
        message = "a free lease is given to whoever takes it"
        raise AssertionError(message)
    same((lease.run, lease.holder), (run, holder), "a lease names its run and holder")
    return lease


async def history(store: Store, run: str) -> list[Chunk]:
    """The whole log, read piece by piece; numbers must be 1, 2, 3 … without gaps."""
    found: list[Chunk] = []
    after = 0
    with limit():
        while piece := await store.read(run, after, max_bytes=4_096):
            for one in piece:
                same(one.first, after + 1, "a log is read without gaps")
                after = one.last
            found += piece
    return found


async def until_gone(store: Store, run: str) -> None:
    """Wait for mail that never comes, until the run is deleted: told by an early return or by the error itself."""
    try:
        await store.mail(run, 99)
    except RunGone:
        pass


def lines_of(chunks: list[Chunk]) -> bytes:
    """All lines, as a reader gets them."""
    return b"".join(one.lines for one in chunks)
