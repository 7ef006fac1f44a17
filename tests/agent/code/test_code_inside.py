"""What code meets in the sandbox, and what comes out of it; on one loop, since none of it depends on that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from agentstream.agent.code import CodeFailed, Limits
from agentstream.agent.code.jupyter import JupyterRunner, JupyterSession
from agentstream.errors import InvalidInput, UsageError

pytestmark = [pytest.mark.anyio, pytest.mark.real("bwrap")]

LIMITS = Limits(wall_seconds=5, output_bytes=10_000, result_bytes=100_000, memory_bytes=1 << 30, grace_seconds=3)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop: each test starts a kernel, and the loops are told apart in `test_code_jupyter.py`."""
    return "asyncio"


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


async def test_rich_outputs(session: JupyterSession) -> None:
    """Figures as JSON, pictures as PNG, tables as HTML; what is too large is named, not taken."""
    result = await session.run(
        "from IPython.display import HTML, Image, display\n"
        "display({'application/vnd.plotly.v1+json': {'data': [{'y': [1, 2]}]}}, raw=True)\n"
        "display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(8), format='png'))\n"
        "display(HTML('<table></table>'))\n"
        "display(HTML('x' * 1_000_000))\n"
        "open('large.bin', 'wb').write(bytes(200_000))"
    )
    figure, picture, table = result.outputs
    assert (figure.name, json.loads(figure.data)) == ("figure-1.plotly.json", {"data": [{"y": [1, 2]}]})
    assert (picture.name, picture.mime) == ("picture-1.png", "image/png")
    assert picture.data.startswith(b"\x89PNG")
    assert (table.name, table.data) == ("table-1.html", b"<table></table>")
    assert len(result.left_out) == 2
    assert "large.bin" in result.left_out


@pytest.mark.real("pandas")
async def test_matplotlib_and_pandas(session: JupyterSession) -> None:
    """A drawn figure is a picture and a data frame a table, without being asked for; nothing is complained about."""
    result = await session.run(
        "import matplotlib.pyplot as plt\nimport pandas as pd\nplt.plot([1, 2])\npd.DataFrame({'a': [1]})"
    )
    assert [output.mime for output in result.outputs] == ["text/html", "image/png"]
    assert result.text.split() == ["a", "0", "1"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("code", "reason", "lost"),
    [
        ("bytearray(2 << 30)", "memory", False),
        ("open('x', 'wb').write(bytes(70 << 20))", "file_size", False),
        ("for n in range(9): open(str(n), 'wb').write(bytes(40 << 20))", "disk", False),
        ("while True: print('x' * 999)", "output", False),
        ("import os\nwhile True: os.write(1, b'x' * 999)", "output", False),
        (
            "import os, time\nwhile True: os.fork() or time.sleep(9)",
            "processes",
            True,
        ),
        ("import os; os._exit(3)", "crash", True),
        ("import ctypes; ctypes.string_at(0)", "crash", True),
        ("input()", "exception", False),
    ],
)
async def test_limits_end_a_step_and_not_the_session(
    session: JupyterSession, code: str, reason: str, lost: bool
) -> None:
    """What a step runs into is named, and the next step works; where the state is lost, that is said."""
    failure = await ended(session, code)
    assert (failure.reason, failure.state_lost) == (reason, lost)
    assert len(failure.result.stdout) <= LIMITS.output_bytes
    assert (await session.run("1 + 1")).text == "2"


async def test_nothing_of_the_server_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment, no files of the host, no network, nobody's user id, no capability, no other process."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    code = """
import os, socket, glob
facts = {"uid": os.getuid(), "etc": os.path.exists("/etc"), "home": os.listdir(os.path.expanduser("~")),
         "interfaces": [name for _, name in socket.if_nameindex()],
         "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")],
         "processes": len(glob.glob("/proc/[0-9]*"))}
facts["environment"] = b"".join(open(f"/proc/{pid}/environ", "rb").read() for pid in (1, os.getpid())).decode()
import json; print(json.dumps(facts))"""
    with anyio.fail_after(30):
        async with JupyterRunner(warm=0) as runner:
            facts = json.loads((await runner.run(code)).stdout)
    assert (facts["uid"], facts["etc"], facts["home"]) == (65534, False, [])
    assert facts["interfaces"] == ["lo"]
    assert facts["capabilities"] == ["0000000000000000"]
    assert facts["processes"] == 2
    assert "sk-secret" not in facts["environment"]


async def test_steps_at_the_same_time_take_turns(session: JupyterSession) -> None:
    """Two steps that are asked for at once run one after the other."""
    texts: list[str] = []

    async def step() -> None:
        texts.append((await session.run("n = globals().get('n', 0) + 1; n")).text)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(step)
    assert texts == ["1", "2", "3"]


async def test_a_dead_waiting_kernel_is_passed_over() -> None:
    """A kernel that died while it waited is not handed out."""
    with anyio.fail_after(30):
        async with JupyterRunner(warm=2) as runner:
            await runner._warm[0].process.end()
            assert (await runner.run("6 * 7")).text == "42"


async def test_at_most_so_many_sessions() -> None:
    """A session beyond the number waits until another ends."""
    with anyio.fail_after(30):
        async with JupyterRunner(warm=0, most=1) as runner:
            async with runner.session():
                with anyio.move_on_after(0.05) as scope:
                    await runner.run("1")
                assert scope.cancelled_caught
            assert (await runner.run("1")).text == "1"


async def test_misuse_is_told(session: JupyterSession, tmp_path: Path) -> None:
    """A runner or session that was not entered, a bad name, a missing file: each says what to do."""
    with pytest.raises(UsageError, match="enter the runner first"):
        await JupyterRunner().run("1")
    with pytest.raises(UsageError, match="enter the session first"):
        await JupyterSession(session._runner).run("1")
    for files in ({"../x": tmp_path}, {"x": tmp_path / "nowhere"}):
        with pytest.raises(InvalidInput):
            await session.run("1", files=files)
    with pytest.raises(InvalidInput, match="above 0"):
        Limits(wall_seconds=0)
