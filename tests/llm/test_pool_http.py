"""A pool over real sockets: faults of servers, connections that are kept, closed and counted, and nothing left open."""

from __future__ import annotations

import email.utils
import logging
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from agentstream.errors import InvalidInput, LLMError, LLMServerError, LLMTimeout, StreamBroken
from agentstream.llm import Finish, TextPart
from agentstream.llm._limits import read_limits
from agentstream.llm.endpoint import Endpoint, PoolOptions
from agentstream.llm.pool import EndpointPool
from agentstream.policy import Retry
from llm.chat_server import HEAD, Behaviour, ChatServer, answer, cut, hang, part, refuse, serving, text
from llm.pool_kit import ASK, KEY, PROMPT, text_of

pytestmark = pytest.mark.anyio

WITHIN_S = 1.0  # in which a connection must be closed that nobody needs


def endpoint(server: ChatServer, name: str, **fields: Any) -> Endpoint:  # Any: fields of a pydantic model
    """A description of the server."""
    return Endpoint.model_validate({"url": server.url, "model": "m", "name": name, "key": KEY, **fields})


@asynccontextmanager
async def pooled(*behaviours: Behaviour, **arguments: Any) -> AsyncIterator[tuple[EndpointPool, list[ChatServer]]]:
    """A pool over a server for each behaviour, tier by tier; at the end no connection is open."""
    fields = arguments.pop("fields", {})
    with anyio.fail_after(20):
        async with serving(*behaviours) as servers:
            endpoints = [endpoint(one, f"e{tier}", tier=tier, **fields) for tier, one in enumerate(servers)]
            pool = EndpointPool("main", endpoints, **arguments)
            try:
                yield pool, servers
            finally:
                await pool.aclose()
            with anyio.fail_after(WITHIN_S):
                for server in servers:
                    await server.until_open(0)


# --- faults -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(refuse("500 Oops"), id="500"),
        pytest.param(refuse("503 Busy"), id="503"),
        pytest.param(refuse("429 Slow", "retry-after: 30"), id="429"),
        pytest.param(refuse("402 Pay"), id="402"),
        pytest.param(cut(), id="cut before the head"),
        pytest.param(cut(reset=True), id="reset before the head"),
        pytest.param(hang, id="hang"),
        pytest.param(answer("x", headers=b"content-encoding: gzip\r\n"), id="gzip"),
        pytest.param(refuse("200 OK", "content-type: text/event-stream"), id="empty"),
        pytest.param(
            refuse("200 OK", "content-type: text/event-stream", body=b'data: {"error": {"code": 503}}\n\n'),
            id="an error in band",
        ),
        pytest.param(refuse("200 OK", "content-type: text/event-stream", body=b"data: {\n\n"), id="broken JSON"),
    ],
)
async def test_a_fault_before_the_first_token_is_not_seen(behave: Behaviour) -> None:
    """The other endpoint answers."""
    fields = {"timeouts": {"first_token": 0.2}}
    async with pooled(behave, answer(), fields=fields) as (pool, servers):
        assert await text_of(pool) == "Hello"
        assert (servers[0].asked, servers[1].asked) == (1, 1)
        assert pool.statistics().failovers == 1


