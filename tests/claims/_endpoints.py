"""Local servers of models for the claims: in this process, or as a program of their own.

Comes in: as a program, how many servers and how they behave, as JSON in the one argument. Goes out: their addresses as
one line of JSON; then answers, until standard input ends.
It deliberately does not know pools or what is measured.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import anyio
from anyio.abc import SocketStream

from llm.chat_server import HEAD, answer, hang, part, refuse, serving, text

__all__ = ["elsewhere"]


@asynccontextmanager
async def elsewhere(servers: int, *, fetch: float = 0.0, hold: bool = False) -> AsyncIterator[list[str]]:
    """So many servers in one process of their own; their addresses.

    Args:
        fetch: seconds after which the list of models is answered.
        hold: answers stop after their first word.
    """
    job = json.dumps({"servers": servers, "fetch": fetch, "hold": hold})
    process = await anyio.open_process([sys.executable, __file__, job], stderr=None)
    try:
        with anyio.fail_after(30):
            assert process.stdout is not None
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive()
        yield json.loads(line)
    finally:
        with anyio.move_on_after(5, shield=True):
            process.kill()
            await process.wait()
            await process.aclose()


async def _held(stream: SocketStream) -> None:
    await stream.send(HEAD + b"\r\n" + part(text("Hello")))
    await hang(stream)


async def _serve(job: dict[str, float]) -> None:
    behave = _held if job["hold"] else answer()
    async with serving(*[behave] * int(job["servers"])) as made:
        for server in made:
            server.fetch = refuse("200 OK", after=job["fetch"])
            server.keep_heads = False
        print(json.dumps([server.url for server in made]), flush=True)
        await anyio.sleep_forever()


def _end_with_parent() -> None:
    """A parent that dies, however, closes our standard input: nothing that a claim started may outlive it."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    _end_with_parent()
    anyio.run(_serve, json.loads(sys.argv[1]))
