"""What takes its time, in virtual time: waiting for a result, for a body, for a place, for the store."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
import trio

from agentstream.answer import Message
from agentstream.web import WebOptions
from web.serving import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The clock jumps whenever everybody waits."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


async def never() -> Message:
    """A client that sends nothing, or a store that does not answer."""
    await anyio.sleep_forever()
    raise AssertionError


def scope(path: str) -> dict[str, Any]:
    """A POST with a body that is to come."""
    kind = b"application/json" if path == "/runs" else b"text/csv"
    headers = [(b"content-type", kind)]
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


async def test_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ready after two seconds, rather than no answer."""
    async with serving() as web:
        monkeypatch.setattr(web.runtime.store, "ping", never)
        began = anyio.current_time()
        response = await web.http.get("/ready", timeout=None)
        assert (response.status_code, response.json()["code"]) == (503, "store_down")
        assert anyio.current_time() - began == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("asked", "granted"), [(7, 7), (3600, 60)])
async def test_waiting_for_a_result(asked: int, granted: int) -> None:
    """`Prefer: wait=N` waits N seconds, at most 60, and says so."""
    async with serving() as web:
        began = anyio.current_time()
        body = {"team": "waits", "input": "x"}
        response = await web.http.post("/runs", json=body, headers={"prefer": f"wait={asked}"}, timeout=None)
        assert response.json()["status"] == "running"
        assert response.headers["preference-applied"] == f"wait={granted}"
        assert anyio.current_time() - began == pytest.approx(granted, abs=0.1)


async def test_a_body_that_stops_coming() -> None:
    """30 seconds of silence in the middle of a body, then 408."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with serving() as web:
        began = anyio.current_time()
        await web.app(scope("/runs"), never, send)
        assert sent[0]["status"] == 408
        assert anyio.current_time() - began == pytest.approx(30, abs=0.1)


async def test_no_place_for_a_file() -> None:
    """A file that finds no place within 20 seconds is refused, with the advice to come again; the others go on."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with serving(WebOptions(max_uploads=2, body_timeout=100)) as web:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(web.app, scope("/files"), never, send)
            await anyio.sleep(1)
            began = anyio.current_time()
            response = await web.http.post("/files", content=b"x", timeout=None)
            assert (response.status_code, response.json()["code"]) == (503, "overloaded")
            assert int(response.headers["retry-after"]) > 0
            assert anyio.current_time() - began == pytest.approx(20, abs=0.1)
        assert [message["status"] for message in sent if "status" in message] == [408, 408]
        assert json.loads(sent[1]["body"])["code"] == "body_too_slow"
        assert (await web.http.post("/files", content=b"x", timeout=None)).status_code == 201
