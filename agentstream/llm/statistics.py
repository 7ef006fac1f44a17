"""What an operator sees of a pool: figures of it, of its endpoints and of the streams that are open.

What comes in: nothing; these are plain structs that a pool fills. What goes out: JSON without keys, prompts, or
addresses with anything secret in them. They do not know how a figure is made.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ("CheckResult", "EndpointStatistics", "PoolStatistics", "StreamInfo")


class CheckResult(msgspec.Struct, frozen=True):
    """What a check of one endpoint found.

    Attributes:
        seconds: until the answer, or the failure. status: the HTTP status, 0 for none.
        code: of the failure (`llm_connection`, …), empty where there was none.
    """

    endpoint: str
    ok: bool
    seconds: float
    status: int = 0
    code: str = ""


class EndpointStatistics(msgspec.Struct, frozen=True):
    """One endpoint. Times in seconds, shares from 0 to 1.

    Attributes:
        state: up; busy (as many calls as are allowed); probing (being tried again); open (given up by its breaker);
            rate, account, auth (the provider refuses); failover (taken out by hand); removed (its last calls end).
        available_in: until it may be asked again; -1 where only somebody's action helps.
        health: the score that people look at. breaker: closed, open or half_open; opened: how often it opened.
        active: calls now. total, succeeded, failed: attempts. cancelled: ended by whoever asked.
        refused: attempts that the provider refused for its own limits or the request's mistakes.
        success_rate: recent (30 s); 1 where there was no attempt.
        first_token: recent, 0 where unknown. latency: mean of whole answers.
        share: of the pool's recent attempts (a minute).
        connections: established in all, connect_time: their mean. reconnects: how often it was tried again after its
            breaker opened.
        allowance_left: the smallest share left of the limits that the provider tells.
        last_error: code of the last failure. last_check: the last active check.
    """

    name: str
    url: str
    model: str
    provider: str
    tier: int
    weight: float
    max_concurrency: int
    state: Literal["up", "busy", "probing", "open", "rate", "account", "auth", "failover", "removed"]
    available_in: float
    health: float
    breaker: Literal["closed", "open", "half_open"]
    opened: int
    active: int
    total: int
    succeeded: int
    failed: int
    refused: int
    cancelled: int
    success_rate: float
    first_token: float
    latency: float
    share: float
    connections: int
    connect_time: float
    reconnects: int
    allowance_left: float
    last_error: str
    last_check: CheckResult | None


class PoolStatistics(msgspec.Struct, frozen=True):
    """A whole pool.

    Attributes:
        active, waiting: calls now. calls, succeeded, failed: whole calls, however many attempts each took; cancelled
            ones are in none of the two.
        attempts: of all calls. amplification: attempts for each call.
        failovers: calls that went on at another endpoint. retry_tokens: what is left of the retry budget.
    """

    name: str
    strategy: str
    active: int
    waiting: int
    calls: int
    succeeded: int
    failed: int
    success_rate: float
    attempts: int
    amplification: float
    failovers: int
    retry_tokens: float
    connections: int
    connect_time: float
    endpoints: tuple[EndpointStatistics, ...]


class StreamInfo(msgspec.Struct, frozen=True):
    """One open stream.

    Attributes:
        id: as in log lines. endpoint: where it is now; empty while it waits for one.
        state: waiting (for an endpoint), asked (for its first token), streaming, finished (its last delta was read).
        attempt: from 1. age: seconds since it was asked for; since_delta: since the last delta, or since it was asked.
        deltas: given out so far.
    """

    id: str
    endpoint: str
    state: Literal["waiting", "asked", "streaming", "finished"]
    attempt: int
    age: float
    since_delta: float
    deltas: int
