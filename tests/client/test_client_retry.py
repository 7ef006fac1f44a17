"""When the client tries again: the pure counter, and its timers under virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
import trio.testing

from agentstream.client import RemoteRun, Retry, Status, connect
from agentstream.client._retry import Outage
from agentstream.errors import InvalidInput, ServerUnreachable
from agentstream.events import Reset


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Give each test a clock that jumps when everybody waits."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Script(httpx.AsyncBaseTransport):
    """Answers try n with `answers[n]`, the last one for ever; writes down when each try came."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.times: list[float] = []
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers[min(len(self.times), len(self.answers) - 1)]
        self.times.append(anyio.current_time())
        self.requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple):
            return httpx.Response(answer[0], headers=answer[1])
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Stream(answer))


class _Stream(httpx.AsyncByteStream):
    """Bytes are sent, numbers are seconds of silence."""

    def __init__(self, parts: list[bytes | float]) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            else:
                await anyio.sleep(part)


async def read(script: Script, wire: Any, retry: Retry | None = None) -> tuple[list[int], list[Status]]:
    """Read a run to its end; its numbers, and the status seen with each event."""
    http = httpx.AsyncClient(transport=script)
    client = connect("http://server", retry=retry, http=http)
    async with http, client, RemoteRun(client._door, wire.RUN).events() as events:
        seen = [(event.seq, events.status) async for event in events if not isinstance(event, Reset)]
    return [seq for seq, _ in seen], [status for _, status in seen]


@pytest.mark.anyio
@pytest.mark.promise("W-client")
async def test_a_silent_stream_is_dead_after_45_seconds(wire: Any) -> None:
    """No byte for 45 s ends a connection that nobody closed; heartbeats keep it, however long the run says nothing."""
    beats: list[bytes | float] = [b": hb\n", 44.0] * 200
    script = Script([wire.frame(1), *beats, wire.frame(2), 10_000.0], [wire.frames(2)])
    seqs, statuses = await read(script, wire)
    assert seqs == [1, 2, 3, 4]
    assert 45.0 <= script.times[1] - script.times[0] - 200 * 44.0 <= 46.0
    assert script.requests[1].headers["last-event-id"] == wire.id(2)
    assert [status.resumes for status in statuses] == [0, 0, 1, 1]


@pytest.mark.anyio
async def test_waits_grow_at_random_and_are_bounded(wire: Any) -> None:
    """Refused connections: each wait is within 0.2 s and twice the last bound, never above 15 s, and the total ends."""
    script = Script(httpx.ConnectError("refused"))
    with pytest.raises(ServerUnreachable, match=r"gave no usable answer for 300 s; last: ConnectError: refused"):
        await read(script, wire)
    waits = [b - a for a, b in zip(script.times, script.times[1:], strict=False)]
    assert all(0.2 <= wait <= min(15.0, 0.4 * 2**n) + 1e-6 for n, wait in enumerate(waits[:-1]))
    assert script.times[-1] - script.times[0] == pytest.approx(300.0, abs=1e-6)  # the last try is made when time is up
    assert len({round(wait, 6) for wait in waits}) > 10


@pytest.mark.anyio
async def test_retry_after_is_waited_for(wire: Any) -> None:
    """`Retry-After` is the least wait; one of a day is not believed."""
    script = Script((503, {"retry-after": "7"}), (503, {"retry-after": "86400"}), [wire.frames()])
    seqs, _ = await read(script, wire)
    assert seqs == [1, 2, 3, 4]
    waits = [b - a for a, b in zip(script.times, script.times[1:], strict=False)]
    assert waits[0] == pytest.approx(7.0, abs=0.01)
    assert waits[1] == pytest.approx(60.0, abs=0.01)


@pytest.mark.anyio
async def test_a_quiet_run_is_no_outage(wire: Any) -> None:
    """A connection that lived 15 s was a good one: cuts every 20 s for an hour never add up to giving up."""
    script = Script(*[[b": ok\n", 20.0]] * 180, [wire.frames()])
    seqs, _ = await read(script, wire)
    assert seqs == [1, 2, 3, 4]
    assert script.times[-1] - script.times[0] > 3600


@pytest.mark.anyio
async def test_a_server_that_only_hangs_up_is_given_up(wire: Any) -> None:
    """200s that end at once without an event are an outage too, and honour the stream's `retry:`."""
    script = Script([b"retry: 8000\n: ok\n"])
    with pytest.raises(ServerUnreachable, match="the stream ended before the run did"):
        await read(script, wire, Retry(give_up=100.0))
    assert len(script.times) < 40  # with the base of 8 s the waits are longer than the default's


@pytest.mark.anyio
async def test_an_answer_that_never_begins_is_given_up(wire: Any) -> None:
    """A server that accepts and says nothing is tried again after the silence, like a stream that stalls."""

    class Hung(Script):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if len(self.times) == 1:
                await anyio.sleep_forever()
            return response

    script = Hung([wire.frames()])
    assert (await read(script, wire))[0] == [1, 2, 3, 4]
    assert 45.0 < script.times[1] - script.times[0] < 46.0


def test_the_counter_is_pure() -> None:
    """Waits follow from failures, time and the number handed in; a success forgets them."""
    outage = Outage(Retry(shortest=1.0, longest=8.0, give_up=100.0), lambda: 0.5)
    assert [outage.failed(now) for now in (0.0, 10.0, 20.0, 30.0, 40.0)] == [1.5, 2.5, 4.5, 4.5, 4.5]
    assert outage.failures == 5
    assert outage.failed(99.0) == pytest.approx(1.0)  # no longer than the time that is left
    assert outage.failed(100.0) is None
    outage.over()
    assert (outage.failures, outage.failed(500.0), outage.failed(501.0, at_least=30.0)) == (0, 1.5, 30.0)
    assert outage.failed(502.0, base=0.0) is not None


@pytest.mark.parametrize("wrong", [{"shortest": -1.0}, {"shortest": 2.0, "longest": 1.0}, {"silence": 0.0}])
def test_times_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    """A retry that could spin backwards or never listen is refused where it is written."""
    with pytest.raises(InvalidInput, match="shortest"):
        Retry(**wrong)
