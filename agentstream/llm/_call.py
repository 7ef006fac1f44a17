"""One call: it goes from endpoint to endpoint until one has given the first delta, and from then on stays.

What comes in: a request. What goes out: the deltas of one answer, or one error. It does not know how an endpoint is
chosen or what a failure means: `_core` does.

Everything that may be repeated happens while the context is entered, before anybody has seen a delta; so entering takes
until the first one is here. After it a failure is given out as it is, and nothing is tried again.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Literal, Self

import anyio

from agentstream.errors import LLMError, LLMValidationError, StreamBroken
from agentstream.llm._core import Call, Core
from agentstream.llm._member import Attempt, Member
from agentstream.llm._watch import CALL
from agentstream.llm.contract import LLMStream
from agentstream.llm.messages import Delta, Finish, LLMRequest, LLMResult
from agentstream.llm.statistics import StreamInfo

__all__ = ("PoolStream", "complete")

_NOTHING: Final = LLMResult()


class PoolStream:
    """What `EndpointPool.stream` returns: the context, and the stream that it gives."""

    def __init__(self, core: Core, request: LLMRequest, call: Call | None = None) -> None:
        self._core = core
        self._request: LLMRequest | None = request
        self._identity = id(request)
        self._call = call
        self._whole = call is None  # else this is only a part of the call, and its end is not the call's
        self._member: Member | None = None
        self._attempt: Attempt | None = None
        self._judged = False
        self._context: AbstractAsyncContextManager[LLMStream] | None = None
        self._stream: LLMStream | None = None
        self._first: Delta | None = None
        self._state: Literal["waiting", "asked", "streaming", "finished"] = "waiting"
        self._scope: anyio.CancelScope | None = None
        self._ended: anyio.Event | None = None
        self._since = 0.0
        self._deltas = 0

    # --- for whoever reads --------------------------------------------------------------------------------------------
    @property
    def result(self) -> LLMResult:
        """What was read so far, joined."""
        return self._stream.result if self._stream is not None else _NOTHING

    async def __aenter__(self) -> Self:
        core = self._core
        core.refuse_closed()
        now = anyio.current_time()
        request = self._request
        assert request is not None, "a stream is entered once"
        if self._call is None:
            sticky = core.options.sticky
            self._call = core.new_call(sticky(request) if sticky is not None else "", now)
            core.recall_broken(self._identity, self._call, now)
        self._since = now
        core.streams[id(self)] = self
        named = CALL.set(self._call.id)
        try:
            await self._begin(self._call, request)
        except BaseException as error:
            core.streams.pop(id(self), None)
            if isinstance(error, LLMError) and self._whole:
                core.failed += 1
            raise
        finally:
            CALL.reset(named)
            self._request = None  # the prompt is not needed any more, and stays out of tracebacks with locals
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._core.streams.pop(id(self), None)
        context, self._context = self._context, None
        member = self._member
        try:
            if context is not None:
                await context.__aexit__(kind, error, trace)
        finally:
            self._release()
            if member is not None and member.part is not None and member.health.active == 0:
                await member.part()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        delta, self._first = self._first, None
        if delta is None:
            delta = await self._next()
        self._deltas += 1
        return delta

    async def _next(self) -> Delta:
        if self._stream is None:
            raise StreamBroken("the answer was read outside its `async with`", provider=self._core.name)
        try:
            delta = await anext(self._stream)
        except StopAsyncIteration:
            if self._state == "finished":
                raise
            broken = StreamBroken("the answer ended before its end", provider=self._name)
            self._fail(broken)
            raise broken from None
        except LLMError as error:
            self._fail(error)
            raise
        refused = self._take(delta)
        if refused is not None:
            self._fail(refused)
            raise refused
        return delta

    def _take(self, delta: Delta) -> LLMError | None:
        """Note a delta; what is wrong with the answer if it is the last."""
        self._since = anyio.current_time()
        if isinstance(delta, Finish):
            refused = self._validated()
            if refused is not None:
                return refused
            self._state = "finished"
            self._succeed()
        return None

    # --- until the first delta ----------------------------------------------------------------------------------------
    async def _begin(self, call: Call, request: LLMRequest) -> None:
        while True:
            await self._find(call)
            self._state = "asked"
            try:
                await self._ask(call, request)
            except LLMError as error:
                again = self._judge(error)
                self._release()
                self._state = "waiting"
                if not again:
                    raise
            except BaseException:
                self._release()
                raise
            else:
                if self._first is not None:
                    return
                self._release()  # sent elsewhere
                self._state = "waiting"

    async def _find(self, call: Call) -> None:
        """Wait for an endpoint, and take a place there."""
        core = self._core
        place = None
        word = True  # whoever comes first looks at once
        try:
            while True:
                core.refuse_closed()
                now = anyio.current_time()
                if place is not None or not len(core.line):
                    member = core.pick(call, now)
                    if member is not None:
                        self._member, self._judged = member, False
                        self._attempt = core.begin(call, member, now)
                        return
                seconds = core.plan(call, now)
                if place is None:
                    core.check_line(call, now)
                    place = core.line.enter()
                elif word:
                    core.line.pass_on(place)
                word = await place.wait(seconds)
        finally:
            if place is not None:
                core.line.leave(place)

    async def _ask(self, call: Call, request: LLMRequest) -> None:
        """Ask the endpoint until its first delta; without an error and without a delta, it was sent elsewhere."""
        member, attempt = self._member, self._attempt
        assert member is not None
        assert attempt is not None
        assert member.llm is not None
        self._ended = anyio.Event()
        context = member.llm.stream(request)
        with anyio.CancelScope(deadline=call.deadline) as self._scope:
            stream = await context.__aenter__()
            try:
                first = await anext(stream, None)
                failed = self._judge_first(first, stream)
            except BaseException as error:
                await context.__aexit__(type(error), error, error.__traceback__)
                raise
            if failed is not None:
                await context.__aexit__(type(failed), failed, None)
                raise failed
            now = anyio.current_time()
            member.first(attempt, now)
            self._context, self._stream, self._first = context, stream, first
            self._since, self._state = now, "finished" if isinstance(first, Finish) else "streaming"
            if self._state == "finished":
                self._succeed()
        late = self._scope.cancelled_caught and anyio.current_time() >= call.deadline
        self._scope = None
        if late:
            # Not the endpoint's fault: it may have had only the end of the call's time.
            raise self._core.too_late(call)

    def _judge_first(self, first: Delta | None, stream: LLMStream) -> LLMError | None:
        if first is None:
            return StreamBroken("the answer ended before it began", provider=self._name)
        if isinstance(first, Finish):
            self._stream = stream
            return self._validated()
        return None

    def _validated(self) -> LLMError | None:
        """Ask the program's own check about the whole answer."""
        check = self._core.options.validate_response
        if check is None:
            return None
        try:
            fits = check(self.result)
        except ValueError:
            fits = False  # what it says may hold the answer, and stays with it
        if fits is False:
            return LLMValidationError("the answer was refused by the pool's own check", provider=self._name)
        return None

    # --- outcomes -----------------------------------------------------------------------------------------------------
    @property
    def _name(self) -> str:
        return self._member.name if self._member is not None else self._core.name

    def _judge(self, error: LLMError) -> bool:
        """Tell the pool of a failed attempt; whether there may be another."""
        call, member, attempt = self._call, self._member, self._attempt
        if call is None or member is None or attempt is None or self._judged:
            return False
        if error.details.get("stopped") == "max_wait":  # the call's own time is over, and nothing is known by that
            return False
        if self._core.closed or member.removed:  # cut by ourselves; nothing is known of the endpoint by that
            call.tried.add(member)
            call.again = not self._core.closed
            return call.again
        self._judged = True
        return self._core.fail(call, member, attempt, error, anyio.current_time())

    def _fail(self, error: LLMError) -> None:
        """The answer broke after its first delta."""
        if not self._judged and self._whole:
            self._core.failed += 1
        call, again = self._call, self._judge(error)
        if call is None or not again or not self._whole:
            return
        now = anyio.current_time()
        self._core.remember_broken(self._identity, call, now)
        if error.retry_after is None and self._core.has_another(call, now):
            error.retry_after = 0.0  # whoever asks anew is answered by another endpoint: no pause is needed

    def _succeed(self) -> None:
        call, member, attempt = self._call, self._member, self._attempt
        if call is not None and member is not None and attempt is not None and not self._judged:
            self._judged = True
            self._core.succeed(call, member, attempt, anyio.current_time())

    def _release(self) -> None:
        """Give the place back."""
        member, attempt = self._member, self._attempt
        self._member = self._attempt = self._scope = None
        if member is not None and attempt is not None:
            if not self._judged:
                member.abandon(attempt)
            self._judged = True
            self._core.end(member, attempt, anyio.current_time())
        if self._ended is not None:
            self._ended.set()

    # --- for the pool -------------------------------------------------------------------------------------------------
    @property
    def member(self) -> Member | None:
        """Where it is now."""
        return self._member

    @property
    def movable(self) -> bool:
        """Whether it waits for its first delta and can go elsewhere unseen."""
        return self._state == "asked" and self._scope is not None

    def move(self) -> anyio.Event:
        """Leave the endpoint for another; the event is set when it has left."""
        assert self._scope is not None
        assert self._ended is not None
        if self._call is not None and self._member is not None:
            self._call.tried.add(self._member)
        self._scope.cancel()
        return self._ended

    def info(self, now: float) -> StreamInfo:
        """What an operator sees of it."""
        call = self._call
        return StreamInfo(
            id=call.id if call is not None else "",
            endpoint=self._member.name if self._member is not None else "",
            state=self._state,
            attempt=call.attempts if call is not None else 0,
            age=round(now - call.began, 3) if call is not None else 0.0,
            since_delta=round(now - self._since, 3),
            deltas=self._deltas,
        )


async def complete(core: Core, request: LLMRequest) -> LLMResult:
    """The whole answer. Nothing of it is seen before its end, so a break in the middle is repeated too."""
    core.refuse_closed()
    sticky = core.options.sticky
    call = core.new_call(sticky(request) if sticky is not None else "", anyio.current_time())
    try:
        while True:
            async with PoolStream(core, request, call) as stream:
                try:
                    async for _ in stream:
                        pass
                    return stream.result
                except LLMError:
                    if not call.again:
                        raise
            call.deadline = anyio.current_time() + core.retry.max_wait
    except LLMError:
        core.failed += 1
        raise
