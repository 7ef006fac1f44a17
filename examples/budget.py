"""Three agents spend from one budget at once, and one of them has a smaller one of its own.

python examples/budget.py
"""

import anyio

from agentstream import AgentFailedError, Budget, Context, RunOptions, RunStoppedError, Runtime, as_agent
from agentstream.events import BudgetExceeded, BudgetLow
from agentstream.testing import ScriptedModel


@as_agent
async def researcher(ctx: Context, topic: str) -> int:
    """Asks until the budget says no."""
    asked = 0
    while True:
        await ctx.generate(f"What is new in {topic}?")
        asked += 1
        if topic == "tea" and asked == 2:
            return asked


@as_agent
async def editor(ctx: Context, task: str) -> str:
    """Gives tea to one researcher, a small budget to the next, and the rest to the last."""
    await ctx.call(researcher, "tea")
    try:
        await ctx.call(researcher, "coffee", budget=Budget(calls=3))
    except AgentFailedError as error:
        await ctx.say(f"coffee ended: {error.failure}")
        print("coffee ended:", error.failure)
    await ctx.call(researcher, "water")
    return task


async def main() -> None:
    """Run it with ten calls in all."""
    model = ScriptedModel(*["Nothing."] * 100)
    async with Runtime(models=model) as runtime:
        run = await runtime.start(editor, "drinks", options=RunOptions(budget=Budget(calls=10, soft=0.8)))
        try:
            await run.result()
        except RunStoppedError as error:
            print("stopped:", error.cause)
        async with run.events() as events:
            async for event in events:
                if isinstance(event, BudgetLow | BudgetExceeded):
                    print(f"{event.inv or 'the run':14} {event.type:16} {event.used:g} of {event.limit:g} {event.of}")
    print("asked:", len(model.requests))


if __name__ == "__main__":
    anyio.run(main)
