"""The team of the claims about crashes: it does one of everything that is recorded, and dies where it is told to.

Comes in: a task that names a file of effects and the place of death. Goes out: events, and a line in the file for each
unit of work that was really done. It deliberately does not know who goes on after it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Final

import anyio
import pydantic

from agentstream.agent import Agent, Context, RunOptions, Team, tool
from agentstream.llm import LLMRequest
from agentstream.testing import ScriptedModel

__all__ = ["PLACES", "Task", "crash_model", "crash_team"]

PLACES: Final = ("model", "tool", "step", "map", "commit")

_VICTIM: Final = "AGENTSTREAM_CLAIM_VICTIM"  # set in the process that is to die, and in no other
_WORKERS: Final = (1, 2, 3, 4)
_REQUESTS: Final = 10_000


class Task(pydantic.BaseModel):
    """What to do, and where to die: at one of `PLACES`, or nowhere.

    Attributes:
        effects: the file that gets a line for each unit.
        deltas: pieces of text of the flood that appends are killed in. pause: seconds after each.
    """

    effects: str
    place: str = ""
    deltas: int = 40
    pause: float = 0.003


def _die_at(place: str, wanted: str) -> None:
    if place == wanted and _VICTIM in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)


def _did(task: Task, unit: str) -> None:
    """Add a line, which a kill leaves whole or out: one write."""
    with Path(task.effects).open("a") as file:
        file.write(unit + "\n")


class _Worker(Agent[tuple[Task, int], int]):
    """One step and one call of a tool."""

    name = "worker"

    async def run(self, ctx: Context, task: tuple[Task, int], /) -> int:
        job, number = task
        await ctx.step(f"count {number}", _count, job, f"count {number}")
        await ctx.say(f"worker {number} of process {os.getpid()}")
        if number == 2:
            await anyio.sleep(0.02)  # others have finished by now
            _die_at("map", job.place)
        await ctx.tool(pay, job, f"pay {number}")
        return number


async def _count(job: Task, unit: str) -> str:
    await anyio.sleep(0.005)
    if unit == "prepare":
        _die_at("step", job.place)
    _did(job, unit)
    return unit


@tool
async def pay(job: Task, unit: str) -> str:
    """Have a side effect."""
    if unit == "pay once":
        _die_at("tool", job.place)
    _did(job, unit)
    await anyio.sleep(0.005)
    return unit


class _Chief(Agent[Task, int]):
    """Steps, a tool, a model, a map, and a flood of text."""

    name, model = "chief", "crash"

    async def run(self, ctx: Context, task: Task, /) -> int:
        await ctx.step("first", _count, task, "first")
        await ctx.step("prepare", _count, task, "prepare")
        await ctx.state.set("/prepared", ctx.attempt)
        await ctx.tool(pay, task, "pay once")
        reply = await ctx.generate(f"place: {task.place}")
        numbers = await ctx.map(_Worker(), [(task, number) for number in _WORKERS])
        async with ctx.text() as block:
            for number in range(task.deltas):
                await block.write(f"delta {number} of process {os.getpid()} ")
                await anyio.sleep(task.pause)
        await ctx.step("last", _count, task, "last")
        return sum(numbers) + len(reply.text)


def crash_team() -> Team[Any, Any]:  # Any: a claim starts it over HTTP
    """The team. Many attempts: on a machine that is busy a lease of a second may lapse by itself."""
    return Team("crash", _Chief(), options=RunOptions(attempts=20))


def crash_model() -> ScriptedModel:
    """Answers every request alike, or dies in it."""

    def answer(request: LLMRequest) -> str:
        _die_at("model", request.messages[-1].content.removeprefix("place: "))
        return "an answer in several pieces"

    return ScriptedModel(*[answer] * _REQUESTS)
