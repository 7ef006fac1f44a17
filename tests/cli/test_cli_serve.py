"""`agentstream serve` and `tail` together, as processes: a run on a server, followed from elsewhere."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentstream.cli._tail import where_is
from agentstream.errors import InvalidInput

RUN = "3WJBzX433AIwDV5mgusd9w"


def _serve(started: Callable[..., Any], *words: str) -> tuple[Any, str]:
    process = started("serve", *words, "--port", "0")
    seen = ""
    while (found := re.search(r"developer page  (http://127\.0\.0\.1:\d+)/\n", seen)) is None:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    return process, found[1]


def _start(url: str, team: str) -> str:
    answer = httpx.post(f"{url}/runs", json={"team": team, "input": "say it"}, trust_env=False, timeout=10)
    assert answer.status_code == 201
    run: str = answer.json()["run"]
    return run


@pytest.mark.real("uvicorn")
def test_serve_then_tail(started: Callable[..., Any], command: Callable[..., Any]) -> None:
    """The server says where its page is; `tail` shows a run of it by address, page or id, and its raw lines."""
    server, url = _serve(started, "writer")
    run = _start(url, "writer")
    shown = command("tail", f"{url}/runs/{run}")
    assert (shown.returncode, shown.stderr) == (0, "")
    for part in ("writer · say it", "writer      > 1", f"made {url}/runs/{run}/artifacts/", "Answer\nSAY IT!"):
        assert part in shown.stdout
    raw = command("tail", f"{url}/#/runs/{run}", "--json")
    events = [json.loads(line) for line in raw.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    end = command("tail", run, "--server", url, "--after", "tail", "--json")
    assert end.stdout == raw.stdout.splitlines(keepends=True)[-1]
    lost = command("tail", f"{url}/runs/{RUN}")
    assert (lost.returncode, "there is no such run" in lost.stderr) == (1, True)
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0


@pytest.mark.real("uvicorn")
@pytest.mark.promise("P8")
def test_leaving_tail_does_not_stop_the_run(started: Callable[..., Any]) -> None:
    """Ctrl-C leaves with the line that goes on, and the run still runs."""
    _, url = _serve(started, "writer/team.py:sleeps")
    run = _start(url, "sleeps")
    tail = started("tail", f"{url}/runs/{run}")
    seen = ""
    while "half a sentence" not in seen:
        seen += tail.stdout.readline()
    tail.send_signal(signal.SIGINT)
    seen += tail.stdout.read()
    assert tail.wait(20) == 130
    cursor = re.search(rf"--after ({run}\.[A-Za-z0-9]{{6}}\.\d+)\n", seen)
    assert cursor is not None
    state = httpx.get(f"{url}/runs/{run}", trust_env=False, timeout=10).json()
    assert state["status"] == "running"


@pytest.mark.parametrize(
    ("address", "base", "run"),
    [
        (f"http://h:8000/runs/{RUN}", "http://h:8000", RUN),
        (f"https://h/prefix/runs/{RUN}/events?after=x", "https://h/prefix", RUN),
        (f"http://h:8000/#/runs/{RUN}", "http://h:8000", RUN),
        (f"http://h:8000/p/#/runs/{RUN}", "http://h:8000/p", RUN),
        (RUN, "http://127.0.0.1:8000", RUN),
    ],
)
def test_addresses_of_runs(address: str, base: str, run: str) -> None:
    """The address of a run, of its events, of its page; or its id, which belongs to the usual server."""
    assert where_is(address) == (base, run)


@pytest.mark.parametrize("address", ["", "x", f"ftp://h/runs/{RUN}", f"http://h/runs/{RUN}x", "http://h/runs"])
def test_addresses_of_nothing(address: str) -> None:
    """What is no run is said to be none."""
    with pytest.raises(InvalidInput, match="is no run"):
        where_is(address)


@pytest.mark.real("uvicorn")
@pytest.mark.promise("W-heartbeat")
def test_serve_heeds_the_heartbeat_of_its_settings(started: Callable[..., Any], folder: Path) -> None:
    """A silent run's stream carries a comment after the time that the settings name, not after the default of 15 s."""
    (folder / "agentstream.toml").write_text("heartbeat = 0.2\n")
    _, url = _serve(started, "writer/team.py:sleeps")
    run = _start(url, "sleeps")
    with httpx.stream("GET", f"{url}/runs/{run}/events", trust_env=False, timeout=10) as response:
        seen = b""
        for data in response.iter_raw():
            seen += data
            if b": hb\n" in seen:
                break
    assert b": hb\n" in seen
