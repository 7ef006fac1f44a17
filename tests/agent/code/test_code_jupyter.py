"""Kernels in the sandbox: what a session keeps, what ends a step, and that nothing stays behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from agentstream.agent.code import CodeFailed, Limits
from agentstream.agent.code.jupyter import JupyterRunner, JupyterSession

pytestmark = [pytest.mark.anyio, pytest.mark.real("bwrap")]

LIMITS = Limits(wall_seconds=5, output_bytes=10_000, result_bytes=100_000, memory_bytes=1 << 30, grace_seconds=3)


@pytest.fixture
async def session() -> AsyncIterator[JupyterSession]:
    """A session with narrow limits."""
    with anyio.fail_after(50):
        async with JupyterRunner(limits=LIMITS, warm=0) as runner, runner.session() as one:
            yield one


async def ended(session: JupyterSession, code: str) -> CodeFailed:
    """How a step failed."""
    with pytest.raises(CodeFailed) as failed:
        await session.run(code)
    return failed.value


async def test_state_output_and_values(session: JupyterSession) -> None:
    """Variables last from step to step, streams are told apart and come while the code runs, the last value is text."""
    live: list[tuple[str, str]] = []

    async def output(channel: str, text: str) -> None:
        live.append((channel, text))

    assert (await session.run("x = 40")).text == ""
    result = await session.run("import sys\nprint('héllo')\nprint('oops', file=sys.stderr)\nx + 2", output=output)
    assert (result.text, result.stdout, result.stderr) == ("42", "héllo\n", "oops\n")
    assert "".join(text for channel, text in live if channel == "stdout") == "héllo\n"
    assert {channel for channel, _ in live} == {"stdout", "stderr"}


async def test_files_go_in_and_come_out(session: JupyterSession, tmp_path: Path) -> None:
    """A file lies beside the code and cannot be changed; what the code writes comes back once."""
    given = tmp_path / "given.csv"
    given.write_text("a\n1\n")
    given.chmod(0o600)
    result = await session.run("open('made.csv', 'w').write(open('given.csv').read() * 2)", files={"given.csv": given})
    (made,) = result.outputs
    assert (made.name, made.mime, made.data, made.source) == ("made.csv", "text/csv", b"a\n1\na\n1\n", "file")
    failure = await ended(session, "open('given.csv', 'w')")
    assert "Read-only" in failure.detail
    assert given.read_text() == "a\n1\n"
    assert (await session.run("open('given.csv').read()")).outputs == ()


async def test_errors_of_the_code(session: JupyterSession) -> None:
    """A failure is typed, with the code's own lines; what was printed before is kept, and variables too."""
    failure = await ended(session, "x = 1\nprint('before')\ndef half(x):\n    return 1 / 0\nhalf(1)")
    assert failure.reason == "exception"
    assert "return 1 / 0" in failure.detail and "ZeroDivisionError" in failure.detail
    assert failure.result.stdout == "before\n"
    assert not failure.state_lost
    assert (await session.run("x")).text == "1"


async def test_wall_time_interrupts_then_kills() -> None:
    """A loop is interrupted and the state stays; code that ignores the interrupt is killed."""
    limits = Limits(wall_seconds=0.5, grace_seconds=0.5)
    with anyio.fail_after(30):
        async with JupyterRunner(limits=limits, warm=0) as runner, runner.session() as session:
            await session.run("x = 1")
            failure = await ended(session, "while True: pass")
            assert (failure.reason, failure.state_lost) == ("time", False)
            assert (await session.run("x")).text == "1"
            failure = await ended(session, "import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass")
            assert (failure.reason, failure.state_lost) == ("time", True)


async def test_cancelling_a_step_keeps_the_state(session: JupyterSession) -> None:
    """A cancelled step is over when the cancellation is, and the session goes on."""

    async def stop(_channel: str, _text: str) -> None:
        scope.cancel()

    with anyio.CancelScope() as scope:
        await session.run("y = 5\nprint('on', flush=True)\nwhile True: pass", output=stop)
    assert scope.cancelled_caught
    assert (await session.run("y")).text == "5"


async def test_failing_follower_ends_the_step(session: JupyterSession) -> None:
    """When whoever takes the output fails, the step is stopped and the error goes through."""

    async def fail(_channel: str, _text: str) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await session.run("print('on', flush=True)\nwhile True: pass", output=fail)
    assert (await session.run("1")).text == "1"


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled leaves no folder and no process (the latter is looked for after each test)."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with anyio.fail_after(30):
        async with JupyterRunner(warm=1) as runner:
            with anyio.move_on_after(0.05) as scope:
                async with runner.session():
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_a_runner_that_ends_takes_its_sessions_with_it() -> None:
    """A step that still runs when the runner ends is told, and does not hang."""
    reasons: list[str] = []

    async def step(session: JupyterSession, running: anyio.Event) -> None:
        async def output(_channel: str, _text: str) -> None:
            running.set()

        try:
            async with session:
                await session.run("print('on', flush=True)\nwhile True: pass", output=output)
        except CodeFailed as failure:
            reasons.append(failure.reason)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group, JupyterRunner(warm=0) as runner:
            running = anyio.Event()
            group.start_soon(step, runner.session(), running)
            await running.wait()
    assert reasons == ["memory"]  # what a kill from outside looks like
