"""Several endpoints behind one model's name.

What comes in: endpoints, and requests as to any model. What goes out: whole answers from whichever endpoint can give
them, figures for operators, alarms. It does not know formats or HTTP; what is decided and why stands in `_core` and
`agentstream.policy`.

Before its first delta a call goes on at another endpoint without anybody seeing it; after it nothing is tried again,
and whoever reads gets the error. `complete` shows nothing before its end and repeats a broken answer too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

import anyio
from anyio.abc import TaskGroup

from agentstream.errors import InvalidInput
from agentstream.llm._call import PoolStream, complete
from agentstream.llm._core import Core
from agentstream.llm._member import Member
from agentstream.llm._open import ClientMaker, fetch_status, open_endpoint
from agentstream.llm._upkeep import Upkeep
from agentstream.llm._watch import Watched
from agentstream.llm.endpoint import Endpoint, PoolOptions, credential
from agentstream.llm.messages import LLMRequest, LLMResult
from agentstream.llm.statistics import CheckResult, PoolStatistics, StreamInfo
from agentstream.policy import BreakerOptions, Retry, Strategy

if TYPE_CHECKING:
    import httpx

__all__ = ("Endpoint", "EndpointPool", "PoolOptions")

_LEAVE_S: Final = 1.0
_CLOSE_S: Final = 5.0


class EndpointPool:
    """A model with several addresses. It is an `LLM`; safe to share between the tasks of one event loop.

    Use it as it is, or as `async with pool`: then endpoints are connected to at once, active checks run, kept
    connections stay warm and idle ones are closed, in tasks that end with the block. Without it nothing runs beside the
    calls: an endpoint that was given up is tried again by a call. Either way `aclose` leaves nothing open.

    Args:
        name: what errors, log lines and figures call it.
        endpoints: at least one to answer anything; more may be added later.
        strategy: how one of several is chosen; may be set at any time.
        retry: how often and how long a call is tried. breaker: when an endpoint is given up, and how long.
        http: a client to use for all endpoints; who made it closes it, and its own limits of connections count. None:
            each endpoint gets one, with the limits of its description.
        options: further limits and hooks.

    Raises:
        InvalidInput: two endpoints of one name, an unknown strategy or provider.
        NoModelConfigured: the variable that an endpoint's key should be in is not set.

    Source of rules and numbers: Envoy (outlier detection, panic), gRPC A6 (retry throttling), Finagle (peak EWMA).
    """

    def __init__(
        self,
        name: str,
        endpoints: Iterable[Endpoint] = (),
        *,
        strategy: Strategy = "health",
        retry: Retry | None = None,
        breaker: BreakerOptions | None = None,
        http: httpx.AsyncClient | None = None,
        options: PoolOptions | None = None,
    ) -> None:
        self._name = name
        self._core = Core(name, strategy, retry or Retry(), options or PoolOptions())
        self._breaker = breaker
        self._given = http
        self._maker = ClientMaker() if http is None else None
        self._upkeep = Upkeep(self._core)
        self._group: TaskGroup | None = None
        self._debug = self._core.options.debug
        for endpoint in endpoints:
            self._join(endpoint)

    def __repr__(self) -> str:
        return f"EndpointPool({self._name!r}, {list(self._core.members)})"

    # --- asking -------------------------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    def stream(self, request: LLMRequest) -> PoolStream:
        """Ask, and read the answer while it comes; entering takes until its first delta is here.

        Raises:
            LLMError: on entering, where no endpoint gave a first delta in time; while reading, where the answer broke.
                Its `details` say how many attempts there were and why there was no other.
        """
        return PoolStream(self._core, request)

    async def complete(self, request: LLMRequest) -> LLMResult:
        """Ask, and wait for the whole answer; one that breaks in the middle is asked for again.

        Raises:
            LLMError: no whole answer; as for `stream`.
        """
        return await complete(self._core, request)

    # --- living -------------------------------------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise InvalidInput(f"pool {self._name!r} is entered already")
        self._core.closed = False
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._live)
        self._set_probing()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        self._set_probing()
        try:
            await self.aclose()
        finally:
            if group is not None:
                group.cancel_scope.cancel()
                # Not told of the block's own error, which it would wrap into a group.
                await group.__aexit__(None, None, None)

    async def _live(self) -> None:
        if self._core.options.prewarm:
            await self._check([member for member in self._members() if self._core.can_ask(member)])
        await self._upkeep.keep()

    async def aclose(self) -> None:
        """End all calls, close all connections. Calls that wait, or come later, get an error."""
        self._core.closed = True
        for stream in list(self._core.streams.values()):
            if stream.movable:
                stream.move()
        self._core.line.wake_all()
        self._upkeep.changed()
        with anyio.move_on_after(_CLOSE_S, shield=True):
            async with AsyncExitStack() as stack:  # one that fails to close keeps no other open
                for member in self._members():
                    stack.push_async_callback(self._part, member)

    # --- endpoints ----------------------------------------------------------------------------------------------------
    @property
    def strategy(self) -> Strategy:
        """How an endpoint is chosen: health, round_robin, random or weighted."""
        return self._core.balancer.strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        self._core.balancer.strategy = strategy

    @property
    def debug(self) -> bool:
        """Whether each attempt is logged at level INFO; never with a key, a prompt or an answer."""
        return self._debug

    @debug.setter
    def debug(self, debug: bool) -> None:
        self._debug = debug
        for member in self._members():
            member.debug = debug

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints as they are described now."""
        return tuple(member.endpoint for member in self._members())

    async def add(self, endpoint: Endpoint) -> str:
        """Take in an endpoint; inside `async with pool` it is connected to first. The name that it has now.

        Raises:
            InvalidInput, NoModelConfigured: as in the constructor; the pool is then as it was.
        """
        member = self._join(endpoint)
        if self._group is not None and self._core.options.prewarm and self._core.can_ask(member):
            await self._check([member])
        self._core.line.wake_all()
        self._upkeep.changed()
        return member.name

    async def remove(self, name: str, *, cut: bool = False) -> None:
        """Let go of an endpoint. Calls that wait for their first token there go on elsewhere.

        Args:
            cut: answers that have begun end in `StreamBroken`; else they go on, and the connections are closed behind
                the last of them.

        Raises:
            InvalidInput: no endpoint of that name.
        """
        member = self._member(name)
        del self._core.members[member.name]
        await self._retire(member, cut=cut)

    async def update(self, endpoint: Endpoint) -> None:
        """Describe an endpoint anew, found by its name. What refused its key or its account is forgotten.

        With another address, model, key or limits it is as new; else its figures and calls go on.

        Raises:
            InvalidInput: no endpoint of that name. NoModelConfigured: as in the constructor.
        """
        old = self._member(endpoint.label)
        if old.endpoint.reaches_as(endpoint) and old.credential == credential(endpoint.resolve_key(os.environ)):
            old.endpoint = endpoint.model_copy(update={"name": old.name})
            old.take_back()
            self._core.acted(old)
        else:
            new = self._make(endpoint, old.name)
            self._core.members[old.name] = new
            self._core.acted(new)
            await self._retire(old, cut=False)
        self._set_probing()
        self._upkeep.changed()

    async def failover(self, name: str, *, seconds: float = 60.0) -> int:
        """Use the others instead of this endpoint for a while, from now on. How many calls were sent elsewhere.

        Calls that wait for their first token there go on at another endpoint; answers that have begun stay.

        Raises:
            InvalidInput: no endpoint of that name.
        """
        member = self._member(name)
        member.take_out("failover", anyio.current_time() + seconds)
        return await self._clear(member)

    def restore(self, name: str) -> None:
        """Use an endpoint again that was taken out by hand, or that refused its key or its account.

        Raises:
            InvalidInput: no endpoint of that name.
        """
        member = self._member(name)
        member.take_back()
        self._core.acted(member)

    async def check(self, name: str | None = None) -> dict[str, CheckResult]:
        """Check an endpoint, or all of them at once, now; what is found counts for their breakers.

        Raises:
            InvalidInput: no endpoint of that name, or it can only be checked by calls (`PoolOptions.check`).
        """
        members = self._members() if name is None else [self._member(name)]
        if not all(self._core.can_ask(member) for member in members):
            raise InvalidInput("endpoints with an opener of their own are checked by PoolOptions.check: set it")
        return {result.endpoint: result for result in await self._check(members)}

    async def prewarm(self) -> dict[str, CheckResult]:
        """Connect to all endpoints at once, so that the next call finds its connection there; the same as `check`."""
        return await self.check()

    # --- figures ------------------------------------------------------------------------------------------------------
    def statistics(self) -> PoolStatistics:
        """Figures of the pool and its endpoints, safe to show to operators. Inside the event loop only."""
        return self._core.statistics(anyio.current_time())

    def streams(self) -> list[StreamInfo]:
        """The open streams, the oldest first. Inside the event loop only."""
        now = anyio.current_time()
        return [stream.info(now) for stream in self._core.streams.values()]

    # --- inside -------------------------------------------------------------------------------------------------------
    def _members(self) -> list[Member]:
        return list(self._core.members.values())

    def _member(self, name: str) -> Member:
        try:
            return self._core.members[name]
        except KeyError:
            known = ", ".join(self._core.members) or "none"
            raise InvalidInput(f"pool {self._name!r} has no endpoint {name!r} (it has: {known})") from None

    def _join(self, endpoint: Endpoint) -> Member:
        name = endpoint.label
        if endpoint.name and name in self._core.members:
            raise InvalidInput(f"pool {self._name!r} has two endpoints {name!r}: give one another name")
        number = 1
        while name in self._core.members:
            number += 1
            name = f"{endpoint.label}-{number}"
        member = self._make(endpoint, name)
        self._core.members[name] = member
        self._set_probing()
        return member

    def _make(self, endpoint: Endpoint, name: str) -> Member:
        key = endpoint.resolve_key(os.environ)
        member = Member(self._name, endpoint.model_copy(update={"name": name}), name, self._breaker)
        member.debug = self._debug
        member.credential = credential(key)
        maker, opener = self._maker, self._core.options.opener
        http = Watched(member, None if maker is None else lambda: maker.make(endpoint), self._given)
        member.http = http
        if opener is None:
            member.fetch = lambda: fetch_status(member.endpoint, key, http)
        # It is only as much of a client as is used: see `Watched`.
        member.llm = (opener or open_endpoint)(member.endpoint, key, cast("httpx.AsyncClient", http))
        return member

    def _set_probing(self) -> None:
        """Only while checks run may they be what finds out that an endpoint is back."""
        for member in self._members():
            member.checked_only = self._group is not None and member.endpoint.health_check.active

    async def _check(self, members: list[Member]) -> list[CheckResult]:
        for member in members:
            member.used_at = anyio.current_time()  # wanted: its connection is kept as after a call
        return await self._upkeep.check_all(members)

    async def _clear(self, member: Member) -> int:
        """Send the calls elsewhere that wait there for their first token; how many."""
        moved = [
            stream.move() for stream in list(self._core.streams.values()) if stream.member is member and stream.movable
        ]
        with anyio.move_on_after(_LEAVE_S):
            for left in moved:
                await left.wait()
        return len(moved)

    async def _retire(self, member: Member, *, cut: bool) -> None:
        member.removed = True
        self._upkeep.changed()
        self._core.line.wake_all()
        await self._clear(member)
        if cut or member.health.active == 0:
            await self._part(member)
        else:
            member.part = lambda: self._part(member)

    async def _part(self, member: Member) -> None:
        """Close what belongs to an endpoint."""
        try:
            if member.llm is not None:
                await member.llm.aclose()
        finally:
            if member.http is not None:
                await member.http.aclose()