async def test_nobody_listens() -> None:
    """A refused connection costs no time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with pooled(answer()) as (pool, _):
        await pool.add(Endpoint(url=f"http://127.0.0.1:{port}/v1", name="dead"))
        await pool.failover("e0")
        pool.restore("e0")
        found = await pool.check("dead")
        assert (found["dead"].ok, found["dead"].code, found["dead"].status) == (False, "llm_connection", 0)
        for _ in range(10):
            assert await text_of(pool) == "Hello"


async def test_a_cut_in_the_middle_is_seen_and_not_spliced() -> None:
    """Streamed, the reader gets what came and the error; `complete` gets one whole answer."""
    async with pooled(cut("Hel", "lo"), answer("whole")) as (pool, servers):
        async with pool.stream(ASK) as stream:
            words: list[object] = []

            async def read() -> None:
                async for delta in stream:
                    words.append(delta)  # noqa: PERF401  (kept when it breaks off)

            with pytest.raises(StreamBroken) as caught:
                await read()
            assert words == [TextPart("Hel"), TextPart("lo")][: len(words)]
            assert caught.value.details["endpoint"] == "e0"
        assert servers[1].asked == 0
        assert (await pool.complete(ASK)).text == "whole"


async def test_silence_after_the_first_token() -> None:
    """Ends at the limit between tokens, and is held against the endpoint."""

    async def stops(stream: anyio.abc.SocketStream) -> None:
        await stream.send(HEAD + b"\r\n" + part(text("Hel")))
        await hang(stream)

    async with pooled(stops, answer("whole"), fields={"timeouts": {"between_tokens": 0.2}}) as (pool, _):
        with pytest.raises(LLMTimeout):
            await text_of(pool)
        assert pool.statistics().endpoints[0].failed == 1
        assert (await pool.complete(ASK)).text == "whole"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["retry-after: 7"], 7.0),
        (["retry-after: 1.5"], 1.5),
        (["retry-after-ms: 250", "retry-after: 7"], 0.25),
        (["retry-after: DATE"], 30.0),
        (["x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 6m0s"], 60.0),
        (["anthropic-ratelimit-requests-remaining: 0", "anthropic-ratelimit-requests-reset: RFC"], 30.0),
        ([], 1.0),
    ],
)
async def test_every_form_of_retry_after(headers: list[str], seconds: float) -> None:
    """Seconds, fractions, milliseconds, dates, and what providers say about their limits: kept to the second."""
    later = time.time() + 30
    date = email.utils.formatdate(later, usegmt=True)
    rfc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(later))
    lines = [line.replace("DATE", date).replace("RFC", rfc) for line in headers]
    async with pooled(refuse("429 Slow", *lines), answer()) as (pool, servers):
        assert await text_of(pool) == "Hello"
        one = pool.statistics().endpoints[0]
        assert one.state == "rate"
        assert seconds - 1.5 <= one.available_in <= seconds
        if seconds < 1:
            await anyio.sleep(0.3)  # what was asked for is over, by the machine's own clock
            servers[0].behave = answer("back")
            assert await text_of(pool) == "back"


async def test_x_should_retry() -> None:
    """The provider's own advice goes before the rule."""
    async with pooled(refuse("500 Oops", "x-should-retry: false"), answer()) as (pool, servers):
        with pytest.raises(LLMServerError):
            await text_of(pool)
        assert servers[1].asked == 0


# --- connections ------------------------------------------------------------------------------------------------------
async def test_connections_are_kept_and_counted() -> None:
    """One serves many calls; a new one is measured."""
    async with pooled(answer()) as (pool, servers):
        for _ in range(5):
            await text_of(pool)
        statistics = pool.statistics()
        assert (servers[0].connections, statistics.connections) == (1, 1)
        assert 0 < statistics.connect_time < 1


async def test_connecting_ahead_is_parallel() -> None:
    """Entering connects to all at once; the first call finds its connection there."""
    slow = refuse("200 OK", after=0.3)
    async with pooled(*[answer()] * 5) as (pool, servers):
        for server in servers:
            server.fetch = slow
        began = anyio.current_time()
        found = await pool.prewarm()
        assert anyio.current_time() - began < 1.0
        assert all(one.ok and one.status == 200 for one in found.values())
        await text_of(pool)
        assert [server.connections for server in servers] == [1] * 5
    async with pooled(*[answer()] * 3) as (pool, servers), pool:
        for server in servers:
            await server.until_open(1)


async def test_the_key_goes_where_it_belongs() -> None:
    """A check carries it in the provider's header, and a status in 4xx other than 401 is well."""
    for status, ok in (("404 None", True), ("403 No", True), ("401 No", False), ("500 Oops", False)):
        async with pooled(answer()) as (pool, servers):
            servers[0].fetch = refuse(status)
            assert (await pool.check("e0"))["e0"].ok is ok
            assert servers[0].heads[0].startswith(b"GET /v1/models HTTP/1.1")
            assert b"authorization: bearer " + KEY.encode() in servers[0].heads[0].lower()
    async with pooled(answer(), fields={"provider": "anthropic", "health_check": {"path": "/up"}}) as (pool, servers):
        await pool.check()
        assert servers[0].heads[0].startswith(b"GET /v1/up HTTP/1.1")
        assert b"x-api-key: " + KEY.encode() in servers[0].heads[0].lower()


