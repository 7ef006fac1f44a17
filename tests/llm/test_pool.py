"""What a pool does with calls, in virtual time: another endpoint, a pause, a place in the line, or an error."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import msgspec
import pytest
import trio.testing

from agentstream.errors import (
    InvalidInput,
    LLMAuthError,
    LLMConnectionError,
    LLMContentRefused,
    LLMError,
    LLMParseError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMRequestError,
    LLMServerError,
    LLMTimeout,
    LLMValidationError,
    NoModelConfigured,
    StreamBroken,
)
from agentstream.llm import LLM, Finish, LLMResult, TextPart
from agentstream.llm._waiting import Line
from agentstream.llm.endpoint import Alarm, Endpoint, PoolOptions
from agentstream.llm.pool import EndpointPool
from agentstream.policy import BreakerOptions, Reconnect, Retry
from llm.pool_kit import ASK, KEY, PROMPT, Act, Endpoints, failing, hanging, text_of

pytestmark = pytest.mark.anyio

NO_JITTER = BreakerOptions(reconnect=Reconnect(jitter=0.0))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Virtual time: the clock jumps whenever everybody waits."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def state_of(pool: EndpointPool, name: str) -> str:
    """What the figures call the state of one endpoint."""
    return next(one.state for one in pool.statistics().endpoints if one.name == name)


async def fails(pool: EndpointPool) -> LLMError:
    """The error that a call ends in."""
    with pytest.raises(LLMError) as caught:
        await text_of(pool)
    return caught.value


# --- another endpoint -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "class_",
    [
        LLMConnectionError,
        LLMTimeout,
        LLMServerError,
        LLMParseError,
        LLMRateLimited,
        LLMQuotaExceeded,
        LLMAuthError,
        StreamBroken,
    ],
)
async def test_another_endpoint_before_the_first_token(class_: type[LLMError]) -> None:
    """Whatever else than the request failed, another endpoint answers at once and nobody sees it."""
    endpoints = Endpoints({"a": failing(class_("no")), "b": Act()}, more={"b": {"key": KEY, "tier": 1}})
    async with endpoints.pool() as pool:
        began = anyio.current_time()
        assert isinstance(pool, LLM)
        assert await text_of(pool) == "Hello"
        assert anyio.current_time() == began
        assert (len(endpoints["a"].asked), len(endpoints["b"].asked)) == (1, 1)
        statistics = pool.statistics()
        assert (statistics.failovers, statistics.succeeded, statistics.failed, statistics.attempts) == (1, 1, 0, 2)


@pytest.mark.parametrize("class_", [LLMRequestError, LLMContentRefused])
async def test_a_wrong_request_is_wrong_everywhere(class_: type[LLMError]) -> None:
    """It is not repeated, and not held against the endpoint."""
    endpoints = Endpoints({"a": failing(class_("no")), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        for _ in range(10):
            error = await fails(pool)
            assert type(error) is class_
            assert error.details["stopped"] == "not_retryable"
        assert endpoints["b"].asked == []
        assert state_of(pool, "a") == "up"
        assert pool.statistics().retry_tokens == 10


async def test_after_the_first_token_nothing_is_repeated() -> None:
    """What was read is the beginning of one answer; the error comes as it is, and says where."""
    endpoints = Endpoints({"a": Act(broken=StreamBroken("cut")), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        error = await fails(pool)
        assert type(error) is StreamBroken
        assert error.details["words"] == "Hello"
        assert (error.details["endpoint"], error.details["attempts"]) == ("a", 1)
        assert endpoints["b"].asked == []
        assert (pool.statistics().failed, pool.statistics().succeeded) == (1, 0)
        assert error.retry_after == 0  # asked anew, another endpoint answers: no pause is needed
        await pool.failover("b")
        endpoints["a"].act = Act(broken=StreamBroken("cut"))
        assert (await fails(pool)).retry_after is None


@pytest.mark.parametrize("strategy", ["health", "round_robin", "random", "weighted"])
async def test_the_same_request_again_goes_elsewhere(strategy: Any) -> None:
    """Whoever saw an answer break and asks again is not sent to the same endpoint, whatever the strategy."""
    endpoints = Endpoints({"a": lambda _: Act(broken=StreamBroken("cut")), "b": Act(), "c": Act()})
    breaks = 0
    async with endpoints.pool(strategy=strategy) as pool:
        for _ in range(30):
            try:
                await text_of(pool)
            except StreamBroken:
                breaks += 1
                assert await text_of(pool) == "Hello"
    assert breaks >= 1


async def test_an_answer_without_its_end_is_broken() -> None:
    """A stream that just stops is no answer, before its first delta and after it."""
    endpoints = Endpoints({"a": Act(ends=False), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        assert type(await fails(pool)) is StreamBroken
        endpoints["a"].act = Act(words=(), ends=False)
        assert await text_of(pool) == "Hello"


async def test_complete_repeats_what_broke_in_the_middle() -> None:
    """Nobody has seen a word of it."""
    endpoints = Endpoints({"a": Act(broken=StreamBroken("cut")), "b": Act(words=("whole",))}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        assert (await pool.complete(ASK)).text == "whole"
        statistics = pool.statistics()
        assert (statistics.calls, statistics.succeeded, statistics.failed, statistics.attempts) == (1, 1, 0, 2)
        endpoints["b"].act = failing(LLMRequestError("no"))
        with pytest.raises(LLMRequestError):
            await pool.complete(ASK)
        assert (pool.statistics().calls, pool.statistics().failed) == (2, 1)


async def test_a_repeated_answer_has_its_own_time() -> None:
    """What `complete` asks for again may take as long as at first."""
    slow = Act(first=100.0, broken=StreamBroken("cut"))
    endpoints = Endpoints({"a": slow, "b": Act(first=100.0)}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        assert (await pool.complete(ASK)).text == "Hello"


async def test_the_check_of_a_program_is_asked() -> None:
    """An answer that the program refuses is a failed attempt; streamed, its `Finish` is never given out."""

    def check(result: LLMResult) -> bool:
        if result.text == "worse":
            raise ValueError(PROMPT)
        return result.text != "bad"

    endpoints = Endpoints({"a": Act(words=("bad",)), "b": Act(words=("worse",)), "c": Act()})
    for tier, name in enumerate("abc"):
        endpoints.more[name] = {"tier": tier}
    async with endpoints.pool(options=PoolOptions(validate_response=check)) as pool:
        assert (await pool.complete(ASK)).text == "Hello"
        async with pool.stream(ASK) as stream:
            assert await anext(stream) == TextPart("bad")
            with pytest.raises(LLMValidationError) as caught:
                await anext(stream)
        assert PROMPT not in f"{caught.value!r} {caught.value.__context__!r}"


async def test_an_answer_that_is_only_an_end() -> None:
    """It counts once, and its place is given back."""
    endpoints = Endpoints({"a": Act(words=())})
    async with endpoints.pool() as pool, pool.stream(ASK) as stream:
        assert [type(delta) async for delta in stream] == [Finish]
        assert pool.statistics().succeeded == 1


async def test_a_predicate_decides() -> None:
    """A program may repeat what the rules would not, and stop what they would; None leaves it to them."""
    verdicts: dict[str, bool | None] = {"wrong": True, "busy": False, "else": None}
    options = PoolOptions(retryable=lambda error: verdicts[error.detail])
    endpoints = Endpoints({"a": failing(LLMRequestError("wrong")), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool(options=options) as pool:
        assert await text_of(pool) == "Hello"
        endpoints["a"].act = failing(LLMServerError("busy"))
        assert type(await fails(pool)) is LLMServerError
        endpoints["a"].act = failing(LLMServerError("else"))
        assert await text_of(pool) == "Hello"


# --- pauses -----------------------------------------------------------------------------------------------------------
async def test_one_endpoint_is_tried_four_times_with_pauses() -> None:
    """Alone, an endpoint is asked again after random shares of 0.5, 1 and 2 s; then the call fails with its reason."""
    endpoints = Endpoints({"a": failing(LLMServerError("no"))})
    async with endpoints.pool() as pool:
        error = await fails(pool)
        asked = endpoints["a"].asked
        pauses = [later - earlier for earlier, later in pairwise(asked)]
        assert len(pauses) == 3
        assert all(0 < pause <= most for pause, most in zip(pauses, (0.5, 1.0, 2.0), strict=True))
        assert (error.details["stopped"], error.details["attempts"]) == ("attempts", 4)


async def test_between_endpoints_nothing_is_waited() -> None:
    """As long as one is left that was not tried."""
    endpoints = Endpoints({name: failing(LLMServerError("no")) for name in "abc"} | {"d": Act()})
    for tier, name in enumerate("abcd"):
        endpoints.more[name] = {"tier": tier}
    async with endpoints.pool() as pool:
        began = anyio.current_time()
        assert await text_of(pool) == "Hello"
        assert anyio.current_time() == began


async def test_retry_after_is_kept() -> None:
    """A pause that a provider asks for is waited for if there is time, plus at most a tenth."""
    rate = failing(LLMRateLimited("slow", retry_after=20.0))
    endpoints = Endpoints({"a": lambda number: rate if number == 1 else Act()})
    async with endpoints.pool() as pool:
        assert await text_of(pool) == "Hello"
        first, second = endpoints["a"].asked
        assert 20 <= second - first <= 22
        assert pool.statistics().retry_tokens == 10


@pytest.mark.parametrize("class_", [LLMRateLimited, LLMServerError])
async def test_a_longer_pause_is_not_waited_for(class_: type[LLMError]) -> None:
    """Above a minute the call fails at once, says when to come back, and the endpoint is left alone until then."""
    endpoints = Endpoints({"a": failing(class_("slow", retry_after=90.0))})
    async with endpoints.pool() as pool:
        began = anyio.current_time()
        error = await fails(pool)
        assert (type(error), error.retry_after, error.details["stopped"]) == (class_, 90.0, "no_endpoint")
        await anyio.sleep(1)
        again = await fails(pool)
        assert type(again) is LLMRateLimited
        assert again.retry_after == pytest.approx(89, abs=1)
        assert anyio.current_time() == began + 1
        assert len(endpoints["a"].asked) == 1
        assert state_of(pool, "a") == "rate"


async def test_a_rate_without_a_time_doubles_its_pause() -> None:
    """One second, two, four, up to a minute."""
    endpoints = Endpoints({"a": failing(LLMRateLimited("slow"))})
    async with endpoints.pool(retry=Retry(attempts=1)) as pool:
        pauses = []
        for _ in range(9):
            await fails(pool)
            (one,) = pool.statistics().endpoints
            pauses.append(one.available_in)
            await anyio.sleep(one.available_in)
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        endpoints["a"].act = Act()
        assert await text_of(pool) == "Hello"
        endpoints["a"].act = failing(LLMRateLimited("slow"))
        await fails(pool)
        assert pool.statistics().endpoints[0].available_in == 1


async def test_the_call_has_one_deadline() -> None:
    """Endpoints that hang cost the call 120 s in all, and one whose own limit is shorter is left for the next."""
    timeout = failing(LLMTimeout("no first token"), after=50.0)
    endpoints = Endpoints({"a": timeout, "b": timeout, "c": hanging})
    for tier, name in enumerate("abc"):
        endpoints.more[name] = {"tier": tier}
    async with endpoints.pool() as pool:
        began = anyio.current_time()
        error = await fails(pool)
        assert (type(error), error.details["stopped"]) == (LLMTimeout, "max_wait")
        assert anyio.current_time() == began + 120
        assert pool.statistics().failed == 1
    async with Endpoints({"a": hanging}).pool(retry=Retry(max_wait=7.0)) as pool:
        began = anyio.current_time()
        assert "7 s" in (await fails(pool)).detail
        assert anyio.current_time() == began + 7


async def test_after_the_first_token_there_is_no_deadline() -> None:
    """An answer may take as long as it comes."""
    async with Endpoints({"a": Act(gap=500.0)}).pool() as pool:
        assert await text_of(pool) == "Hello"


# --- keys and accounts ------------------------------------------------------------------------------------------------
async def test_a_refused_key_is_not_tried_elsewhere() -> None:
    """Another endpoint helps only with another key; the refused one is out until it is updated or restored."""
    endpoints = Endpoints(
        {"a": failing(LLMAuthError("no")), "b": Act(), "c": Act()},
        more={"a": {"key": KEY}, "b": {"key": KEY, "tier": 1}, "c": {"key": "sk-other", "tier": 2}},
    )
    async with endpoints.pool() as pool:
        assert await text_of(pool) == "Hello"
        assert (len(endpoints["b"].asked), len(endpoints["c"].asked)) == (0, 1)
        await anyio.sleep(80_000)
        assert state_of(pool, "a") == "auth"
        assert pool.statistics().endpoints[0].available_in == -1
        assert await text_of(pool) == "Hello"
        assert len(endpoints["a"].asked) == 1
        pool.restore("a")
        await text_of(pool)
        assert len(endpoints["a"].asked) == 2
        await pool.update(endpoints.endpoint("a", key="sk-new"))
        assert state_of(pool, "a") == "up"


async def test_an_account_without_quota_is_left_alone() -> None:
    """For a quarter of an hour."""
    endpoints = Endpoints({"a": failing(LLMQuotaExceeded("none")), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        await text_of(pool)
        await anyio.sleep(899)
        await text_of(pool)
        assert len(endpoints["a"].asked) == 1
        await anyio.sleep(1)
        await text_of(pool)
        assert len(endpoints["a"].asked) == 2


async def test_when_nobody_can_answer_the_error_says_why() -> None:
    """The reason of most endpoints is the error's class; it says how many are out for what."""
    cases: list[tuple[LLMError, type[LLMError]]] = [
        (LLMAuthError("no"), LLMAuthError),
        (LLMQuotaExceeded("no"), LLMQuotaExceeded),
        (LLMRateLimited("no", retry_after=500), LLMRateLimited),
    ]
    for error, class_ in cases:
        async with Endpoints({"a": failing(error), "b": failing(error)}).pool() as pool:
            for _ in range(3):
                await fails(pool)
            last = await fails(pool)
            assert type(last) is class_
            assert last.provider == "main"
            assert sum(last.details["endpoints"].values()) == 2  # type: ignore[attr-defined]
    async with Endpoints({}).pool() as pool:
        assert type(await fails(pool)) is LLMRequestError


