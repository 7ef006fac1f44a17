"""The open questions of one run: asked, waited for, answered once.

What comes in: questions of agents, and answers from the mailbox. What goes out: `input.*` events, each accepted before
anybody acts on it, and answers. It does not know how people see a question, nor who may answer it.

A question that was open when the run's worker died stays open: whoever asks it again, by its key, waits for the same
request, and an answer that was left meanwhile counts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import anyio

from agentstream.agent import Answered, Context, Question
from agentstream.agent.schema import DoesNotFit
from agentstream.bus import Emitter, encode_value
from agentstream.clock import Clock
from agentstream.errors import InputExpiredError, StoreError
from agentstream.events import AgentWaiting, InputExpired, InputReceived, InputRequested, Json
from agentstream.order import Extra
from agentstream.runtime.mail import Answer, answer_letter
from agentstream.stream import AskState, RunState

if TYPE_CHECKING:
    from agentstream.runtime.execution import Execution
    from agentstream.runtime.invocation import Invocation

# Any stands for the task and result types of agents that only their users know.
__all__ = ("Questions",)

_log = logging.getLogger("agentstream.runtime")

_MAX_PROMPT: Final = 64_000


class _Open:
    """A question that is waited for. `answer` is set before `told`."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.told = anyio.Event()


class Questions:
    """Asks people on behalf of a run's agents.

    Args:
        first: the run's state when this process took it: what is open in it may be asked again.
        done: called with the key of a letter whose effect was accepted.
    """

    def __init__(self, run: Execution, first: RunState, clock: Clock, done: Callable[[str], Awaitable[None]]) -> None:
        self._run = run
        self._clock = clock
        self._done = done
        self._open: dict[str, _Open] = {}
        self._early: dict[str, Answer] = {}  # bounded by the mailbox
        self._left: dict[str, AskState] = {ask.key: ask for ask in first.asks if ask.status == "open" and ask.key}

    # --- asking -------------------------------------------------------------------------------------------------------
    async def ask(self, ctx: Context, caller: Invocation[Any, Any], question: Question) -> Answered:
        """Ask, and wait for an answer that fits; one that does not is told, and the question asked again.

        Raises:
            InputExpiredError: nobody answered in time.
        """
        ends = None if question.expires is None else self._clock.wall_ms() + round(question.expires * 1000)
        complaint = ""
        while True:
            request, ends = await self._put(ctx, question, ends, complaint)
            try:
                answer = await self._wait(ctx, caller, request, ends)
                if answer is None:
                    await self._close(ctx, request, "expired")
                    raise InputExpiredError("nobody answered the question in time", details={"request": request})
                complaint = _misfit(question, answer.value)
                if not complaint:
                    # Beside the event for recovery, as every recorded result.
                    extra = Extra(private=encode_value(answer.value))
                    await _taken(ctx.close_reserved(request, InputReceived(request, answer.value, answer.by), extra))
                    await ctx.flush()
                    await self._acknowledge(request)
                    return Answered(answer.value, answer.by)
                await self._close(ctx, request, "invalid")
                await self._acknowledge(request)
            finally:
                self._shut(request)
                ctx.close_one(request)  # if it still is open: who asked was cancelled

    def take(self, answer: Answer) -> None:
        """An answer from the mailbox. The first one for a question counts."""
        found = self._open.get(answer.request)
        if found is None:
            self._early.setdefault(answer.request, answer)
        elif found.answer is None:
            found.answer = answer
            found.told.set()

    def close_left(self, root: Emitter) -> None:
        """The run ends: close what an earlier attempt had asked and nobody asked again."""
        for ask in self._left.values():
            root.put_reserved(InputExpired(ask.request, "stopped"))  # where it has to wait it is parked, in its order
        self._left.clear()

    # --- inside -------------------------------------------------------------------------------------------------------
    async def _put(self, ctx: Context, question: Question, ends: int | None, complaint: str) -> tuple[str, int | None]:
        """Put the question into the log, unless it stands there open already; its id and when it closes."""
        left = self._left.pop(question.key, None)
        if left is not None and left.schema == question.schema and not complaint:
            ctx.adopt(left.request, InputExpired(left.request, "stopped"))
            self._begin(left.request)
            return left.request, left.expires
        request = ctx.new_id()
        prompt = f"{question.prompt}\n\nThe last answer did not fit: {complaint}" if complaint else question.prompt
        event = InputRequested(
            request,
            kind=cast('Literal["question", "approval"]', question.kind),
            call=question.call,
            prompt=prompt[:_MAX_PROMPT],
            schema=question.schema,
            expires=ends,
            key=question.key,
        )
        try:
            await _taken(ctx.open_reserved(request, event, InputExpired(request, "stopped")))
            self._begin(request)
            await ctx.flush()  # accepted before it is waited for: what is waited for can be answered
        except BaseException:
            self._shut(request)
            ctx.close_one(request)
            raise
        return request, ends

    async def _wait(self, ctx: Context, caller: Invocation[Any, Any], request: str, ends: int | None) -> Answer | None:
        found = self._open[request]
        await ctx.emit(AgentWaiting("human"))
        seconds = None if ends is None else max(0.0, (ends - self._clock.wall_ms()) / 1000)
        # Who waits for a person takes no place: a thousand open questions must not keep anybody from working.
        async with self._run.lent(caller):
            with anyio.move_on_after(seconds):
                await found.told.wait()
            self._shut(request)
        return found.answer

    async def _close(self, ctx: Context, request: str, reason: Literal["expired", "invalid"]) -> None:
        await _taken(ctx.close_reserved(request, InputExpired(request, reason)))
        await ctx.flush()

    def _begin(self, request: str) -> None:
        opened = self._open[request] = _Open()
        early = self._early.pop(request, None)
        if early is not None:
            opened.answer = early
            opened.told.set()
        self._run.limits.clocks.hold()

    def _shut(self, request: str) -> None:
        if self._open.pop(request, None) is not None:
            self._run.limits.clocks.release()

    async def _acknowledge(self, request: str) -> None:
        try:
            await self._done(answer_letter(Answer(request)).key)
        except StoreError as error:  # a letter that stays is read again, and answers nothing that is open
            _log.warning("run %s: an answer was not acknowledged: %s", self._run.run_id, error)


def _misfit(question: Question, value: Json) -> str:
    try:
        question.check(value)
    except DoesNotFit as error:
        return str(error)
    return ""


async def _taken(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting
