"""Claims about readers: one that stops reading costs the server and the other readers next to nothing.

Comes in: a seed. Goes out: how much more memory the server took and how much later the others got their events
with one of five readers stalled, against all five reading, in turns.
It deliberately does not know how the server keeps a stalled reader cheap.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import selectors
import shutil
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import h11

from agentstream.store import open_store
from claims import Figure, at_most, claim
from claims._server import Server
from claims._stamps import read_stamps
from claims._streams import open_stream

_READERS: Final = 5
_ROUNDS: Final = 7
_TOTAL: Final = 64 * 1024 * 1024
_SEND_TIMEOUT_S: Final = 2.0
_LATEST_CUT_S: Final = 2 * _SEND_TIMEOUT_S  # the timeout, the time to fill the buffers before it, and a busy machine
_MOST_EXTRA_MB: Final = 2.0
_MOST_RATIO: Final = 1.5
_RUN_S: Final = 120.0
_RECEIVE_BUFFER: Final = 64 * 1024

_CUT: Final = re.compile(r"^([0-9-]+ [0-9:]+),([0-9]{3}) .* was cut \(stalled\)", re.MULTILINE)
_COMMENT: Final = re.compile(rb"^:[^\n]*\n", re.MULTILINE)
_ID: Final = re.compile(rb"(?:^|\n\n)id: [A-Za-z0-9_-]{22}\.[A-Za-z0-9]{6}\.([0-9]+)\n")


class Reading:
    """One reader on a socket: checks numbers, hashes frames, and notes when they came.

    Attributes:
        last: seq of the last complete frame.
        wrong: frames lost, doubled or out of order.
        notes: the first of them in words.
        times: (last seq, monotonic nanoseconds) after each piece that completed a frame.
        complete: the stream's end was said.
        cut: the connection ended without that.
    """

    def __init__(self, port: int, path: str) -> None:
        self.last = 0
        self.wrong = 0
        self.notes: list[str] = []
        self.times: list[tuple[int, int]] = []
        self.complete = self.cut = False
        self._port, self._path = port, path
        self._cursor = ""
        self._hash = hashlib.blake2b(digest_size=16)
        self._connect()

    def _connect(self) -> None:
        self.sock = open_stream(self._port, self._path, self._cursor, receive_buffer=_RECEIVE_BUFFER)
        self._http = h11.Connection(h11.CLIENT)
        self._http.send(h11.Request(method="GET", target="/", headers=[("Host", "localhost")]))
        self._http.send(h11.EndOfMessage())
        self._rest = b""
        self._opened = False

    def resume(self) -> None:
        """Come back with the last complete id."""
        self.close()
        self.cut = False
        self._connect()

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def take(self, most: int = 1 << 18) -> None:
        """Take what there is; waits for it where there is nothing."""
        try:
            data = self.sock.recv(most)
            now = time.monotonic_ns()
            self._http.receive_data(data)
            pieces = []
            while isinstance(event := self._http.next_event(), h11.Response | h11.Data):
                if isinstance(event, h11.Data):
                    pieces.append(bytes(event.data))
            self.complete = isinstance(event, h11.EndOfMessage)
        except (ConnectionError, h11.RemoteProtocolError):
            self.cut = True
            return
        if pieces:
            self._frames(b"".join((self._rest, *pieces)), now)

    def _frames(self, data: bytes, now: int) -> None:
        if not self._opened:
            head, found, rest = data.partition(b": ok\n")
            if not found:
                self._rest = data
                return
            self._check(head == b"retry: 2000\n", f"the stream began with {head!r}")
            self._opened, data = True, rest
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            self._rest = data
            return
        frames, self._rest = data[:end], data[end:]
        if frames.startswith(b":") or b"\n:" in frames:  # a machine so busy that heartbeats are due
            frames = _COMMENT.sub(b"", frames)
        self._hash.update(frames)
        seqs = [int(seq) for seq in _ID.findall(frames[:-2])]
        for seq in seqs:
            self._check(seq == self.last + 1, f"{seq} came after {self.last}")
            self.last = seq
        self._check(len(seqs) == frames.count(b"\n\n"), f"something without an id came before {self.last}")
        begin = frames.rfind(b"\n\nid: ") + 6 if len(seqs) > 1 else len(b"id: ")
        self._cursor = frames[begin : frames.index(b"\n", begin)].decode()
        self.times.append((self.last, now))

    def _check(self, ok: bool, note: str) -> None:
        if not ok:
            self.wrong += 1
            self.notes = [*self.notes, note][:3]

    def hold_against(self, frames: int, digest: str) -> int:
        """The number of frames that are wrong, given how many there are in the log and their digest."""
        self._check(self._hash.hexdigest() == digest, "the bytes are not the log's")
        return self.wrong + abs(frames - self.last)


@dataclass
class Round:
    """What one run gave, with or without a stalled reader.

    Attributes:
        wrong: frames lost, doubled, out of order, or not the log's bytes; the first of them are in `notes`.
        frames: frames that were read and checked.
        peak: most memory that the server had until the run was over, in MB.
        peak_after: the same after one reader had read it all from the file: the stalled one, or a fifth once more.
        p99: milliseconds from append to receive, of the readers that read throughout.
        p99_stalled: the same, of the events of the first seconds, in which the stalled one was not cut off yet.
        cut_after: seconds from the stop to the cut; 0 without a stalled reader.
        unread: share of the run that the stalled reader had not been sent when it was cut.
    """

    wrong: int = 0
    notes: list[str] = field(default_factory=list)
    frames: int = 0
    peak: float = 0.0
    peak_after: float = 0.0
    p99: float = 0.0
    p99_stalled: float = 0.0
    cut_after: float = 0.0
    unread: float = 0.0


def one_round(folder: Path, *, stalled: bool, total: int = _TOTAL) -> Round:
    """Run it once on a fresh server and a fresh store."""
    folder.mkdir()
    address, stamps = f"sqlite:{folder / 'runs.db'}", folder / "stamps"
    found = Round()
    with Server(address, send_timeout=_SEND_TIMEOUT_S, stamps=str(stamps), log_level="info") as server:
        path = f"/runs/{server.start_run('flood', {'total': total})}/events?coalesce=0"
        readers = [Reading(server.port, path) for _ in range(_READERS)]
        try:
            still = readers[-1] if stalled else None
            _read_all(readers, still)
            found.peak = _peak(server.pid)
            if still is None:
                readers.append(Reading(server.port, path))
            found.unread = _read_on(readers[-1], readers[0].last)
            if still is not None:
                found.cut_after = _seconds_to_cut(server.errors(), still.times[0][1])
            found.peak_after = _peak(server.pid)
        finally:
            for reader in readers:
                reader.close()
    frames, digest = anyio.run(_log, address, path.split("/")[2])
    found.frames = sum(reader.last for reader in readers)
    found.wrong = sum(reader.hold_against(frames, digest) for reader in readers)
    found.notes = [f"reader {n}: {note}" for n, reader in enumerate(readers) for note in reader.notes]
    appended = list(read_stamps(stamps))
    times = [reader.times for reader in readers[: _READERS - 1]]
    found.p99 = _p99(times, appended)
    until = appended[0][2] + int(_SEND_TIMEOUT_S * 1e9)
    found.p99_stalled = _p99(times, [stamp for stamp in appended if stamp[2] < until])
    shutil.rmtree(folder)
    return found


def _read_all(readers: Sequence[Reading], still: Reading | None) -> None:
    """Read every reader to the end but one, which stops after its first frame."""
    until = time.monotonic() + _RUN_S
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.sock, selectors.EVENT_READ, reader)
        while selector.get_map():
            if time.monotonic() > until:
                raise TimeoutError(f"the run did not end within {_RUN_S:g} s")
            for key, _ in selector.select(1.0):
                ready: Reading = key.data
                ready.take(512 if ready is still else 1 << 18)
                if ready.complete or ready.cut or (ready is still and ready.last):
                    selector.unregister(ready.sock)


def _read_on(reader: Reading, last: int) -> float:
    """Read what is left on the connection and, where it is cut, the rest on others; return the share unread then."""
    while not (reader.cut or reader.complete):
        reader.take()
    unread = 1 - reader.last / last
    while not reader.complete:
        if reader.cut:
            reader.resume()
        reader.take()
    return unread


def _seconds_to_cut(log: str, stopped_ns: int) -> float:
    """Seconds from the reader's stop to the line of the server's log that says that it was cut; infinite if none."""
    found = _CUT.search(log)
    if found is None:
        return math.inf
    at = time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + int(found[2]) / 1000
    return at - (stopped_ns + time.time_ns() - time.monotonic_ns()) / 1e9


def _peak(pid: int) -> float:
    """The most memory the process ever had (VmHWM), in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _p99(readers: Sequence[Sequence[tuple[int, int]]], stamps: Sequence[tuple[int, int, int]]) -> float:
    """The 99th percentile over all events and readers of the milliseconds from append to receive."""
    delays: list[float] = []
    for times in readers:
        lasts = [last for last, _ in times]
        for first, last, appended in stamps:
            if last <= lasts[-1]:  # what is missing is counted elsewhere
                delays += [(times[bisect_left(lasts, seq)][1] - appended) / 1e6 for seq in range(first, last + 1)]
    return statistics.quantiles(delays, n=100)[98]


