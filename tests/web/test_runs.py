"""Runs over HTTP: start, list, state, events, stop, and attaching instead of starting again."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentstream.runtime import RuntimeOptions
from web.serving import cut, events_of, read_until, serving

pytestmark = [
    pytest.mark.anyio,
    # httpx leaves its generators to the collector when a response is left in the middle; trio says so.
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
]

SSE = {"accept": "text/event-stream"}


async def test_a_run_from_start_to_end() -> None:
    """201 names the run and its addresses, and each of them answers; the stream ends with the terminal event."""
    with anyio.fail_after(10):
        async with serving() as web:
            response = await web.http.post("/runs", json={"team": "echo", "input": "héllo"})
            document = response.json()
            run = document["run"]
            assert response.status_code == 201
            assert response.headers["x-run-id"] == run
            assert response.headers["location"] == document["state"] == f"/runs/{run}"
            assert (await web.http.get(document["state"])).json()["run"] == run
            stream = await web.http.get(document["events"], headers=SSE)
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["content-location"] == document["events"]
            assert stream.headers["x-run-id"] == run
            events = [event for _, event in events_of(stream.content)]
            assert events[0]["type"] == "run.started"
            assert events[0]["input"] == "héllo"
            assert events[-1].items() >= {"type": "run.finished", "output": "echo: héllo"}.items()
            assert (await web.http.post(document["stop"], json={})).status_code == 202


async def test_answer_may_be_the_stream() -> None:
    """`Accept: text/event-stream` starts the run and is the stream at once."""
    with anyio.fail_after(10):
        async with serving() as web:
            response = await web.http.post("/runs", json={"team": "echo", "input": "x"}, headers=SSE)
            assert response.status_code == 200
            assert [event["type"] for _, event in events_of(response.content)][-1] == "run.finished"
            run = response.headers["x-run-id"]
            assert response.headers["content-location"] == f"/runs/{run}/events"


@pytest.mark.parametrize(
    ("team", "expected"),
    [
        ("echo", {"status": "finished", "output": "echo: x"}),
        ("raises", {"status": "failed"}),
    ],
)
async def test_waiting_for_the_result(team: str, expected: dict[str, Any]) -> None:
    """`Prefer: wait` adds how the run ended, for good or bad."""
    with anyio.fail_after(10):
        async with serving() as web:
            body = {"team": team, "input": "x"}
            response = await web.http.post("/runs", json=body, headers={"prefer": "respond-async, wait=90"})
            assert response.status_code == 201
            assert response.headers["preference-applied"] == "wait=60"
            assert response.json().items() >= expected.items()
            assert ("failure" in response.json()) == (team == "raises")


async def test_waiting_ends_with_its_time() -> None:
    """A run that goes on longer is told as running, and goes on."""
    with anyio.fail_after(10):
        async with serving() as web:
            body = {"team": "waits", "input": "x"}
            response = await web.http.post("/runs", json=body, headers={"prefer": "wait=0"})
            assert response.json()["status"] == "running"
            web.waits.go.set()
            stream = await web.http.get(response.json()["events"], headers=SSE)
            assert events_of(stream.content)[-1][1]["type"] == "run.finished"


@pytest.mark.promise("P8")
async def test_leaving_stops_nothing() -> None:
    """A client that closes its stream, or does not wait for its answer, leaves the run as it is."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.start("waits")
            async with web.http.stream("GET", f"/runs/{run}/events", headers=SSE) as response:
                await read_until(response, b'"one"')
            with anyio.move_on_after(0.05):
                headers = {"prefer": "wait=30", "last-event-id": f"{run}.aaaaaa.1"}
                await web.http.post("/runs", json={}, headers=headers)
            assert (await web.http.get(f"/runs/{run}")).json()["status"] == "running"
            web.waits.go.set()
            stream = await web.http.get(f"/runs/{run}/events", headers=SSE)
            assert events_of(stream.content)[-1][1]["type"] == "run.finished"


