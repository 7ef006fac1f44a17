"""What a pool does beside its calls: checks, connections kept warm, idle ones closed.

What comes in: endpoints in use and the time. What goes out: results of checks, which the endpoints' breakers take in.
It does not start tasks that outlive it: `keep` runs in the group of whoever entered the pool.
"""

from __future__ import annotations

import math
from typing import Final

import anyio

from agentstream.errors import LLMAuthError, LLMConnectionError, LLMError, LLMServerError, LLMTimeout
from agentstream.llm._core import Core
from agentstream.llm._member import Member
from agentstream.llm.statistics import CheckResult
from agentstream.policy import BreakerState

__all__ = ("Upkeep",)

_AT_ONCE: Final = 16
_LEAST_PAUSE_S: Final = 1.0
_CLOSE_S: Final = 2.0
_REFUSED: Final = LLMAuthError.code


class Upkeep:
    """Checks and tends the endpoints of one pool."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._changed: anyio.Event | None = None

    # --- one check ----------------------------------------------------------------------------------------------------
    async def check(self, member: Member) -> CheckResult:
        """Ask an endpoint whether it is well, and let its breaker know.

        A breaker that is half-open wants more than one success: it is asked as often as that takes.
        """
        result = await self._check_once(member)
        for _ in range(8):
            if not result.ok or member.breaker.state(anyio.current_time()) is BreakerState.CLOSED:
                break
            result = await self._check_once(member)
        return result

    async def _check_once(self, member: Member) -> CheckResult:
        began = anyio.current_time()
        was = member.breaker.state(began)
        ticket = None if member.breaker.probing else member.breaker.begin(began)
        status, code = 0, LLMTimeout.code
        limit = member.endpoint.health_check.timeout
        try:
            with anyio.move_on_after(limit):
                status, code = await self._outcome(member)
        except BaseException:
            if ticket is not None:
                member.breaker.abandoned(ticket)
            raise
        now = anyio.current_time()
        ok = not code
        if ticket is not None and ok:
            member.breaker.succeeded(ticket, now)
            member.health.observe(True, now)
        elif ticket is not None and code != _REFUSED:
            member.breaker.failed(ticket, now, self._core.random())
            member.health.observe(False, now)
        elif ticket is not None:
            member.breaker.abandoned(ticket)
        member.checked_at = now
        member.last_check = CheckResult(member.name, ok, round(now - began, 4), status, code)
        if not ok:
            member.last_error = code
        self._core.checked(member, was, now)
        return member.last_check

    async def _outcome(self, member: Member) -> tuple[int, str]:
        """The status (0: none) and the code of the failure, empty where there is none."""
        try:
            if self._core.options.check is not None:
                await self._core.options.check(member.endpoint)
                return 0, ""
            assert member.fetch is not None, "no way to check it: see Core.can_ask"
            status = await member.fetch()
        except LLMError as error:
            return error.http_status or 0, error.code
        except Exception as error:  # noqa: BLE001 - a program's own check says no by raising whatever it likes
            # Only the kind: what it says may hold anything. No check may end what runs beside the calls.
            member.say("check of %s raised %s", member.name, type(error).__name__)
            return 0, LLMConnectionError.code
        if status >= 500:
            return status, LLMServerError.code
        return status, _REFUSED if status == 401 else ""

    async def check_all(self, members: list[Member]) -> list[CheckResult]:
        """Check all of them at once, a few at a time; the results in their order."""
        results: dict[str, CheckResult] = {}
        places = anyio.CapacityLimiter(_AT_ONCE)

        async def one(member: Member) -> None:
            async with places:
                results[member.name] = await self.check(member)

        async with anyio.create_task_group() as group:
            for member in members:
                group.start_soon(one, member)
        return [results[member.name] for member in members]

    # --- beside the calls ---------------------------------------------------------------------------------------------
    def changed(self) -> None:
        """Endpoints have come, gone or changed."""
        if self._changed is not None:
            self._changed.set()

    async def keep(self) -> None:
        """Check, keep warm and close what is idle, until cancelled."""
        core = self._core
        while not core.closed:
            self._changed = anyio.Event()
            now = anyio.current_time()
            members = list(core.members.values())
            await self.check_all([member for member in members if self._due(member) <= now])
            for member in members:
                await self._close_idle(member)
            wait = min((self._next(member) for member in members), default=math.inf) - anyio.current_time()
            with anyio.move_on_after(max(_LEAST_PAUSE_S, wait)):
                await self._changed.wait()

    def _due(self, member: Member) -> float:
        """When it is checked next; infinite for never."""
        now = anyio.current_time()
        how = member.endpoint.health_check
        checked = member.checked_at
        if how.active:
            if member.breaker.state(now) is not BreakerState.CLOSED:
                return max(checked + _LEAST_PAUSE_S, min(checked + how.interval, now + member.breaker.open_for(now)))
            return max(checked, member.used_at) + how.interval
        warm = member.endpoint.connections.expiry / 2
        wanted = self._core.options.prewarm and self._core.can_ask(member) and warm > 0 and member.health.active == 0
        due = max(checked, member.used_at) + warm
        return due if wanted and due < self._idle_at(member) else math.inf

    def _idle_at(self, member: Member) -> float:
        """When its connections are closed."""
        if (
            member.http is None
            or not member.http.connected
            or member.health.active
            or member.endpoint.health_check.active
        ):
            return math.inf
        return member.used_at + self._core.options.idle_after

    def _next(self, member: Member) -> float:
        return min(self._due(member), self._idle_at(member))

    async def _close_idle(self, member: Member) -> None:
        if self._idle_at(member) > anyio.current_time() or member.http is None:
            return
        member.say("idle: connections to %s are closed", member.name)
        with anyio.move_on_after(_CLOSE_S):
            await member.http.aclose()
