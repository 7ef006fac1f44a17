"""Claims about endpoint pools: what a bad endpoint costs, what an outage becomes, and what a pool itself costs.

Comes in: a seed. Goes out: the worst figure of each, with the others beside it; over real local servers, except for the
outage, which lasts its minutes in virtual time.
It deliberately does not look into a pool: servers count who was asked, and when.
"""

from __future__ import annotations

import random
import re
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import anyio
import trio.testing
from anyio.abc import SocketStream, TaskGroup

from agentstream.agent import Agent, Context
from agentstream.errors import AgentStreamError, LLMConnectionError, LLMError, LLMServerError, LLMTimeout
from agentstream.llm import LLMRequest, Message
from agentstream.llm.endpoint import Connections, Endpoint, HealthCheck, PoolOptions
from agentstream.llm.pool import EndpointPool
from agentstream.runtime import Runtime
from claims import Figure, at_most, claim
from claims._endpoints import elsewhere
from llm.chat_server import HEAD, ChatServer, answer, part, refuse, serving, text
from llm.pool_kit import ASK, Act, Endpoints, failing

# --- pool.failover ----------------------------------------------------------------------------------------------------
_WARM_S: Final = 30.0
_COUNTED_S: Final = 30.0
_RATE: Final = 10.0  # calls a second, of each way to ask, in each of the four scenes
_FAST_S: Final = 0.05
_SLOW_S: Final = 0.5
_FIRST_TOKEN_S: Final = 2.0  # the limit by which a hang is known
_SWITCH_S: Final = 0.1
_CALL: Final = re.compile(rb"call-(\d+)!")
_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass
class Scene:
    """Three servers, of which the first is bad in one way, and who asks them.

    Attributes:
        asked: how often each server was asked after the warm-up. failed_at: when a call's failure was on the wire, by
            call. switches: seconds from there to the same call's arrival at another server.
    """

    fault: str
    asked: list[int] = field(default_factory=lambda: [0, 0, 0])
    failed_at: dict[bytes, float] = field(default_factory=dict)
    switches: list[float] = field(default_factory=list)
    calls: int = 0
    errors: list[str] = field(default_factory=list)
    counting: bool = False

    def server(self, number: int) -> Callable[[SocketStream, bytes], Awaitable[None]]:
        """What one of the servers does with a request."""

        async def behave(stream: SocketStream, body: bytes) -> None:
            found = _CALL.search(body)
            call = found[1] if found else b""
            self.asked[number] += self.counting
            if number:
                if call in self.failed_at:
                    self.switches.append(time.perf_counter() - self.failed_at.pop(call))
                await answer("Hel", "lo", first=_FAST_S)(stream)
            else:
                await self._bad(stream, call)

        return behave

    async def _bad(self, stream: SocketStream, call: bytes) -> None:
        if self.fault == "slow":
            await answer("Hel", "lo", first=_SLOW_S)(stream)
        elif self.fault == "500":
            await anyio.sleep(_FAST_S)
            self.failed_at[call] = time.perf_counter()
            await refuse("500 Oops")(stream)
        elif self.fault == "cut":
            await anyio.sleep(_FAST_S)
            await stream.send(HEAD + b"\r\n" + part(text("Hel")))
            self.failed_at[call] = time.perf_counter()
            await stream.aclose()
            raise anyio.ClosedResourceError
        else:
            try:
                await stream.receive()  # until the asker gives up
            except _GONE:
                self.failed_at[call] = time.perf_counter()
                raise

    @property
    def share(self) -> float:
        """What the bad server got of the traffic after the warm-up."""
        return self.asked[0] / max(1, sum(self.asked))


class _SceneServer(ChatServer):
    """Hands the request's body to the scene too."""

    def __init__(self, act: Callable[[SocketStream, bytes], Awaitable[None]]) -> None:
        super().__init__(self._act)
        self.act = act
        self.keep_heads = False

    async def _act(self, stream: SocketStream) -> None:
        await self.act(stream, self.body)


class Asker(Agent[str, str]):
    """Asks the model and answers with its words."""

    async def run(self, ctx: Context, task: str) -> str:
        """One streamed answer; one that breaks is tried again with marks."""
        return (await ctx.generate(task)).output