@pytest.mark.promise("P5", "W-resume")
async def test_resuming_gets_exactly_the_rest() -> None:
    """The id of an event, in the header or as `after`, gives what follows it; after the terminal there is 204."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.finish()
            whole = events_of((await web.http.get(f"/runs/{run}/events?coalesce=0", headers=SSE)).content)
            assert len(whole) >= 5
            for n, (event, _) in enumerate(whole, 1):
                header = await web.http.get(f"/runs/{run}/events?coalesce=0", headers={**SSE, "last-event-id": event})
                query = await web.http.get(f"/runs/{run}/events?coalesce=0&after={event}", headers=SSE)
                for response in (header, query):
                    assert response.status_code == (200 if n < len(whole) else 204)
                    assert events_of(response.content) == whole[n:]


async def test_polling() -> None:
    """The same address gives JSON where that is asked for."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.finish()
            document = (await web.http.get(f"/runs/{run}/events", headers={"accept": "application/json"})).json()
            assert document["done"] is True
            assert document["events"][-1]["type"] == "run.finished"


# --- never twice ------------------------------------------------------------------------------------------------------
async def test_a_key_starts_one_run() -> None:
    """The same key and body give the same run, as document and as stream; the list shows one."""
    with anyio.fail_after(10):
        async with serving() as web:
            body, headers = {"team": "echo", "input": "x"}, {"idempotency-key": "k" * 255}
            first = await web.http.post("/runs", json=body, headers=headers)
            again = await web.http.post("/runs", json=body, headers=headers)
            stream = await web.http.post("/runs", json=body, headers={**headers, **SSE})
            assert first.json() == again.json()
            assert stream.headers["x-run-id"] == first.json()["run"]
            assert len((await web.http.get("/runs")).json()["runs"]) == 1


async def test_many_at_once_with_one_key() -> None:
    """Requests with one key that come together start one run."""
    with anyio.fail_after(10):
        async with serving() as web:
            found: set[str] = set()

            async def post() -> None:
                response = await web.http.post(
                    "/runs", json={"team": "echo", "input": "x"}, headers={"idempotency-key": "k"}
                )
                found.add(response.json()["run"])

            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(post)
            assert len(found) == 1


async def test_an_event_id_attaches() -> None:
    """A POST that is repeated with `Last-Event-ID` goes on with that run, whatever its body says."""
    with anyio.fail_after(10):
        async with serving() as web:
            first = await web.http.post("/runs", json={"team": "echo", "input": "x"}, headers=SSE)
            events = events_of(first.content)
            headers = {**SSE, "last-event-id": events[2][0]}
            again = await web.http.post("/runs", json={"team": "echo", "input": "x"}, headers=headers)
            assert again.status_code == 200
            assert events_of(again.content) == events[3:]
            plain = await web.http.post("/runs", content=b"", headers={"last-event-id": events[2][0]})
            assert plain.status_code == 200
            assert plain.json()["run"] == first.headers["x-run-id"]
            assert len((await web.http.get("/runs")).json()["runs"]) == 1


# --- lists and states -------------------------------------------------------------------------------------------------
async def test_pages_of_runs() -> None:
    """Newest first, `next` leads through all of them, and the last page has none."""
    with anyio.fail_after(10):
        async with serving() as web:
            started = [await web.finish(input=f"question {n}") for n in range(5)]
            seen: list[dict[str, Any]] = []
            address = "/runs?limit=2"
            while address:
                page = (await web.http.get(address)).json()
                seen += page["runs"]
                address = f"/runs?limit=2&before={page['next']}" if "next" in page else ""
            assert [row["run"] for row in seen] == started[::-1]
            assert seen[0].keys() == {"run", "team", "status", "created", "ended", "seq", "title"}
            assert (seen[0]["team"], seen[0]["status"], seen[0]["title"]) == ("echo", "finished", "question 4")
            assert seen[0]["ended"] >= seen[0]["created"] > 0
            exact = (await web.http.get("/runs?limit=5")).json()
            assert len(exact["runs"]) == 5
            assert "next" not in exact


