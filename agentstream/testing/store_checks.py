"""The contract of a store as public functions, for every backend, a third party's as well; no test framework needed.

What comes in: `open`, which opens a handle as `async with open() as store`. What goes out: nothing where a promise is
kept, else an AssertionError that names it. It does not know which backend it looks at, and leaves runs behind: give it
a store of its own.

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
    async def test_contract(check):
        await check(lambda: MyStore("…"))

Three tuples: `STORE_CHECKS` for every store. `SHARED_STORE_CHECKS` for those that several handles may open; each call
of `open` must then give another handle on the same store. `SMALL_STORE_CHECKS` for a store with the bounds `SMALL`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from agentstream.testing._store_kit import OpenStore
from agentstream.testing._store_log_checks import LOG_CHECKS, SMALL_LOG_CHECKS
from agentstream.testing._store_other_checks import OTHER_CHECKS, SMALL_OTHER_CHECKS
from agentstream.testing._store_shared_checks import SHARED_CHECKS

__all__ = ("SHARED_STORE_CHECKS", "SMALL", "SMALL_STORE_CHECKS", "STORE_CHECKS", "OpenStore", "StoreCheck")

StoreCheck: TypeAlias = Callable[[OpenStore], Awaitable[None]]
"""One promise: an async function of `open`, with the promise as its docstring."""

SMALL: Final = "max_events=100&max_bytes=100000&max_letters=10&max_artifact_bytes=10000&max_scope_bytes=20000"
"""The bounds that `SMALL_STORE_CHECKS` expect, as the options of an address."""

STORE_CHECKS: Final[tuple[StoreCheck, ...]] = LOG_CHECKS + OTHER_CHECKS
"""What every store promises."""

SHARED_STORE_CHECKS: Final[tuple[StoreCheck, ...]] = SHARED_CHECKS
"""What a store promises that several handles, or processes, open at once."""

SMALL_STORE_CHECKS: Final[tuple[StoreCheck, ...]] = SMALL_LOG_CHECKS + SMALL_OTHER_CHECKS
"""What a store promises at its bounds."""