async def _load(scene: Scene, ask: Callable[[str], Awaitable[str]], group: TaskGroup, chance: random.Random) -> None:
    """Ask at random moments, whatever becomes of the calls before."""
    end = anyio.current_time() + _WARM_S + _COUNTED_S
    while anyio.current_time() < end:
        await anyio.sleep(chance.expovariate(_RATE))
        scene.calls += 1
        group.start_soon(_one, scene, ask, f"call-{scene.calls}!")


async def _one(scene: Scene, ask: Callable[[str], Awaitable[str]], prompt: str) -> None:
    try:
        words = await ask(prompt)
    except AgentStreamError as error:
        scene.errors.append(error.code)
    else:
        if words != "Hello":
            scene.errors.append(f"wrong words: {words!r}")


async def _play(scene: Scene, chance: random.Random) -> None:
    async with serving(*[_SceneServer(scene.server(number)) for number in range(3)]) as servers:
        limits = {"first_token": _FIRST_TOKEN_S}
        endpoints = [
            Endpoint.model_validate({"url": server.url, "model": "m", "timeouts": limits}) for server in servers
        ]
        pool = EndpointPool("claim", endpoints, options=PoolOptions(random=random.Random(chance.random())))
        asker = Asker()

        async def complete(prompt: str) -> str:
            return (await pool.complete(LLMRequest((Message("user", prompt),)))).text

        async with Runtime(models=pool) as runtime:

            async def generate(prompt: str) -> str:
                return await (await runtime.start(asker, prompt)).result()

            async with anyio.create_task_group() as group:
                group.start_soon(_load, scene, complete, group, chance)
                group.start_soon(_load, scene, generate, group, chance)
                await anyio.sleep(_WARM_S)
                scene.counting = True
        await pool.aclose()


@claim(
    "pool.failover",
    "A bad endpoint among three gets next to no traffic after 30 s, nobody sees an error, and the switch is at once",
    unit="share of the traffic that one gets that fails, hangs or cuts (the worst)",
    quick=False,
    limit=300.0,
)
async def failover(seed: int) -> Figure:
    """Ask over four pools at once, for a minute, through `complete` and through agents."""
    scenes = [Scene(fault) for fault in ("500", "hang", "cut", "slow")]
    async with anyio.create_task_group() as group:
        for number, scene in enumerate(scenes):
            group.start_soon(_play, scene, random.Random(seed * 10 + number))
    worst = max(scene.share for scene in scenes[:3])
    slow = scenes[3].share
    errors = sum(len(scene.errors) for scene in scenes)
    switches = sorted(seconds for scene in scenes for seconds in scene.switches)
    detail: dict[str, object] = {
        f"{scene.fault}: share after {_WARM_S:g} s": f"{scene.share:.2%} of {sum(scene.asked)} requests"
        for scene in scenes
    }
    return Figure(
        worst,
        n=sum(scene.calls for scene in scenes),
        bound=at_most(0.02),
        ok=slow <= 0.10 and errors == 0 and bool(switches) and switches[-1] < _SWITCH_S,
        seed=seed,
        detail={
            **detail,
            "the slow one's bound": "10 %",
            "errors that a user saw": f"{errors} {sorted({error for scene in scenes for error in scene.errors})}",
            "switch-over, median and longest": _milliseconds(switches),
            **{f"switch-over, {scene.fault}": _milliseconds(sorted(scene.switches)) for scene in scenes[:3]},
            "switch-over's bound": f"{_SWITCH_S * 1_000:g} ms",
        },
    )


def _milliseconds(values: list[float]) -> str:
    return f"{median(values) * 1_000:.1f} ms and {values[-1] * 1_000:.1f} ms of {len(values)}" if values else "none"


# --- pool.outage ------------------------------------------------------------------------------------------------------
_DOWN_AT: Final = 60.0
_UP_AT: Final = _DOWN_AT + 60.0
_STEADY_S: Final = 10.0  # after which an outage is steady
_CALLS_A_SECOND: Final = 10.0
_RECOVERED_S: Final = 10.0

