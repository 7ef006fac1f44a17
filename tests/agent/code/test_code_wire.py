"""What the kernel's side may say: frames, messages, and what a hostile one tries."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from agentstream.agent.code.contract import Limits
from agentstream.agent.code.jupyter._messages import Display, Incoming, parse, request
from agentstream.agent.code.jupyter._step import Step
from agentstream.agent.code.jupyter._zmtp import _GREETING, BrokenPeer, Connection

pytestmark = pytest.mark.anyio

READY = bytes((4, 25)) + b"\x05READY\x0bSocket-Type\0\0\0\x03PUB"


@asynccontextmanager
async def peer(says: bytes, most: int = 1_000) -> AsyncIterator[Connection]:
    """A connection to something that says `says` after the greeting, byte by byte, and then closes."""
    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        listener = await anyio.create_unix_listener(Path(folder, "s"))

        async def answer(stream: anyio.abc.SocketStream) -> None:
            try:
                async with stream:
                    for byte in _GREETING + READY + says:
                        await stream.send(bytes((byte,)))
                    with anyio.move_on_after(5):
                        await stream.receive(1_000)
            except anyio.BrokenResourceError:
                pass  # the other side had enough

        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, answer)
            with anyio.fail_after(10):
                connection = await Connection.open(str(Path(folder, "s")), "SUB", most)
                yield connection
                await connection.aclose()
            group.cancel_scope.cancel()


async def test_messages_are_whole_however_they_arrive() -> None:
    """Short and long frames, several to a message, a command in between."""
    says = b"\x01\x01a" + b"\x02" + (300).to_bytes(8, "big") + b"b" * 300 + b"\x04\x05\x04PING" + b"\x00\x00"
    async with peer(says) as connection:
        assert await connection.receive() == [b"a", b"b" * 300]
        assert await connection.receive() == [b""]


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(b"\x02" + (1 << 40).to_bytes(8, "big"), id="a frame larger than is read"),
        pytest.param(b"\x01\x00" * 300, id="a message of too many frames"),
        pytest.param((b"\x01\xff" + bytes(255)) * 5, id="frames that are too much together"),
        pytest.param(b"\xf0\x01a", id="flags that there are not"),
        pytest.param(b"\x01\x01a", id="an end in the middle"),
    ],
)
async def test_what_is_no_message_breaks_the_connection(says: bytes) -> None:
    """Nothing is waited for or kept in memory beyond the bound."""
    async with peer(says) as connection:
        with anyio.CancelScope() as scope:
            scope.deadline = anyio.current_time() + 5
            if says == b"\x01\x01a":
                await connection.send([b"bye"])
            with pytest.raises(BrokenPeer):
                await connection.receive()
        assert not scope.cancelled_caught


async def test_nobody_there() -> None:
    """No listener is a broken peer, not an operating system's error."""
    with pytest.raises(BrokenPeer, match="nobody listens"):
        await Connection.open("/nonexistent/socket", "SUB", 1_000)


def test_requests_and_answers() -> None:
    """What is asked can be read back; an answer names its request."""
    id_, frames = request("execute_request", {"code": "1"})
    message = parse([b"topic", *frames[:3], f'{{"msg_id":"{id_}"}}'.encode(), *frames[4:], b"buffer"])
    assert (message.kind, message.parent, message.buffers) == ("execute_request", id_, (b"buffer",))


@pytest.mark.parametrize(
    "frames",
    [
        [b"no delimiter"],
        [b"<IDS|MSG>", b""],
        [b"<IDS|MSG>", b"", b"{}", b"[1]", b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b"\xff", b"{}", b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b"[" * 100_000, b"{}", b"{}", b"{}"],
    ],
)
def test_nonsense_is_no_message(frames: list[bytes]) -> None:
    """Whatever the bytes are, the error is one."""
    with pytest.raises(BrokenPeer):
        parse(frames)


def message(kind: str, content: bytes) -> Incoming:
    """A message of the step `1`."""
    return Incoming(kind, "1", content)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("stream", b'{"name": "stdin", "text": "x"}'),
        ("stream", b'{"name": "stdout", "text": 1}'),
        ("display_data", b'{"data": []}'),
        ("display_data", b'{"data": {"image/png": "abc"}}'),
        ("error", b'{"ename": 1}'),
        ("status", b"{}"),
    ],
)
async def test_content_of_another_shape_is_refused(kind: str, content: bytes) -> None:
    """A message that is not what it says is no message."""
    with pytest.raises(BrokenPeer):
        await Step("1", Limits(), None).take(message(kind, content))


async def test_a_step_is_bounded_whatever_the_kernel_sends() -> None:
    """Output, pictures and names have bounds of their own on this side."""
    step = Step("1", Limits(output_bytes=10, result_bytes=100), None)
    await step.take(Incoming("stream", "another step", b'{"name": "stdout", "text": "not mine"}'))
    for _ in range(3):
        await step.take(message("stream", '{"name": "stdout", "text": "äöüß"}'.encode()))
    for _ in range(200):
        await step.take(message("display_data", b'{"data": {"image/svg+xml": "' + b"x" * 90 + b'"}}'))
    result = step.result()
    assert result.stdout == "äöüßä"
    assert step.too_loud
    assert len(result.outputs) == 4
    assert len(result.left_out) == 64
    assert step.failure() is not None


def test_a_display_keeps_values_undecoded() -> None:
    """A figure's JSON is passed on as it came, numbers included."""
    raw: Any = message("display_data", b'{"data": {"x": {"y": 1.10}}}').as_(Display).data["x"]
    assert bytes(raw) == b'{"y": 1.10}'
