"""Real processes that serve: how they start, drain and end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
from anyio.streams.text import TextReceiveStream

from house import ROOT
from web.serving import cut, events_of, read_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real("uvicorn"),
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
]

_PROGRAM = Path(__file__).with_name("server_process.py")
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
_LONG = 30


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The client's side; the server's loop is its own."""
    return "asyncio", {}


class Server:
    """A server's process, a client of it, and its log so far."""

    def __init__(self, process: anyio.abc.Process, http: httpx.AsyncClient, log: Path) -> None:
        self.process = process
        self.http = http
        self._log = log

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    async def start(self, team: str) -> str:
        """Start a run and wait until its agent works."""
        response = await self.http.post("/runs", json={"team": team, "input": "x"})
        run = str(response.json()["run"])
        async with self.http.stream("GET", f"/runs/{run}/events") as stream:
            await read_until(stream, b"before")
        return run


@asynccontextmanager
async def server(store: str, folder: Path, *, drain: float = 10) -> AsyncIterator[Server]:
    """A running server; killed at the end if it still lives."""
    log = folder / f"log {os.urandom(4).hex()}"
    command = [sys.executable, str(_PROGRAM), store, str(drain)]
    with anyio.fail_after(_LONG), log.open("wb") as stderr:
        async with await anyio.open_process(
            command, stderr=stderr, stdin=subprocess.DEVNULL, env=_ENVIRONMENT
        ) as process:
            try:
                assert process.stdout is not None
                url = (await TextReceiveStream(process.stdout).receive()).strip()
                async with httpx.AsyncClient(base_url=url, timeout=_LONG, trust_env=False) as http:
                    yield Server(process, http, log)
            except BaseException:
                print(log.read_text())
                raise
            finally:
                if process.returncode is None:
                    process.kill()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something in the other process, which cannot tell us."""
    while not await condition():  # noqa: ASYNC110
        await anyio.sleep(0.01)


@pytest.mark.promise("W-drain", "W-abort", "P5")
async def test_draining_moves_streams_elsewhere(tmp_path: Path) -> None:
    """SIGTERM cuts the streams with `retry`; another server on the same store goes on with exactly the next event."""
    store = f"sqlite:{tmp_path / 'runs.db'}"
    async with server(store, tmp_path) as first, server(store, tmp_path) as second:
        run = await first.start("lingers")
        streams: list[bytes] = []

        async def followed() -> bool:
            return first.log.count(f"GET /runs/{run}/events 200") == 2  # `start` was the first

        async def follow() -> None:
            streams.append(await cut(first.http, f"/runs/{run}/events"))

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await until(followed)
            first.process.send_signal(signal.SIGTERM)
        assert streams[0].rstrip().rpartition(b"\n")[2].startswith(b"retry: ")
        before = events_of(streams[0])
        rest = await second.http.get(f"/runs/{run}/events", headers={"last-event-id": before[-1][0]})
        after = events_of(rest.content)
        # Deltas may be joined, so numbers rise; the first that follows is the next one, and nothing is missing.
        assert after[0][1].get("first_seq", after[0][1]["seq"]) == before[-1][1]["seq"] + 1
        assert (after[-1][1]["type"], after[-1][1]["output"]) == ("run.finished", "ended by itself")
        words = [event.get("message") for _, event in before + after if event["type"] == "agent.progress"]
        assert words == [f"after {n}" for n in range(20)]
        assert await first.process.wait() == 0
        assert "Traceback" not in first.log
        second.process.send_signal(signal.SIGINT)
        assert await second.process.wait() == 0
        assert "Traceback" not in second.log


@pytest.mark.promise("W-drain")
async def test_while_draining(tmp_path: Path) -> None:
    """Runs get their seconds, in which streams are sent back, new runs are refused, and the server is not ready."""
    async with server("memory:", tmp_path, drain=60) as web:

        async def draining() -> bool:
            return (await web.http.get("/ready")).status_code == 503

        run = await web.start("waits")
        web.process.send_signal(signal.SIGTERM)
        await until(draining)
        read = await cut(web.http, f"/runs/{run}/events")
        assert read.startswith(b"retry: ")
        assert b"id:" not in read
        refused = await web.http.post("/runs", json={"team": "waits", "input": "x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert (await web.http.get(f"/runs/{run}")).json()["status"] == "running"
        web.process.send_signal(signal.SIGTERM)  # the second one takes the rest of the 60 s away
        with anyio.fail_after(10):
            assert await web.process.wait() == 0
        assert "Traceback" not in web.log


@pytest.mark.promise("P8")
async def test_a_run_that_outlasts_its_seconds(tmp_path: Path) -> None:
    """It is left to the server that comes after, which goes on with it as its next attempt."""
    store = f"sqlite:{tmp_path / 'runs.db'}"
    async with server(store, tmp_path, drain=0) as web:
        run = await web.start("waits")
        web.process.send_signal(signal.SIGINT)
        assert await web.process.wait() == 0
    async with server(store, tmp_path, drain=0) as later:

        async def gone_on() -> bool:
            state = (await later.http.get(f"/runs/{run}")).json()
            return bool(state["agents"].get("waits.2", {}).get("replaces") == "waits.1")

        await until(gone_on)
        assert (await later.http.get(f"/runs/{run}")).json()["attempt"] == 2


async def test_an_agent_that_cannot_be_ended(tmp_path: Path) -> None:
    """The process ends all the same, with status 70; what was accepted is kept."""
    store = f"sqlite:{tmp_path / 'runs.db'}"
    async with server(store, tmp_path, drain=0) as web:
        run = await web.start("stays")
        web.process.send_signal(signal.SIGTERM)
        assert await web.process.wait() == 70
        assert "could not be ended" in web.log
    async with server(store, tmp_path) as later:
        stream = await later.http.get(f"/runs/{run}/events")
        events = [event for _, event in events_of(stream.content)]
        assert "before" in json.dumps(events)
        assert events[-1]["type"] == "run.failed"


async def test_the_access_log(tmp_path: Path) -> None:
    """One line for each answer: no query, nothing that a terminal would obey."""
    async with server("memory:", tmp_path) as web:
        await web.http.get("/runs?before=secret")
        await web.http.get("/%1b%5b31mred%0aline")
        web.process.send_signal(signal.SIGTERM)
        assert await web.process.wait() == 0
        assert "GET /runs 422" in web.log
        assert "secret" not in web.log
        assert "GET /%1B%5B31mred%0Aline 404" in web.log


async def test_without_uvicorn() -> None:
    """Without its extra the door says what to install."""
    program = "import sys; sys.modules['uvicorn'] = None; import agentstream.web.server"
    with anyio.fail_after(_LONG):
        command = [sys.executable, "-c", program]
        result = await anyio.run_process(command, check=False, env=_ENVIRONMENT)
    assert b"MissingExtra: a server needs `agentstream[server]`" in result.stderr
