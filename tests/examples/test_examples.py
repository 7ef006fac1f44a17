"""The examples: each is run as its first lines say, and must show what it is about."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest

from agentstream.testing import StreamingTransport
from agentstream.wire import Decoder

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS: Final = {
    "plan_execute_verify.py": ("not accepted: 3 numbers are below 3", "after 2 rounds: {'mean': 3.875, 'median': 3.5}"),
    "follow.py": ("words: 14", "the same text: True"),
    "ask.py": (
        'approval: Run the tool book with {"city":"Tromsø","nights":5}?',
        "booked: 5 nights in Tromsø; said before: 2 messages",
    ),
    "budget.py": ("coffee ended: budget", "stopped: budget", "asked: 10"),
    "endpoint_pool.py": ("all 40 answered: True", "asked by hand: backup takes over: True", "open streams: 0"),
    "sandboxed_code.py": ("kept:    mean.txt 6 bytes", "No such file or directory: '/etc/passwd'", "answer:  7.75"),
    "bus_alone.py": ("0 waiting", "sensor  [0, 1, 2, 3, 4]"),
}


REAL: Final = {"sandboxed_code.py": pytest.mark.real("bwrap")}


@pytest.mark.parametrize("name", [pytest.param(name, marks=REAL.get(name, ())) for name in SCRIPTS])
def test_a_script_shows_what_it_is_about(name: str) -> None:
    """It ends well and says the lines that matter."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for line in SCRIPTS[name]:
        assert line in done.stdout


@pytest.mark.anyio
async def test_the_fastapi_example_resumes() -> None:
    """Its stream goes on behind the last event that a client got, and starts nothing again."""
    spec = importlib.util.spec_from_file_location("fastapi_example", EXAMPLES / "fastapi_app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    transport = StreamingTransport(module.app)
    async with module.runtime, httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert "EventSource" in (await client.get("/")).text
        whole = Decoder().feed((await client.get("/plan", params={"goal": "ship"})).content)
        middle = whole[len(whole) // 2]
        rest = await client.get("/plan", params={"goal": "ship"}, headers={"last-event-id": middle.id})
        assert [message.id for message in Decoder().feed(rest.content)] == [
            message.id for message in whole[len(whole) // 2 + 1 :]
        ]
        assert len(await module.runtime.list()) == 1


def test_every_example_is_listed_and_tested() -> None:
    """A program that was added stands in the README of the folder and is run here."""
    listed = (EXAMPLES / "README.md").read_text()
    tested = {*SCRIPTS, "fastapi_app.py"}
    for path in EXAMPLES.glob("*.py"):
        assert path.name in listed and path.name in tested, path.name