async def test_idle_connections_are_closed() -> None:
    """Inside `async with` those of an endpoint that nobody asks; a later call makes a new one."""
    async with pooled(answer(), options=PoolOptions(idle_after=0.3)) as (pool, servers), pool:
        await text_of(pool)
        await servers[0].until_open(0)
        assert await text_of(pool) == "Hello"
        assert servers[0].open == 1


async def test_an_endpoint_keeps_as_many_as_it_may() -> None:
    """Connections above the number that is kept are closed behind their calls."""
    slow = answer(first=0.2)
    async with pooled(slow, fields={"connections": {"kept": 2}}) as (pool, servers):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(text_of, pool)
            await servers[0].until_open(5)
        await servers[0].until_open(2)


# --- closing ----------------------------------------------------------------------------------------------------------
async def hanging_after_a_word(stream: anyio.abc.SocketStream) -> None:
    """One word, and then nothing."""
    await stream.send(HEAD + b"\r\n" + part(text("Hel")))
    await hang(stream)


@pytest.mark.parametrize("behave", [hang, hanging_after_a_word])
async def test_cancelling_closes_the_connection(behave: Behaviour) -> None:
    """Within a second, before the first token and after it; the endpoint is not blamed."""
    async with pooled(behave) as (pool, servers):
        async with anyio.create_task_group() as group:
            group.start_soon(text_of, pool)
            await servers[0].until_asked(1)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        with anyio.fail_after(WITHIN_S):
            await servers[0].until_open(0)
        one = pool.statistics().endpoints[0]
        assert (one.cancelled, one.failed, one.active) == (1, 0, 0)


async def test_closing_the_pool_closes_its_streams() -> None:
    """An answer that is being read ends in an error, its connection is closed, and so are the idle ones."""
    async with pooled(hanging_after_a_word, answer()) as (pool, servers):
        await pool.prewarm()
        async with pool.stream(ASK) as stream:
            assert await anext(stream) == TextPart("Hel")
            async with anyio.create_task_group() as group:
                group.start_soon(pool.aclose)
                with pytest.raises(LLMError):
                    await anext(stream)
        with anyio.fail_after(WITHIN_S):
            for server in servers:
                await server.until_open(0)
        assert pool.streams() == []


async def test_cancelling_the_block_closes_everything() -> None:
    """A pool whose block is cancelled closes its idle connections too."""
    async with pooled(answer(), answer()) as (pool, servers):
        async with anyio.create_task_group() as group:

            async def live() -> None:
                async with pool:
                    await anyio.sleep_forever()

            group.start_soon(live)
            for server in servers:
                await server.until_open(1)
            group.cancel_scope.cancel()
        with anyio.fail_after(WITHIN_S):
            for server in servers:
                await server.until_open(0)


async def test_removing_with_a_cut() -> None:
    """The answer that is being read ends in `StreamBroken`; others are not touched."""
    async with pooled(hanging_after_a_word, answer()) as (pool, servers), pool.stream(ASK) as stream:
        assert await anext(stream) == TextPart("Hel")
        async with anyio.create_task_group() as group:

            async def remove() -> None:
                await pool.remove("e0", cut=True)

            group.start_soon(remove)
            with pytest.raises(StreamBroken):
                await anext(stream)
        with anyio.fail_after(WITHIN_S):
            await servers[0].until_open(0)
        assert await text_of(pool) == "Hello"
        assert pool.statistics().retry_tokens == 10


async def test_failover_closes_what_waited() -> None:
    """A call without a token goes on elsewhere, and its connection is closed."""
    async with pooled(hang, answer()) as (pool, servers):
        got: list[str] = []

        async def ask() -> None:
            got.append(await text_of(pool))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await servers[0].until_asked(1)
            await anyio.wait_all_tasks_blocked()
            assert await pool.failover("e0") == 1
        assert got == ["Hello"]
        with anyio.fail_after(WITHIN_S):
            await servers[0].until_open(0)


