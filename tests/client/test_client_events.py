"""The client's streams against a scripted server on real sockets: every way in which a connection can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from agentstream.client import RemoteRun, Retry, connect
from agentstream.errors import InvalidCursor, RunLost, ServerUnreachable, UsageError, WireError
from agentstream.events import AnyEvent, Reset, TextDelta

pytestmark = pytest.mark.anyio

FAST = Retry(shortest=0.0, longest=0.0, give_up=20.0, silence=5.0)


async def collect(url: str, run: str, *, retry: Retry = FAST, **how: Any) -> tuple[list[AnyEvent | Reset], Any]:
    """Read a run to its end; what came, and the subscription."""
    with anyio.fail_after(20):
        async with connect(url, retry=retry) as client:
            events = RemoteRun(client._door, run).events(**how)
            async with events:
                return [event async for event in events], events


def seqs(events: list[AnyEvent | Reset]) -> list[int]:
    """The numbers of what came."""
    return [event.seq for event in events if not isinstance(event, Reset)]


@pytest.mark.promise("P5", "W-client")
@pytest.mark.parametrize(("end", "chunked"), [("fin", False), ("fin", True), ("rst", True)])
async def test_a_stream_cut_at_every_byte_loses_and_doubles_nothing(
    serve: Callable[..., Any], wire: Any, end: str, chunked: bool
) -> None:
    """Whatever byte the connection ends at, and however, each event arrives once and in order."""
    whole = wire.stream(wire.frames(), chunked=chunked)
    slack = len(b"\r\n0\r\n\r\n") if chunked else 0  # behind the terminal's frame nothing is needed any more
    cut = 0

    def script(n: int, request: Any) -> Any:
        if n % 2 == 0:
            return wire.Reply(whole[:cut], end)
        return wire.Reply(wire.stream(wire.frames(wire.after(request)), chunked=True))

    server = serve(script)
    async with connect(server.url, retry=FAST) as client:
        for cut in range(len(whole)):
            del server.requests[:]
            with anyio.fail_after(20):
                async with RemoteRun(client._door, wire.RUN).events() as subscription:
                    events = [event async for event in subscription]
            assert seqs(events) == [1, 2, 3, 4], f"cut at byte {cut}"
            assert [event.text for event in events if isinstance(event, TextDelta)] == ["Grüße", "数 🦉"]
            assert (subscription.cursor, len(server.requests)) == (wire.id(4), 2 if cut < len(whole) - slack else 1)
    assert len(whole) > 600


@pytest.mark.promise("W-client")
async def test_what_was_received_is_dropped_when_it_comes_again(serve: Callable[..., Any], wire: Any) -> None:
    """A server that repeats frames, in one connection and over two, doubles nothing."""

    def script(n: int, request: Any) -> Any:
        if n == 0:
            return wire.Reply(wire.stream(wire.frame(1) + wire.frame(2) + wire.frame(1) + wire.frame(2)))
        return wire.Reply(wire.stream(wire.frames(0)))

    server = serve(script)
    events, _ = await collect(server.url, wire.RUN)
    assert seqs(events) == [1, 2, 3, 4]
    assert server.requests[1].headers["last-event-id"] == wire.id(2)


@pytest.mark.promise("W-client")
async def test_a_missing_number_is_not_waited_for(serve: Callable[..., Any], wire: Any) -> None:
    """Filters hide numbers: 1 and 4 alone are a whole stream."""
    server = serve(lambda n, request: wire.Reply(wire.stream(wire.frame(1) + wire.frame(4))))
    events, _ = await collect(server.url, wire.RUN, types=("nothing.*",), agents=("a", "b"), coalesce=False)
    assert seqs(events) == [1, 4]
    assert len(server.requests) == 1
    assert server.requests[0].target.endswith("/events?agents=a&agents=b&types=nothing.%2A&coalesce=0")


async def test_204_is_the_end(serve: Callable[..., Any], wire: Any) -> None:
    """A cursor at the end of an ended run: no events, no error, no second request."""
    server = serve(lambda n, request: wire.Reply(b"HTTP/1.1 204 No Content\r\n\r\n"))
    events, subscription = await collect(server.url, wire.RUN, after=wire.id(4))
    assert events == []
    assert subscription.cursor == wire.id(4)
    assert subscription.status.phase == "closed"
    assert [request.headers["last-event-id"] for request in server.requests] == [wire.id(4)]


@pytest.mark.promise("P6")
@pytest.mark.parametrize(("status", "code"), [(404, "run_unknown"), (410, "run_gone"), (404, ""), (410, "")])
async def test_a_run_that_is_gone_is_lost(serve: Callable[..., Any], wire: Any, status: int, code: str) -> None:
    """404 and 410 raise `RunLost` at once, on the first connection as on a later one."""

    def script(n: int, request: Any) -> Any:
        if n == 0:
            return wire.Reply(wire.stream(wire.frame(1)), "rst")
        return wire.Reply(wire.problem(status, code) if code else wire.whole(status, b"<html>", "text/html"))

    server = serve(script)
    with pytest.raises(RunLost):
        await collect(server.url, wire.RUN)
    with pytest.raises(RunLost):
        await collect(server.url, wire.RUN)
    assert len(server.requests) == 3


async def test_a_404_about_something_else_is_not_a_lost_run(serve: Callable[..., Any], wire: Any) -> None:
    """Codes decide, not statuses: an address without routes does not make a run lost."""
    server = serve(lambda n, request: wire.Reply(wire.problem(404, "not_found", "nothing here")))
    with pytest.raises(UsageError, match="nothing here"):
        await collect(server.url, wire.RUN)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_server_in_trouble_is_asked_again(serve: Callable[..., Any], wire: Any, status: int) -> None:
    """5xx and 429 pass: the stream goes on where it was."""

    def script(n: int, request: Any) -> Any:
        if n == 1:
            return wire.Reply(wire.whole(status, b"later", "text/plain"), "keep")
        body = wire.frame(1) if n == 0 else wire.frames(wire.after(request))
        return wire.Reply(wire.stream(body))

    server = serve(script)
    events, subscription = await collect(server.url, wire.RUN)
    assert seqs(events) == [1, 2, 3, 4]
    assert [request.headers.get("last-event-id", "") for request in server.requests] == ["", wire.id(1), wire.id(1)]
    assert subscription.status.resumes == 1


async def test_it_gives_up_in_the_end(serve: Callable[..., Any], wire: Any) -> None:
    """A server that never gives a usable answer ends in a clear error with the last reason; the cursor stays valid."""

    def script(n: int, request: Any) -> Any:
        return wire.Reply(wire.stream(wire.frame(1)) if n == 0 else wire.problem(503, "overloaded", "full house"))

    server = serve(script)
    retry = Retry(shortest=0.0, longest=0.01, give_up=0.05)
    async with connect(server.url, retry=retry) as client:
        events = RemoteRun(client._door, wire.RUN).events()
        with anyio.fail_after(10):
            async with events:
                assert (await anext(events)).seq == 1
                with pytest.raises(ServerUnreachable, match=r"0\.05 s; last: HTTP 503: full house"):
                    await anext(events)
        assert events.cursor == wire.id(1)


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusal_is_raised_at_once(serve: Callable[..., Any], wire: Any, status: int) -> None:
    """What asking again cannot change is raised without a second request."""
    server = serve(lambda n, request: wire.Reply(wire.whole(status, b"no", "text/plain")))
    with pytest.raises(UsageError, match=str(status)):
        await collect(server.url, wire.RUN)
    assert len(server.requests) == 1


async def test_a_typed_refusal_keeps_its_type(serve: Callable[..., Any], wire: Any) -> None:
    """The code of a problem document decides the class."""
    server = serve(lambda n, request: wire.Reply(wire.problem(400, "invalid_cursor", "not a cursor")))
    with pytest.raises(InvalidCursor, match="not a cursor"):
        await collect(server.url, wire.RUN)


async def test_a_cursor_that_is_none_is_refused_before_anything_is_sent(serve: Callable[..., Any], wire: Any) -> None:
    """An `after` that cannot be a cursor never reaches a header."""
    server = serve(lambda n, request: wire.Reply(b""))
    with pytest.raises(InvalidCursor):
        await collect(server.url, wire.RUN, after="a\r\nX-Evil: 1")
    assert server.requests == []


@pytest.mark.promise("P6")
async def test_a_reset_is_handed_out_and_the_log_begins_anew(serve: Callable[..., Any], wire: Any) -> None:
    """After a reset numbers may fall, and the incarnation is the new one."""
    new = f"{wire.RUN}.new000"
    reset = f'id: {new}.0\ndata: {{"type":"reset","reason":"new-log","first":1,"tail":1}}\n\n'.encode()
    again = f'id: {new}.1\ndata: {{"seq":1,"at":9,"type":"run.failed","code":"store"}}\n\n'.encode()

    def script(n: int, request: Any) -> Any:
        return wire.Reply(wire.stream(wire.frame(1) + wire.frame(2) if n == 0 else reset + again))

    server = serve(script)
    events, subscription = await collect(server.url, wire.RUN)
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["RunStarted", "TextDelta", "Reset", "RunFailed"]
    assert subscription.cursor == f"{new}.1"


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (b'id: Rrrrrrrrrrrrrrrrrrrrr1.zzz999.5\ndata: {"seq":5,"type":"custom","name":"n"}\n\n', "without a reset"),
        (b'id: Qqqqqqqqqqqqqqqqqqqqq1.abc123.5\ndata: {"seq":5,"type":"custom","name":"n"}\n\n', "no id of this run"),
        (b'id: 7\ndata: {"seq":7,"type":"custom","name":"n"}\n\n', "no id of this run"),
        (
            (
                b"id: Rrrrrrrrrrrrrrrrrrrrr1.abc123.5\n"
                b'data: {"seq":5,"first_seq":1,"type":"text.delta","block":"b","text":"x"}\n\n'
            ),
            "repeats",
        ),
        (b"id: Rrrrrrrrrrrrrrrrrrrrr1.abc123.5\ndata: not json\n\n", "not an event"),
    ],
)
@pytest.mark.promise("W-client")
async def test_a_stream_that_breaks_the_rules_is_never_spliced(
    serve: Callable[..., Any], wire: Any, frame: bytes, what: str
) -> None:
    """Another log, another run, a frame that overlaps, bytes that are no event: an error, not a guess."""
    server = serve(lambda n, request: wire.Reply(wire.stream(wire.frame(1) + frame)))
    with pytest.raises(WireError, match=what):
        await collect(server.url, wire.RUN)


async def test_something_that_is_no_stream_is_said_to_be_none(serve: Callable[..., Any], wire: Any) -> None:
    """A page in place of a stream is an error that names its type."""
    server = serve(lambda n, request: wire.Reply(wire.whole(200, b"<html>", "text/html")))
    with pytest.raises(WireError, match="text/html"):
        await collect(server.url, wire.RUN)


async def test_redirects_are_followed_with_the_cursor(serve: Callable[..., Any], wire: Any) -> None:
    """A GET follows its redirect, and takes the cursor along."""

    def script(n: int, request: Any) -> Any:
        if not request.target.startswith("/moved"):
            return wire.Reply(wire.whole(307, location="/moved/events"), "keep")
        return wire.Reply(wire.stream(wire.frames(wire.after(request))))

    server = serve(script)
    events, _ = await collect(server.url, wire.RUN, after=wire.id(2))
    assert seqs(events) == [3, 4]


async def test_from_the_tail(serve: Callable[..., Any], wire: Any) -> None:
    """`tail` is asked for until a position is known; `up-to-date` moves the cursor and is not handed out."""
    up = f'id: {wire.id(2)}\ndata: {{"type":"up-to-date","seq":2}}\n\n'.encode()
    bodies = [b"", up, wire.frames(2)]
    server = serve(lambda n, request: wire.Reply(wire.stream(bodies[n])))
    events, _ = await collect(server.url, wire.RUN, after="tail")
    assert seqs(events) == [3, 4]
    assert [request.target.partition("?")[2] for request in server.requests] == ["after=tail", "after=tail", ""]
    assert server.requests[2].headers["last-event-id"] == wire.id(2)


async def test_a_reader_that_is_cancelled_goes_on(serve: Callable[..., Any], wire: Any) -> None:
    """A limit around one read does not lose an event or the connection's position."""

    def script(n: int, request: Any) -> Any:
        body = wire.frames(wire.after(request)) if n else wire.frame(1)
        return wire.Reply(wire.stream(body), "fin" if n else "hang")

    server = serve(script)
    async with connect(server.url, retry=FAST) as client, RemoteRun(client._door, wire.RUN).events() as events:
        with anyio.fail_after(10):
            assert (await anext(events)).seq == 1
            with anyio.move_on_after(0.05) as waiting:
                await anext(events)
            assert waiting.cancelled_caught
            assert seqs([event async for event in events]) == [2, 3, 4]


async def test_lines_are_the_bytes_of_the_log(serve: Callable[..., Any], wire: Any) -> None:
    """`line` is what the server sent, fields that this version does not know included."""
    odd = '{"seq":1,"at":1,"type":"future.thing","x":{"deep":[1,2]}}'
    server = serve(lambda n, request: wire.Reply(wire.stream(wire.frame(1, odd) + wire.frame(4))))
    async with connect(server.url, retry=FAST) as client, RemoteRun(client._door, wire.RUN).events() as events:
        event = await anext(events)
        assert (event.type, events.line) == ("future.thing", odd.encode())
