"""Where runs are kept: their logs, mailboxes, leases, artifacts and index.

What comes in: an address. What goes out: a `ports.Store`, to be used as `async with open_store(address) as store`.
It does not know what a run is for; every backend keeps the same contract, `agentstream.testing.store_checks`.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from agentstream.clock import Clock
from agentstream.errors import InvalidInput
from agentstream.ports import Store
from agentstream.store._rules import Limits, limits_of
from agentstream.store.memory import MemoryStore
from agentstream.store.sqlite import SqliteStore

__all__ = ("Limits", "MemoryStore", "SqliteStore", "open_store")


def open_store(address: str, *, clock: Clock | None = None) -> Store:
    """The store at `address`; nothing is touched before `async with`.

    Args:
        address: `memory:`, or `sqlite:PATH`; after `?` the fields of `Limits`, and for SQLite
            `level=process` (the default) or `level=machine`: `sqlite:runs.db?level=machine&max_events=50000`.
        clock: for tests; the machine's own where it is None.

    Raises:
        InvalidInput: not an address of a known store.
    """
    kind, colon, rest = address.partition(":")
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if kind == "memory" and colon and not path:
        limits = limits_of(options)
        return MemoryStore(limits) if clock is None else MemoryStore(limits, clock=clock)
    if kind == "sqlite" and path:
        match options.pop("level", "process"):
            case "process" | "machine" as level:
                return SqliteStore(path, level=level, limits=limits_of(options), clock=clock)
            case _:
                raise InvalidInput("the store's address: level is `process` or `machine`")
    raise InvalidInput("a store's address is `memory:` or `sqlite:PATH`, with options after `?`")
