"""People in the loop: a run asks, waits as long as it takes, and goes on with the answer.

    python examples/ask.py

Here the program answers by itself. Under `agentstream run` the terminal is asked, on the developer page the card of the
question has a form, and over HTTP it is `POST /runs/{run}/input`.
"""

from __future__ import annotations

import anyio
from pydantic import BaseModel, Field

from agentstream import Context, Run, RunOptions, Runtime, Team, as_agent, tool
from agentstream.events import InputRequested


class Trip(BaseModel):
    """What a person decides."""

    city: str
    nights: int = Field(ge=1, le=14)


@tool(approve=lambda city, nights: nights > 2)  # two nights may be booked without asking
async def book(city: str, nights: int) -> str:
    """Book a room."""
    return f"{nights} nights in {city}"


@as_agent
async def travel(ctx: Context, wish: str) -> str:
    """Plan a trip."""
    before = await ctx.history()
    trip = await ctx.ask(f"Where to, for {wish!r}?", Trip, expires=3600)
    booked = await ctx.tool(book, trip.city, trip.nights)
    return f"booked: {booked}; said before: {len(before)} messages"


async def answer(run: Run[str], trip: Trip) -> None:
    """Stand in for a person."""
    async with run.events() as events:
        async for event in events:
            if isinstance(event, InputRequested):
                print(f"{event.kind}: {event.prompt}")
                await run.answer(event.request, True if event.kind == "approval" else trip, by="kim")


async def main() -> None:
    """Two runs of one session; the second waits for its turn."""
    team = Team("travel", travel, options=RunOptions(busy="enqueue"))
    async with Runtime(teams=[team]) as runtime:
        first = await runtime.start(team, "sun", session="kim's trips")
        second = await runtime.start(team, "snow", session="kim's trips")
        await answer(first, Trip(city="Lisboa", nights=2))
        await answer(second, Trip(city="Tromsø", nights=5))
        print(await first.result())
        print(await second.result())


if __name__ == "__main__":
    anyio.run(main)
