"""The teams that claims run on a real server.

Comes in: tasks that say how much, how fast and from which seed. Goes out: events, and notes in files for the claims.
It deliberately does not know how its events are read.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import anyio
import pydantic

from agentstream.agent import Agent, Context, Team

__all__ = ["teams"]

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
                    # agent.started and text.started came before this delta. One write of one line is atomic.
                    with Path(task.ledger).open("a") as ledger:
                        ledger.write(f"{ctx.inv} {number + 3}\n")
        return task.deltas


class _Leader(Agent[Trio, str]):
    """Starts two speakers at once."""

    name = "leader"

    async def run(self, ctx: Context, task: Trio, /) -> str:
        calls = [await ctx.start(_Speaker(name), task) for name in ("left", "right")]
        return "ü".join([str(await call.result()) for call in calls])


class Flood(pydantic.BaseModel):
    """One agent that emits `total` bytes of text in events of `size`, at `rate` bytes a second, after `delay` seconds."""

    total: int
    size: int = 1024
    rate: float = 8e6
    delay: float = 0.5  # until all readers are there


class _Flooder(Agent[Flood, int]):
    """Emits at an even pace: a few events, then a pause until their time is over."""

    name = "flooder"

    async def run(self, ctx: Context, task: Flood, /) -> int:
        await anyio.sleep(task.delay)
        began, sent = anyio.current_time(), 0
        async with ctx.text() as block:
            while sent < task.total:
                await block.write(f"{sent:012d}".ljust(task.size, "x"))
                sent += task.size
                ahead = began + sent / task.rate - anyio.current_time()
                if ahead > 0.002:
                    await anyio.sleep(ahead)
        return sent


def teams() -> list[Team[Any, Any]]:  # Any: teams of every type
    """All of them."""
    return [Team("trio", _Leader()), Team("flood", _Flooder())]
