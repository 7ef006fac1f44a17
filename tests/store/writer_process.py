"""A process that writes to a run: the tests kill it, stop it, and read what it wrote.

Comes in: the store's address, the run, its holder's name and the length of its lease in seconds; then commands on
standard input. Goes out: one line on standard output after each thing done. It knows nothing of the tests.

Commands: `append N` (N chunks, a line `accepted SEQ` after each), `end` (the terminal event), `quit`.
"""

from __future__ import annotations

import sys

import anyio

from agentstream.errors import AgentStreamError
from agentstream.ports import Chunk
from agentstream.store import open_store


def chunk_of(seq: int, *, ends: str = "") -> Chunk:
    """The chunk of three events that begins at `seq`; the test knows it as well."""
    lines = b"".join(b'{"seq":%d,"text":"%d"}\n' % (number, number * 7) for number in range(seq, seq + 3))
    return Chunk(seq, seq + 2, lines, b"", ends)


async def _main(address: str, run: str, holder: str, seconds: float) -> None:
    async with open_store(address) as store:
        lease = await store.take(run, holder, seconds=seconds)
        assert lease is not None
        last = (await store.tail(run)).last
        print("lease", lease.epoch, lease.until, flush=True)
        for command in map(str.split, iter(sys.stdin.readline, "quit\n")):
            count = int(command[1]) if command[0] == "append" else 1
            try:
                for _ in range(count):
                    ends = "finished" if command[0] == "end" else ""
                    last = await store.append(run, lease.epoch, last, chunk_of(last + 1, ends=ends))
                    print("accepted", last, flush=True)
            except AgentStreamError as error:
                print("refused", error.name, flush=True)


if __name__ == "__main__":
    anyio.run(_main, sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
