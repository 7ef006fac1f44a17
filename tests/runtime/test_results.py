"""Inputs and results: checked before the run exists, decoded by annotation, kept where they are large."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import anyio
import pydantic
import pytest
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from agentstream.agent import Context, RunOptions, Team, as_agent
from agentstream.errors import (
    BodyTooLarge,
    DuplicateTeam,
    InvalidInput,
    KeyReused,
    RunFailedError,
    RunGone,
    RunLost,
    RunUnknown,
    UnknownTeam,
)
from agentstream.events import AgentFinished, AgentStarted, RunFinished
from agentstream.runtime import Runtime, run_sync
from run_kit import events_of, idle, of_type

pytestmark = pytest.mark.anyio


class Model(pydantic.BaseModel):
    """A result that pydantic knows."""

    title: str
    score: float = 0.5


@dataclasses.dataclass
class Data:
    """A result of the standard library's kind."""

    rows: list[int]
    best: Model | None = None


class Typed(TypedDict):
    """A result that is a dict."""

    name: str
    n: int


@as_agent
async def gives_model(ctx: Context, task: str) -> Model:
    """A pydantic model."""
    return Model(title=task)


@as_agent
async def gives_data(ctx: Context, task: str) -> Data:
    """A dataclass with a model inside."""
    return Data([1, 2], Model(title=task))


@as_agent
async def gives_typed(ctx: Context, task: str) -> Typed:
    """A TypedDict."""
    return {"name": task, "n": 1}


@as_agent
async def gives_list(ctx: Context, task: str) -> list[Model]:
    """A list of models."""
    return [Model(title=task), Model(title="b", score=1)]


@as_agent
async def gives_nothing(ctx: Context, task: str) -> None:
    """None."""


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (gives_model, Model(title="t")),
        (gives_data, Data([1, 2], Model(title="t"))),
        (gives_typed, {"name": "t", "n": 1}),
        (gives_list, [Model(title="t"), Model(title="b", score=1)]),
        (gives_nothing, None),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_results_come_back_as_annotated(agent: object, expected: object) -> None:
    """Read from the log, a result is an object of the annotated type again; without its team it is plain JSON."""
    with anyio.fail_after(10):
        async with Runtime(teams=[Team("team", agent)]) as runtime:  # type: ignore[arg-type]
            run = await runtime.start(runtime.team("team"), "t")
            result = await run.result()
            assert result == expected
            assert type(result) is type(expected)
            again = await runtime.get(run.id)
            assert await again.result() == expected


async def test_a_result_of_a_call_is_the_object_itself() -> None:
    """Between agents of one process nothing is converted; the log holds its JSON."""

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        data = await ctx.call(gives_data, task)
        assert isinstance(data.best, Model)
        return data.best.title

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == "t"
            finished = of_type(await events_of(run), AgentFinished, "gives_data.1")[0]
    assert finished.result == {"rows": [1, 2], "best": {"title": "t", "score": 0.5}}


async def test_a_result_that_json_cannot_hold_fails_the_run_with_its_code() -> None:
    """The agent's own failure, told when it is to be recorded and not when somebody reads it."""

    @as_agent
    async def odd(ctx: Context, task: str) -> object:
        return object()

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(odd, "t")
            with pytest.raises(RunFailedError) as failed:
                await run.result()
            await events_of(run)
    assert failed.value.failure == "not_serializable"


async def test_a_result_that_does_not_fit_its_annotation_is_lost_and_not_misread() -> None:
    """The reader gets an error that says so instead of an object of the wrong kind."""

    @as_agent
    async def liar(ctx: Context, task: str) -> Model:
        return {"no": "title"}  # type: ignore[return-value]

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(liar, "t")
            with pytest.raises(RunLost, match="does not fit"):
                await run.result()


async def test_large_tasks_and_results_travel_as_artifacts() -> None:
    """The event names the artifact; the caller and `result()` get the value."""
    big = "x" * 300_000

    @as_agent
    async def echo(ctx: Context, task: str) -> str:
        return task + "!"

    @as_agent
    async def boss(ctx: Context, task: str) -> str:
        return await ctx.call(echo, big)

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(boss, "t")
            assert await run.result() == big + "!"
            events = await events_of(run)
            tail = await runtime.store.tail(run.id)
            chunks = await runtime.store.read(run.id, 0, max_bytes=2**30)
    assert chunks[-1].last == tail.last
    assert sum(len(chunk.lines) + len(chunk.private) for chunk in chunks) < 20_000
    task = of_type(events, AgentStarted, "echo.1")[0].task
    result = of_type(events, AgentFinished, "echo.1")[0].result
    assert set(task) == set(result) == {"artifact", "uri", "size"}
    assert result["size"] == 300_003
    assert of_type(events, RunFinished)[0].output == result


# --- inputs -----------------------------------------------------------------------------------------------------------
@as_agent
async def takes_model(ctx: Context, task: Model) -> str:
    """Wants a model."""
    return task.title


