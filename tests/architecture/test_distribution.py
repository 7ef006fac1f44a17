"""What is shipped: the wheel's files and metadata.

Comes in: the checkout. Goes out: a wheel built by the installed backend, without an index, and looked into.
It deliberately does not install it.
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from house import AGENTS, PACKAGE, ROOT

CORE = ["anyio", "httpx", "msgspec", "opentelemetry-api", "pydantic"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and source archive into a folder of their own."""
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    """Open the wheel."""
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_claims_only_our_name(wheel: zipfile.ZipFile) -> None:
    """The wheel installs one import package and its metadata, nothing else at the top."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert sorted(re.sub(r"-.*\.", ".", top) for top in tops) == ["agentstream", "agentstream.dist-info"]


def test_wheel_is_typed_and_complete(wheel: zipfile.ZipFile) -> None:
    """Every file of the package is in the wheel, `py.typed` among them."""
    names = set(wheel.namelist())
    sources = {
        str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert "agentstream/py.typed" in names
    assert sorted(sources - names) == []


def test_wheel_carries_the_teams_as_data(wheel: zipfile.ZipFile) -> None:
    """Each file of `agents/` lies under `agentstream/_starters`, for `agentstream new` to copy."""
    names = set(wheel.namelist())
    files = {
        path.relative_to(AGENTS) for path in AGENTS.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert files
    assert sorted(str(file) for file in files if f"agentstream/_starters/{file}" not in names) == []


def test_core_depends_on_five_libraries(wheel: zipfile.ZipFile) -> None:
    """Without an extra the wheel asks for exactly the five libraries of the core."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    wanted = email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist", [])
    core = [re.split(r"[^\w.-]", one)[0] for one in wanted if "extra ==" not in one]
    assert sorted(core) == CORE


def test_source_archive_can_be_built_and_tested(dist: Path) -> None:
    """The source archive holds teams, tests and what `make test` reads."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        tops = {"/".join(name.split("/")[1:2]) for name in archive.getnames()}
    assert {"agentstream", "agents", "tests", "Makefile", "constraints.txt", "pyproject.toml", "LICENSE"} <= tops
