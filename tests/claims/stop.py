"""Claims about ends: every cause, wherever the agents are at that moment, gives one terminal event that names it.

Comes in: nothing. Goes out: how many cells of the table of causes and places went wrong.
It deliberately runs in virtual time: the limits are the real ones, and nobody waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anyio

from agentstream.agent import Budget, Context, RunOptions, as_agent, stop_after, tool
from agentstream.events import InputRequested, RunFailed, RunStopped, is_terminal
from agentstream.runtime import Run, Runtime
from agentstream.store.memory import MemoryStore
from claims import Figure, claim, exactly
from hanging_model import HangingModel
from run_kit import VirtualClock, check_log, log_of, virtually

PLACES: Final = ("model", "tool", "step", "person", "slot")
CAUSES: Final = ("user_stop", "client_gone", "deadline", "idle", "budget", "replaced", "shutdown", "failure")
_STANDS: Final = frozenset({("deadline", "person"), ("idle", "person")})
"""The clocks stand while a person is waited for."""

_WHEN: Final = 10.0
_CLOSED_WITHIN: Final = 1.0
_LARGE: Final = "one more " * 5_000
"""A prompt above the budget of the table's runs."""


@tool
async def slow(text: str) -> str:
    """Take for ever."""
    await anyio.sleep_forever()
    return text


async def _for_ever() -> None:
    await anyio.sleep_forever()


@as_agent
async def busy(ctx: Context, place: str) -> str:
    """Is somewhere."""
    match place:
        case "model":
            await ctx.generate("say something")
        case "tool":
            await ctx.tool(slow, "t")
        case "step":
            await ctx.step("wait", _for_ever)
        case "person":
            await ctx.ask("May I?")
        case _:
            async with ctx.text() as block:
                await block.write("I have the place")
                await anyio.sleep_forever()
    return place


def _team(place: str, cause: str) -> Any:  # Any: an agent of a local function
    @as_agent
    async def entry(ctx: Context, task: str) -> str:
        await ctx.start(busy, place)
        if place == "slot":  # one has the only place, this one waits for it
            await ctx.call(busy, place)
        await anyio.sleep(_WHEN)
        if cause == "failure":
            raise ValueError(task)
        if cause == "budget":
            await ctx.generate(_LARGE)
        await anyio.sleep_forever()
        return task

    @as_agent
    async def waits_for_slot(ctx: Context, task: str) -> str:
        async def later() -> None:
            await anyio.sleep(_WHEN)
            if cause == "failure":
                raise ValueError(task)
            if cause == "budget":
                await ctx.generate(_LARGE)

        async with anyio.create_task_group() as group:
            group.start_soon(later)
            await ctx.map(busy, ["slot", "slot"])
        return task

    return waits_for_slot if place == "slot" else entry


def _options(place: str, cause: str) -> RunOptions:
    chosen: dict[str, Callable[[], RunOptions]] = {
        "client_gone": lambda: RunOptions(on_disconnect=stop_after(_WHEN), max_agents=places),
        "deadline": lambda: RunOptions(deadline=_WHEN, max_agents=places),
        "idle": lambda: RunOptions(idle=_WHEN, max_agents=places),
        "budget": lambda: RunOptions(budget=Budget(tokens=6_000), max_agents=places),
    }
    places = 1 if place == "slot" else 64
    return chosen.get(cause, lambda: RunOptions(max_agents=places))()


async def _bring_about(cause: str, runtime: Runtime, run: Run[Any]) -> None:
    """What has to happen outside the run, after a while."""
    if cause == "client_gone":
        async with run.events() as events:
            await anext(events)
            await anyio.sleep(_WHEN)
        return
    await anyio.sleep(_WHEN)
    if cause == "user_stop":
        await run.stop(reason="enough")
        await run.stop(reason="enough")
    elif cause == "replaced":
        again = RunOptions(busy="interrupt")
        await runtime.start(as_agent(_nothing), "t", session="s", options=again)
    elif cause == "shutdown":
        await runtime.drain(0)


async def _nothing(ctx: Context, task: str) -> str:
    return task


async def _cell(clock: VirtualClock, place: str, cause: str) -> str:
    """What is wrong with this cell, or nothing."""
    model = HangingModel()
    async with MemoryStore(clock=clock) as store, Runtime(store, models=model, clock=clock) as runtime:
        session = "s" if cause == "replaced" else ""
        run = await runtime.start(_team(place, cause), "t", session=session, options=_options(place, cause))
        await _bring_about(cause, runtime, run)
        began = anyio.current_time()
        while not (await store.tail(run.id)).ended and anyio.current_time() < began + 10 * _WHEN:  # noqa: ASYNC110
            await anyio.sleep(0.05)
        events = await log_of(run)
        over = [event for event in events if is_terminal(event)]
        if (cause, place) in _STANDS:
            asked = any(isinstance(event, InputRequested) for event in events)
            wrong = "" if asked and not over else f"the clock went on: {over}"
            await run.stop()
            return wrong
        if len(over) != 1:
            return f"{len(over)} terminal events"
        check_log(events)
        if cause == "failure":
            named = isinstance(over[0], RunFailed) and over[0].code == "agent_error"
        else:
            named = isinstance(over[0], RunStopped) and over[0].cause == cause
        if not named:
            return f"it ended in {over[0]}"
        ended = (over[0].at - 1_700_000_000_000) / 1000
        late = [at for at in model.closed if clock.monotonic() - at < 0 or _since(clock, at) > ended + _CLOSED_WITHIN]
        if place == "model" and (not model.closed or late):
            return f"the connection of the model was closed {late or 'never'}"
    return ""


def _since(clock: VirtualClock, at: float) -> float:
    """A time of the loop, in seconds of the clock."""
    return clock.monotonic() - (anyio.current_time() - at)


@claim(
    "stop.causes",
    "Every cause ends a run with one terminal event that names it, wherever its agents are; clocks stand for people",
    unit="wrong cells",
    promises=("P7", "P8"),
)
def causes() -> Figure:
    """The table: causes down, places across."""
    wrong: dict[str, str] = {}
    cells = [(place, cause) for place in PLACES for cause in CAUSES]
    for place, cause in cells:

        async def main(clock: VirtualClock, place: str = place, cause: str = cause) -> str:
            return await _cell(clock, place, cause)

        if found := virtually(main):
            wrong[f"{cause} in {place}"] = found
    return Figure(len(wrong), n=len(cells), bound=exactly(0), detail={"wrong": wrong, "clocks stand": len(_STANDS)})
