"""Addresses name a store, its level and its bounds; what is no address is refused before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentstream.clock import SystemClock
from agentstream.errors import InvalidInput
from agentstream.store import Limits, MemoryStore, SqliteStore, open_store


@pytest.mark.parametrize(
    "address",
    [
        "memory:",
        "memory:?max_events=5",
        "sqlite:runs.db",
        "sqlite:folder/my runs.db?level=machine",
        "sqlite:/var/lib/runs.db?level=machine&max_events=5&cache_bytes=0",
    ],
)
def test_round_trip(address: str) -> None:
    """A store's address opens the same store again."""
    assert open_store(address).address == address


def test_kinds_and_levels() -> None:
    """The kind picks the backend; a SQLite store is at level `process` unless told otherwise."""
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_store("sqlite:x.db", clock=SystemClock()), SqliteStore)
    levels = [
        open_store(a).level for a in ("memory:", "sqlite:x.db", "sqlite:x.db?level=process", "sqlite:x?level=machine")
    ]
    assert levels == ["memory", "process", "process", "machine"]
    assert open_store("sqlite:x.db?level=process").address == "sqlite:x.db"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "memory",
        "sqlite",
        "sqlite:",
        "redis://localhost",
        "memory:runs",
        "sqlite::memory:",
        "sqlite:///relative.db",
        "sqlite://host/runs.db",
        "sqlite:a\0b",
        "sqlite:x.db?level=none",
        "sqlite:x.db?durable=1",
        "memory:?level=process",
        "memory:?max_events=many",
        "memory:?max_events=0",
        "memory:?max_events=4294967296",
        "memory:?max_bytes=-1",
        "memory:?max_events=",
    ],
)
def test_no_address(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be opened is refused with a typed error and leaves no file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput):
        open_store(address)
    assert not list(tmp_path.iterdir())


def test_unknown_levels_and_bounds_of_constructors() -> None:
    """The constructors judge as the addresses do."""
    with pytest.raises(InvalidInput, match="level"):
        SqliteStore("x.db", level="memory")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="max_letters"):
        Limits(max_letters=0)
    assert MemoryStore(Limits(max_events=7)).address == "memory:?max_events=7"
