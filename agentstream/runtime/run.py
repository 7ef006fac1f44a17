"""A run, as its starter holds it.

What comes in: the id of a run in a store. What goes out: its result, events, text and state, and stops. It does not
know
where the run is executed: everything is read from the log, so a run of another process looks the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, cast

import msgspec
import pydantic
from typing_extensions import TypeVar

from agentstream.agent.generation import STRUCTURED
from agentstream.answer import EventStreamAnswer, Request, Response, as_response
from agentstream.bus import encode_value
from agentstream.errors import (
    BodyTooLarge,
    InputAnswered,
    InputExpiredError,
    InputUnknown,
    InvalidInput,
    RunFailedError,
    RunLost,
    RunStoppedError,
)
from agentstream.events import (
    AnyEvent,
    Json,
    Reset,
    RunFailed,
    RunFinished,
    RunStopped,
    TextDelta,
    TextFinished,
    TextStarted,
)
from agentstream.ports import Store
from agentstream.runtime.edge import Edge
from agentstream.runtime.mail import Answer, Stop, answer_letter, stop_letter
from agentstream.stream import RunState, Subscription, load_state
from agentstream.wire import decode_event, misfit

if TYPE_CHECKING:
    from agentstream.agent import Team

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Run", "RunText")

R = TypeVar("R", default=Json)

_MAX_ANSWER: Final = 128 * 1024
"""Of an answer's JSON: it travels in one event."""


