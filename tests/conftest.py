"""What every test shares: the three event loops, real parts, Hypothesis profiles, and a guard against leaks.

Comes in: the marks and fixtures that a test asks for. Goes out: a test that runs on each loop, is skipped visibly
where a real part is missing, and fails when it leaves a thread or a process behind.
It deliberately does not know any room of the package.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

import real_parts

# ---- Hypothesis -----------------------------------------------------------------------------------------------------
# Time limits per example only measure how busy a shared machine is. CI repeats the same examples on every run, so
# that a red run is the change's own; `dev` looks at new ones each time; `deep` is for a long look at one machine.
settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, max_examples=100, print_blob=True)
settings.register_profile("deep", parent=settings.get_profile("dev"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


# ---- event loops ----------------------------------------------------------------------------------------------------
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=pytest.mark.real("uvloop")),
        pytest.param(("trio", {}), id="trio", marks=pytest.mark.real("trio")),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:  # Any: options of a foreign loop
    """Run a test marked `anyio` once on each loop; a module narrows it by a fixture of the same name."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


# ---- real parts -----------------------------------------------------------------------------------------------------
def _find_or_leave(name: str) -> str:
    try:
        return real_parts.find(name)
    except real_parts.MissingPart as missing:
        if real_parts.required():
            pytest.fail(f"{missing} ({real_parts.REQUIRE_REAL} is set)", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def real() -> Callable[[str], str]:
    """Give the place of a real part, e.g. `real("chromium")`; skip the test, or fail it in CI, without the part."""
    return _find_or_leave


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the parts that `@pytest.mark.real("…")` names before any fixture is made."""
    for mark in item.iter_markers("real"):
        for name in mark.args:
            _find_or_leave(name)


# ---- leaks ----------------------------------------------------------------------------------------------------------
# Idle workers that the loops' own thread pools keep for the next caller.
_POOLED_THREADS: Final = ("AnyIO worker thread", "Trio thread", "asyncio_", "ThreadPoolExecutor-", "pytest_timeout")
_LEAK_GRACE_S: Final = 2.0


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith(_POOLED_THREADS)}


def _children() -> dict[str, str]:
    """Return process id → command line of the direct children, where the kernel lists them (Linux)."""
    found: dict[str, str] = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            ids = listing.read_text().split()
        except OSError:  # the thread ended while we looked
            continue
        for pid in ids:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue
            # The tracker of shared memory lives as long as we do.
            if "resource_tracker" not in command:
                found[pid] = command or "(no command line: ended, never waited for)"
    return found


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Fail a test after which a thread or a child process of its own still lives."""
    threads, children = _threads(), _children() if sys.platform == "linux" else {}
    yield
    left = _threads() - threads
    for thread in left:
        thread.join(_LEAK_GRACE_S / len(left))
    alive = sorted(thread.name for thread in left if thread.is_alive())
    assert not alive, f"threads left running: {alive}"
    if sys.platform == "linux":
        orphans = {pid: command for pid, command in _children().items() if pid not in children}
        assert not orphans, f"child processes left: {orphans}"