async def test_inputs_are_checked_and_converted_before_the_run_exists() -> None:
    """JSON becomes the annotated type; what does not fit names the place; nothing was created."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(takes_model, {"title": "from json"})  # type: ignore[arg-type]
            assert await run.result() == "from json"
            for wrong in ({"titel": "x"}, "text", None):
                with pytest.raises(InvalidInput) as refused:
                    await runtime.start(takes_model, wrong)  # type: ignore[arg-type]
                assert refused.value.details["errors"]
                assert "x" not in str(refused.value.details["errors"][0].get("input", ""))  # type: ignore[index]
            assert len(await runtime.list()) == 1
            await idle(runtime)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
async def test_an_empty_question_is_refused(text: str) -> None:
    """The message says what is missing."""

    @as_agent
    async def agent(ctx: Context, task: str) -> str:
        return task

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            with pytest.raises(InvalidInput, match="empty"):
                await runtime.start(agent, text)


async def test_an_input_that_no_event_holds_is_refused() -> None:
    """It would be the run's first event; the message says to hand in a file."""

    @as_agent
    async def agent(ctx: Context, task: str) -> int:
        return len(task)

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            with pytest.raises(BodyTooLarge, match="file"):
                await runtime.start(agent, "x" * 200_000)
            run = await runtime.start(agent, "x" * 100_000)
            assert await run.result() == 100_000
            (row,) = await runtime.list()
            assert len(row.facts.title) <= 120


async def test_files_are_handed_in_by_path_or_upload(tmp_path: Path) -> None:
    """Readable under `ctx.files`; one that is not there is named, without its folder."""
    path = tmp_path / "numbers.csv"
    path.write_text("a\n1\n")

    @as_agent
    async def read(ctx: Context, task: str) -> list[str]:
        return [f"{file.name} {file.mime} {file.size} {file.path.read_text()}" for file in ctx.files]

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            upload = await runtime.upload("../../evil/up.csv", b"b\n2\n", owner="me")
            uploaded = await runtime.uploaded(upload, owner="me")
            run = await runtime.start(read, "t", files=[path, str(path), uploaded])
            assert await run.result() == ["numbers.csv text/csv 4 a\n1\n"] * 2 + ["up.csv text/csv 4 b\n2\n"]
            for missing in (tmp_path / "no.csv", tmp_path):
                with pytest.raises(InvalidInput, match=missing.name) as refused:
                    await runtime.start(read, "t", files=[missing])
                assert str(tmp_path) + "/" not in str(refused.value)
            with pytest.raises(InvalidInput, match="no uploaded file"):
                await runtime.uploaded(upload, owner="somebody else")
            with pytest.raises(InvalidInput, match="empty"):
                await runtime.upload("x", b"")


# --- names and keys ---------------------------------------------------------------------------------------------------
async def test_a_key_makes_one_run() -> None:
    """The same key and question of the same owner give the run that there is; another question is refused."""
    ran: list[str] = []

    @as_agent
    async def count(ctx: Context, task: str) -> str:
        ran.append(task)
        return task

    with anyio.fail_after(10):
        async with Runtime() as runtime:
            first = await runtime.start(count, "q", key="k", owner="me")
            again = await runtime.start(count, "q", key="k", owner="me")
            assert again.id == first.id
            assert again.incarnation == first.incarnation
            other = await runtime.start(count, "q", key="k", owner="you")
            assert other.id != first.id
            for change in ({"input": "another"}, {"options": RunOptions(deadline=5)}):
                with pytest.raises(KeyReused):
                    await runtime.start(
                        count,
                        change.get("input", "q"),
                        key="k",
                        owner="me",
                        options=change.get("options"),  # type: ignore[arg-type]
                    )
            await first.result()
            await other.result()
            assert ran == ["q", "q"]
            await idle(runtime)


async def test_teams_have_names_of_their_own() -> None:
    """Two of one name are refused; an unknown one lists those there are."""
    with pytest.raises(DuplicateTeam, match="two teams"):
        Runtime(teams=[Team("a", gives_model), Team("a", gives_data)])
    with anyio.fail_after(10):
        async with Runtime(teams=[Team("alpha", gives_model), Team("beta", gives_data)]) as runtime:
            with pytest.raises(UnknownTeam, match="alpha, beta"):
                runtime.team("gamma")


async def test_a_run_is_found_by_its_owner_only() -> None:
    """Unknown, malformed and somebody else's are alike; a deleted one says so."""
    with anyio.fail_after(10):
        async with Runtime() as runtime:
            run = await runtime.start(gives_model, "t", owner="me")
            await run.result()
            assert (await runtime.get(run.id, owner="me")).id == run.id
            details = []
            for run_id, owner in ((run.id, "you"), (run.id, ""), ("A" * 22, "me"), ("../etc", "me"), ("", "me")):
                with pytest.raises(RunUnknown) as unknown:
                    await runtime.get(run_id, owner=owner)
                details.append(str(unknown.value))
            assert len(set(details)) == 1
            await runtime.store.forget(run.id)
            with pytest.raises(RunGone):
                await runtime.get(run.id, owner="me")


@pytest.mark.parametrize("asks", [True, False])
def test_run_sync_runs_without_a_loop(asks: bool) -> None:
    """The result, and every event in order for who asks."""
    seen: list[str] = []
    result = run_sync(gives_model, "t", on_event=(lambda event: seen.append(event.type)) if asks else None)
    assert result == Model(title="t")
    assert seen == (["run.started", "agent.started", "agent.finished", "run.finished"] if asks else [])