class Run(Generic[R]):
    """A run that exists. Made by `Runtime.start` and `Runtime.get`; holding it costs nothing.

    Attributes:
        id: the run's id. incarnation: names this life of its log. owner: who may see it.
    """

    def __init__(
        self,
        store: Store,
        edge: Edge,
        id: str,
        incarnation: str,
        *,
        owner: str = "",
        team: Team[Any, R] | None = None,
    ) -> None:
        self.id = id
        self.incarnation = incarnation
        self.owner = owner
        self._store = store
        self._edge = edge
        self._team = team

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    async def result(self) -> R:
        """Wait for the end; abandoning the wait never stops the run.

        Raises:
            RunFailedError, RunStoppedError: how it ended instead. RunGone: deleted meanwhile.
        """
        audience = self._edge.audience(self.id)
        seat = audience.join() if audience is not None else None  # whoever waits for the result is there
        try:
            while not (tail := await self._store.tail(self.id)).ended:
                await self._store.changed(self.id, tail.last)
        finally:
            if seat is not None:
                seat.leave()
        chunks = await self._store.read(self.id, tail.last - 1)
        terminal = decode_event(chunks[-1].lines.rstrip(b"\n").rpartition(b"\n")[2])
        match terminal:
            case RunFinished(output=output):
                return await self._decode(output)
            case RunFailed(code=code, message=message):
                raise RunFailedError(code, message)
            case RunStopped(cause=cause, detail=detail):
                raise RunStoppedError(cause, detail)
            case _:
                raise RunLost(f"the log of run {self.id} ends in {terminal.type}, which this version does not know")

    def events(
        self,
        *,
        after: str | None = None,
        agents: Sequence[str] = (),
        types: Sequence[str] = (),
        coalesce: bool = True,
    ) -> Subscription:
        """The run's events: `async with run.events() as events: async for event in events`.

        Args:
            after: a cursor, or `"tail"` for what is new; from the first event without it.
            agents, types: filters with `*` and `?`; run-level events always pass.
            coalesce: join neighbouring deltas of one block that are there already.
        """
        return Subscription(
            self._store,
            self.id,
            after=after,
            agents=agents,
            types=types,
            coalesce=coalesce,
            audience=self._edge.audience(self.id),
        )

    def text(self, *, agent: str | None = None) -> RunText:
        """The text that agents write: `async with run.text() as texts: async for text in texts`.

        Args:
            agent: only of this agent, or of one invocation (`executor.2`).
        """
        return RunText(self.events(agents=(agent,) if agent else ()))

    async def stop(
        self, *, inv: str | None = None, mode: Literal["now", "after_step"] = "now", reason: str = ""
    ) -> None:
        """Ask for a stop, of the run or of one invocation with everything it called. Idempotent; returns at once.

        Args:
            mode: `now`, or after the step under way.
            reason: goes into the terminal event.

        Raises:
            InvalidInput: an unknown mode, or `after_step` of one invocation.
        """
        if mode not in ("now", "after_step") or (inv and mode != "now"):
            raise InvalidInput("mode is `now` or, for a whole run, `after_step`")
        letter = stop_letter(Stop(inv or "", mode, reason[:1000]))
        if not (await self._store.tail(self.id)).ended:
            await self._store.post(self.id, letter.key, letter.body)

    async def answer(self, request: str, value: object, *, by: str = "") -> None:
        """Answer a question of the run; returns when the answer was left for it. The first answer counts.

        Args:
            request: the question's id: of `input.requested`, or in `(await run.state()).asks`.
            value: what its schema asks for. For an approval: True, False, or `{"approved": False, "reason": "…"}`.
            by: who answers; it stands in the log.

        Raises:
            InputUnknown: the run asked no such question. InputAnswered: it was answered before.
            InputExpiredError: it is closed. InvalidInput: the value does not fit its schema, which `details` say.
            BodyTooLarge: the value is above 128 KiB.
        """
        encoded = encode_value(value)
        if len(encoded) > _MAX_ANSWER:
            raise BodyTooLarge(f"the answer is {len(encoded):,} bytes; at most {_MAX_ANSWER:,} are taken")
        value = msgspec.json.decode(encoded)
        ask = next((ask for ask in (await self.state()).asks if ask.request == request), None)
        if ask is None:
            raise InputUnknown("this run asked no such question")
        if ask.status == "answered":
            raise InputAnswered("this question was answered before")
        if ask.status != "open" or (ask.expires is not None and ask.expires <= self._edge.clock.wall_ms()):
            raise InputExpiredError("this question is closed", details={"status": ask.status})
        if complaint := misfit(ask.schema, value):
            raise InvalidInput(f"the answer does not fit: {complaint}", details={"errors": complaint.split("\n")})
        letter = answer_letter(Answer(request, value, by[:200]))
        if not await self._store.post(self.id, letter.key, letter.body):
            raise InputAnswered("this question was answered before")

    async def state(self) -> RunState:
        """What the run amounts to now."""
        state = await load_state(self._store, self.id)
        if not state.is_over and self._edge.halted(self.id) == state.attempt:
            return msgspec.structs.replace(state, halted="store")
        return state

    def asgi(self, *, location: str = "") -> EventStreamAnswer:
        """Its events as an ASGI application for one request: a stream of server-sent events, or JSON for polls."""
        return self._edge.answer(self.id, location=location)

    def sse(self, request: Request) -> Response:
        """Its events as the response of a Starlette or FastAPI handler: `return run.sse(request)`.

        Resumes at `Last-Event-ID` or `?after=`. Closing the connection does not stop the run.
        """
        return as_response(self.asgi(), request)

    async def _decode(self, output: Json) -> R:
        output = await self._whole(output)
        if self._team is None:
            return output  # type: ignore[no-any-return]  # without its team a result is what JSON says
        try:
            return self._team.output_adapter.validate_python(output)
        except pydantic.ValidationError as error:
            raise RunLost(
                f"the result of run {self.id} does not fit team {self._team.name}: {error.error_count()} errors"
            ) from None

    async def _whole(self, output: Json) -> Json:
        """A large result travels as an artifact that its event names."""
        if isinstance(output, dict) and set(cast("dict[str, Json]", output)) == {"artifact", "uri", "size"}:
            blob = await self._store.get(self.id, str(cast("dict[str, Json]", output)["artifact"]))
            if blob is None:
                raise RunLost(f"the result of run {self.id} is not kept any more")
            return msgspec.json.decode(blob.data)
        return cast("Json", output)


class RunText:
    """Iterates over text as it comes; after a `Reset` it begins anew. Use it as an async context manager.

    Blocks that hold the JSON of a typed answer (`role` is `structured`) are for programs and left out.
    """

    def __init__(self, events: Subscription) -> None:
        self._events = events
        self._structured: set[str] = set()

    async def __aenter__(self) -> Self:
        await self._events.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._events.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event: AnyEvent | Reset = await self._events.__anext__()
            if isinstance(event, TextStarted) and event.role == STRUCTURED:
                self._structured.add(event.block)
            elif isinstance(event, TextFinished):
                self._structured.discard(event.block)
            elif isinstance(event, TextDelta) and event.block not in self._structured:
                return event.text