async def test_a_client_that_was_handed_in() -> None:
    """Is used for all endpoints and stays open; what is still read over it is closed with the pool."""
    async with httpx.AsyncClient() as given, serving(hanging_after_a_word, answer()) as servers:
        endpoints = [endpoint(one, f"e{tier}", tier=tier) for tier, one in enumerate(servers)]
        pool = EndpointPool("main", endpoints, http=given)
        with anyio.fail_after(10):
            async with pool.stream(ASK) as stream:
                assert await anext(stream) == TextPart("Hel")
                async with anyio.create_task_group() as group:
                    group.start_soon(pool.aclose)
                    with pytest.raises(LLMError):
                        await anext(stream)
            await servers[0].until_open(0)
        assert not given.is_closed


# --- what is told -----------------------------------------------------------------------------------------------------
async def test_the_log_names_connections_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """With the switch a line says which connection was established in how many ms; never a key, a prompt, an answer."""
    caplog.set_level(logging.DEBUG, "agentstream")
    said = answer("secret answer")
    async with pooled(refuse("500 No", body=PROMPT.encode()), said, options=PoolOptions(debug=True)) as (pool, _):
        await text_of(pool)
        await pool.check()
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("agentstream"))
    assert "pool main: main-1: connection e0#1 established in " in ours
    assert "pool main: main-1: connection e1#1 established in " in ours
    assert "pool main: main-1: e0 failed: llm_server" in ours
    assert "pool main: check: answered over connection e0#1" in ours
    assert not [secret for secret in (KEY, PROMPT, "secret answer") if secret in ours]


async def test_allowances_are_read_and_warned_of() -> None:
    """What a provider says is left is shown, and told when it is nearly used up."""
    alarms: list[str] = []
    headers = b"x-ratelimit-limit-tokens: 1000\r\nx-ratelimit-remaining-tokens: 50\r\nx-ratelimit-reset-tokens: 1m\r\n"
    options = PoolOptions(on_alarm=lambda alarm: alarms.append(alarm.kind))
    async with pooled(answer(headers=headers), options=options) as (pool, _):
        async with pool.stream(ASK) as stream:
            assert [type(delta) async for delta in stream][-1] is Finish
        assert pool.statistics().endpoints[0].allowance_left == 0.05
        assert alarms == ["allowance"]


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, []),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "1m2.5s"}, [("tokens", 0, 5, 62.5)]),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-limit-requests": "10"}, [("requests", 10, 5, 0)]),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "12"}, [("requests", 0, 1, 12)]),
        (
            {
                "anthropic-ratelimit-input-tokens-remaining": "7",
                "anthropic-ratelimit-input-tokens-reset": "1970-01-01T00:02:00Z",
            },
            [("input-tokens", 0, 7, 60)],
        ),
        ({"x-ratelimit-remaining-requests": "many"}, []),
        ({"x-ratelimit-remaining-requests": "-1"}, []),
        ({"x-ratelimit-remaining-requests": "nan"}, []),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "soon" * 99}, [("requests", 0, 1, 0)]),
    ],
)
async def test_limits_in_headers(headers: dict[str, str], limits: list[tuple[str, float, float, float]]) -> None:
    """Every form that is known is understood; nonsense is left out."""
    found = read_limits(headers, wall=60.0)
    assert [tuple(limit) for limit in found] == limits
    assert all(math.isfinite(limit.reset) for limit in found)


async def test_a_key_that_no_header_carries() -> None:
    """Is refused when the pool is made, and not repeated."""
    with pytest.raises(InvalidInput) as caught:
        EndpointPool("p", [Endpoint.model_validate({"url": "http://h/v1", "key": "sk x\n"})])
    assert "sk x" not in str(caught.value)


async def test_many_calls_at_once() -> None:
    """Two hundred calls over three servers, one of which fails: all answered, nothing left."""
    async with pooled(answer(), refuse("500 Oops"), answer(), retry=Retry(budget=1000)) as (pool, _):
        for one in pool.endpoints:
            await pool.update(one.model_copy(update={"tier": 0}))
        got: list[str] = []

        async def ask() -> None:
            got.append(await text_of(pool))

        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(ask)
        assert got == ["Hello"] * 200
        statistics = pool.statistics()
        assert (statistics.succeeded, statistics.failed, statistics.active) == (200, 0, 0)
