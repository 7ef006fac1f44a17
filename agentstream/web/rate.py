"""How many requests one client may make: a bucket of tokens for each address.

What comes in: requests, and the time. What goes out: leave, or a refusal that says when to come again. It does not know
who a client is beyond the address of its connection: behind a proxy that is the proxy's, and the limit belongs there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from agentstream.answer import Scope, header
from agentstream.clock import SYSTEM_CLOCK, Clock
from agentstream.web.options import WebOptions
from agentstream.web.problems import TooManyRequests

__all__ = ("Rates",)

_MOST_CLIENTS: Final = 10_000
"""Addresses remembered; the one that was silent for longest is forgotten, and begins anew with a full bucket."""


class Rates:
    """Lets `rate` requests a second and client through on average, `burst` of them at once."""

    def __init__(self, options: WebOptions, clock: Clock = SYSTEM_CLOCK) -> None:
        self._rate = options.rate
        self._burst = float(options.burst)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when

    def check(self, scope: Scope) -> None:
        """Let the request pass.

        Raises:
            TooManyRequests: its client asked too often.
        """
        if self._rate is None or _is_stream(scope):
            return
        client = scope.get("client")
        address = str(client[0]) if client else ""
        now = self._clock.monotonic()
        tokens, since = self._left.pop(address, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        if tokens >= 1:
            self._left[address] = tokens - 1, now
        else:
            self._left[address] = tokens, now
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        if tokens < 1:
            raise TooManyRequests(
                f"more than {self._rate:g} requests a second from one address: come again later",
                retry_after=(1 - tokens) / self._rate,
            )


def _is_stream(scope: Scope) -> bool:
    """A stream that comes again takes every status but 200 for a reason never to do so."""
    path: str = scope["path"]
    return path.endswith("/events") and "application/json" not in header(scope, b"accept").lower()
