"""Several processes share one SQLite file: tails, kill -9, and a process that is stopped and goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.text import TextReceiveStream

import agentstream
from agentstream.ids import new_run_id
from agentstream.ports import Chunk, RunFacts, Store
from agentstream.store import open_store

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]

_PROGRAM = Path(__file__).with_name("writer_process.py")
_FIRST = Chunk(1, 1, b'{"seq":1}\n')


class _Writer:
    """The other process, its commands and its answers."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._out = TextReceiveStream(process.stdout)
        self._left = ""

    async def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(command.encode() + b"\n")

    async def line(self) -> list[str]:
        while "\n" not in self._left:
            self._left += await self._out.receive()
        line, _, self._left = self._left.partition("\n")
        return line.split()


@asynccontextmanager
async def _writer(address: str, run: str, seconds: float) -> AsyncIterator[_Writer]:
    env = {**os.environ, "PYTHONPATH": str(Path(agentstream.__file__).parents[1])}
    command = [sys.executable, str(_PROGRAM), address, run, "other process", str(seconds)]
    with anyio.fail_after(30):
        async with await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None, env=env) as process:
            try:
                yield _Writer(process)
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()


async def _made(store: Store) -> str:
    run = new_run_id()
    await store.create(run, "", "", _FIRST, facts=RunFacts())
    return run


async def _events(store: Store, run: str) -> list[bytes]:
    found: list[bytes] = []
    while piece := await store.read(run, len(found)):
        for chunk in piece:
            assert chunk.first == len(found) + 1
            found += chunk.lines.splitlines(keepends=True)
    return found


def _expected(seq: int) -> bytes:
    return _FIRST.lines if seq == 1 else b'{"seq":%d,"text":"%d"}\n' % (seq, seq * 7)


def _check_file(path: Path) -> None:
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    conn.close()


async def test_tail_of_another_process(tmp_path: Path) -> None:
    """A reader sees every event that another process writes, in order, once, and its end."""
    address = f"sqlite:{tmp_path / 'runs.db'}"
    async with open_store(address) as store:
        run = await _made(store)
        async with _writer(address, run, 3_600) as writer:
            await writer.line()
            seen: list[bytes] = []
            async with anyio.create_task_group() as tasks:

                async def follow() -> None:
                    while not (tail := await store.tail(run)).ended or len(seen) < tail.last:
                        await store.changed(run, len(seen))
                        for chunk in await store.read(run, len(seen)):
                            assert chunk.first == len(seen) + 1
                            seen.extend(chunk.lines.splitlines(keepends=True))

                tasks.start_soon(follow)
                await writer.tell("append 200")
                for _ in range(200):
                    await writer.line()
                await writer.tell("end")
            await writer.tell("quit")
            await writer.process.wait()
        assert len(seen) == 604
        assert seen == [_expected(seq) for seq in range(1, 605)]
    _check_file(tmp_path / "runs.db")


@pytest.mark.parametrize("level", ["process", "machine"])
async def test_kill_loses_nothing_accepted(level: str, tmp_path: Path) -> None:
    """Of a writer killed with -9 at any moment, every event it was told is accepted is in the log, whole, once."""
    address = f"sqlite:{tmp_path / 'runs.db'}?level={level}"
    accepted = 0
    for round_ in range(4):
        async with open_store(address) as store:
            run = await _made(store)
        async with _writer(address, run, 0.0) as writer:
            await writer.line()
            await writer.tell("append 100000")
            for _ in range(20 + 13 * round_):
                last = int((await writer.line())[1])
            writer.process.kill()
            try:
                while True:  # what it said before it died
                    last = int((await writer.line())[1])
            except anyio.EndOfStream:
                pass
            await writer.process.wait()
        accepted += last
        async with open_store(address) as store:
            events = await _events(store, run)
            assert len(events) >= last
            assert len(events) % 3 == 1, "a chunk is there whole or not at all"
            assert events == [_expected(seq) for seq in range(1, len(events) + 1)]
            # The next writer goes on where the dead one stopped.
            lease = await store.take(run, "next")
            assert lease is not None
            end = Chunk(len(events) + 1, len(events) + 1, b"{}\n", ends="failed")
            assert await store.append(run, lease.epoch, len(events), end) == end.last
    assert accepted > 4 * 60
    _check_file(tmp_path / "runs.db")


async def test_stopped_process_is_fenced(tmp_path: Path) -> None:
    """A writer stopped outside a commit loses its lease; when it goes on, its append is refused and leaves nothing."""
    address = f"sqlite:{tmp_path / 'runs.db'}"
    async with open_store(address) as store:
        run = await _made(store)
        async with _writer(address, run, 0.5) as writer:
            _, epoch, until = await writer.line()
            await writer.tell("append 1")
            assert await writer.line() == ["accepted", "4"]
            writer.process.send_signal(signal.SIGSTOP)
            # The lease ends by a clock that both processes share, whatever became of the holder.
            await anyio.sleep(max(0.0, float(until) - time.clock_gettime(time.CLOCK_BOOTTIME)))
            lease = await store.take(run, "me", seconds=3_600)
            assert lease is not None
            assert lease.epoch == int(epoch) + 1
            mine = Chunk(5, 5, b'{"mine":1}\n')
            assert await store.append(run, lease.epoch, 4, mine) == 5
            await writer.tell("append 1")
            writer.process.send_signal(signal.SIGCONT)
            assert await writer.line() == ["refused", "Fenced"]
            await writer.tell("quit")
            await writer.process.wait()
        assert (await store.tail(run)).last == 5
        assert (await store.read(run, 4)) == [mine]
    _check_file(tmp_path / "runs.db")
