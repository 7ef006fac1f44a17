"""One address, so many requests: a bucket that fills again, and streams that always may come back."""

from __future__ import annotations

import pytest

from agentstream.web.options import WebOptions
from agentstream.web.problems import TooManyRequests
from agentstream.web.rate import Rates


class _Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)


def _scope(address: str = "10.0.0.1", path: str = "/runs", accept: bytes = b"*/*") -> dict[str, object]:
    return {"type": "http", "client": (address, 1), "path": path, "headers": [(b"accept", accept)]}


def test_a_client_that_asks_too_often_is_told_when_to_come_again() -> None:
    """The burst passes, the next one is refused with the time until it would not be; others are not touched."""
    clock = _Clock()
    rates = Rates(WebOptions(rate=2, burst=3), clock)
    for _ in range(3):
        rates.check(_scope())
    with pytest.raises(TooManyRequests) as refused:
        rates.check(_scope())
    assert (refused.value.status, refused.value.retry_after) == (429, 0.5)
    rates.check(_scope("10.0.0.2"))
    clock.now = 0.5
    rates.check(_scope())
    with pytest.raises(TooManyRequests):
        rates.check(_scope())


def test_streams_do_not_count_and_polls_do() -> None:
    """An EventSource takes a refusal for good, so it is never refused here."""
    rates = Rates(WebOptions(rate=1, burst=1), _Clock())
    for _ in range(5):
        rates.check(_scope(path="/runs/x/events", accept=b"text/event-stream"))
    rates.check(_scope(path="/runs/x/events", accept=b"application/json"))
    with pytest.raises(TooManyRequests):
        rates.check(_scope(path="/runs/x/events", accept=b"application/json"))


def test_there_is_no_limit_by_default() -> None:
    """Whoever embeds the application sets one."""
    rates = Rates(WebOptions(), _Clock())
    for _ in range(1000):
        rates.check(_scope())
