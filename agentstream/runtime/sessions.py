"""Sessions: runs that follow each other, one at a time, and what was said in them.

What comes in: a run's place in its session. What goes out: its turn, who is before it, and the messages of what came
before. It does not know agents or HTTP; everything is read from the store's index and from the logs of the runs.

A run takes its turn when every earlier run of its session has ended, whoever started it and wherever: the order is that
of the index, so two that start at the same moment cannot both go first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, cast
from weakref import WeakValueDictionary

import anyio
import msgspec

from agentstream.errors import InvalidInput, RunGone, RunUnknown, SessionBusy, StoreError
from agentstream.events import Json, RunFinished, RunStarted
from agentstream.llm import Message
from agentstream.ports import RunFacts, RunRow, Store
from agentstream.runtime.mail import Stop, stop_letter
from agentstream.wire import decode_event

__all__ = ("SessionLocks", "check_session", "find_history", "make_way", "take_turn")

_log = logging.getLogger("agentstream.runtime")

_LONGEST: Final = 200
_PAGE: Final = 200
_RETRY: Final = 1.0
_MOST_CHARS: Final = 32_000
"""Of one message: some 8,000 tokens, so that a long answer leaves room for the others."""


def check_session(session: str) -> str:
    """`session`, if it can be one; empty means none.

    Raises:
        InvalidInput: too long, or not printable.
    """
    if len(session) > _LONGEST or not session.isprintable():
        raise InvalidInput(f"a session's name has at most {_LONGEST} printable characters")
    return session


# --- turns ------------------------------------------------------------------------------------------------------------
class SessionLocks:
    """One lock a session, for who looks at it and then starts a run: of two in this process, one comes second."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], anyio.Lock] = WeakValueDictionary()

    def of(self, owner: str, session: str) -> anyio.Lock:
        """The lock of a session; it lives as long as somebody holds it."""
        return self._locks.setdefault((owner, session), anyio.Lock())


async def make_way(store: Store, facts: RunFacts, policy: str) -> int | None:
    """Before a run of a session is made: how many runs it will wait for; None if it may begin at once.

    Args:
        facts: of the run that is about to be made.
        policy: `reject` refuses while another run is not over, `enqueue` waits, `interrupt` stops the others first.

    Raises:
        SessionBusy: under `reject`. A request that comes again with its key is not refused because of its own run.
    """
    owner, session = facts.owner, facts.session
    others = await store.page(owner=owner, session=session, running=True, limit=_PAGE)
    if not others:
        return None
    if policy == "reject":
        newest = await store.page(owner=owner, session=session, limit=_PAGE) if facts.key else ()
        if any(row.facts.key == facts.key for row in newest):
            return None
        raise SessionBusy(
            f"the session is busy with run {others[0].run}: wait for its end, stop it, or start with "
            "busy='enqueue' or 'interrupt'",
            details={"run": others[0].run},
        )
    return len(others)


async def take_turn(store: Store, run: str, owner: str, session: str, *, interrupt: bool) -> None:
    """Return when every earlier run of the session has ended.

    Args:
        interrupt: stop them, with cause `replaced`.
    """
    asked: set[str] = set()
    while True:
        try:
            before = await store.page(owner=owner, session=session, running=True, before=run, limit=_PAGE)
            if not before:
                return
            for row in before if interrupt else ():
                if row.run not in asked:
                    asked.add(row.run)
                    letter = stop_letter(Stop(reason=f"replaced by run {run}", cause="replaced"))
                    await store.post(row.run, letter.key, letter.body)
            await _ended(store, before[-1].run)
        except (RunUnknown, RunGone):  # deleted meanwhile, so it has ended
            continue
        except StoreError as error:
            _log.warning("run %s: its session cannot be looked at: %s", run, error)
            await anyio.sleep(_RETRY)


async def _ended(store: Store, run: str) -> None:
    while not (tail := await store.tail(run)).ended:
        await store.changed(run, tail.last)


# --- history ----------------------------------------------------------------------------------------------------------
async def find_history(store: Store, run: str, owner: str, session: str, limit: int) -> list[Message]:
    """The newest `limit` messages of the session's runs before `run`, oldest first.

    An earlier run gives its input, and its output if it finished: what a stopped or failed one said was no answer.
    """
    newest_first: list[Message] = []
    before = run
    while session and len(newest_first) < limit:
        rows = await store.page(owner=owner, session=session, before=before, limit=min(_PAGE, limit))
        for row in rows:
            if row.status != "running" and len(newest_first) < limit:
                newest_first += await _said(store, row)
        if not rows:
            break
        before = rows[-1].run
    return newest_first[:limit][::-1]


async def _said(store: Store, row: RunRow) -> Sequence[Message]:
    """The messages of one run, newest first."""
    messages: list[Message] = []
    try:
        if row.status == "finished":
            chunks = await store.read(row.run, row.last - 1)
            ended = decode_event(chunks[-1].lines.rstrip(b"\n").rpartition(b"\n")[2])
            if isinstance(ended, RunFinished):
                messages.append(Message("assistant", await _text(store, row.run, ended.output)))
        first = await store.read(row.run, 0, max_bytes=1)
        started = decode_event(first[0].lines.partition(b"\n")[0])
        if isinstance(started, RunStarted):
            messages.append(Message("user", await _text(store, row.run, started.input)))
    except (RunUnknown, RunGone):  # deleted meanwhile
        return []
    return messages


async def _text(store: Store, run: str, value: Json) -> str:
    if isinstance(value, dict) and set(cast("dict[str, Json]", value)) == {"artifact", "uri", "size"}:
        blob = await store.get(run, str(cast("dict[str, Json]", value)["artifact"]))
        value = msgspec.json.decode(blob.data) if blob is not None else ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}\n[cut: {_MOST_CHARS} of {len(text)} characters]"
