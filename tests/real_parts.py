"""The real parts that some tests and claims need: browsers, servers, optional loops.

Comes in: the name of a part. Goes out: where it is on this machine, or a `MissingPart` that says how to get it.
It deliberately does not know who asks, and whether a missing part is a skip or a failure.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Final, NamedTuple

REQUIRE_REAL: Final = "AGENTSTREAM_REQUIRE_REAL"


class MissingPart(Exception):
    """A real part is not on this machine; the message says how to install it."""


class Part(NamedTuple):
    """One real part: any of `programs` on the PATH, or the importable `module`."""

    install: str
    programs: tuple[str, ...] = ()
    module: str = ""


PARTS: Final[dict[str, Part]] = {
    "bwrap": Part("apt-get install bubblewrap", programs=("bwrap",)),
    "anthropic": Part("make setup", module="anthropic"),
    "chromium": Part("apt-get install chromium", programs=("chromium", "chromium-browser", "google-chrome")),
    "chromedriver": Part("apt-get install chromium-driver", programs=("chromedriver",)),
    "fastapi": Part("make setup", module="fastapi"),
    "git": Part("apt-get install git", programs=("git",)),
    "httpx_sse": Part("make setup", module="httpx_sse"),
    "make": Part("apt-get install make", programs=("make",)),
    "node": Part("apt-get install nodejs", programs=("node",)),
    "npm": Part("apt-get install npm", programs=("npm",)),
    "ollama": Part("make setup", module="ollama"),
    "openai": Part("make setup", module="openai"),
    "pandas": Part("make setup", module="pandas"),
    "trio": Part("make setup", module="trio"),
    "uvicorn": Part("make setup", module="uvicorn"),
    "uvloop": Part("make setup (there is none for Windows)", module="uvloop"),
}


def find(name: str) -> str:
    """Return the path of a program, or the name of a module, of the part `name`.

    Raises:
        KeyError: `name` is not in `PARTS`.
        MissingPart: it is not on this machine.
    """
    part = PARTS[name]
    for program in part.programs:
        if path := shutil.which(program):
            return path
    if part.module and importlib.util.find_spec(part.module) is not None:
        return part.module
    message = f"{name} is not on this machine: {part.install}"
    raise MissingPart(message)


def required() -> bool:
    """Tell whether a missing part is a failure here, as it is in CI."""
    return os.environ.get(REQUIRE_REAL, "") not in ("", "0")