# --- the breaker ------------------------------------------------------------------------------------------------------
async def test_a_failing_endpoint_is_left_alone_and_found_again() -> None:
    """Five failures in a row open it for 5 s; one call finds out then; two successes bring it back."""
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool(breaker=NO_JITTER) as pool:
        for _ in range(20):
            assert await text_of(pool) == "Hello"
        a = endpoints["a"]
        assert len(a.asked) == 5
        assert (state_of(pool, "a"), pool.statistics().endpoints[0].available_in) == ("open", 5.0)
        await anyio.sleep(5)
        assert state_of(pool, "a") == "probing"
        await text_of(pool)
        assert len(a.asked) == 6
        assert pool.statistics().endpoints[0].available_in == 10.0
        a.act = Act(words=("a",))
        await anyio.sleep(10)
        assert [await text_of(pool) for _ in range(3)] == ["a"] * 3
        one = pool.statistics().endpoints[0]
        assert (one.state, one.breaker, one.opened, one.reconnects) == ("up", "closed", 2, 3)


async def test_one_call_at_a_time_finds_out() -> None:
    """While an endpoint is tried again, everybody else goes elsewhere."""
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool(breaker=NO_JITTER) as pool:
        for _ in range(5):
            await text_of(pool)
        endpoints["a"].act = Act(first=3.0)
        await anyio.sleep(5)
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(text_of, pool)
        assert len(endpoints["a"].asked) == 6


