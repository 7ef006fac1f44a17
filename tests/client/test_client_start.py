"""The client's single requests: starting exactly once, files, states, stops, and what servers can say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pydantic
import pytest

from agentstream.agent import Agent, Context, RunOptions, Team
from agentstream.client import RemoteRun, Retry, connect
from agentstream.errors import (
    InvalidInput,
    RunFailedError,
    RunLost,
    RunStoppedError,
    RunUnknown,
    ServerUnreachable,
    UnknownTeam,
    UsageError,
    WireError,
)

pytestmark = pytest.mark.anyio

FAST = Retry(shortest=0.0, longest=0.0, give_up=10.0, silence=5.0)


class Answer(pydantic.BaseModel):
    """What the team of these tests gives."""

    n: int


class Counter(Agent[str, Answer]):
    """Never run here: the server is a script."""

    async def run(self, ctx: Context, task: str, /) -> Answer:
        return Answer(n=1)


async def test_a_repeated_start_has_the_same_key(serve: Callable[..., Any], wire: Any) -> None:
    """Whatever happens to the answer, the request comes again with its key and body, so that one run is started."""
    answers = [
        wire.Reply(b"", "rst"),
        wire.Reply(b"HTTP/1.1 201 Cre", "fin"),
        wire.Reply(wire.whole(502, b"bad gateway", "text/html")),
        wire.Reply(wire.problem(503, "overloaded", "full", retry_after="0")),
        wire.Reply(wire.whole(201, json.dumps({"run": wire.RUN}).encode())),
    ]
    server = serve(lambda n, request: answers[n])
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            run = await client.start("t", {"q": "ü"}, options=RunOptions(deadline=5))
    assert run.id == wire.RUN
    assert len(server.requests) == 5
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    assert {request.body for request in server.requests} == {
        '{"team":"t","input":{"q":"ü"},"options":{"deadline":5.0}}'.encode()
    }
    assert server.requests[0].target == "/runs"


async def test_two_starts_have_two_keys_and_a_given_one_is_kept(serve: Callable[..., Any], wire: Any) -> None:
    """Keys are the client's own unless one is given."""
    server = serve(lambda n, request: wire.Reply(wire.whole(201, json.dumps({"run": wire.RUN}).encode()), "keep"))
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            for key in (None, None, "mine"):
                await client.start("t", "x", key=key)
            with pytest.raises(InvalidInput, match="key"):
                await client.start("t", "x", key="a\nb")
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


async def test_files_go_first(serve: Callable[..., Any], wire: Any, tmp_path: Path) -> None:
    """A file's bytes and name are uploaded, and the run gets the id; a missing one is said before anything is sent."""
    file = tmp_path / "données 1.csv"
    file.write_bytes(b"a,b\r\n\x001,2\n")

    def script(n: int, request: Any) -> Any:
        answer = {"file": "f1"} if request.target == "/files" else {"run": wire.RUN}
        return wire.Reply(wire.whole(201, json.dumps(answer).encode()), "keep")

    server = serve(script)
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            await client.start("t", "x", files=[file])
            with pytest.raises(InvalidInput, match=r"no file 'nope\.csv'"):
                await client.start("t", "x", files=[tmp_path / "nope.csv"])
    upload, start = server.requests
    assert (upload.body, upload.headers["x-file-name"]) == (file.read_bytes(), "donn%C3%A9es%201.csv")
    assert upload.headers["content-type"] == "text/csv"
    assert json.loads(start.body)["files"] == ["f1"]


async def test_errors_have_their_classes(serve: Callable[..., Any], wire: Any) -> None:
    """A problem document's code becomes the class; what it says stays; nothing is asked twice."""
    answers = {
        "unknown": wire.problem(404, "unknown_team", "there is no team"),
        "new": wire.problem(409, "brand_new_code", "of a later version"),
        "model": wire.problem(503, "no_model_configured", "set a variable"),
        "page": wire.whole(301, location="https://elsewhere.example/runs"),
        "odd": wire.whole(200, b"[]"),
    }
    server = serve(lambda n, request: wire.Reply(answers[json.loads(request.body)["team"]], "keep"))
    async with connect(server.url, retry=FAST) as client:
        with anyio.fail_after(10):
            with pytest.raises(UnknownTeam, match="there is no team"):
                await client.start("unknown", "x")
            with pytest.raises(UsageError, match="of a later version") as caught:
                await client.start("new", "x")
            assert caught.value.details == {"status": 409, "code": "brand_new_code"}
            with pytest.raises(UsageError, match="set a variable"):
                await client.start("model", "x")
            with pytest.raises(UsageError, match=r"redirects to https://elsewhere\.example/runs"):
                await client.start("page", "x")
            with pytest.raises(WireError, match="is this an agentstream server"):
                await client.start("odd", "x")
    assert len(server.requests) == 5


