"""Questions to people: asked once, answered once, checked at the edge and by the writer, closed whatever happens."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import msgspec
import pydantic
import pytest

from agentstream.agent import Context, RunOptions, as_agent, tool
from agentstream.errors import (
    BodyTooLarge,
    InputAnswered,
    InputExpiredError,
    InputUnknown,
    InvalidInput,
    RunStoppedError,
    ToolDeniedError,
)
from agentstream.events import (
    AgentWaiting,
    InputExpired,
    InputReceived,
    InputRequested,
    ToolCalled,
    ToolDenied,
    ToolFinished,
)
from agentstream.runtime import Run, Runtime
from agentstream.runtime.mail import Answer, answer_letter
from agentstream.store.memory import MemoryStore
from agentstream.stream import AskState
from run_kit import VirtualClock, events_of, of_type, outline, virtually


class Booking(pydantic.BaseModel):
    """What a person fills in."""

    seats: int = pydantic.Field(ge=1, le=9)
    window: bool = False

    @pydantic.field_validator("seats")
    @classmethod
    def _not_four(cls, value: int) -> int:
        if value == 4:
            raise ValueError("four seats are never together")
        return value


@as_agent
async def booker(ctx: Context, task: str) -> str:
    """Asks for a form."""
    booking = await ctx.ask("How many?", Booking)
    return f"{booking.seats} {booking.window}"


@as_agent
async def asker(ctx: Context, task: str) -> str:
    """Asks for words."""
    return await ctx.ask(task)


async def open_ask(run: Run[str], number: int = 1) -> AskState:
    """The run's question, once it is asked and waited for."""
    while True:
        state = await run.state()
        asks = [ask for ask in state.asks if ask.status == "open"]
        if len(state.asks) >= number and asks:
            return asks[-1]
        await run._store.changed(run.id, state.seq)


@pytest.mark.anyio
@pytest.mark.promise("P1")
async def test_an_answer_comes_back_typed_and_stands_in_the_log() -> None:
    """The question is in the log and in the state before it is waited for, the answer before the agent goes on."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(booker, "t")
            ask = await open_ask(run)
            assert (ask.prompt, ask.kind, ask.inv) == ("How many?", "question", "booker.1")
            await anyio.wait_all_tasks_blocked()
            assert (await run.state()).agents["booker.1"].waiting_on == "human"
            await run.answer(ask.request, {"seats": 2}, by="kim")
            assert await run.result() == "2 False"
            events = await events_of(run)
            state = await run.state()
            assert await runtime.store.letters(run.id) == []
            private = b"".join(chunk.private for chunk in await runtime.store.read(run.id, 0, max_bytes=2**30))
    assert outline(events) == [
        "run.started",
        "booker.1 agent.started",
        "booker.1 input.requested",
        "booker.1 agent.waiting",
        "booker.1 input.received",
        "booker.1 agent.finished",
        "run.finished",
    ]
    requested, received = of_type(events, InputRequested)[0], of_type(events, InputReceived)[0]
    assert requested.schema["properties"]["seats"] == {"maximum": 9, "minimum": 1, "type": "integer"}
    assert requested.key and of_type(events, AgentWaiting)[0].on == "human"
    assert (received.request, received.value, received.by) == (requested.request, {"seats": 2}, "kim")
    assert [(ask.request, ask.status, ask.schema) for ask in state.asks] == [(requested.request, "answered", None)]
    assert b'"seats":2' in private


@pytest.mark.anyio
async def test_what_the_edge_refuses() -> None:
    """Unknown, misfitting, too large and second answers are refused there, and change nothing."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(booker, "t")
            ask = await open_ask(run)
            with pytest.raises(InputUnknown):
                await run.answer("booker.1.99", {"seats": 2})
            for value, said in (
                ({"seats": 0}, "seats must be at least 1"),
                ({"seats": "2"}, "seats must be a whole number"),
                ({}, "seats is missing"),
                ("two", "the value must be an object"),
            ):
                with pytest.raises(InvalidInput, match=said):
                    await run.answer(ask.request, value)
            with pytest.raises(BodyTooLarge):
                await run.answer(ask.request, "x" * 140_000)
            await run.answer(ask.request, {"seats": 2})
            with pytest.raises(InputAnswered):
                await run.answer(ask.request, {"seats": 3})
            assert await run.result() == "2 False"
            with pytest.raises(InputAnswered):
                await run.answer(ask.request, {"seats": 3})


