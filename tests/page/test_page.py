"""The developer page's pure modules, tested by node's own runner: folds, the stream reader, values."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_the_pages_modules(name: str, real: Callable[[str], str]) -> None:
    """Every test of the file passes, and there is at least one."""
    command = [real("node"), "--test", "--test-reporter=tap", str(HERE / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "\n# fail 0" in done.stdout and "\n# pass 0" not in done.stdout
