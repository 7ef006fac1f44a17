"""A run of another process, with the words of `agentstream.runtime.Run`.

What comes in: a server and the id of a run. What goes out: its result, events, text and state, and stops. It does not
know how connections are made or taken up again; holding a run costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Generic, Literal, Self, cast

import msgspec
from typing_extensions import TypeVar

from agentstream.bus import encode_value
from agentstream.client._events import RemoteEvents, lost
from agentstream.client._http import Door, Refused
from agentstream.errors import InvalidInput, RunFailedError, RunLost, RunStoppedError, WireError
from agentstream.events import Json, RunFailed, RunFinished, RunStopped, TextDelta
from agentstream.stream import RunState

__all__ = ("RemoteRun", "RemoteText")

R = TypeVar("R", default=Json)

_MOST_REASON: Final = 1000


class RemoteRun(Generic[R]):
    """A run that exists on a server. Made by `Client.start` and `Client.get`.

    Attributes:
        id: the run's id.
    """

    def __init__(self, door: Door, id: str, decode: Callable[[Json], R] | None = None) -> None:
        self.id = id
        self._door = door
        self._decode = decode

    def __repr__(self) -> str:
        return f"RemoteRun({self.id!r})"

    async def result(self) -> R:
        """Wait for the end, over as many connections as it takes; abandoning the wait never stops the run.

        Raises:
            RunFailedError, RunStoppedError: how it ended instead. RunLost: it is not there any more.
            ServerUnreachable: no usable answer for as long as `Retry.give_up` says.
        """
        # From the tail, because an ended run answers with its terminal event; run-level events pass every filter.
        async with self.events(after="tail", types=("run.*",)) as events:
            async for event in events:
                match event:
                    case RunFinished(output=output):
                        return await self._result(output)
                    case RunFailed(code=code, message=message):
                        raise RunFailedError(code, message)
                    case RunStopped(cause=cause, detail=detail):
                        raise RunStoppedError(cause, detail)
                    case _:
                        pass
        raise RunLost(f"the stream of run {self.id} ended in an event that this version does not know")

    def events(
        self,
        *,
        after: str | None = None,
        agents: Sequence[str] = (),
        types: Sequence[str] = (),
        coalesce: bool = True,
    ) -> RemoteEvents:
        """The run's events: `async with run.events() as events: async for event in events`.

        Args:
            after: a cursor, or `"tail"` for what is new; from the first event without it.
            agents, types: filters with `*` and `?`; run-level events always pass.
            coalesce: join neighbouring deltas of one block that are there already.
        """
        return RemoteEvents(self._door, self.id, after=after, agents=agents, types=types, coalesce=coalesce)

    def text(self, *, agent: str | None = None) -> RemoteText:
        """The text that agents write: `async with run.text() as texts: async for text in texts`.

        Args:
            agent: only of this agent, or of one invocation (`executor.2`).
        """
        return RemoteText(self.events(agents=(agent,) if agent else (), types=("text.delta",)))

    async def stop(
        self, *, inv: str | None = None, mode: Literal["now", "after_step"] = "now", reason: str = ""
    ) -> None:
        """Ask for a stop, of the run or of one invocation with everything it called. Idempotent.

        Args:
            mode: `now`, or after the step under way.
            reason: goes into the terminal event; at most 1,000 characters of it.

        Raises:
            InvalidInput: an unknown mode, or `after_step` of one invocation. RunLost: the run is not there any more.
        """
        if mode not in ("now", "after_step") or (inv and mode != "now"):
            raise InvalidInput("mode is `now` or, for a whole run, `after_step`")
        body: dict[str, str] = {"mode": mode, **({"inv": inv} if inv else {})}
        if reason:
            body["reason"] = reason[:_MOST_REASON]
        await self._ask("POST", "/stop", msgspec.json.encode(body))

    async def answer(self, request: str, value: object, *, by: str = "") -> None:
        """Answer a question of the run; returns when the answer was left for it. The first answer counts.

        A request that had to be repeated may find its own answer: `InputAnswered` then says so, too.

        Args:
            request: the question's id: of `input.requested`, or in `(await run.state()).asks`.
            value: what its schema asks for. For an approval: True, False, or `{"approved": False, "reason": "…"}`.
            by: who answers; it stands in the log.

        Raises:
            InputUnknown: the run asked no such question. InputAnswered: it was answered before.
            InputExpiredError: it is closed. InvalidInput: the value does not fit its schema.
            RunLost: the run is not there any more.
        """
        body = {"request": request, "value": msgspec.Raw(encode_value(value)), **({"by": by} if by else {})}
        await self._ask("POST", "/input", msgspec.json.encode(body))

    async def state(self) -> RunState:
        """What the run amounts to now.

        Raises:
            RunLost: it is not there any more.
        """
        try:
            return msgspec.json.decode(await self._ask("GET", ""), type=RunState)
        except msgspec.MsgspecError as error:
            raise WireError(f"the state of run {self.id} is not in a form that this version knows") from error

    async def _result(self, output: Json) -> R:
        # A large result travels as an artifact that its event names.
        if isinstance(output, dict) and set(cast("dict[str, Json]", output)) == {"artifact", "uri", "size"}:
            output = msgspec.json.decode(await self._ask("GET", f"/artifacts/{output['artifact']}"))
        # Without its team a result is what JSON says.
        return cast("R", output) if self._decode is None else self._decode(output)

    async def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        headers = {"content-type": "application/json"} if content is not None else None
        try:
            answer = await self._door.request(method, f"/runs/{self.id}{path}", headers=headers, content=content)
        except Refused as refusal:
            raise lost(self.id, refusal) from None
        return answer.data


class RemoteText:
    """Iterates over text as it comes; after a `Reset` it begins anew. Use it as an async context manager."""

    def __init__(self, events: RemoteEvents) -> None:
        self._events = events

    async def __aenter__(self) -> Self:
        await self._events.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await anext(self._events)
            if isinstance(event, TextDelta):
                return event.text