async def test_the_state_has_every_field() -> None:
    """What programs look for is there while a run goes on as well, not only where it differs from its default."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.start("waits")
            await web.waits.begun.wait()
            state = (await web.http.get(f"/runs/{run}")).json()
            assert state.keys() >= {"run", "status", "agents", "plan", "output", "usage", "seq", "resume", "cursor"}
            assert (state["status"], state["resume"], state["output"]) == ("running", "auto", None)
            assert state["agents"]["waits.1"]["status"] == "running"
            web.waits.go.set()


async def test_runs_of_owners_are_not_seen() -> None:
    """A run that the embedder started for somebody is unknown here, at every address, like one that never was."""
    with anyio.fail_after(10):
        async with serving() as web:
            foreign = await web.runtime.start(web.runtime.team("echo"), "x", owner="alice")
            await foreign.result()
            answers: dict[str, set[str]] = {}
            for run in (foreign.id, "A" * 22):
                for method, path in (
                    ("GET", ""),
                    ("GET", "/events"),
                    ("HEAD", "/events"),
                    ("POST", "/stop"),
                    ("GET", "/artifacts/x"),
                ):
                    response = await web.http.request(method, f"/runs/{run}{path}")
                    assert response.status_code == 404
                    answers.setdefault(f"{method} {path}", set()).add(response.text)
                response = await web.http.post("/runs", json={}, headers={"last-event-id": f"{run}.aaaaaa.1"})
                answers.setdefault("POST /runs", set()).add(response.text)
            assert all(len(texts) == 1 for texts in answers.values())
            assert (await web.http.get("/runs")).json() == {"runs": []}


# --- stop -------------------------------------------------------------------------------------------------------------
@pytest.mark.promise("P8")
@pytest.mark.parametrize("body", [b"", b"{}", b'{"mode": "now", "reason": "enough"}'])
async def test_stopping_a_run(body: bytes) -> None:
    """202 with or without a body; the stream then ends with the cause; asking again changes nothing."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.start("waits")
            await web.waits.begun.wait()
            headers = {"content-type": "application/json"} if body else {}
            first = await web.http.post(f"/runs/{run}/stop", content=body, headers=headers)
            assert first.status_code == 202
            stream = await web.http.get(f"/runs/{run}/events", headers=SSE)
            last = events_of(stream.content)[-1][1]
            assert (last["type"], last["cause"]) == ("run.stopped", "user_stop")
            assert last.get("detail", "") == ("enough" if b"enough" in body else "")
            again = await web.http.post(f"/runs/{run}/stop", content=body, headers=headers)
            assert again.status_code == 202
            assert again.json() == {"run": run, "status": "stopped"}
            after = await web.http.get(f"/runs/{run}/events", headers=SSE)
            assert events_of(after.content)[-1][1] == last


async def test_stopping_an_invocation() -> None:
    """An invocation of the run can be stopped; one that it does not have is unknown."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.start("waits")
            await web.waits.begun.wait()
            unknown = await web.http.post(f"/runs/{run}/stop", json={"inv": "waits.2"})
            assert (unknown.status_code, unknown.json()["code"]) == (404, "invocation_unknown")
            assert (await web.http.post(f"/runs/{run}/stop", json={"inv": "waits.1"})).status_code == 202
            stream = await web.http.get(f"/runs/{run}/events", headers=SSE)
            assert "agent.failed" in [event["type"] for _, event in events_of(stream.content)]


# --- methods and ends -------------------------------------------------------------------------------------------------
@pytest.mark.promise("W-head")
async def test_head_starts_nothing() -> None:
    """HEAD has the headers of GET and no body, also of a stream that would not end; and it starts no run."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.start("waits")
            for path in ("/runs", f"/runs/{run}", "/teams", "/health", "/"):
                head, get = await web.http.head(path), await web.http.get(path)
                assert (head.status_code, head.content) == (200, b"")
                assert head.headers["content-type"] == get.headers["content-type"]
            head = await web.http.head(f"/runs/{run}/events", headers=SSE)
            assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
            assert (await web.http.head("/files")).status_code == 405
            assert len((await web.http.get("/runs")).json()["runs"]) == 1
            web.waits.go.set()


@pytest.mark.promise("W-drain", "W-abort")
async def test_draining() -> None:
    """Streams end with `retry` and without their last chunk, new ones too; new runs are refused; it is not ready."""
    with anyio.fail_after(10):
        async with serving(limits=RuntimeOptions(stop_grace=1)) as web:
            run = await web.start("waits")

            async def drain(piece: bytes) -> None:
                if b'"one"' in piece:
                    async with anyio.create_task_group() as group:
                        group.start_soon(web.runtime.drain, 0)
                        web.waits.go.set()

            read = await cut(web.http, f"/runs/{run}/events", on_piece=drain)
            assert read.rstrip().rpartition(b"\n")[2].startswith(b"retry: ")
            again = await cut(web.http, f"/runs/{run}/events")
            assert again.startswith(b"retry: ")
            refused = await web.http.post("/runs", json={"team": "echo", "input": "x"})
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
            assert (await web.http.get("/ready")).status_code == 503
            assert (await web.http.get("/health")).status_code == 200
