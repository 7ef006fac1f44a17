"""A server as a process of its own: started, asked, killed and started again.

Comes in: what to serve. Goes out: its address, its process id, and what it did to standard error if it failed.
It deliberately does not know what is asked of it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import httpx

import agentstream
from claims import real

__all__ = ["Server"]

_PROGRAM: Final = Path(__file__).with_name("_served.py")
# Neither settings nor keys of whoever runs the claim: the teams here speak to no model.
_KEPT: Final = frozenset({"HOME", "LANG", "LC_ALL", "PATH"})
_START_S: Final = 30.0
_STOP_S: Final = 15.0


class Server:
    """One server. `with Server(store) as server`; it is gone afterwards, whatever happened.

    Args:
        store: address of its store.
        send_timeout: seconds after which a client that takes nothing is cut off.
        limits: fields of `RuntimeOptions`.
        stamps: a file that gets the times of all appends.
        log_level: of what it writes to standard error.
        teams: folders of teams, besides those made for claims.

    Attributes:
        port: the same after a restart.
    """

    def __init__(
        self,
        store: str,
        *,
        send_timeout: float = 30.0,
        limits: dict[str, float] | None = None,
        stamps: str = "",
        log_level: str = "warning",
        teams: Sequence[str] = (),
    ) -> None:
        real("uvicorn")
        self.port = 0
        self._job = {
            "store": store,
            "send_timeout": send_timeout,
            "limits": limits or {},
            "stamps": stamps,
            "log_level": log_level,
            "teams": list(teams),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._scratch = tempfile.TemporaryDirectory(prefix="agentstream-server-")  # a killed server leaves some there

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._close()

    def _close(self) -> None:
        self._errors.close()
        self._scratch.cleanup()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and return once requests are taken.

        Raises:
            RuntimeError: it did not come up; with what it wrote.
        """
        kept = {name: value for name, value in os.environ.items() if name in _KEPT}
        job = json.dumps({**self._job, "port": self.port})
        root = str(Path(agentstream.__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), job],
            env={**kept, "PYTHONPATH": root, "TMPDIR": self._scratch.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdout is not None
        word, _, url = _line(self._process, _START_S).partition(" ")
        if word != "ready":
            self.kill()
            raise RuntimeError(f"the server did not start:\n{self.errors()}")
        self.port = int(url.rstrip("/").rpartition(":")[2])

    def kill(self) -> None:
        """Kill -9: nothing of it runs any more when this returns."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop, as a supervisor does; kill it if it does not."""
        self._end(signal.SIGTERM)

    def errors(self) -> str:
        """The end of what it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read()[-4_000:].decode(errors="replace")

    def post(self, path: str, body: object) -> dict[str, Any]:  # Any: JSON
        """POST JSON; return the JSON of a 2xx answer.

        Raises:
            RuntimeError: another answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status // 100 != 2:
            raise RuntimeError(f"POST {path} answered {response.status}: {data[:500]!r}\n{self.errors()}")
        answer: dict[str, Any] = json.loads(data)
        return answer

    def start_run(self, team: str, task: object, files: Sequence[str] = ()) -> str:
        """Start a run; return its id.

        Args:
            files: what `upload` returned.
        """
        return str(self.post("/runs", {"team": team, "input": task, "files": list(files)})["run"])

    def upload(self, path: Path) -> str:
        """Hand in a file; return its id."""
        address = f"http://127.0.0.1:{self.port}/files"
        named = {"Content-Type": "text/csv", "X-File-Name": path.name}
        answer = httpx.post(address, content=path.read_bytes(), headers=named, trust_env=False)
        answer.raise_for_status()
        return str(answer.json()["file"])

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.send_signal(sign)
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _line(process: subprocess.Popen[bytes], seconds: float) -> str:
    """The first line that it prints; empty if it ended or took too long."""
    assert process.stdout is not None
    # Killed, it closes its output, and reading ends.
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        return process.stdout.readline().decode().strip()
    finally:
        timer.cancel()
        timer.join()