@pytest.mark.promise("P6")
async def test_a_run_that_is_gone(serve: Callable[..., Any], wire: Any) -> None:
    """Asking for a run by its id is `RunUnknown`; whoever holds the run gets `RunLost`, from every method."""
    server = serve(lambda n, request: wire.Reply(wire.problem(404, "run_unknown", "no such run"), "keep"))
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            with pytest.raises(RunUnknown):
                await client.get(wire.RUN)
            with pytest.raises(RunUnknown):
                await client.get("../teams")
            run = RemoteRun[object](client._door, wire.RUN)
            for ask in (run.state, run.stop, run.result):
                with pytest.raises(RunLost):
                    await ask()
    assert len(server.requests) == 4


async def test_how_a_run_ended(serve: Callable[..., Any], wire: Any) -> None:
    """A result is the output, an exception says how it ended instead; a large one is fetched from its artifact."""
    ends = [
        '{"seq":4,"type":"run.finished","output":[1,2]}',
        '{"seq":4,"type":"run.failed","code":"agent","message":"it broke"}',
        '{"seq":4,"type":"run.stopped","cause":"user_stop","detail":"enough"}',
        '{"seq":4,"type":"run.finished","output":{"artifact":"a1","uri":"/x","size":9}}',
    ]

    def script(n: int, request: Any) -> Any:
        if request.target.endswith("/artifacts/a1"):
            return wire.Reply(wire.whole(200, b'{"big":1}'), "keep")
        assert request.target.endswith("/events?types=run.%2A&after=tail")
        return wire.Reply(wire.stream(wire.frame(4, ends[n])))

    server = serve(script)
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            run = RemoteRun[Any](client._door, wire.RUN)
            assert await run.result() == [1, 2]
            with pytest.raises(RunFailedError, match="it broke") as failed:
                await run.result()
            with pytest.raises(RunStoppedError, match="enough") as stopped:
                await run.result()
            assert (failed.value.failure, stopped.value.cause) == ("agent", "user_stop")
            assert await run.result() == {"big": 1}


async def test_a_result_has_its_teams_type(serve: Callable[..., Any], wire: Any) -> None:
    """A team that is known here gives its results as its own models."""

    def script(n: int, request: Any) -> Any:
        if request.method == "POST":
            return wire.Reply(wire.whole(201, json.dumps({"run": wire.RUN}).encode()), "keep")
        return wire.Reply(wire.stream(wire.frames(3)))

    server = serve(script)
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            run = await client.start(Team("counter", Counter()), "x")
            assert await run.result() == Answer(n=1)


async def test_stops_say_what_is_asked(serve: Callable[..., Any], wire: Any) -> None:
    """A stop goes out as its body, again after a failure; what cannot be asked is refused here."""
    answers = [wire.Reply(b"", "rst"), wire.Reply(wire.whole(202, b"{}"), "keep")]
    server = serve(lambda n, request: answers[min(n, 1)])
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            run = RemoteRun[object](client._door, wire.RUN)
            await run.stop(reason="r" * 2000)
            await run.stop(inv="executor.1")
            with pytest.raises(InvalidInput, match="mode"):
                await run.stop(inv="executor.1", mode="after_step")
    bodies = [json.loads(request.body) for request in server.requests]
    assert bodies == [{"mode": "now", "reason": "r" * 1000}] * 2 + [{"mode": "now", "inv": "executor.1"}]


@pytest.mark.parametrize(
    "url", ["", "server:8000", "ftp://x", "http://", "http://u:p@h", "http://h/?q", "http://h:99999"]
)
async def test_addresses_that_are_none(url: str) -> None:
    """What is not the address of a server is refused where it is written, without a request."""
    with pytest.raises(InvalidInput, match="looks like http"):
        connect(url)


async def test_it_must_be_entered_and_is_closed() -> None:
    """Outside its `async with` a client says what to do; a client of the user's own stays open."""
    client = connect("http://127.0.0.1:9/prefix/")
    assert (client.url, repr(client)) == ("http://127.0.0.1:9/prefix", "Client('http://127.0.0.1:9/prefix')")
    with pytest.raises(UsageError, match="async with connect"):
        await client.teams()
    async with httpx.AsyncClient() as http:
        async with connect("http://127.0.0.1:9", http=http):
            pass
        assert not http.is_closed


async def test_nothing_for_this_machine_goes_through_a_proxy(
    serve: Callable[..., Any], wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a proxy in the environment, requests to the loopback still go straight; others would go to the proxy."""
    server = serve(lambda n, request: wire.Reply(wire.whole(200, b'{"teams":[{"name":"a","later":1}]}'), "keep"))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with anyio.fail_after(10):
        async with connect(server.url, retry=FAST) as client:
            assert [team.name for team in await client.teams()] == ["a"]
        async with connect("http://192.0.2.1", retry=Retry(shortest=0.0, longest=0.0, give_up=0.0)) as client:
            with pytest.raises(ServerUnreachable, match="ConnectError"):  # at once: by the proxy, which is not there
                await client.teams()
