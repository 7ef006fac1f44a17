"""Programs in their own process: what they leave, what ends them, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentstream.errors import MissingExtra, ToolError
from team_loading import load

pytestmark = [pytest.mark.anyio, pytest.mark.real("pandas")]

runner_module = load("analyst", "runner")
CodeFailed, Limits, RuleRunner = runner_module.CodeFailed, runner_module.Limits, runner_module.RuleRunner


class Printed:
    """Takes a program's output."""

    def __init__(self) -> None:
        self.text = {"stdout": "", "stderr": ""}
        self.seen = anyio.Event()

    async def __call__(self, channel: str, text: str) -> None:
        self.text[channel] += text
        self.seen.set()


async def run(code: str, *, files: dict[str, Path] | None = None, **limits: Any) -> tuple[Any, dict[str, str]]:
    """Run a program; its result and what it printed."""
    printed = Printed()
    with anyio.fail_after(30):
        result = await RuleRunner(Limits(**limits)).run(code, files=files or {}, output=printed)
    return result, printed.text


async def ended_by(code: str, **limits: Any) -> str:
    """Run a program that breaks a limit; which one."""
    with pytest.raises(CodeFailed) as failed:
        await run(code, **limits)
    assert isinstance(failed.value, ToolError)
    return str(failed.value.reason)


async def test_result_and_output_come_back() -> None:
    """What the program calls `result` comes back as JSON, what it prints while it runs."""
    result, printed = await run("import sys\nprint('héllo')\nprint('oops', file=sys.stderr)\nresult = {'a': [1, None]}")
    assert result.result == {"a": [1, None]}
    assert printed == {"stdout": "héllo\n", "stderr": "oops\n"}
    assert (result.table, result.picture, result.plotly) == ("", b"", "")


async def test_table_picture_and_figure_come_back() -> None:
    """The data frame comes as CSV, the figure as PNG, the plotly figure as JSON; what is no number is null."""
    result, _ = await run(
        "import matplotlib.pyplot as plt\nimport pandas as pd\n"
        "table = pd.DataFrame({'$a': [1.5, float('nan')], 'b$': ['x', 'y']})\n"
        "table.plot(kind='bar', title='$a and b$')\n"
        "result = table.values.tolist()\nplotly_figure = {'data': [{'y': table['$a']}]}"
    )
    assert result.table == "$a,b$\n1.5,x\n,y\n"
    assert result.picture.startswith(b"\x89PNG")
    assert result.result == [[1.5, "x"], [None, "y"]]
    assert result.plotly == '{"data": [{"y": [1.5, null]}]}'


async def test_files_lie_in_the_working_directory(tmp_path: Path) -> None:
    """A file is there under its name, as a copy: the program cannot spoil the original."""
    original = tmp_path / "data.csv"
    original.write_text("x\n")
    result, _ = await run(
        "import os\nresult = [sorted(os.listdir()), open('data.csv').read()]\nopen('data.csv', 'w').write('spoilt')",
        files={"data.csv": original},
    )
    assert result.result == [["data.csv"], "x\n"]
    assert original.read_text() == "x\n"


async def test_environment_holds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of this process are not handed on."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result, _ = await run("import os\nresult = dict(os.environ)")
    assert "sk-secret" not in str(result.result)
    assert {"HOME", "USER"}.isdisjoint(result.result)


async def test_error_of_the_code_names_its_own_line() -> None:
    """An exception comes back with the program's lines, without ours."""
    with pytest.raises(CodeFailed, match="ZeroDivisionError") as failed:
        await run("def half(x):\n    return 1 / x\n\nhalf(0)\n")
    assert failed.value.reason == "exception"
    assert "return 1 / x" in failed.value.detail
    assert "child.py" not in failed.value.detail


async def test_runaway_loop_is_ended_by_processor_time() -> None:
    """A loop that computes for ever is ended."""
    assert await ended_by("while True: pass", cpu_seconds=1) == "cpu"


async def test_sleeping_program_is_ended_by_wall_time() -> None:
    """A program that only waits is ended as well."""
    assert await ended_by("import time\ntime.sleep(60)", wall_seconds=0.5) == "time"


async def test_memory_hog_is_refused() -> None:
    """More memory than allowed is an error of the program, not of the machine."""
    assert await ended_by("x = [bytearray(1 << 28) for _ in range(64)]", memory_bytes=1 << 30) == "memory"


async def test_huge_output_is_cut() -> None:
    """A program that prints without end is ended after the bytes that are let through."""
    printed = Printed()
    with anyio.fail_after(30), pytest.raises(CodeFailed) as failed:
        await RuleRunner(Limits(output_bytes=10_000)).run("while True: print('x' * 999)", files={}, output=printed)
    assert failed.value.reason == "output"
    assert len(printed.text["stdout"]) <= 10_000


async def test_huge_file_is_refused() -> None:
    """A file above the limit is an error of the program."""
    assert await ended_by("open('x', 'wb').write(bytes(5_000_000))", file_bytes=1_000_000) == "file_size"


async def test_huge_result_is_refused() -> None:
    """A result above the limit is not read."""
    assert await ended_by("result = 'x' * 200_000", result_bytes=100_000) == "result"


@pytest.mark.parametrize("code", ["import os\nos.fork()", "import subprocess\nsubprocess.Popen(['true'])"])
async def test_new_processes_are_refused(code: str) -> None:
    """The rules' code needs no further process, so none may be started."""
    assert await ended_by(code) == "processes"


async def test_sudden_end_is_told() -> None:
    """A process that dies without a result is a typed error too."""
    assert await ended_by("import os\nos.kill(os.getpid(), 11)") == "crash"


async def test_code_cannot_claim_success_by_exit() -> None:
    """`exit` in the middle is an error: there is no result."""
    assert await ended_by("print(1)\nraise SystemExit(0)") == "exception"


async def test_cancelling_ends_the_process_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the caller is cancelled, the process is dead and its folder gone before the call returns."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    printed = Printed()
    async with anyio.create_task_group() as group:

        async def start() -> None:
            await RuleRunner().run(
                "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)", files={}, output=printed
            )

        group.start_soon(start)
        with anyio.fail_after(20):
            await printed.seen.wait()
        group.cancel_scope.cancel()
    pid = int(printed.text["stdout"])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  # two names, read in no time


async def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas the message says what to install."""
    monkeypatch.setattr(runner_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"agentstream\[exec\]"):
        await RuleRunner().run("result = 1", files={}, output=Printed())
