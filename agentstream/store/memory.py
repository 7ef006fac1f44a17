"""The store in this process's memory: for tests, notebooks, the bus alone, and runs that need not outlive the process.

What comes in: calls of the ports, all on one event loop. What goes out: the very `Chunk` objects that were appended, so
replay copies nothing. It does not know files, threads or other processes; what it holds is gone with the object.

No call waits except `changed` and `mail`; an append takes no lock and no checkpoint. Memory is bounded per run by
`Limits`; finished runs stay until `forget`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import islice
from typing import Final, Self, final

from agentstream.clock import SYSTEM_CLOCK, Clock
from agentstream.errors import AgentStreamError
from agentstream.ids import check_run_id, new_incarnation
from agentstream.loops import Loop, Wake, current_loop
from agentstream.ports import Blob, Chunk, Created, Kept, Lease, Letter, RunFacts, RunRow, Tail
from agentstream.store import _rules as rules

__all__ = ("MemoryStore",)


@final
class _Log:
    """Everything of one run."""

    __slots__ = (
        "artifacts",
        "chunks",
        "ended",
        "ended_at",
        "epoch",
        "facts",
        "incarnation",
        "kept",
        "last",
        "lasts",
        "lease",
        "letters",
        "mail_waiters",
        "number",
        "open_letters",
        "run",
        "size",
        "status",
        "waiters",
        "written",
    )

    def __init__(self, run: str, number: int, facts: RunFacts) -> None:
        self.run = run
        self.number = number
        self.facts = facts
        self.incarnation = new_incarnation()
        self.status = "running"
        self.ended = False
        self.ended_at = 0
        self.epoch = 0
        self.last = 0
        self.size = 0
        self.chunks: list[Chunk] = []
        self.lasts: list[int] = []
        # (first seq, epoch) wherever the writing epoch changed: enough to tell who wrote a chunk.
        self.written: list[tuple[int, int]] = []
        self.waiters: dict[Wake, int] = {}
        self.letters: set[str] = set()
        self.open_letters: dict[str, Letter] = {}
        self.mail_waiters: dict[Wake, int] = {}
        self.lease: Lease | None = None
        self.artifacts: dict[str, Blob] = {}
        self.kept: Kept | None = None

    def add(self, epoch: int, chunk: Chunk) -> None:
        if not self.written or self.written[-1][1] != epoch:
            self.written.append((chunk.first, epoch))
        self.chunks.append(chunk)
        self.lasts.append(chunk.last)
        self.last = chunk.last
        self.size += rules.size_of(chunk)

    def holds(self, epoch: int, chunk: Chunk) -> bool:
        """Whether exactly this chunk stands in the log, written under this epoch."""
        at = bisect_left(self.lasts, chunk.first)
        writer = self.written[bisect_right(self.written, (chunk.first, 2**63)) - 1][1]
        return writer == epoch and rules.same_chunk(self.chunks[at], chunk)

    def row(self) -> RunRow:
        return RunRow(self.run, self.incarnation, self.status, self.last, self.facts, self.ended_at, self.size)


def _orders_of(facts: RunFacts) -> list[tuple[str | None, str | None]]:
    """The lists that a run stands in."""
    return [(None, None), (facts.owner, None), *([(facts.owner, facts.session)] if facts.session else [])]


def _wake(waiters: dict[Wake, int], reached: int) -> None:
    """Wake those who wait for anything after less than `reached`; the others sleep on."""
    for wake in [wake for wake, after in waiters.items() if after < reached]:
        del waiters[wake]
        wake.set()


_EVERYONE: Final = 2**63


@final
class MemoryStore:
    """A store in memory (`memory:`), level `memory`. Use it on one event loop, within `async with`.

    Args:
        limits: bounds per run; `cache_bytes` has no meaning here.
        clock: leases and the 24 h of keys and tombstones.
    """

    def __init__(self, limits: rules.Limits | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._limits = limits or rules.Limits()
        self._clock = clock
        self._loop: Loop | None = None
        self._runs: dict[str, _Log] = {}
        self._count = 0
        self._numbers: dict[int, _Log] = {}
        # Numbers in the order of creation, by owner and session (None: every one): pages are cut by bisection.
        self._orders: dict[tuple[str | None, str | None], list[int]] = {}
        self._keys: dict[str, tuple[str, Created, int]] = {}
        self._tombs: dict[str, tuple[int, str, int]] = {}
        self._uploads: dict[str, dict[str, Blob]] = {}

    @property
    def address(self) -> str:
        """`memory:` and the bounds that differ from the defaults."""
        return "memory:" + rules.query_of(self._limits)

    @property
    def level(self) -> str:
        """An accepted event survives as long as the process."""
        return "memory"

    async def __aenter__(self) -> Self:
        self._loop = current_loop()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._loop = None
        for log in self._runs.values():
            self._wake_all(log)

    async def ping(self) -> None:
        """Return if the store is open."""
        self._opened()

    # --- log ----------------------------------------------------------------------------------------------------------
    async def create(self, run: str, key: str, digest: str, first: Chunk, *, facts: RunFacts) -> Created:
        """See `ports.EventLog.create`. The same run id and chunk again answer as the first time.

        Raises:
            KeyReused: the key came with another digest, or the run id with another first chunk.
        """
        self._opened()
        check_run_id(run)
        rules.check_create(key, digest, first, facts)
        now = self._clock.wall_ms()
        if key and (known := self._keys.get(key)) is not None and known[2] > now:
            if known[0] != digest:
                raise rules.key_reused()
            return Created(known[1].run, known[1].incarnation, known[1].run == run)
        if (log := self._runs.get(run)) is not None:
            if not rules.same_chunk(log.chunks[0], first):
                raise rules.run_reused()
            return Created(run, log.incarnation, True)
        if self._is_gone(run):
            raise rules.run_reused()
        self._count += 1
        log = self._runs[run] = self._numbers[self._count] = _Log(run, self._count, facts)
        for whose in _orders_of(facts):
            self._orders.setdefault(whose, []).append(log.number)
        log.add(0, first)
        self._end(log, first)
        created = Created(run, log.incarnation, True)
        if key:
            self._forget_old_keys(now)
            self._keys[key] = (digest, created, now + rules.KEEP_KEYS_MS)
        return created

    async def append(self, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
        """See `ports.EventLog.append`. O(1); a repeated chunk is found by bisection."""
        log = self._runs.get(run)
        if log is None:
            raise self._missing(run)
        rules.check_chunk(expected, chunk)
        if epoch != log.epoch or expected != log.last or log.ended:
            rules.judge((log.epoch, log.last, log.ended), epoch, expected)
            if not log.holds(epoch, chunk):
                raise rules.other_wrote()
            return chunk.last
        rules.check_room(self._limits, log.size, chunk)
        log.add(epoch, chunk)
        if chunk.ends:
            self._end(log, chunk)
        elif log.waiters:
            _wake(log.waiters, chunk.last)
        return chunk.last

    async def read(self, run: str, after: int, *, max_bytes: int = 262_144) -> list[Chunk]:
        """See `ports.EventLog.read`. O(log chunks + chunks returned); the objects are those appended."""
        log = self._log(run)
        found: list[Chunk] = []
        # By index: a slice copies all that follows, and `islice` walks over all that comes before.
        for at in range(bisect_right(log.lasts, after), len(log.chunks)):
            chunk = log.chunks[at]
            max_bytes -= len(chunk.lines)
            if max_bytes < 0 and found:
                break
            found.append(chunk)
        return found

    async def tail(self, run: str) -> Tail:
        """See `ports.EventLog.tail`."""
        log = self._log(run)
        return Tail(log.incarnation, log.epoch, 1, log.last, log.ended)

    async def changed(self, run: str, after: int) -> None:
        """See `ports.EventLog.changed`. A waiter is one entry of a dict; an append wakes each that it concerns once."""
        log = self._log(run)
        if log.last <= after and not log.ended:
            await self._sleep(log.waiters, after)

    # --- mailbox ------------------------------------------------------------------------------------------------------
    async def post(self, run: str, key: str, body: bytes) -> bool:
        """See `ports.Mailbox.post`.

        Raises:
            Overloaded: `max_letters` were left. BodyTooLarge: the body is too long.
        """
        log = self._log(run)
        rules.check_letter(key, body)
        if key in log.letters:
            return False
        if len(log.letters) >= self._limits.max_letters:
            raise rules.mailbox_full(self._limits)
        log.letters.add(key)
        log.open_letters[key] = Letter(key, body)
        _wake(log.mail_waiters, len(log.letters))
        return True

    async def letters(self, run: str) -> list[Letter]:
        """See `ports.Mailbox.letters`."""
        return list(self._log(run).open_letters.values())

    async def ack(self, run: str, epoch: int, key: str) -> None:
        """See `ports.Mailbox.ack`; a letter that is not there is no error."""
        log = self._log(run)
        if epoch != log.epoch:
            raise rules.stale_ack(epoch, log.epoch)
        log.open_letters.pop(key, None)

    async def mail(self, run: str, seen: int) -> int:
        """See `ports.Mailbox.mail`."""
        log = self._log(run)
        if len(log.letters) <= seen:
            await self._sleep(log.mail_waiters, seen)
        return len(log.letters)

    # --- leases -------------------------------------------------------------------------------------------------------
    async def take(self, run: str, holder: str, *, seconds: float = 15.0) -> Lease | None:
        """See `ports.Leases.take`; None as well for a run that has ended."""
        log = self._log(run)
        rules.check_text("a holder", holder, empty=False)
        now = self._clock.monotonic()
        held = log.lease
        if log.ended or (held is not None and held.until > now and held.holder != holder):
            return None
        log.epoch += 1
        log.lease = Lease(run, holder, log.epoch, now + seconds)
        return log.lease

    async def renew(self, lease: Lease, *, seconds: float = 15.0) -> bool:
        """See `ports.Leases.renew`; a lapsed lease that nobody took meanwhile is extended."""
        log = self._log(lease.run)
        held = log.lease
        if held is None or held.epoch != lease.epoch or held.holder != lease.holder:
            return False
        log.lease = Lease(lease.run, lease.holder, lease.epoch, self._clock.monotonic() + seconds)
        return True

    async def give_back(self, lease: Lease) -> None:
        """See `ports.Leases.give_back`."""
        log = self._runs.get(lease.run)
        if log is not None and log.lease is not None and log.lease.epoch == lease.epoch:
            log.lease = None

    async def free(self, limit: int) -> list[str]:
        """See `ports.Leases.free`. O(runs)."""
        now = self._clock.monotonic()
        unheld = (
            log.run for log in self._numbers.values() if not log.ended and (log.lease is None or log.lease.until <= now)
        )
        return list(islice(unheld, max(0, limit)))

    # --- artifacts ----------------------------------------------------------------------------------------------------
    async def put(self, run: str, data: bytes, mime: str, *, name: str = "") -> str:
        """See `ports.Artifacts.put`. Bytes that are there already keep the type and name that they came with.

        Raises:
            BodyTooLarge, LogFull: the artifact, or all of its run or owner, would be too large.
        """
        key = rules.artifact_id(data)
        rules.check_text("a type", mime)
        rules.check_text("a name", name)
        kept = self._artifacts(run, make=True)
        if key not in kept:
            rules.check_blob(self._limits, sum(len(blob.data) for blob in kept.values()), len(data))
            kept[key] = Blob(key, mime, name, bytes(data))
        return key

    async def get(self, run: str, id: str) -> Blob | None:
        """See `ports.Artifacts.get`."""
        return self._artifacts(run, make=False).get(rules.check_artifact_id(id))

    # --- index --------------------------------------------------------------------------------------------------------
    async def row(self, run: str) -> RunRow | None:
        """See `ports.RunIndex.row`."""
        log = self._runs.get(check_run_id(run))
        return None if log is None else log.row()

    async def gone(self, run: str) -> bool:
        """See `ports.RunIndex.gone`."""
        return self._is_gone(check_run_id(run))

    async def page(
        self,
        *,
        owner: str | None = None,
        session: str | None = None,
        running: bool = False,
        before: str = "",
        limit: int = 50,
    ) -> list[RunRow]:
        """See `ports.RunIndex.page`. O(log runs + limit); `running` looks at every run of the order.

        Raises:
            RunUnknown: `before` is no run, or not one of this owner. InvalidInput: a session without an owner.
        """
        rules.check_page(owner, session)
        order = self._orders.get((owner, session), [])
        end = len(order)
        if before:
            end = bisect_left(order, self._number(before, owner))
        if running:
            found = (self._numbers[order[at]] for at in range(end - 1, -1, -1))
            return [log.row() for log in islice((log for log in found if not log.ended), max(0, limit))]
        return [self._numbers[number].row() for number in reversed(order[max(0, end - max(0, limit)) : end])]

    async def forget(self, run: str) -> None:
        """See `ports.RunIndex.forget`."""
        log = self._log(run)
        if not log.ended:
            raise rules.still_running()
        now = self._clock.wall_ms()
        for old in [old for old, tomb in self._tombs.items() if tomb[2] <= now]:
            del self._tombs[old]
        self._tombs[run] = (log.number, log.facts.owner, now + rules.KEEP_TOMBSTONES_MS)
        del self._runs[run], self._numbers[log.number]
        for whose in _orders_of(log.facts):
            order = self._orders[whose]
            del order[bisect_left(order, log.number)]
            if not order:
                del self._orders[whose]
        self._wake_all(log)

    async def keep(self, run: str, kept: Kept) -> None:
        """See `ports.RunIndex.keep`; a state of an earlier seq than the kept one changes nothing."""
        log = self._log(run)
        if log.kept is None or kept.seq >= log.kept.seq:
            log.kept = kept

    async def kept(self, run: str) -> Kept | None:
        """See `ports.RunIndex.kept`."""
        return self._log(run).kept

    # --- inside -------------------------------------------------------------------------------------------------------
    def _opened(self) -> Loop:
        if self._loop is None:
            raise rules.not_open()
        return self._loop

    def _log(self, run: str) -> _Log:
        log = self._runs.get(run)
        if log is None:
            raise self._missing(run)
        return log

    def _missing(self, run: str) -> AgentStreamError:
        check_run_id(run)
        return rules.run_gone() if self._is_gone(run) else rules.run_unknown()

    def _is_gone(self, run: str) -> bool:
        tomb = self._tombs.get(run)
        return tomb is not None and tomb[2] > self._clock.wall_ms()

    def _number(self, run: str, owner: str | None) -> int:
        log = self._runs.get(check_run_id(run))
        number, whose, _ = self._tombs.get(run, (0, "", 0)) if log is None else (log.number, log.facts.owner, 0)
        if not number or owner not in (None, whose):
            raise rules.run_unknown()
        return number

    def _artifacts(self, scope: str, *, make: bool) -> dict[str, Blob]:
        if scope in self._runs:
            return self._runs[scope].artifacts
        rules.check_scope(scope)
        if rules.is_run_scope(scope):
            raise self._missing(scope)
        return self._uploads.setdefault(scope, {}) if make else self._uploads.get(scope, {})

    def _end(self, log: _Log, chunk: Chunk) -> None:
        if chunk.ends:
            log.ended = True
            log.status = chunk.ends
            log.ended_at = self._clock.wall_ms()
            _wake(log.waiters, _EVERYONE)

    async def _sleep(self, waiters: dict[Wake, int], after: int) -> None:
        wake = self._opened().wake()
        waiters[wake] = after
        try:
            await wake
        finally:
            waiters.pop(wake, None)

    def _wake_all(self, log: _Log) -> None:
        _wake(log.waiters, _EVERYONE)
        _wake(log.mail_waiters, _EVERYONE)

    def _forget_old_keys(self, now: int) -> None:
        # Insertion order is the order of expiry: only those at the front can be old.
        for key in [key for key, known in islice(self._keys.items(), 100) if known[2] <= now]:
            del self._keys[key]
