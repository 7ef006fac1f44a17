"""Finished runs go, whole, when they are too old, too many or too large together.

What comes in: the rules, and a store. What goes out: runs forgotten by the store, which keeps a tombstone of each
(410). It does not know readers: one in the middle of a run that goes is cut behind a whole event, and told when it
comes back.

A run that is not over is never touched, and does not count. Every process of a store may sweep: forgetting a run twice
is harmless.
"""

from __future__ import annotations

import logging
from typing import Final

import anyio

from agentstream.clock import Clock
from agentstream.errors import AgentStreamError, RunGone, RunUnknown, StoreError
from agentstream.ports import RunRow, Store
from agentstream.runtime.options import Retention

__all__ = ("sweep", "sweep_once")

_log = logging.getLogger("agentstream.runtime")

_PAGE: Final = 200


async def sweep(store: Store, rules: Retention, clock: Clock) -> None:
    """Sweep every `rules.every` seconds, until cancelled."""
    if rules.keeps_all:
        return
    while True:
        await anyio.sleep(rules.every)
        try:
            await sweep_once(store, rules, clock)
        except StoreError as error:
            _log.warning("finished runs could not be looked through: %s", error)
        except Exception:  # noqa: BLE001  (a defect in a store must not end the runtime's other tasks)
            _log.exception("finished runs could not be looked through")


async def sweep_once(store: Store, rules: Retention, clock: Clock) -> int:
    """Forget what the rules do not keep; returns how many runs that were. Reads the index only, a page at a time."""
    now = clock.wall_ms()
    kept = size = gone = 0
    before = ""
    while rows := await store.page(owner=None, before=before, limit=_PAGE):
        before = rows[-1].run
        for row in rows:
            if not row.ended:
                continue
            kept += 1
            size += row.size
            if _is_kept(row, rules, now, kept, size):
                continue
            gone += await _forget(store, row.run)
    return gone


def _is_kept(row: RunRow, rules: Retention, now: int, kept: int, size: int) -> bool:
    return (
        (rules.age is None or now - row.ended <= rules.age * 1000)
        and (rules.runs is None or kept <= rules.runs)
        and (rules.size is None or size <= rules.size)
    )


async def _forget(store: Store, run: str) -> bool:
    try:
        await store.forget(run)
    except (RunUnknown, RunGone):
        return False  # another process was faster
    except StoreError:
        raise
    except AgentStreamError as error:
        _log.warning("run %s stays: %s", run, error)
        return False
    return True