@pytest.mark.anyio
async def test_of_answers_at_once_one_counts() -> None:
    """Ten people answer at the same time: one is taken, nine are told."""
    taken: list[int] = []

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(asker, "who?")
            ask = await open_ask(run)

            async def answer(number: int) -> None:
                try:
                    await run.answer(ask.request, str(number))
                except InputAnswered:
                    return
                taken.append(number)

            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(answer, number)
            assert await run.result() == str(taken[0])
    assert len(taken) == 1


@pytest.mark.anyio
async def test_the_writer_checks_again_and_asks_again() -> None:
    """What only the type's own validator refuses is told, and the question comes again under another id."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(booker, "t")
            first = await open_ask(run)
            await run.answer(first.request, {"seats": 4})
            second = await open_ask(run, 2)
            assert "four seats are never together" in second.prompt
            with pytest.raises(InputExpiredError):
                await run.answer(first.request, {"seats": 5})
            await run.answer(second.request, {"seats": 5, "window": True})
            assert await run.result() == "5 True"
            events = await events_of(run)
    assert [(event.request, event.reason) for event in of_type(events, InputExpired)] == [(first.request, "invalid")]


def test_nobody_answers_in_time() -> None:
    """At its time the question closes, which the agent may handle; a late answer is told so."""

    @as_agent
    async def patient(ctx: Context, task: str) -> str:
        try:
            return await ctx.ask("now?", expires=60)
        except InputExpiredError:
            return "without"

    async def main(clock: VirtualClock) -> None:
        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            run = await runtime.start(patient, "t")
            ask = await open_ask(run)
            assert ask.expires is not None
            began = clock.wall_ms()
            assert await run.result() == "without"
            assert ask.expires - 20 <= clock.wall_ms() <= began + 60_020
            with pytest.raises(InputExpiredError):
                await run.answer(ask.request, "late")
            events = await events_of(run)
        assert [event.reason for event in of_type(events, InputExpired)] == ["expired"]

    virtually(main)


@pytest.mark.promise("P8")
def test_the_deadline_and_the_idle_clock_stand_still_for_a_person() -> None:
    """An hour of waiting for an answer costs nothing; the run's own seconds still count."""

    @as_agent
    async def slow(ctx: Context, task: str) -> str:
        await anyio.sleep(6)
        said = await ctx.ask("?")
        await anyio.sleep(6)
        return said

    async def main(clock: VirtualClock) -> None:
        async with MemoryStore(clock=clock) as store, Runtime(store, clock=clock) as runtime:
            for deadline in (13, 11):
                run = await runtime.start(slow, "t", options=RunOptions(deadline=deadline, idle=7))
                ask = await open_ask(run)
                await anyio.sleep(3600)
                await run.answer(ask.request, "yes")
                if deadline == 13:
                    assert await run.result() == "yes"
                else:
                    with pytest.raises(RunStoppedError, match="deadline"):
                        await run.result()

    virtually(main)


@pytest.mark.anyio
@pytest.mark.promise("P7")
async def test_a_stop_closes_the_question() -> None:
    """Before the agent's end; an answer comes too late."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(asker, "?")
            ask = await open_ask(run)
            await run.stop()
            with pytest.raises(RunStoppedError):
                await run.result()
            events = await events_of(run)
            with pytest.raises(InputExpiredError):
                await run.answer(ask.request, "late")
    assert outline(events)[-3:] == ["asker.1 input.expired", "asker.1 agent.failed", "run.stopped"]
    assert of_type(events, InputExpired)[0].reason == "stopped"


@pytest.mark.anyio
async def test_who_waits_for_a_person_takes_no_place() -> None:
    """With one place for agents, five may ask at once, and a sixth works meanwhile."""

    @as_agent
    async def works(ctx: Context, task: str) -> str:
        return "worked"

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        calls = [await ctx.start(asker, str(n)) for n in range(5)]
        done = await ctx.call(works, "t")
        return f"{done} {[await call.result() for call in calls]}"

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t", options=RunOptions(max_agents=1))
            ask = await open_ask(run, 5)
            state = await run.state()
            while "works.1" not in state.agents or state.agents["works.1"].status != "finished":
                await runtime.store.changed(run.id, state.seq)
                state = await run.state()
            for ask in state.asks:
                await run.answer(ask.request, f"a{ask.prompt}")
            assert await run.result() == "worked ['a0', 'a1', 'a2', 'a3', 'a4']"


@pytest.mark.anyio
async def test_a_letter_of_another_version_and_one_for_nobody() -> None:
    """Neither disturbs the run."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(asker, "?")
            ask = await open_ask(run)
            await runtime.store.post(run.id, "input:x", b'{"kind":"other"}')
            stray = answer_letter(Answer("asker.1.77", "no"))
            await runtime.store.post(run.id, stray.key, stray.body)
            await run.answer(ask.request, "yes")
            assert await run.result() == "yes"