async def _log(address: str, run: str) -> tuple[int, str]:
    """The number and the digest of the run's frames, made from what the store holds and not by the server."""
    digest = hashlib.blake2b(digest_size=16)
    after = 0
    async with open_store(address) as store:
        prefix = f"id: {run}.{(await store.tail(run)).incarnation}.".encode()
        while chunks := await store.read(run, after):
            for chunk in chunks:
                for seq, line in enumerate(chunk.lines.split(b"\n")[:-1], chunk.first):
                    digest.update(b"%b%d\ndata: %b\n\n" % (prefix, seq, line))
                after = chunk.last
    return after, digest.hexdigest()


@claim(
    "reader.stalled",
    "A reader that stops costs at most 2 MB and leaves the others their pace; it is cut off, comes back, loses nothing",
    unit="MB more of server memory",
    quick=False,
    limit=1_200.0,
    promises=("P5", "P8", "P9", "W-pieces", "W-abort"),
)
def stalled(seed: int) -> Figure:
    """Compare five readers with four and a stalled one, in turns, on 64 MB of events."""
    control: list[Round] = []
    stall: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="agentstream-reader-", dir=_fast_folder()) as folder:
        for number in range(_ROUNDS):
            for with_stall in (False, True) if (number + seed) % 2 else (True, False):
                found = one_round(Path(folder, f"{number}-{with_stall}"), stalled=with_stall)
                (stall if with_stall else control).append(found)
    more = max(_median(stall, name) - _median(control, name) for name in ("peak", "peak_after"))
    ratio = _median(stall, "p99") / _median(control, "p99")
    wrong = sum(one.wrong for one in (*control, *stall))
    cut_in_time = all(_SEND_TIMEOUT_S <= one.cut_after <= _LATEST_CUT_S for one in stall)
    return Figure(
        more,
        n=sum(one.frames for one in (*control, *stall)),
        bound=at_most(_MOST_EXTRA_MB),
        ok=wrong == 0 and ratio <= _MOST_RATIO and cut_in_time,
        seed=seed,
        detail={
            "frames lost, doubled or different": wrong,
            **{f"{number} {note}": "" for number, one in enumerate((*control, *stall)) for note in one.notes},
            "p99 from append to receive": f"× {ratio:.2f} (≤ {_MOST_RATIO:g})",
            "cut off in time": f"{cut_in_time} (between {_SEND_TIMEOUT_S:g} and {_LATEST_CUT_S:g} s after its stop)",
            **{f"{name}, stalled": _list(stall, name) for name in _SHOWN},
            **{f"{name}, control": _list(control, name) for name in _SHOWN[:4]},
        },
    )


_SHOWN: Final = ("peak", "peak_after", "p99", "p99_stalled", "cut_after", "unread")


def _fast_folder() -> str | None:
    """A folder in memory where there is one: the disk's pauses are not what is measured."""
    folder = Path("/dev/shm")
    room = folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 16 * _TOTAL
    return str(folder) if room else None


def _median(rounds: Sequence[Round], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in rounds))


def _list(rounds: Sequence[Round], name: str) -> str:
    return " ".join(f"{getattr(one, name):.4g}" for one in rounds)