_WORKS: Final = Act(first=0.05)
_OUTAGES: Final = {
    "connections refused": failing(LLMConnectionError("down"), after=0.001),
    "status 503": failing(LLMServerError("down"), after=0.05),
    "no first token": failing(LLMTimeout("down"), after=5.0),
}


@dataclass
class Outage:
    """What became of one outage; times in seconds."""

    calls: int = 0
    attempts: int = 0
    first_answer: float = float("inf")
    last_failure: float = 0.0

    @property
    def amplification(self) -> float:
        """Attempts for each call while the outage was steady."""
        return self.attempts / max(1, self.calls)


class Sufferer:
    """Asks three endpoints that work for a minute, are down for one, and come back."""

    def __init__(self, act: Act, seed: int) -> None:
        self._act = act
        self._chance = random.Random(seed)
        self._endpoints = Endpoints(dict.fromkeys("abc", _WORKS))
        self._began = 0.0
        self.outage = Outage()

    @property
    def _now(self) -> float:
        return anyio.current_time() - self._began

    @property
    def _asked(self) -> int:
        return sum(len(self._endpoints[name].asked) for name in "abc")

    def _become(self, act: Act) -> None:
        for name in "abc":
            self._endpoints[name].act = act

    async def suffer(self) -> Outage:
        """All of it."""
        async with self._endpoints.pool() as pool, anyio.create_task_group() as group:
            self._began = anyio.current_time()
            await self._load(pool, group, _DOWN_AT)
            self._become(self._act)
            await self._load(pool, group, _DOWN_AT + _STEADY_S)
            before = self._asked
            self.outage.calls = await self._load(pool, group, _UP_AT)
            self.outage.attempts = self._asked - before
            self._become(_WORKS)
            await self._load(pool, group, _UP_AT + 60.0)
        return self.outage

    async def _load(self, pool: EndpointPool, group: TaskGroup, until: float) -> int:
        calls = 0
        while self._now < until:
            await anyio.sleep(self._chance.expovariate(_CALLS_A_SECOND))
            group.start_soon(self._ask, pool)
            calls += 1
        return calls

    async def _ask(self, pool: EndpointPool) -> None:
        at = self._now
        try:
            await pool.complete(ASK)
        except LLMError:
            if at >= _UP_AT:
                self.outage.last_failure = max(self.outage.last_failure, at - _UP_AT)
        else:
            if at >= _DOWN_AT and self._now >= _UP_AT:
                self.outage.first_answer = min(self.outage.first_answer, self._now - _UP_AT)


@claim(
    "pool.outage",
    "With all endpoints down for a minute a call is hardly more than one attempt, and they are used again soon after",
    unit="attempts for each call while all are down",
)
def outage(seed: int) -> Figure:
    """Three kinds of outage, three times each, in virtual time."""
    found: dict[str, list[Outage]] = {}
    for kind, act in _OUTAGES.items():
        for run in range(3):
            clock = trio.testing.MockClock(autojump_threshold=0)
            options = {"clock": clock}
            result = anyio.run(Sufferer(act, seed * 100 + run).suffer, backend="trio", backend_options=options)
            found.setdefault(kind, []).append(result)
    every = [one for several in found.values() for one in several]
    return Figure(
        max(one.amplification for one in every),
        n=sum(one.calls for one in every),
        bound=at_most(1.2),
        ok=all(max(one.first_answer, one.last_failure) <= _RECOVERED_S for one in every),
        seed=seed,
        detail={
            **{
                f"{kind}: recovery": f"first answer after {max(one.first_answer for one in several):.2f} s, "
                f"last failed call after {max(one.last_failure for one in several):.2f} s, "
                f"amplification {max(one.amplification for one in several):.3f}"
                for kind, several in found.items()
            },
            "recovery's bound": f"{_RECOVERED_S:g} s",
        },
    )


# --- pool.cost --------------------------------------------------------------------------------------------------------
_ENDPOINTS: Final = 10
_STARTS: Final = 7
_NETWORK_S: Final = 0.05  # a server's answer over a network
_STREAMS: Final = 100
_CHECKED_S: Final = 10.0
_INTERVAL_S: Final = 30.0
_MOST_RATIO: Final = 2.0
_MOST_BYTES: Final = 2e6
_MOST_SHARE: Final = 0.01


