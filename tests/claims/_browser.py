"""A headless Chromium, driven over the W3C WebDriver protocol.

Comes in: addresses and scripts. Goes out: what the scripts return, and screenshots.
It deliberately does not know what is on a page. chromedriver and httpx are all it needs.
"""

from __future__ import annotations

import base64
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import httpx

from claims import real

__all__ = ["Driver", "Page"]

_START_S: Final = 30.0
_CALL_S: Final = 60.0
_ENTER: Final = "\ue007"  # WebDriver's code of the key

# As root without a sandbox; without the services that it would ask in the background.
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    *("--window-size=1400,1000", "--force-color-profile=srgb", "--lang=en"),
)


class Driver:
    """chromedriver as a process of its own: `with Driver() as driver`, then `driver.page()`. All ends with it."""

    def __init__(self) -> None:
        self._programs = real("chromium"), real("chromedriver")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            process = stack.enter_context(
                subprocess.Popen(
                    [self._programs[1], "--port=0", "--log-level=WARNING"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            stack.callback(process.kill)
            self._http = stack.enter_context(
                httpx.Client(base_url=f"http://127.0.0.1:{_port(process)}", timeout=_CALL_S, trust_env=False)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def page(self) -> Page:
        """A browser of its own, with nothing remembered."""
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="agentstream-page-", ignore_cleanup_errors=True)
        )
        options = {"binary": self._programs[0], "args": [*_FLAGS, f"--user-data-dir={folder}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        session = _value(self._http.post("/session", json=wanted))["sessionId"]
        self._stack.callback(self._http.delete, f"/session/{session}")
        return Page(self._http, f"/session/{session}")


class Page:
    """One browser with one page."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http = http
        self._session = session

    def open(self, address: str) -> None:
        """Go there, and return once it is loaded."""
        self._post("/url", {"url": address})

    def reload(self) -> None:
        """Load it again, as a person would."""
        self._post("/refresh", {})

    def run(self, script: str, *arguments: object) -> Any:  # Any: JSON
        """Run JavaScript in the page: the body of a function whose result is returned."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def write(self, selector: str, text: str) -> None:
        """Type text into an element, and then Enter."""
        found = self._post("/element", {"using": "css selector", "value": selector})
        self._post(f"/element/{next(iter(found.values()))}/value", {"text": text + _ENTER})

    def screenshot(self) -> bytes:
        """A PNG of what is seen."""
        answer = self._http.get(f"{self._session}/screenshot")
        return base64.b64decode(_value(answer))

    def wait(self, script: str, seconds: float, *arguments: object) -> Any:  # Any: JSON
        """Run a script again and again until it returns something true; return that.

        Raises:
            TimeoutError: it did not.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if value := self.run(script, *arguments):
                return value
            time.sleep(0.02)
        raise TimeoutError(f"not true within {seconds:g} s: {script}\n{self.run('return document.body.innerText')}")

    def _post(self, path: str, body: object) -> Any:  # Any: JSON
        return _value(self._http.post(self._session + path, json=body))


def _value(response: httpx.Response) -> Any:  # Any: JSON
    value = response.json()["value"]
    if response.is_error:
        raise RuntimeError(f"{value['error']}: {value['message'].splitlines()[0]}")
    return value


def _port(process: subprocess.Popen[bytes]) -> int:
    """Where chromedriver says that it listens."""
    assert process.stdout is not None
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        line = process.stdout.readline()
        if found := re.search(rb"started successfully on port (\d+)", line):
            return int(found[1])
        if not line:
            break
    raise RuntimeError("chromedriver did not start")