@pytest.mark.anyio
async def test_bad_questions() -> None:
    """No prompt, no time, a type that JSON cannot describe: told to the agent at once."""

    @as_agent
    async def clumsy(ctx: Context, task: str) -> list[str]:
        said: list[str] = []
        for call in (
            lambda: ctx.ask(" "),
            lambda: ctx.ask("?", expires=0),
            lambda: ctx.ask("?", Runtime),
        ):
            try:
                await call()
            except InvalidInput as error:
                said.append(error.detail)
        return said

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            said = await (await runtime.start(clumsy, "t")).result()
    assert len(said) == 3 and "JSON schema" in said[2]


# --- leave for tools --------------------------------------------------------------------------------------------------
ran: list[int] = []


@tool(approve=True)
def pay(amount: int) -> str:
    """Pay."""
    ran.append(amount)
    return f"paid {amount}"


@tool(approve=lambda amount: amount > 10)
async def spend(amount: int) -> str:
    """Spend."""
    return f"spent {amount}"


@pytest.mark.anyio
async def test_a_tool_that_needs_leave() -> None:
    """It runs after a yes; after a no it never does, and model and caller are told why."""

    @as_agent
    async def payer(ctx: Context, task: str) -> list[str]:
        said = [await ctx.tool(pay, 5)]
        try:
            await ctx.tool(pay, 6)
        except ToolDeniedError as error:
            said.append(error.detail)
        return said

    ran.clear()
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(payer, "t")
            first = await open_ask(run)
            assert (first.kind, first.prompt) == ("approval", 'Run the tool pay with {"amount":5}?')
            assert ran == []
            with pytest.raises(InvalidInput):
                await run.answer(first.request, "yes")
            await run.answer(first.request, True)
            second = await open_ask(run, 2)
            assert ran == [5]
            await run.answer(second.request, {"approved": False, "reason": "too much"}, by="kim")
            assert await run.result() == ["paid 5", "the tool pay was not allowed to run: too much"]
            events = await events_of(run)
    assert ran == [5]
    denied = of_type(events, ToolDenied)[0]
    assert (denied.call, denied.by, denied.reason) == (of_type(events, ToolCalled)[1].call, "kim", "too much")
    assert [event.result for event in of_type(events, ToolFinished)] == ["paid 5"]
    assert second.call == denied.call


@pytest.mark.anyio
async def test_a_function_says_which_calls_need_leave() -> None:
    """A small amount goes through, a large one asks."""

    @as_agent
    async def spender(ctx: Context, task: str) -> str:
        return await ctx.tool(spend, 10) + await ctx.tool(spend, 11)

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(spender, "t")
            ask = await open_ask(run)
            assert '"amount":11' in ask.prompt
            await run.answer(ask.request, True)
            assert await run.result() == "spent 10spent 11"


@pytest.mark.anyio
async def test_an_open_leave_is_closed_by_a_stop() -> None:
    """The question first, then the call."""

    @as_agent
    async def payer(ctx: Context, task: str) -> str:
        return await ctx.tool(pay, 7)

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(payer, "t")
            await open_ask(run)
            await run.stop()
            with pytest.raises(RunStoppedError):
                await run.result()
            events = await events_of(run)
    assert outline(events)[-4:] == [
        "payer.1 input.expired",
        "payer.1 tool.failed",
        "payer.1 agent.failed",
        "run.stopped",
    ]


def test_letters_are_small() -> None:
    """An answer's letter holds what was said and nothing else."""
    body = msgspec.json.decode(answer_letter(Answer("a.1.1", "x")).body)
    assert body == {"kind": "answer", "request": "a.1.1", "value": "x"}
