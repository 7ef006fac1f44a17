"""A store that notes when each chunk was handed to it, and nothing else.

Comes in: a real store and the path of a file. Goes out: the same store, and a file of numbers: first and last seq of a
chunk, and the monotonic nanoseconds (a clock that all processes of a machine share) just before its append.
It deliberately does not know what the times are compared with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

from agentstream.ports import Chunk, Store

__all__ = ["StampedStore", "read_stamps"]

_STAMP: Final = struct.Struct("<IIQ")


class StampedStore:
    """`store`, with every append noted in `path`; written through when a run has ended."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._file = path.open("wb")

    def __getattr__(self, name: str) -> Any:  # Any: whatever the store has under this name
        return getattr(self._store, name)

    async def __aenter__(self) -> None:
        await self._store.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        await self._store.__aexit__(*exc)
        self._file.close()

    async def append(self, run: str, epoch: int, expected: int, chunk: Chunk) -> int:
        """As the store's own."""
        self._file.write(_STAMP.pack(chunk.first, chunk.last, monotonic_ns()))
        last = await self._store.append(run, epoch, expected, chunk)
        if chunk.ends:
            self._file.flush()
        return last


def read_stamps(path: Path) -> Iterator[tuple[int, int, int]]:
    """First seq, last seq and nanoseconds of each append."""
    return _STAMP.iter_unpack(path.read_bytes())
