"""Questions that outlive their worker: they stay open, an answer that came meanwhile counts, none is asked twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from agentstream.agent import Context, Team, as_agent, tool
from agentstream.events import InputExpired, InputReceived, InputRequested
from agentstream.runtime import Run, Runtime
from agentstream.store.memory import MemoryStore
from agentstream.stream import AskState
from run_kit import QUICK, VirtualClock, events_of, of_type, virtually

paid: list[int] = []


@tool(approve=True)
def pay(amount: int) -> int:
    """Pay."""
    paid.append(amount)
    return amount


@as_agent
async def shopper(ctx: Context, task: str) -> str:
    """Asks, then pays with leave."""
    what = await ctx.ask("what?", expires=86_400)
    amount = await ctx.ask("how much?", int)
    return f"{what} for {await ctx.tool(pay, amount)}"


TEAM = Team("shopper", shopper)


class Lasting(MemoryStore):  # type: ignore[misc]  # final for users; a test may look inside
    """A store in memory that outlives the processes of this test."""

    level = "process"


class Line:
    """The way of one process to the store; once `cut` the process is as good as dead."""

    def __init__(self, store: Lasting) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("append", "renew", "take", "give_back", "free", "keep", "create", "letters", "mail", "ack"):
            return found

        async def asked(*args: Any, **options: Any) -> Any:
            if self.cut:
                await anyio.sleep_forever()
            return await found(*args, **options)

        return asked


async def open_ask(run: Run[Any], prompt: str) -> AskState:
    """The open question whose prompt begins so."""
    while True:
        state = await run.state()
        for ask in state.asks:
            if ask.status == "open" and ask.prompt.startswith(prompt):
                return ask
        await run._store.changed(run.id, state.seq)


@pytest.mark.promise("P10", "P11")
def test_a_question_stays_open_and_an_answer_meanwhile_counts() -> None:
    """Cut off while it waits, answered while nobody works: the next process goes on with that answer and asks nothing
    again, nor what was answered before the cut."""

    async def main(clock: VirtualClock) -> None:
        paid.clear()
        async with Lasting(clock=clock) as store:
            first, second = Line(store), Line(store)
            async with (
                Runtime(first, teams=[TEAM], clock=clock) as one,
                Runtime(second, clock=clock) as reader,
                anyio.create_task_group() as group,
            ):
                started = await one.start(TEAM, "t")
                run = await reader.get(started.id)
                await run.answer((await open_ask(run, "what")).request, "tea")
                amount = await open_ask(run, "how much")
                await anyio.sleep(1)
                first.cut = True
                await run.answer(amount.request, 3)
                await anyio.sleep(20)
                async with Runtime(store, teams=[TEAM], clock=clock) as two:
                    leave = await open_ask(run, "Run the tool")
                    await (await two.get(run.id)).answer(leave.request, True)
                    assert await run.result() == "tea for 3"
                    events = await events_of(run)
                group.cancel_scope.cancel()
        asked = of_type(events, InputRequested)
        assert [event.prompt.split()[0] for event in asked] == ["what?", "how", "Run"]
        assert [event.request for event in of_type(events, InputReceived)] == [event.request for event in asked]
        assert of_type(events, InputExpired) == []
        assert paid == [3]

    virtually(main)


@pytest.mark.anyio
@pytest.mark.promise("P10")
async def test_a_restart_while_a_person_thinks(tmp_path: Path) -> None:
    """On a file: the runtime shuts down and another begins; the question is the same one, before and after."""
    address = f"sqlite:{tmp_path / 'runs.db'}"
    with anyio.fail_after(20):
        async with Runtime(address, teams=[TEAM], options=QUICK) as runtime:
            run = await runtime.start(TEAM, "t")
            before = await open_ask(run, "what")
        async with Runtime(address, teams=[TEAM], options=QUICK) as runtime:
            again = await runtime.get(run.id)
            while (await again.state()).attempt < 2:
                await runtime.store.changed(run.id, (await again.state()).seq)
            after = await open_ask(again, "what")
            assert (after.request, after.expires) == (before.request, before.expires)
            await again.answer(after.request, "tea")
            await again.answer((await open_ask(again, "how")).request, 1)
            await again.answer((await open_ask(again, "Run")).request, False)
            events = await events_of(again)
    assert len(of_type(events, InputRequested)) == 3
    assert events[-1].type == "run.failed"
