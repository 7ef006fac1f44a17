"""The teams that claims run on a real server.

Comes in: tasks that say how much, how fast and from which seed. Goes out: events, and notes in files for the claims.
It deliberately does not know how its events are read.
"""

from __future__ import annotations

import random
import re
import zlib
from pathlib import Path
from typing import Any, Final

import anyio
import pydantic

from agentstream.agent import Agent, Context, Team
from agentstream.bus import Block
from agentstream.events import (
    PlanItem,
    PlanUpdated,
    ToolCalled,
    ToolDelta,
    ToolFinished,
    ToolOutput,
    ToolStarted,
    VerdictGiven,
)

__all__ = ["picture", "teams"]

_WORDS: Final = ("plain ", "grün ", "数据", "🙂‍↔️", "\u2028", "data: \n\n", "%s ")


class Trio(pydantic.BaseModel):
    """Three agents that speak by turns.

    Attributes:
        deltas: pieces of text of each of the two helpers.
        pause: longest pause after a piece, in seconds.
        ledger: a file that gets a line for what was surely accepted: invocation and number of its own events.
    """

    deltas: int = 3
    pause: float = 0.0
    seed: int = 1
    ledger: str = ""


class _Speaker(Agent[Trio, int]):
    """Writes one block of text, and into the ledger whatever the log has accepted."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self, ctx: Context, task: Trio, /) -> int:
        chance = random.Random(f"{task.seed}/{ctx.inv}")
        async with ctx.text() as block:
            for number in range(task.deltas):
                await block.write("数🙂" + "".join(chance.choices(_WORDS, k=2)))
                if task.pause:
                    await anyio.sleep(chance.uniform(0, task.pause))
                if task.ledger and chance.random() < 0.2:
                    await ctx.flush()
                    # agent.started and text.started came before this delta.
                    _write(task.ledger, f"{ctx.inv} {number + 3}\n")
        return task.deltas


def _write(ledger: str, line: str) -> None:
    """Add a line, which a kill leaves whole or out: one write. It takes microseconds, so it may hold the loop."""
    with Path(ledger).open("a") as file:
        file.write(line)


class _Leader(Agent[Trio, str]):
    """Starts two speakers at once."""

    name = "leader"

    async def run(self, ctx: Context, task: Trio, /) -> str:
        calls = [await ctx.start(_Speaker(name), task) for name in ("left", "right")]
        return "ü".join([str(await call.result()) for call in calls])


class Flood(pydantic.BaseModel):
    """One agent that emits `total` bytes of text in events of `size`, at `rate` bytes a second.

    Attributes:
        delay: seconds before it begins, until all readers are there.
    """

    total: int
    size: int = 1024
    rate: float = 6e6
    delay: float = 0.5


class _Flooder(Agent[Flood, int]):
    """Emits at an even pace: a few events, then a pause until their time is over."""

    name = "flooder"

    async def run(self, ctx: Context, task: Flood, /) -> int:
        await anyio.sleep(task.delay)
        began, sent = anyio.current_time(), 0
        while sent < task.total:
            # Blocks of a usual length: an open block keeps its text, which is not what is measured.
            async with ctx.text() as block:
                for _ in range(min(64, (task.total - sent) // task.size)):
                    await block.write(f"{sent:012d}".ljust(task.size, "x"))
                    sent += task.size
                    ahead = began + sent / task.rate - anyio.current_time()
                    if ahead > 0.002:
                        await anyio.sleep(ahead)
        return sent


# --- three roles, for people to look at -------------------------------------------------------------------------------
_PACE_S: Final = 0.02  # after each piece: slow enough to reload a page in the middle, fast enough to wait for
_PLAN: Final = ("Read the numbers", "Draw the picture", "Check both")
_CODE: Final = """import statistics

values = [3, 1, 4, 1, 5, 9, 2, 6]
print("mean", statistics.mean(values))
print("größter Wert", max(values))
"""
_THOUGHT: Final = "The question asks for one number and a picture, so three steps are enough. "
_SAID: Final = (
    "The mean is 3.875 over eight values; the largest is 9 (größter Wert). ελληνικά, кириллица, → and ✓ come through. "
    "Markup stays text: <b>not bold</b> & <script>alert(1)</script>. "
)


class _Slow(Agent[str, str]):
    """Speaks word by word."""

    async def pieces(self, block: Block, text: str) -> None:
        """Write `text` slowly."""
        for word in re.findall(r"\S+\s*|\n", text):
            await block.write(word)
            await anyio.sleep(_PACE_S)


class _Planner(_Slow):
    """Thinks, then plans."""

    name, role = "planner", "planner"

    async def run(self, ctx: Context, task: str, /) -> str:
        async with ctx.thinking() as block:
            await self.pieces(block, _THOUGHT * 2)
        await ctx.emit(PlanUpdated(tuple(PlanItem(str(n), title) for n, title in enumerate(_PLAN, 1))))
        await ctx.say(f"Three steps for: {task}")
        return "three steps"


class _Executor(_Slow):
    """Writes code, shows what it printed, and a picture."""

    name, role = "executor", "executor"

    async def run(self, ctx: Context, task: str, /) -> str:
        call = ctx.new_id()
        await ctx.emit(ToolStarted(call, name="python"))
        for line in _CODE.splitlines(keepends=True):
            await ctx.emit(ToolDelta(call, text=line))
            await anyio.sleep(4 * _PACE_S)
        await ctx.emit(ToolCalled(call, arguments={"code": _CODE}))
        for line in ("mean 3.875\n", "größter Wert 9\n"):
            await ctx.emit(ToolOutput(call, channel="stdout", text=line))
        await ctx.emit(ToolFinished(call, result="ok"))
        await ctx.artifact("picture.png", picture(), mime="image/png")
        await ctx.emit(PlanUpdated(tuple(PlanItem(str(n), title, "done") for n, title in enumerate(_PLAN, 1))))
        async with ctx.text() as block:
            await self.pieces(block, _SAID * 3)
        return "mean 3.875"


class _Verifier(_Slow):
    """Checks, in words, and gives its verdict."""

    name, role = "verifier", "verifier"

    async def run(self, ctx: Context, task: str, /) -> str:
        async with ctx.text() as block:
            await self.pieces(block, "Computed again: 31 / 8 = 3.875, as the executor said. The picture shows it. " * 3)
        await ctx.emit(VerdictGiven(ok=True, feedback="the figure was computed twice"))
        return task


class _Chief(Agent[str, str]):
    """Lets one after the other work; says nothing itself."""

    name = "chief"

    async def run(self, ctx: Context, task: str, /) -> str:
        await ctx.call(_Planner(), task)
        return await ctx.call(_Verifier(), await ctx.call(_Executor(), task))


def picture(width: int = 240, height: int = 120) -> bytes:
    """A PNG (RFC 2083) of eight bars, made without any library."""
    rows = b""
    for y in range(height):
        tall = [height - (4 + 12 * value) for value in (3, 1, 4, 1, 5, 9, 2, 6)]
        row = (b"\x2f\x6f\xde" if y >= tall[x * 8 // width] and x % 30 > 5 else b"\xf4\xf6\xf8" for x in range(width))
        rows += b"\0" + b"".join(row)

    def piece(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    head, body = piece(b"IHDR", size + b"\x08\x02\0\0\0"), piece(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + body + piece(b"IEND", b"")


def teams() -> list[Team[Any, Any]]:  # Any: teams of every type
    """All of them."""
    about = "Three agents, one after the other, with a picture."
    return [Team("roles", _Chief(), description=about), Team("trio", _Leader()), Team("flood", _Flooder())]
