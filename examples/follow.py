"""One run, two readers: one follows it live, the other leaves in the middle and comes back with its cursor.

    python examples/follow.py

Both end with the same text. Over HTTP the cursor is the `id` of an event, and `Last-Event-ID` brings it back.
"""

from __future__ import annotations

import anyio

from agentstream import Agent, Context, Run, Runtime
from agentstream.events import AnyEvent, Reset, TextDelta


class Poet(Agent[str, int]):
    """Writes a word every few milliseconds."""

    async def run(self, ctx: Context, task: str) -> int:
        words = task.split()
        async with ctx.text() as block:
            for word in words:
                await block.write(word + " ")
                await anyio.sleep(0.005)
        return len(words)


def text_of(event: AnyEvent | Reset) -> str:
    """The text that an event adds."""
    return event.text if isinstance(event, TextDelta) else ""


async def follow(run: Run[int]) -> str:
    """From the first event to the end."""
    text = ""
    async with run.events() as events:
        async for event in events:
            text += text_of(event)
    return text


async def leave_and_return(run: Run[int]) -> str:
    """Read eight events, go away, come back with the cursor."""
    text, cursor = "", ""
    async with run.events() as events:
        for _ in range(8):
            text += text_of(await anext(events))
        cursor = events.cursor
    print("left at", cursor.rpartition(".")[2])
    await anyio.sleep(0.03)
    async with run.events(after=cursor) as events:
        async for event in events:
            text += text_of(event)
    return text


async def main() -> None:
    """Start a run, read it twice at once, compare."""
    texts: dict[str, str] = {}
    async with Runtime() as runtime:
        run = await runtime.start(Poet(), "a stream that nobody has to hold is a stream that nobody can lose")

        async def read(name: str) -> None:
            texts[name] = await (follow(run) if name == "live" else leave_and_return(run))

        async with anyio.create_task_group() as group:
            group.start_soon(read, "live")
            group.start_soon(read, "returned")
        print("words:", await run.result())
    print("the same text:", texts["live"] == texts["returned"])


if __name__ == "__main__":
    anyio.run(main)
