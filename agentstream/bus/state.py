"""The run's shared document.

What comes in: changes by JSON pointer. What goes out: the document as it is now, and one `state.delta` a change. It
does not know who reads it; two agents that write the same place do so in the order in which their events are numbered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from agentstream.bus.encode import encode_value
from agentstream.errors import StateTooLarge
from agentstream.events import Json
from agentstream.wire import patch

__all__ = ("MAX_STATE_BYTES", "Document", "State")

MAX_STATE_BYTES: Final = 192 * 1024
"""DESIGN §6: a snapshot of the whole document must fit one event."""


class Document:
    """The one document of a run, shared by the emitters of its process."""

    __slots__ = ("_size", "value")

    def __init__(self, value: Json = None) -> None:
        self.value: Json = {} if value is None else value
        self._size = len(encode_value(self.value))

    def change(self, op: dict[str, object], size: int) -> None:
        """Apply one operation of `size` bytes.

        Raises:
            PatchError: it does not apply. StateTooLarge: the document would pass its bound; nothing was changed.
        """
        changed = patch.apply(self.value, [op])
        # The sum of operations is an upper bound; the exact size is looked up only when that bound is passed.
        estimate = self._size + size
        if estimate > MAX_STATE_BYTES:
            estimate = len(encode_value(changed))
            if estimate > MAX_STATE_BYTES:
                raise StateTooLarge(
                    f"the shared state would be {estimate:,} bytes; it holds at most {MAX_STATE_BYTES:,}. "
                    "Keep large data as an artifact and its id in the state"
                )
        self.value, self._size = changed, estimate


class State:
    """The document as one emitter sees it. Pointers are RFC 6901 (`/plan/0/title`), operations RFC 6902."""

    def __init__(
        self,
        document: Document,
        put: Callable[[tuple[dict[str, object], ...], Callable[[], None]], Awaitable[None]],
    ) -> None:
        self._document = document
        self._put = put

    @property
    def value(self) -> Json:
        """The whole document now. Do not change it in place: nobody would be told."""
        return self._document.value

    def get(self, pointer: str) -> Json:
        """The value at `pointer`.

        Raises:
            PatchError: nothing is there.
        """
        return patch.get(self._document.value, pointer)

    async def set(self, pointer: str, value: object) -> None:
        """Set the value at `pointer`; its parent must exist.

        Raises:
            PatchError: the parent does not exist. StateTooLarge: above 192 KiB. NotSerializable: not JSON.
        """
        await self._change("add", pointer, value)

    async def append(self, pointer: str, value: object) -> None:
        """Append to the list at `pointer`."""
        await self._change("add", f"{pointer}/-", value)

    async def delete(self, pointer: str) -> None:
        """Remove the value at `pointer`."""
        change: dict[str, object] = {"op": "remove", "path": pointer}
        await self._put((change,), partial(self._document.change, change, 0))

    async def _change(self, op: str, pointer: str, value: object) -> None:
        encoded = encode_value(value)
        # The document holds a copy: what the caller does with its value afterwards changes nothing.
        change: dict[str, object] = {"op": op, "path": pointer, "value": msgspec.json.decode(encoded)}
        size = len(encoded) + len(pointer) + 8
        await self._put((change,), partial(self._document.change, change, size))
