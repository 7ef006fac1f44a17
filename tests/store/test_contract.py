"""Both backends keep the whole contract, on every event loop."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentstream.ports import Store
from agentstream.store import open_store
from agentstream.testing.store_checks import SHARED_STORE_CHECKS, SMALL, SMALL_STORE_CHECKS, STORE_CHECKS, StoreCheck

pytestmark = pytest.mark.anyio


def _address(kind: str, folder: Path, *options: str) -> str:
    if kind == "memory":
        return "memory:?" + "&".join(options)
    return f"sqlite:{folder / 'runs.db'}?" + "&".join((f"level={kind}", *options))


def _name(check: StoreCheck) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize("kind", ["memory", "process", "machine"])
@pytest.mark.parametrize("check", STORE_CHECKS, ids=_name)
async def test_every_store(check: StoreCheck, kind: str, tmp_path: Path) -> None:
    """Each promise of the contract holds for this backend on this loop."""

    def open_() -> AbstractAsyncContextManager[Store]:
        return open_store(_address(kind, tmp_path))

    await check(open_)


@pytest.mark.parametrize("kind", ["process", "machine"])
@pytest.mark.parametrize("check", SHARED_STORE_CHECKS, ids=_name)
async def test_shared_store(check: StoreCheck, kind: str, tmp_path: Path) -> None:
    """Each promise between two handles on one file holds on this loop."""

    def open_() -> AbstractAsyncContextManager[Store]:
        return open_store(_address(kind, tmp_path))

    await check(open_)


@pytest.mark.parametrize("kind", ["memory", "process"])
@pytest.mark.parametrize("check", SMALL_STORE_CHECKS, ids=_name)
async def test_small_store(check: StoreCheck, kind: str, tmp_path: Path) -> None:
    """Each bound holds on this loop."""

    def open_() -> AbstractAsyncContextManager[Store]:
        return open_store(_address(kind, tmp_path, SMALL))

    await check(open_)
