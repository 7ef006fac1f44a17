"""The code in the documentation: every block that names its file is run, as a reader would run it.

The README's blocks are the claim `readme.verbatim`; these are those of `docs/`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
import pytest

from agentstream.events import EVENT_TYPES, Event

ROOT: Final = Path(__file__).resolve().parents[2]
BLOCK: Final = re.compile(r"```python\n(# (\S+\.py)\n.*?)```", re.DOTALL)
BLOCKS: Final = {
    f"{page.name}:{name}": (name, code)
    for page in sorted((ROOT / "docs").glob("*.md"))
    for code, name in BLOCK.findall(page.read_text())
}
PRINTS: Final = {
    "first-steps.md:greet.py": "Hello, reader!",
    "agents.md:review.py": "streams: 2 words",
    "agents.md:rounds.py": "True 6",
    "agents.md:weather.py": "-3.5 Oslo: -3.5",
    "runs.md:limits.py": "stopped by its budget",
    "runs.md:seats.py": "2 seats for the opera",
    "models.md:one_address.py": "Paris.",
    "models.md:several.py": "Paris. 2 attempts, 0 failed calls",
    "models.md:from_file.py": "['default'] models.default.api_key holds a key. A key never stands in the file",
    "code.md:squares.py": "30 squares.txt\nexception",
    "stores.md:keep.py": "finished kept",
    "stores.md:check_store.py": "kept",
}


REAL: Final = {"code.md:squares.py": pytest.mark.real("bwrap")}


@pytest.mark.parametrize("where", [pytest.param(where, marks=REAL.get(where, ())) for where in BLOCKS])
def test_a_block_of_the_docs_runs(where: str, tmp_path: Path) -> None:
    """A script prints what the page is about; a test module passes."""
    name, code = BLOCKS[where]
    (tmp_path / name).write_text(code)
    test = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if name.startswith("test_") else []
    done = subprocess.run(
        [sys.executable, *test, name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if not test:
        assert done.stdout.strip() == PRINTS[where]


def test_every_python_block_names_its_file() -> None:
    """A block without a file name would be a picture of code."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        blocks = page.read_text().count("```python")
        assert blocks == len(BLOCK.findall(page.read_text())), page.name


def test_links_between_pages_lead_somewhere() -> None:
    """A relative link names a file that exists."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_the_page_of_events_lists_every_type_with_its_payload() -> None:
    """A type or field that was added is on the page."""
    page = (ROOT / "docs" / "events.md").read_text()
    envelope = set(Event.__struct_fields__)
    for type_ in EVENT_TYPES:
        name = str(type_.__struct_config__.tag)
        row = next((line for line in page.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert row, name
        for field in msgspec.structs.fields(type_):
            assert field.name in envelope or f"`{field.encode_name}`" in row, f"{name}.{field.encode_name}"