async def test_finding_out_is_not_left_to_bad_figures() -> None:
    """After its pause the next call goes to the one that was given up, among equals too; not one that has failed."""
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": Act(), "c": Act()})
    async with endpoints.pool(strategy="round_robin", breaker=NO_JITTER) as pool:
        for _ in range(15):
            await text_of(pool)
        assert state_of(pool, "a") == "open"
        for _ in range(3):
            pool.strategy = "health"
            await anyio.sleep(pool.statistics().endpoints[0].available_in)
            asked = len(endpoints["a"].asked)
            await text_of(pool)
            assert len(endpoints["a"].asked) == asked + 1
        await anyio.sleep(pool.statistics().endpoints[0].available_in - 1)
        await pool.failover("c", seconds=1.5)
        endpoints["b"].act = failing(LLMServerError("no"), after=2.0)
        asked = len(endpoints["a"].asked)
        assert await text_of(pool) == "Hello"  # from b to c, though a might be tried again by now
        assert len(endpoints["a"].asked) == asked


async def test_a_hang_counts_with_its_length() -> None:
    """An endpoint that timed out is known as slow, without ever having given a first token."""
    endpoints = Endpoints({"a": failing(LLMTimeout("no"), after=5.0), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        await text_of(pool)
        assert pool.statistics().endpoints[0].first_token == 5.0


async def test_the_word_goes_through_the_line() -> None:
    """Who gets it and leaves, or cannot use it, hands it to the next; it ends behind the last."""
    line = Line(3)
    first, second, third = line.enter(), line.enter(), line.enter()
    assert (len(line), line.full) == (3, True)
    line.wake()
    assert (first.served, second.served) == (True, False)
    line.leave(first)
    assert (second.served, third.served) == (True, False)
    assert await second.wait(1)
    line.pass_on(second)
    assert third.served
    line.pass_on(third)
    line.leave(third)
    assert not second.served
    assert not await second.wait(1)
    assert len(line) == 1


async def test_a_call_that_left_leaves_the_way_open() -> None:
    """A cancelled call that was to find out frees its place for another."""
    endpoints = Endpoints({"a": failing(LLMServerError("no"))})
    async with endpoints.pool(breaker=NO_JITTER, retry=Retry(attempts=1)) as pool:
        for _ in range(5):
            await fails(pool)
        endpoints["a"].act = hanging
        await anyio.sleep(5)
        with anyio.move_on_after(1):
            await text_of(pool)
        endpoints["a"].act = Act()
        assert await text_of(pool) == "Hello"
        assert pool.statistics().endpoints[0].cancelled == 1


async def test_when_all_are_open_one_call_each_tries_its_luck() -> None:
    """Rather than no answer at all; further calls fail at once and say when to come back."""
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": failing(LLMServerError("no"))})
    async with endpoints.pool(breaker=NO_JITTER, retry=Retry(attempts=1)) as pool:
        while "up" in (state_of(pool, "a"), state_of(pool, "b")):
            await fails(pool)
        for name in "ab":
            endpoints[name].act = Act(first=1.0, words=(name,))
        got: list[str] = []
        waits: list[float | None] = []

        async def ask() -> None:
            try:
                got.append(await text_of(pool))
            except LLMError as error:
                got.append(error.code)
                waits.append(error.retry_after)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        assert Counter(got) == {"a": 1, "b": 1, "llm_server": 3}
        assert all(wait is not None and 0 < wait <= 5 for wait in waits)
        assert await text_of(pool) in "ab"


async def test_passive_checks_can_be_switched_off() -> None:
    """Then calls that fail say nothing about the endpoint, until it is switched on again."""
    endpoints = Endpoints({"a": failing(LLMServerError("no"))}, more={"a": {"health_check": {"passive": False}}})
    async with endpoints.pool(retry=Retry(attempts=1, budget=1e6)) as pool:
        for _ in range(30):
            await fails(pool)
        assert state_of(pool, "a") == "up"
        await pool.update(endpoints.endpoint("a", health_check={"passive": True}))
        for _ in range(5):
            await fails(pool)
        assert state_of(pool, "a") == "open"
        assert len(endpoints["a"].asked) == 35


# --- the retry budget -------------------------------------------------------------------------------------------------
async def test_an_outage_is_not_multiplied() -> None:
    """When everything fails, the budget's half is spent on repeats, and then each call is one attempt."""
    endpoints = Endpoints({name: failing(LLMServerError("no")) for name in "abc"})
    async with endpoints.pool() as pool:
        reasons = []
        for _ in range(200):
            reasons.append((await fails(pool)).details.get("stopped"))
            await anyio.sleep(1)
        statistics = pool.statistics()
        assert statistics.attempts <= statistics.calls + 5
        assert reasons.count("retry_budget_exhausted") > 100
        assert statistics.retry_tokens == 0


async def test_the_trouble_of_some_is_not_everybodys() -> None:
    """With the budget used up, a call still goes on to an endpoint that is well."""
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": Act()}, more={"b": {"tier": 1}})
    async with endpoints.pool(retry=Retry(budget=0.0)) as pool:
        assert [await text_of(pool) for _ in range(20)] == ["Hello"] * 20


async def test_the_trouble_of_all_is_not_multiplied() -> None:
    """Where each endpoint fails a third of its calls, repeats are what the budget allows, although none is open."""

    def third(number: int) -> Act:
        return failing(LLMServerError("no")) if number % 3 == 0 else Act()

    endpoints = Endpoints(dict.fromkeys("abc", third))
    async with endpoints.pool() as pool:
        for _ in range(500):
            try:
                await text_of(pool)
            except LLMServerError as error:
                assert error.details["stopped"] == "retry_budget_exhausted"  # noqa: PT017 - most end well
            await anyio.sleep(1)
        statistics = pool.statistics()
        assert 0.5 < statistics.success_rate < 0.9
        assert statistics.amplification <= 1.15


# --- the line ---------------------------------------------------------------------------------------------------------
async def test_places_are_bounded_and_given_in_order() -> None:
    """Two at once; the others wait and come in the order in which they asked."""
    endpoints = Endpoints({"a": Act(first=1.0)}, more={"a": {"max_concurrency": 2}})
    order: list[int] = []
    async with endpoints.pool() as pool:

        async def ask(number: int) -> None:
            await text_of(pool)
            order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(ask, number)
                await anyio.wait_all_tasks_blocked()
            assert (pool.statistics().active, pool.statistics().waiting) == (2, 6)
            assert [one.state for one in pool.streams()] == ["asked"] * 2 + ["waiting"] * 6
            assert state_of(pool, "a") == "busy"
        assert endpoints["a"].most == 2
        # Two end at one moment, and the loop is free to go on with either.
        assert [sorted(pair) for pair in zip(order[::2], order[1::2], strict=True)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


async def test_the_line_is_bounded() -> None:
    """One more than may wait is refused at once, and told when to come back."""
    endpoints = Endpoints({"a": Act(first=1.0)}, more={"a": {"max_concurrency": 1}})
    async with endpoints.pool(options=PoolOptions(max_waiting=2)) as pool, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(text_of, pool)
        await anyio.wait_all_tasks_blocked()
        error = await fails(pool)
        assert (type(error), error.details["stopped"]) == (LLMRateLimited, "queue_full")
        assert error.retry_after is not None


async def test_nobody_waits_in_vain() -> None:
    """A call whose turn would come after its deadline is refused when it comes, not when its time is over."""
    endpoints = Endpoints({"a": Act(first=10.0)}, more={"a": {"max_concurrency": 1}})
    async with endpoints.pool(retry=Retry(max_wait=25.0)) as pool:
        for _ in range(30):  # so that it knows how long a call takes
            await text_of(pool)
        outcomes: list[str] = []

        async def ask() -> None:
            try:
                outcomes.append(await text_of(pool))
            except LLMError as error:
                outcomes.append(str(error.details["stopped"]))

        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
            assert anyio.current_time() == began
            assert outcomes == ["queue_full"] * 2
        assert outcomes[2:] == ["Hello", "Hello", "max_wait", "max_wait"]


async def test_who_leaves_the_line_leaves_no_hole() -> None:
    """Cancelled while it waits, a call takes nobody's place."""
    endpoints = Endpoints({"a": Act(first=1.0)}, more={"a": {"max_concurrency": 1}})
    async with endpoints.pool() as pool:
        done: list[str] = []

        async def ask(patience: float) -> None:
            with anyio.move_on_after(patience):
                done.append(await text_of(pool))

        async with anyio.create_task_group() as group:
            for patience in (9.0, 0.5, 1.5, 9.0, 9.0):
                group.start_soon(ask, patience)
                await anyio.wait_all_tasks_blocked()
        assert len(done) == 3
        assert (pool.statistics().waiting, endpoints["a"].active) == (0, 0)


# --- choosing ---------------------------------------------------------------------------------------------------------
async def test_strategies_may_change_while_it_runs() -> None:
    """Round-robin, weighted, random, health: each as it says, from one call to the next."""
    endpoints = Endpoints({"a": Act(), "b": Act(), "c": Act()}, more={"a": {"weight": 6.0}, "c": {"weight": 2.0}})
    async with endpoints.pool(strategy="round_robin") as pool:

        async def counts(calls: int) -> list[int]:
            before = [len(endpoints[name].asked) for name in "abc"]
            for _ in range(calls):
                await text_of(pool)
            return [len(endpoints[name].asked) - count for name, count in zip("abc", before, strict=True)]

        assert await counts(30) == [10, 10, 10]
        pool.strategy = "weighted"
        assert await counts(90) == [60, 10, 20]
        pool.strategy = "random"
        assert min(await counts(90)) > 15
        with pytest.raises(InvalidInput):
            pool.strategy = "best"  # type: ignore[assignment]
        pool.strategy = "health"
        for name, seconds in (("a", 0.3), ("b", 0.1), ("c", 3.0)):
            endpoints[name].act = Act(first=seconds)
        pool.strategy = "health"
        slow = (await counts(100))[2]
        assert slow <= 10


async def test_tiers_are_strict() -> None:
    """A fallback is asked only while no better one can take the call: because it is out, or busy."""
    endpoints = Endpoints({"a": Act(first=1.0), "b": Act()}, more={"a": {"max_concurrency": 1}, "b": {"tier": 1}})
    async with endpoints.pool(strategy="random") as pool:
        for _ in range(10):
            await text_of(pool)
        assert endpoints["b"].asked == []
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(text_of, pool)
        assert len(endpoints["b"].asked) == 2


async def test_requests_of_one_key_stay_together() -> None:
    """A program may keep requests with one beginning at one endpoint, as long as that can take them."""
    endpoints = Endpoints({name: Act() for name in "abcd"})
    async with endpoints.pool(options=PoolOptions(sticky=lambda request: request.messages[0].content)) as pool:
        for _ in range(20):
            await text_of(pool)
        (home,) = [name for name in "abcd" if endpoints[name].asked]
        await pool.failover(home)
        for _ in range(20):
            await text_of(pool)
        assert sorted(len(endpoints[name].asked) for name in "abcd") == [0, 0, 20, 20]


async def test_a_hanging_endpoint_is_avoided_before_it_fails() -> None:
    """While one call waits there for its first token, the others go elsewhere."""
    endpoints = Endpoints({"a": hanging, "b": Act(first=0.1), "c": Act(first=0.1)})
    async with endpoints.pool() as pool:

        async def ask() -> None:
            with anyio.move_on_after(50):
                await text_of(pool)

        async with anyio.create_task_group() as group:
            for _ in range(300):
                group.start_soon(ask)
                await anyio.sleep(0.1)
        assert len(endpoints["a"].asked) <= 3


# --- endpoints come and go --------------------------------------------------------------------------------------------
async def test_add_remove_update_while_it_runs() -> None:
    """Calls find new endpoints, lose removed ones, and weights and limits change under way."""
    endpoints = Endpoints({"a": Act(words=("a",))})
    async with endpoints.pool() as pool:
        assert await text_of(pool) == "a"
        endpoints.acts["b"] = Act(words=("b",))
        assert await pool.add(endpoints.endpoint("b")) == "b"
        await pool.remove("a")
        assert endpoints["a"].closed == 1
        assert {await text_of(pool) for _ in range(5)} == {"b"}
        old = endpoints["b"]
        await pool.update(endpoints.endpoint("b", weight=7.0, max_concurrency=3))
        assert endpoints["b"] is old
        assert pool.statistics().endpoints[0].succeeded == 5
        await pool.update(endpoints.endpoint("b", url="http://elsewhere.test/v1"))
        assert endpoints["b"] is not old
        assert old.closed == 1
        assert pool.statistics().endpoints[0].succeeded == 0
        assert [one.address for one in pool.endpoints] == ["http://elsewhere.test/v1"]
        for call in (pool.remove("x"), pool.update(endpoints.endpoint("x")), pool.failover("x"), pool.check("x")):
            with pytest.raises(InvalidInput, match="no endpoint 'x'"):
                await call
        with pytest.raises(InvalidInput, match="two endpoints"):
            await pool.add(endpoints.endpoint("b"))


async def test_names_come_from_addresses() -> None:
    """Endpoints without a name are called by their host, and told apart by a number."""
    made = Endpoints({})
    pool = EndpointPool("p", [Endpoint(url="http://h:1/v1")] * 2, options=PoolOptions(opener=made._open))
    assert await pool.add(Endpoint(url="http://h:1/v1", model="other")) == "h:1-3"
    assert [one.name for one in pool.endpoints] == ["h:1", "h:1-2", "h:1-3"]


async def test_removing_moves_who_waits_and_lets_answers_end() -> None:
    """Calls without a token go on elsewhere, unseen; an answer that has begun ends, and its client is closed then."""
    endpoints = Endpoints({"a": Act(gap=10.0, words=("a", "a")), "b": Act(words=("b",))}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool, anyio.create_task_group() as group:
        async with pool.stream(ASK) as begun:
            assert await anext(begun) == TextPart("a")
            endpoints["a"].act = hanging
            moved: list[str] = []

            async def ask() -> None:
                moved.append(await text_of(pool))

            for _ in range(3):
                group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            await pool.remove("a")
            await anyio.wait_all_tasks_blocked()
            assert moved == ["b"] * 3
            assert endpoints["a"].closed == 0
            assert [type(delta) async for delta in begun] == [TextPart, Finish]
        assert endpoints["a"].closed == 1
        assert pool.statistics().retry_tokens == 10


async def test_failover_by_hand() -> None:
    """From now on the others are used; who waits for a first token there goes on elsewhere; it comes back by itself."""
    endpoints = Endpoints({"a": hanging, "b": Act(words=("b",))}, more={"b": {"tier": 1}})
    async with endpoints.pool() as pool:
        got: list[str] = []

        async def ask() -> None:
            got.append(await text_of(pool))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert await pool.failover("a", seconds=30) == 4
        assert got == ["b"] * 4
        assert state_of(pool, "a") == "failover"
        assert (pool.statistics().failed, pool.statistics().endpoints[0].failed) == (0, 0)
        endpoints["a"].act = Act(words=("a",))
        assert await text_of(pool) == "b"
        await anyio.sleep(30)
        assert await text_of(pool) == "a"
        await pool.failover("a")
        pool.restore("a")
        assert await text_of(pool) == "a"


# --- checks -----------------------------------------------------------------------------------------------------------
class Checks:
    """A program's own check: notes when it was asked, and says no for those that are `down`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.down: set[str] = set()

    async def __call__(self, endpoint: Endpoint) -> None:
        self.asked.append((endpoint.name, anyio.current_time()))
        if endpoint.name in self.down:
            raise RuntimeError(KEY)

    def times(self, name: str) -> list[float]:
        return [at for one, at in self.asked if one == name]


async def test_active_checks_bring_an_endpoint_back() -> None:
    """With checks, calls are not used to find out; a check that succeeds closes the breaker within its interval."""
    checks = Checks()
    active = {"health_check": {"active": True, "interval": 30.0}}
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": Act()}, more={"a": active, "b": {"tier": 1}})
    options = PoolOptions(check=checks, prewarm=False)
    async with endpoints.pool(breaker=NO_JITTER, options=options) as pool, pool:
        for _ in range(5):
            await text_of(pool)
        checks.down.add("a")
        for _ in range(60):
            await text_of(pool)
            await anyio.sleep(1)
        assert len(endpoints["a"].asked) == 5
        assert checks.times("b") == []
        result = next(one.last_check for one in pool.statistics().endpoints if one.name == "a")
        assert result is not None
        assert (result.ok, result.code) == (False, "llm_connection")
        endpoints["a"].act = Act(words=("a",))
        checks.down.clear()
        await anyio.sleep(41)
        assert state_of(pool, "a") == "up"
        assert await text_of(pool) == "a"


async def test_idle_endpoints_are_checked_each_interval() -> None:
    """Only while nobody asks them; the switch works under way; without `async with` nothing runs."""
    checks = Checks()
    endpoints = Endpoints({"a": Act(), "b": Act()})
    async with endpoints.pool(options=PoolOptions(check=checks, prewarm=False)) as pool:
        await pool.update(endpoints.endpoint("a", health_check={"active": True, "interval": 10.0}))
        await anyio.sleep(100)
        assert checks.asked == []
        async with pool:
            await anyio.sleep(100)
            assert 9 <= len(checks.times("a")) <= 11
            for _ in range(30):
                await pool.failover("b")
                await text_of(pool)
                await anyio.sleep(1)
            assert len(checks.times("a")) <= 12
            await pool.update(endpoints.endpoint("a"))
            seen = len(checks.asked)
            await anyio.sleep(100)
            assert len(checks.asked) == seen


async def test_checks_by_hand() -> None:
    """One or all, at once; what is found counts for the breaker."""
    checks = Checks()
    checks.down.add("b")
    endpoints = Endpoints({"a": Act(), "b": Act()})
    async with endpoints.pool(options=PoolOptions(check=checks)) as pool:
        found = await pool.check()
        assert {name: (one.ok, one.code) for name, one in found.items()} == {
            "a": (True, ""),
            "b": (False, "llm_connection"),
        }
        assert KEY not in repr(found)
        for _ in range(4):
            await pool.check("b")
        assert state_of(pool, "b") == "open"
        checks.down.clear()
        assert (await pool.check("b"))["b"].ok
        assert state_of(pool, "b") == "up"
    async with Endpoints({"a": Act()}).pool() as pool:
        with pytest.raises(InvalidInput, match=r"PoolOptions\.check"):
            await pool.check()


async def test_a_check_that_hangs_ends() -> None:
    """At its own limit, and counts as a failure."""

    async def check(endpoint: Endpoint) -> None:
        await anyio.sleep_forever()

    async with Endpoints({"a": Act()}).pool(options=PoolOptions(check=check)) as pool:
        began = anyio.current_time()
        assert (await pool.check("a"))["a"].code == "llm_timeout"
        assert anyio.current_time() == began + 5


# --- living -----------------------------------------------------------------------------------------------------------
async def test_closing_ends_everything() -> None:
    """Who waits, for a place or a token, gets an error at once, and so does who comes later."""
    endpoints = Endpoints({"a": hanging}, more={"a": {"max_concurrency": 2}})
    pool = endpoints.make()
    errors: list[LLMError] = []

    async def ask() -> None:
        errors.append(await fails(pool))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await pool.aclose()
    assert anyio.current_time() == began
    assert [type(error) for error in errors] == [LLMRequestError] * 5
    assert type(await fails(pool)) is LLMRequestError
    assert (endpoints["a"].closed, endpoints["a"].active) == (1, 0)
    await pool.aclose()


async def test_closing_reaches_who_waits_behind_an_answer() -> None:
    """A call in the line is ended although the one before it goes on reading."""
    endpoints = Endpoints({"a": Act()}, more={"a": {"max_concurrency": 1}})
    pool = endpoints.make()
    async with pool.stream(ASK), anyio.create_task_group() as group:
        group.start_soon(fails, pool)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        await pool.aclose()
        await anyio.wait_all_tasks_blocked()
        assert (pool.statistics().waiting, anyio.current_time()) == (0, began)


async def test_entered_twice_and_again() -> None:
    """A pool is entered once at a time; after its end it may be entered again."""
    pool = Endpoints({"a": Act()}).make()
    async with pool:
        with pytest.raises(InvalidInput):
            await pool.__aenter__()
        assert await text_of(pool) == "Hello"
    assert type(await fails(pool)) is LLMRequestError
    async with pool:
        assert await text_of(pool) == "Hello"


async def test_errors_of_the_block_stay_what_they_are() -> None:
    """Neither an error nor a cancellation inside `async with pool` becomes a group, or is lost."""
    pool = Endpoints({"a": Act()}).make()
    with pytest.raises(KeyError):
        async with pool:
            raise KeyError
    with anyio.move_on_after(1) as scope:
        async with pool:
            await anyio.sleep(10)
    assert scope.cancelled_caught


async def test_a_missing_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, when the pool is made."""
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(NoModelConfigured, match="SOME_KEY"):
        EndpointPool("p", [Endpoint(url="http://h/v1", key_env="SOME_KEY")])


async def test_a_stream_outside_its_block() -> None:
    """Reading before entering is refused; there is nothing to read from."""
    async with Endpoints({"a": Act()}).pool() as pool:
        stream = pool.stream(ASK)
        assert stream.result == LLMResult()
        with pytest.raises(StreamBroken):
            await anext(stream)


# --- figures, alarms, logs --------------------------------------------------------------------------------------------
async def test_figures() -> None:
    """They say what happened, and travel as JSON without a key."""
    endpoints = Endpoints({"a": Act(first=2.0, gap=1.0), "b": Act()}, more={"a": {"key": KEY}})
    async with endpoints.pool() as pool:
        await pool.failover("b")
        async with pool.stream(ASK) as stream:
            await anext(stream)
            await anyio.sleep(1.5)
            (one,) = pool.streams()
            assert (one.endpoint, one.state, one.attempt, one.age, one.deltas) == ("a", "streaming", 1, 3.5, 1)
            assert one.since_delta == 1.5
            assert [type(delta) async for delta in stream] == [TextPart, Finish]
            assert pool.streams()[0].state == "finished"
        a, b = pool.statistics().endpoints
        assert (a.total, a.succeeded, a.failed, a.first_token, a.latency, a.share) == (1, 1, 0, 2.0, 5.5, 1.0)
        assert (a.success_rate, a.health, b.state, b.health) == (1.0, 1.0, "failover", 0.0)
        told = msgspec.json.encode(pool.statistics()).decode()
        assert KEY not in told + repr(pool) + repr(pool.endpoints)
        assert msgspec.json.decode(told)["endpoints"][0]["url"] == "http://a.test/v1"


async def test_alarms_are_told_once() -> None:
    """At a failure rate, near a limit, at a refused key, when nobody is left; again only after it was over."""
    alarms: list[Alarm] = []
    endpoints = Endpoints({"a": failing(LLMServerError("no"))}, more={"a": {"max_concurrency": 5}})
    options = PoolOptions(on_alarm=alarms.append)
    async with endpoints.pool(options=options, retry=Retry(attempts=1)) as pool:

        def told() -> list[str]:
            kinds = [alarm.kind for alarm in alarms]
            alarms.clear()
            return kinds

        for _ in range(40):
            await fails(pool)
        assert told() == ["failure_rate"]
        endpoints["a"].act = Act()
        await anyio.sleep(40)
        for _ in range(40):
            await text_of(pool)
        assert told() == []
        endpoints["a"].act = Act(first=1.0)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(text_of, pool)
        assert told() == ["load"]
        endpoints["a"].act = failing(LLMAuthError("no"))
        for _ in range(3):
            await fails(pool)
        assert told() == ["auth", "down"]
        pool.restore("a")
        await fails(pool)
        assert told() == ["auth"]


async def test_the_log_tells_the_way_of_a_call_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """At level INFO nothing but changes; with the switch each attempt; never a key, a prompt or an answer."""
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": Act()}, more={"a": {"key": KEY}, "b": {"tier": 1}})
    caplog.set_level(logging.INFO, "agentstream")
    async with endpoints.pool() as pool:
        await text_of(pool)
        assert caplog.messages == []
        pool.debug = True
        await text_of(pool)
        assert [message for message in caplog.messages if "main-2" in message] == [
            "pool main: main-2: a failed: llm_server",
            "pool main: main-2: answered by b after 0 ms",
        ]
        pool.debug = False
        for _ in range(3):
            await text_of(pool)
        assert "a is left alone for" in caplog.messages[-1]
        assert not [secret for secret in (KEY, PROMPT, "Hello") if secret in caplog.text]


@pytest.mark.parametrize("kind", ["exponential", "linear", "fixed", "adaptive"])
async def test_reconnect_policies_in_a_pool(kind: Any) -> None:
    """Each way to come back shows in the times at which a dead endpoint is tried, with jitter and a bound."""
    endpoints = Endpoints({"a": failing(LLMServerError("no")), "b": Act()}, more={"b": {"tier": 1}})
    policy = BreakerOptions(reconnect=Reconnect(kind=kind, first=2.0, longest=20.0, jitter=0.1))
    async with endpoints.pool(breaker=policy) as pool:
        for _ in range(1_000):
            await text_of(pool)
            await anyio.sleep(0.1)
        asked = endpoints["a"].asked[4:]
        pauses = [later - earlier for earlier, later in pairwise(asked)]
        expected: Callable[[int], float] = {
            "exponential": lambda n: min(20.0, 2.0 * 2**n),
            "linear": lambda n: min(20.0, 2.0 * (n + 1)),
            "fixed": lambda n: 2.0,
            "adaptive": lambda n: min(20.0, 2.0 * 2**n),
        }[kind]
        assert len(pauses) >= 5
        for number, pause in enumerate(pauses):
            assert 0.89 * expected(number) <= pause <= 1.1 * expected(number) + 0.2


async def test_one_of_many_is_enough() -> None:
    """With eight endpoints that fail and one that does not, every call is answered."""
    acts: dict[str, Any] = {f"e{number}": failing(LLMServerError("no"), after=0.01) for number in range(8)}
    endpoints = Endpoints(acts | {"ok": Act(first=0.01)})
    async with endpoints.pool(retry=Retry(attempts=10, budget=100)) as pool:
        assert [await text_of(pool) for _ in range(100)] == ["Hello"] * 100
        assert len(endpoints["ok"].asked) == 100
