"""Endpoints without a network: what each does is written down, and happens in the test's own time.

Comes in: acts. Goes out: a pool whose endpoints play them, and what they were asked.
It deliberately does not know HTTP; `test_pool_http` goes over real sockets.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

import anyio

from agentstream.errors import LLMError, StreamBroken
from agentstream.llm import Assembly, Delta, Finish, LLMRequest, LLMResult, Message, TextPart
from agentstream.llm.endpoint import Endpoint, PoolOptions
from agentstream.llm.pool import EndpointPool

__all__ = ("ASK", "KEY", "PROMPT", "Act", "Endpoints", "Fake", "failing", "hanging", "text_of")

KEY: Final = "sk-canary-key"
PROMPT: Final = "canary prompt"
ASK: Final = LLMRequest((Message("user", PROMPT),))


@dataclass(frozen=True)
class Act:
    """What an endpoint does with one request: wait, refuse; or give words, and then break off or end."""

    first: float = 0.0
    refusal: LLMError | None = None
    words: Sequence[str] = ("Hel", "lo")
    gap: float = 0.0
    broken: LLMError | None = None
    ends: bool = True
    leave: float = 0.0


def failing(error: LLMError, *, after: float = 0.0) -> Act:
    """Refuse with this error."""
    return Act(first=after, refusal=error)


hanging: Final = Act(first=1e9)


class Fake:
    """The client of one endpoint; `act` may be set at any time, or be a function of the request's number from 1."""

    def __init__(self, name: str, act: Act | Callable[[int], Act]) -> None:
        self.name = name
        self.act = act
        self.asked: list[float] = []
        self.active = 0
        self.most = 0
        self.closed = 0

    def stream(self, request: LLMRequest) -> _Stream:
        """Play the act."""
        assert request is ASK
        return _Stream(self)

    async def complete(self, request: LLMRequest) -> LLMResult:
        """As any model."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Count it."""
        self.closed += 1

    def next_act(self) -> Act:
        """The act of the request that begins now."""
        self.asked.append(anyio.current_time())
        return self.act if isinstance(self.act, Act) else self.act(len(self.asked))


class _Stream:
    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._assembly = Assembly()
        self._deltas: AsyncGenerator[Delta, None] | None = None

    @property
    def result(self) -> LLMResult:
        return self._assembly.result("m")

    async def __aenter__(self) -> Self:
        fake = self._fake
        act = fake.next_act()
        fake.active += 1
        fake.most = max(fake.most, fake.active)
        try:
            await anyio.sleep(act.first)
            if act.refusal is not None:
                # A fresh error each time, as a client makes.
                old = act.refusal
                raise type(old)(
                    old.detail,
                    provider=fake.name,
                    http_status=old.http_status,
                    retry_after=old.retry_after,
                    details=old.details,
                )
        except BaseException:
            fake.active -= 1
            raise
        self._deltas = self._play(act)
        return self

    async def _play(self, act: Act) -> AsyncGenerator[Delta, None]:
        for word in act.words:
            yield TextPart(word)
            await anyio.sleep(act.gap)
        if act.broken is not None:
            raise act.broken
        if act.ends:
            yield Finish("stop")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fake.active -= 1
        if self._deltas is not None:
            with anyio.CancelScope(shield=True):
                await self._deltas.aclose()

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Delta:
        assert self._deltas is not None
        delta = await anext(self._deltas)
        self._assembly.add(delta)
        return delta


@dataclass
class Endpoints:
    """A pool of fakes, by name: `Endpoints(a=Act(), b=hanging)`. `more` are fields of an endpoint, by its name."""

    acts: dict[str, Act | Callable[[int], Act]]
    more: dict[str, dict[str, Any]] = field(default_factory=dict)  # Any: fields of a pydantic model
    made: dict[str, Fake] = field(default_factory=dict)

    def endpoint(self, name: str, **fields: Any) -> Endpoint:  # Any: as above
        """The description of one."""
        usual = {"url": f"http://{name}.test/v1", "model": "m", "name": name}
        return Endpoint.model_validate({**usual, **self.more.get(name, {}), **fields})

    def __getitem__(self, name: str) -> Fake:
        return self.made[name]

    def _open(self, endpoint: Endpoint, key: str, http: object) -> Fake:
        fake = Fake(endpoint.name, self.acts.get(endpoint.name, Act()))
        self.made[endpoint.name] = fake
        return fake

    def make(self, **arguments: Any) -> EndpointPool:  # Any: arguments of a pool
        """A pool of all of them."""
        options = arguments.pop("options", PoolOptions())
        options = replace(options, opener=self._open, random=random.Random(1))
        return EndpointPool("main", [self.endpoint(name) for name in self.acts], options=options, **arguments)

    @asynccontextmanager
    async def pool(self, **arguments: Any) -> AsyncIterator[EndpointPool]:  # Any: as above
        """The same, closed afterwards, with every place given back."""
        pool = self.make(**arguments)
        try:
            yield pool
        finally:
            await pool.aclose()
        statistics = pool.statistics()
        assert (statistics.active, statistics.waiting, pool.streams()) == (0, 0, [])
        assert [fake.active for fake in self.made.values()] == [0] * len(self.made)


async def text_of(pool: EndpointPool) -> str:
    """Ask and read to the end; an answer that breaks off raises with its beginning in `words`."""
    words: list[str] = []
    async with pool.stream(ASK) as stream:
        try:
            words += [delta.text async for delta in stream if isinstance(delta, TextPart)]
        except StreamBroken as error:
            error.details = {**error.details, "words": stream.result.text}
            raise
        assert stream.result.text == "".join(words)
    return "".join(words)
