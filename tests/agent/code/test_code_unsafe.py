"""The runner without walls: its limits hold, and it says of itself what it is."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import anyio
import pytest

from agentstream.agent.code import CodeFailed, CodeRunner, Limits, UnsafeSubprocess

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop is enough for processes; the loops are told apart by the sandbox's tests."""
    return "asyncio"


async def test_output_and_files(tmp_path: Path) -> None:
    """What is printed and written comes back; files last in a session."""
    given = tmp_path / "in.txt"
    given.write_text("x")
    runner: CodeRunner = UnsafeSubprocess()
    assert not runner.isolated
    with anyio.fail_after(20):
        async with runner, runner.session() as session:
            result = await session.run(
                "import sys\nprint('a')\nprint('b', file=sys.stderr)\n"
                "open('out.txt', 'w').write(open('in.txt').read())",
                files={"in.txt": given},
            )
            assert (result.stdout, result.stderr) == ("a\n", "b\n")
            assert [(one.name, one.data) for one in result.outputs] == [("out.txt", b"x")]
            assert (await session.run("print(open('out.txt').read())")).stdout == "x\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "exception"),
        ("while True: pass", "cpu"),
        ("import time; time.sleep(60)", "time"),
        ("while True: print('x' * 999)", "output"),
        ("bytearray(3 << 30)", "memory"),
        ("open('x', 'wb').write(bytes(70 << 20))", "file_size"),
        ("import os; os.kill(os.getpid(), 11)", "crash"),
    ],
)
async def test_limits(code: str, reason: str) -> None:
    """Each ends as what it is."""
    limits = Limits(wall_seconds=3, cpu_seconds=1, output_bytes=10_000)
    with anyio.fail_after(20), pytest.raises(CodeFailed) as failed:
        await UnsafeSubprocess(limits=limits).run(code)
    assert failed.value.reason == reason
    assert len(failed.value.result.stdout) <= 10_000


async def test_cancelling_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is dead and its folder gone before the cancellation is over."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pids: list[int] = []

    async def output(_channel: str, text: str) -> None:
        pids.append(int(text))
        scope.cancel()

    with anyio.fail_after(20), anyio.CancelScope() as scope:
        await UnsafeSubprocess().run("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)", output=output)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], signal.SIGCONT)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