async def _start(urls: list[str]) -> float:
    began = time.perf_counter()
    pool = EndpointPool("claim", [Endpoint(url=url, model="m") for url in urls])
    found = await pool.prewarm()
    took = time.perf_counter() - began
    assert all(one.ok for one in found.values())
    await pool.aclose()
    return took


async def _start_ratio() -> tuple[float, float]:
    """How much longer ten endpoints take to start than one, and that one's seconds."""
    async with elsewhere(_ENDPOINTS, fetch=_NETWORK_S) as urls:
        await _start(urls)
        one, many = [], []
        for _ in range(_STARTS):
            one.append(await _start(urls[:1]))
            many.append(await _start(urls))
    return median(many) / median(one), median(one)


def _resident() -> float:
    """Bytes of memory in use."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the most that was ever in use, in bytes on macOS
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return float(pages * resource.getpagesize())


async def _memory() -> float:
    """Bytes for each connection with an open stream."""
    async with elsewhere(2, hold=True) as urls:
        endpoints = [Endpoint(url=url, model="m", max_concurrency=_STREAMS) for url in urls]
        pool = EndpointPool("claim", endpoints)
        go_on = anyio.Event()
        begun: list[object] = []
        all_begun = anyio.Event()

        async def hold() -> None:
            async with pool.stream(ASK) as stream:
                begun.append(await anext(stream))
                if len(begun) == _STREAMS:
                    all_begun.set()
                await go_on.wait()

        await pool.prewarm()
        before = _resident()
        async with anyio.create_task_group() as group:
            for _ in range(_STREAMS):
                group.start_soon(hold)
            with anyio.fail_after(30):
                await all_begun.wait()
            after = _resident()
            assert pool.statistics().active == _STREAMS
            go_on.set()
        await pool.aclose()
    return (after - before) / _STREAMS


async def _checking() -> tuple[float, int]:
    """The share of a core that checking ten idle endpoints takes at the usual interval, and how many checks there were.

    Measured at an interval of a second: at one of thirty it is a thirtieth.
    """
    async with elsewhere(_ENDPOINTS) as urls:
        check = HealthCheck(active=True, interval=1.0)
        endpoints = [
            Endpoint(url=url, model="m", health_check=check, connections=Connections(expiry=60.0)) for url in urls
        ]
        async with EndpointPool("claim", endpoints) as pool:
            await anyio.sleep(2.0)  # connected
            before, began = time.process_time(), time.perf_counter()
            await anyio.sleep(_CHECKED_S)
            used, took = time.process_time() - before, time.perf_counter() - began
            checked = [one.last_check is not None and one.last_check.ok for one in pool.statistics().endpoints]
            assert all(checked)
    return used / took / _INTERVAL_S, round(took) * len(urls)


@claim(
    "pool.cost",
    "Ten endpoints start nearly as fast as one, a connection takes little memory, and checks take next to no time",
    unit="of its bound (the worst of three)",
)
async def cost() -> Figure:
    """Start, memory and checks, against servers in another process."""
    ratio, one = await _start_ratio()
    memory = await _memory()
    share, checks = await _checking()
    return Figure(
        max(ratio / _MOST_RATIO, memory / _MOST_BYTES, share / _MOST_SHARE),
        n=2 * _STARTS + _STREAMS + checks,
        bound=at_most(1.0),
        ok=checks >= _ENDPOINTS * (_CHECKED_S - 2),
        detail={
            "start": f"{_ENDPOINTS} endpoints take {ratio:.2f} × the {one * 1_000:.0f} ms of one "
            f"(bound: {_MOST_RATIO:g} ×)",
            "memory": f"{memory / 1_000:.0f} kB for each of {_STREAMS} connections (bound: {_MOST_BYTES / 1e6:g} MB)",
            "checks": f"{share:.4%} of a core for {_ENDPOINTS} endpoints each {_INTERVAL_S:g} s "
            f"(bound: {_MOST_SHARE:.0%}), {checks} checks",
        },
    )
