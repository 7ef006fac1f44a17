"""Bad requests: each gets a problem document with its code, starts nothing, and loses nothing that was accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import anyio
import pytest

from agentstream.answer import Message
from agentstream.web import WebOptions
from web.serving import SECRET, Serving, events_of, serving

pytestmark = pytest.mark.anyio

GOOD = {"team": "echo", "input": "x"}
JSON = {"content-type": "application/json"}


class Bad(NamedTuple):
    """A request, and what it is answered with."""

    what: str
    status: int
    code: str
    body: Any = GOOD
    headers: Mapping[str, str] = MappingProxyType({})
    method: str = "POST"
    path: str = "/runs"
    says: str = ""


ROWS = [
    Bad("unknown team", 404, "unknown_team", {"team": "nobody", "input": "x"}, says="echo"),
    Bad("empty question", 422, "invalid_input", {"team": "echo", "input": " \n"}, says="empty"),
    Bad("input of another type", 422, "invalid_input", {"team": "echo", "input": 5}),
    Bad(
        "input that does not fit its model",
        422,
        "invalid_input",
        {"team": "asked", "input": {"text": "x", "times": 0}},
        says="times",
    ),
    Bad("no input", 422, "invalid_input", {"team": "echo"}, says="input"),
    Bad("no team", 422, "invalid_input", {"input": "x"}, says="team"),
    Bad("unknown field", 422, "invalid_input", {**GOOD, "colour": 1}, says="colour"),
    Bad("long unknown field", 422, "invalid_input", {**GOOD, "c" * 9000: 1}),
    Bad("unknown option", 422, "invalid_input", {**GOOD, "options": {"speed": 1}}, says="options.speed"),
    Bad("option out of bounds", 422, "invalid_input", {**GOOD, "options": {"deadline": -1}}, says="options.deadline"),
    Bad("option as text", 422, "invalid_input", {**GOOD, "options": {"max_agents": "5"}}, says="options.max_agents"),
    Bad("file that was never uploaded", 422, "invalid_input", {**GOOD, "files": ["0" * 64]}, says="POST /files"),
    Bad("path as a file", 422, "invalid_input", {**GOOD, "files": ["/etc/passwd"]}),
    Bad("files as text", 422, "invalid_input", {**GOOD, "files": "a"}, says="files"),
    Bad("body that is no object", 422, "invalid_input", [1]),
    Bad("null", 422, "invalid_input", None),
    Bad("wrong JSON", 400, "invalid_json", b'{"team": ', JSON),
    Bad("no body", 400, "invalid_json", b"", JSON),
    Bad("NaN", 400, "invalid_json", b'{"team": "echo", "input": NaN}', JSON),
    Bad("not UTF-8", 400, "invalid_json", b'{"team": "\xff"}', JSON),
    Bad("nested too deep", 400, "invalid_json", b"[" * 10_000, JSON),
    Bad("a form", 415, "unsupported_media_type", b"team=echo", {"content-type": "application/x-www-form-urlencoded"}),
    Bad("text", 415, "unsupported_media_type", json.dumps(GOOD).encode(), {"content-type": "text/plain"}),
    Bad("no type", 415, "unsupported_media_type", json.dumps(GOOD).encode(), says="application/json"),
    Bad("compressed", 415, "unsupported_media_type", b"x", {**JSON, "content-encoding": "gzip"}),
    Bad("too large", 413, "body_too_large", {"team": "echo", "input": "x" * 20_000}, says="16,384"),
    Bad("empty key", 422, "invalid_input", GOOD, {"idempotency-key": ""}, says="Idempotency-Key"),
    Bad("long key", 422, "invalid_input", GOOD, {"idempotency-key": "k" * 256}),
    Bad("key that is not printable", 422, "invalid_input", GOOD, {"idempotency-key": "a\tb"}),
    Bad("id of an event of no run", 404, "run_unknown", GOOD, {"last-event-id": "AAAAAAAAAAAAAAAAAAAAAA.aaaaaa.1"}),
    Bad("id of nothing", 404, "run_unknown", GOOD, {"last-event-id": "17"}),
    Bad("empty id of an event", 400, "invalid_cursor", GOOD, {"last-event-id": ""}),
    Bad("long id of an event", 400, "invalid_cursor", GOOD, {"last-event-id": "x" * 129}),
    Bad(
        "stream of an unknown dialect", 400, "usage", GOOD, {"accept": "text/event-stream"}, path="/runs?dialect=morse"
    ),
    Bad("run not found", 404, "run_unknown", method="GET", path="/runs/AAAAAAAAAAAAAAAAAAAAAA"),
    Bad("run id that is none", 404, "run_unknown", method="GET", path="/runs/nonsense"),
    Bad("run id with a slash in it", 404, "not_found", method="GET", path="/runs/..%2Fx"),
    Bad("artifact of no run", 404, "run_unknown", method="GET", path="/runs/nonsense/artifacts/x"),
    Bad("stop of no run", 404, "run_unknown", {}, path="/runs/nonsense/stop"),
    Bad("limit of nothing", 422, "invalid_input", method="GET", path="/runs?limit=0", says="1 to 200"),
    Bad("limit that is no number", 422, "invalid_input", method="GET", path="/runs?limit=%D9%A3"),
    Bad("limit that is too large", 422, "invalid_input", method="GET", path="/runs?limit=201"),
    Bad("page before no run", 422, "invalid_input", method="GET", path="/runs?before=x", says="next"),
    Bad("page before an unknown run", 404, "run_unknown", method="GET", path="/runs?before=AAAAAAAAAAAAAAAAAAAAAA"),
    Bad("far too many fields", 422, "invalid_input", method="GET", path="/runs?" + "a=1&" * 65),
    Bad("nothing there", 404, "not_found", method="GET", path="/nothing"),
    Bad("nothing below", 404, "not_found", method="GET", path="/teams/echo"),
    Bad("wrong method", 405, "method_not_allowed", method="DELETE", path="/runs"),
    Bad("empty file", 422, "invalid_input", b"", path="/files", says="empty"),
    Bad(
        "a form with a file",
        415,
        "unsupported_media_type",
        b"x",
        {"content-type": "multipart/form-data"},
        path="/files",
    ),
    Bad("name that is not UTF-8", 422, "invalid_input", b"x", {"x-file-name": "%ff"}, path="/files"),
    Bad("long name", 422, "invalid_input", b"x", {"x-file-name": "n" * 1025}, path="/files"),
]

STOPS = [
    Bad("unknown field", 422, "invalid_input", {"now": True}),
    Bad("unknown mode", 422, "invalid_input", {"mode": "later"}, says="mode"),
    Bad("mode that is not for invocations", 422, "invalid_input", {"inv": "echo.1", "mode": "after_step"}),
    Bad("unknown invocation", 404, "invocation_unknown", {"inv": "echo.9"}),
    Bad("wrong JSON", 400, "invalid_json", b"{", JSON),
    Bad("text", 415, "unsupported_media_type", b"{}", {"content-type": "text/plain"}),
]

EVENTS = [
    Bad("long cursor", 400, "invalid_cursor", path="after=" + "x" * 129),
    Bad("cursor that is not printable", 400, "invalid_cursor", path="after=a%00b"),
    Bad("coalesce that is neither", 422, "invalid_input", path="coalesce=maybe"),
    Bad("unknown dialect", 400, "usage", path="dialect=morse"),
]


async def ask(web: Serving, bad: Bad, path: str = "") -> dict[str, Any]:
    """Send a bad request; what every problem document must be is asserted here."""
    raw = isinstance(bad.body, bytes)
    headers = bad.headers if raw else {**JSON, **bad.headers}
    content = b"" if bad.method == "GET" else bad.body if raw else json.dumps(bad.body).encode()
    response = await web.http.request(bad.method, path or bad.path, content=content, headers=headers)
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert response.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (bad.status, bad.status, bad.code), problem
    assert bad.says in problem["detail"], problem
    assert len(response.content) < 4096
    for leak in ("Traceback", ".py", "site-packages", "pydantic.dev"):
        assert leak not in response.text
    return problem


@pytest.mark.promise("W-problem", "W-before-200")
async def test_every_bad_request() -> None:
    """Each is refused with its own code; none starts a run; the run that was there is whole."""
    with anyio.fail_after(20):
        async with serving(WebOptions(max_body_bytes=16384)) as web:
            run = await web.finish()
            before = (await web.http.get(f"/runs/{run}/events")).content
            for bad in ROWS:
                await ask(web, bad)
            for bad in STOPS:
                await ask(web, bad, f"/runs/{run}/stop")
            for bad in EVENTS:
                await ask(web, bad._replace(method="GET"), f"/runs/{run}/events?{bad.path}")
            assert [row["run"] for row in (await web.http.get("/runs")).json()["runs"]] == [run]
            assert (await web.http.get(f"/runs/{run}/events")).content == before


async def test_the_body_says_where() -> None:
    """`details` names the place of each complaint for programs."""
    with anyio.fail_after(10):
        async with serving() as web:
            bad = Bad("two", 422, "invalid_input", {**GOOD, "files": [1], "options": {"deadline": "x"}})
            problem = await ask(web, bad)
            assert [error["loc"] for error in problem["details"]["errors"]] == [["files", "0"], ["options", "deadline"]]


async def test_allow_lists_the_methods() -> None:
    """405 says in `Allow` what the address takes, and OPTIONS says the same."""
    with anyio.fail_after(10):
        async with serving() as web:
            refused = await web.http.request("PATCH", "/runs")
            options = await web.http.options("/runs")
            assert refused.headers["allow"] == options.headers["allow"] == "GET, HEAD, OPTIONS, POST"
            assert (options.status_code, options.content) == (204, b"")
            assert (await web.http.options("/nothing")).status_code == 404


async def test_a_key_with_another_body() -> None:
    """A key that comes again with something else is refused; the run that it started is not touched."""
    with anyio.fail_after(10):
        async with serving() as web:
            headers = {"idempotency-key": "k"}
            first = await web.http.post("/runs", json=GOOD, headers=headers)
            await ask(web, Bad("reused", 422, "key_reused", {**GOOD, "input": "y"}, headers))
            assert (await web.http.post("/runs", json=GOOD, headers=headers)).json() == first.json()


async def test_a_file_above_its_limit() -> None:
    """413, whether the length was said or not, and no more is read than the limit."""
    with anyio.fail_after(10):
        async with serving() as web:
            object.__setattr__(web.runtime.options, "max_file_bytes", 1000)
            await ask(web, Bad("large", 413, "body_too_large", b"x" * 1001, path="/files"))
            taken: list[int] = []
            status: list[int] = []

            async def receive() -> Message:
                taken.append(400)
                return {"type": "http.request", "body": b"x" * 400, "more_body": True}

            async def send(message: Message) -> None:
                status.append(message.get("status", 0))

            await web.app(post("/files"), receive, send)
            assert status[0] == 413
            assert sum(taken) == 1200


async def test_a_body_that_stops_coming() -> None:
    """A client that goes silent in the middle of its body gets 408 after the limit; one that leaves gets nothing."""
    with anyio.fail_after(10):
        async with serving(WebOptions(body_timeout=0.01)) as web:
            sent: list[Message] = []

            async def silent() -> Message:
                await anyio.sleep_forever()
                raise AssertionError

            async def gone() -> Message:
                return {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                sent.append(message)

            await web.app(post("/runs"), silent, send)
            assert sent[0]["status"] == 408
            assert json.loads(sent[1]["body"])["code"] == "body_too_slow"
            sent.clear()
            await web.app(post("/runs"), gone, send)
            assert sent == []


async def test_an_agent_that_raises() -> None:
    """The run fails with a safe message: what the agent raised is in no answer, and what it said before is there."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.finish("raises")
            stream = await web.http.get(f"/runs/{run}/events")
            state = await web.http.get(f"/runs/{run}")
            assert events_of(stream.content)[-1][1]["type"] == "run.failed"
            assert state.json()["failure"]["code"]
            for response in (stream, state):
                assert SECRET not in response.text
                assert ".py" not in response.text


async def test_an_error_of_ours_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw is a 500 without a word of its cause, which is in the log."""

    async def page(**_: object) -> None:
        raise ZeroDivisionError(SECRET)

    with anyio.fail_after(10):
        async with serving() as web:
            monkeypatch.setattr(web.runtime, "list", page)
            await ask(web, Bad("fault", 500, "internal", method="GET", path="/runs"))
    assert SECRET in caplog.text


async def test_a_runtime_that_was_not_entered() -> None:
    """503 that names the fix, on every route that needs the runtime."""
    with anyio.fail_after(10):
        web = serving()
        async with web.http:
            for method, path in (("GET", "/runs"), ("POST", "/runs"), ("GET", "/ready")):
                bad = Bad(
                    "idle", 503, "runtime_not_running", method=method, path=path, says="lifespan=runtime.lifespan"
                )
                await ask(web, bad)


def post(path: str) -> dict[str, Any]:
    """The scope of a POST whose length is not said."""
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json" if path == "/runs" else b"text/csv")],
    }
