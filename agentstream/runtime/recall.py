"""What the contexts of a taken-over run get instead of doing finished work again.

What comes in: a unit's kind, keys and version. What goes out: its recorded result, once, or which attempt at it this
is. It does not know what a unit does, and decodes nothing into a user's types.
"""

from __future__ import annotations

from typing import Any, Final, Generic, cast

import msgspec
from typing_extensions import TypeVar

from agentstream.agent import Agent, Recalled
from agentstream.agent.schema import decode
from agentstream.errors import AgentFailedError, StepChanged, StoreError
from agentstream.events import Json, Usage
from agentstream.ports import Artifacts
from agentstream.runtime.replay import Ledger, Past, UnitKind

# Any stands for the result types of agents that only their users know.
__all__ = ("FIRST_TIME", "Memory", "PastCall", "recalled_call")

O = TypeVar("O")  # noqa: E741

FIRST_TIME: Final = Recalled()
"""Nothing is known of it."""

_POINTER: Final = {"artifact", "uri", "size"}


class PastCall(msgspec.Struct, Generic[O], frozen=True):
    """A call of an earlier attempt that has ended: `agentstream.agent.Call` for who starts it again."""

    inv: str
    value: O | None
    failure: tuple[str, str] = ("", "")

    async def result(self) -> O:
        """What it returned.

        Raises:
            AgentFailedError: it failed or was stopped.
        """
        if self.failure[0]:
            raise AgentFailedError(self.inv, *self.failure)
        return self.value  # type: ignore[return-value]  # set where there is no failure

    async def stop(self, reason: str = "") -> None:
        """It has ended already."""


def recalled_call(agent: Agent[Any, O], past: Recalled) -> PastCall[O] | None:
    """The call that this was in an earlier attempt, if it ended there."""
    if past.failure[0]:
        return PastCall(past.id, None, past.failure)
    return PastCall(past.id, decode(agent.types()[1], past.value)) if past.done else None


class Memory:
    """The ledger of one run, with what it left in artifacts.

    Attributes:
        usage: of recorded answers that were not given out yet.
    """

    def __init__(self, artifacts: Artifacts, run: str, ledger: Ledger) -> None:
        self.usage = ledger.usage
        self._artifacts = artifacts
        self._run = run
        self._ledger = ledger

    async def recall(self, kind: UnitKind, within: str, key: str, version: str) -> Recalled:
        """What is known of a unit. A recorded result is given out once.

        Raises:
            StepChanged: it was recorded by other code. StoreError: what was recorded is lost.
        """
        past = self._ledger.past(kind, within, key)
        if past is None:
            return FIRST_TIME
        if past.version != version:
            raise StepChanged(
                f"{past.id} was recorded by another version of its code ({past.version or 'none'}, now "
                f"{version or 'none'}): a run is not continued by code that changed; start it again, or run the old "
                "code"
            )
        if not past.results:
            return Recalled(past.starts + 1, past.id, failure=past.failure)
        value = await self._value(kind, past.results.popleft())
        self.usage += _less(past)
        return Recalled(past.starts, past.id, done=True, value=value)

    async def _value(self, kind: UnitKind, record: bytes) -> Json:
        value = msgspec.json.decode(record)
        if kind == "tool":  # tools name what they left (`agentstream.agent.tool_calls`)
            return value["result"] if "result" in value else await self._load(value["artifact"])
        pointer = cast("dict[str, Json]", value) if isinstance(value, dict) else {}
        if pointer.keys() != _POINTER:
            return cast("Json", value)
        ours = pointer["uri"] == f"/runs/{self._run}/artifacts/{pointer['artifact']}"
        return await self._load(pointer["artifact"]) if ours else pointer

    async def _load(self, id_: str) -> Json:
        blob = await self._artifacts.get(self._run, id_)
        if blob is None:
            raise StoreError(f"the recorded result {id_} is not in the store any more")
        return msgspec.json.decode(blob.data)


def _less(past: Past) -> Usage:
    """Who is given a recorded answer counts its tokens again: they are taken out here."""
    used, past.usage = past.usage, Usage()
    return Usage(-used.input_tokens, -used.output_tokens, -used.cached_tokens, -used.reasoning_tokens, -used.calls)
