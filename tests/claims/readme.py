"""The claim about the README: its code is not an illustration.

Comes in: the README. Goes out: how many of its Python blocks ran verbatim and type-checked.
It deliberately does not know what the blocks are for; each is run as a reader would run it, from files of their names.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx

from agentstream.wire import Decoder, Message
from claims import ROOT, Figure, claim, exactly, real

_BLOCK: Final = re.compile(r"```python\n(# (\S+\.py)\n.*?)```", re.DOTALL)
_OUTPUT: Final = re.compile(r"`python letters\.py` prints.*?```text\n(.*?)```", re.DOTALL)
_START: Final = 20.0
_TERMINAL: Final = ('"type":"run.finished"', '"type":"run.failed"', '"type":"run.stopped"')


@claim(
    "readme.verbatim",
    "Every Python block of the README runs as it stands, resumes, and passes mypy and pyright in strict mode",
    unit="blocks that did not",
    limit=300.0,
)
def verbatim() -> Figure:
    """Write the blocks to files, run each in its own way, and hold what it says against what the README says."""
    readme = (ROOT / "README.md").read_text()
    blocks = {name: code for code, name in _BLOCK.findall(readme)}
    every = readme.count("```python")
    with tempfile.TemporaryDirectory() as folder:
        for name, code in blocks.items():
            (Path(folder) / name).write_text(code)
        checks: dict[str, Callable[[], str]] = {
            "letters.py": lambda: _prints(folder, "letters.py", _expected(readme)),
            "app.py": lambda: _serves(folder, "app:app", "/count?sentence=one+stream+for+all+of+the+agents"),
            "bus_app.py": lambda: _serves(folder, "bus_app:app", "/"),
            "test_city.py": lambda: _passes(folder, "test_city.py"),
        }
        failed = {name: why for name, check in checks.items() if (why := check()) if name in blocks}
        missing = [name for name in blocks if name not in checks] + [name for name in checks if name not in blocks]
        types = _types(folder, sorted(blocks))
    return Figure(
        len(failed) + len(missing) + (every - len(blocks)) + len(types),
        n=len(blocks),
        bound=exactly(0),
        detail={"blocks": sorted(blocks), "failed": failed, "missing": missing, "type errors": types},
    )


def _expected(readme: str) -> str:
    found = _OUTPUT.search(readme)
    return found.group(1) if found else "(the README shows no output)"


def _prints(folder: str, name: str, expected: str) -> str:
    done = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or done.stdout != expected:
        return f"exit {done.returncode}, printed {done.stdout!r} {done.stderr[-500:]!r}"
    return ""


def _passes(folder: str, name: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else done.stdout[-1000:]


def _types(folder: str, names: list[str]) -> list[str]:
    """Complaints of both checkers in strict mode."""
    (Path(folder) / "mypy.ini").write_text("[mypy]\nstrict = True\n")
    (Path(folder) / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["."]}')
    complaints = []
    mypy = [sys.executable, "-m", "mypy", *names]
    pyright = [sys.executable, "-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable]
    for command in (mypy, pyright):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            complaints += [line for line in done.stdout.splitlines() if "error" in line]
    return complaints


def _serves(folder: str, app: str, path: str) -> str:
    """Serve the app, cut its stream after some events, come back with the last id: one whole sequence must result."""
    real("uvicorn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, cwd=folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
        stack.callback(process.kill)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20))
        try:
            _wait_for(port, process)
            return _resumes(client, path)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}"


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the app did not start")


def _resumes(client: httpx.Client, path: str) -> str:
    first, _ = _read(client, path, None, most=5)
    rest, clean = _read(client, path, first[-1].id, most=10_000)
    events = [json.loads(message.data) for message in (*first, *rest)]
    # A coalesced delta stands for the numbers from `first_seq` to its own.
    spans = [(event.get("first_seq") or event["seq"], event["seq"]) for event in events]
    gapless = all(begin == end + 1 for (_, end), (begin, _) in itertools.pairwise([(0, 0), *spans]))
    runs = {message.id.partition(".")[0] for message in (*first, *rest)}
    if not gapless or len(runs) != 1:
        return f"{len(runs)} runs, positions {spans}"
    if not clean or not any(mark in rest[-1].text for mark in _TERMINAL):
        return "the resumed stream has no clean end behind a terminal event"
    return ""


def _read(client: httpx.Client, path: str, after: str | None, *, most: int) -> tuple[list[Message], bool]:
    """Events until there are `most` (then the connection is dropped), or until the clean end."""
    headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after else {})
    decoder, messages = Decoder(), []
    with client.stream("GET", path, headers=headers) as response:
        response.raise_for_status()
        for data in response.iter_raw():
            messages += decoder.feed(data)
            if len(messages) >= most:
                return messages[:most], False
    return messages, True
