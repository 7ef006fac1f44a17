"""The listening socket and the guard's thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import anyio
import pytest

from agentstream.errors import InvalidInput
from agentstream.web.guard import Guard
from agentstream.web.listening import address_of, listen


def test_a_free_port() -> None:
    """Port 0 takes a free one, and the address says which."""
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        assert port > 0
        assert address_of(sock) == f"http://127.0.0.1:{port}/"


def test_options_are_inherited() -> None:
    """A connection has the buffer and the limits that were set on the listener."""
    with listen("localhost", 0) as sock:
        sock.listen(1)
        with socket.create_connection(sock.getsockname()[:2], timeout=5):
            accepted = sock.accept()[0]
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 256 * 1024
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


def test_every_address() -> None:
    """For people, all addresses are the one that works here."""
    with listen("0.0.0.0", 0) as sock:
        assert address_of(sock).startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("host", "says"), [("no.such.host.invalid", "no address"), ("192.0.2.1", "does not have that")]
)
def test_hosts_that_are_not_here(host: str, says: str) -> None:
    """A name without an address, and an address of another machine."""
    with pytest.raises(InvalidInput, match=says):
        listen(host, 0)


def test_a_port_that_is_taken() -> None:
    """The error says what to do."""
    with listen("127.0.0.1", 0) as sock:
        sock.listen(1)
        with pytest.raises(InvalidInput, match="another process listens there"):
            listen("127.0.0.1", sock.getsockname()[1])


# --- the guard --------------------------------------------------------------------------------------------------------
async def guarded(act: Callable[[Guard, threading.Event], None], silent_for: float) -> list[str]:
    """What a guard said while `act` ran on the loop."""
    left: list[str] = []
    said = threading.Event()

    def leave(reason: str) -> None:
        left.append(reason)
        said.set()

    with Guard(silent_for, leave) as guard:
        async with anyio.create_task_group() as group:
            group.start_soon(guard.stamp)
            await anyio.wait_all_tasks_blocked()
            act(guard, said)
            group.cancel_scope.cancel()
    return left


@pytest.mark.anyio
async def test_a_blocked_loop_is_noticed() -> None:
    """A loop that stands still longer than allowed makes the guard act, once."""
    with anyio.fail_after(10):
        left = await guarded(lambda guard, said: assert_set(said), 0.5)
    assert len(left) == 1
    assert "stood still" in left[0]


@pytest.mark.anyio
async def test_the_shortest_time_counts() -> None:
    """A later, longer limit does not push an earlier one back."""

    def act(guard: Guard, said: threading.Event) -> None:
        guard.end_within(60)
        guard.end_within(0)
        guard.end_within(60)
        assert_set(said)

    with anyio.fail_after(10):
        left = await guarded(act, 60)
    assert left == ["it did not end within its limit"]


@pytest.mark.anyio
async def test_a_healthy_loop_is_left_alone() -> None:
    """A guard whose block ends says nothing."""
    with anyio.fail_after(10):
        assert await guarded(lambda guard, said: None, 0.5) == []


def assert_set(said: threading.Event) -> None:
    """Block the thread until the guard has spoken."""
    assert said.wait(5)
