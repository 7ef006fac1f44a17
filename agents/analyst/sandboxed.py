"""Runs a language model's program in the library's sandbox, and takes out what the analyst asks of a program.

What comes in: a program, files to lay beside it, and a function that takes its output while it runs. What goes out: a
`CodeResult` as of any runner of this team, or `CodeFailed`. It does not know how the sandbox is made; without one it
refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from agentstream.agent import code as library
from agentstream.errors import MissingExtra, NoSandbox
from agentstream.events import Json

from .runner import CodeFailed, CodeResult, Output

__all__ = ("SandboxRunner",)

_COLLECTOR: Final = Path(__file__).with_name("child.py")
_MODULE: Final = "_analyst_collector"
# A step of its own, after the program: an error of the program is shown with the program's lines only.
_COLLECT: Final = f"""
import json as _json, pathlib as _pathlib, {_MODULE}
_out = _pathlib.Path("_out")
_out.mkdir(exist_ok=True)
(_out / "outcome.json").write_text(_json.dumps({_MODULE}.collect(globals(), _out)))
"""
_RESULT_BYTES: Final = 96 * 1024  # it travels in events, which end at 256 KiB


class SandboxRunner:
    """The library's sandbox as a runner of this team: each program in a kernel of its own.

    Args:
        runner: an isolated one of your own, entered; for instance a `JupyterRunner` whose kernels wait, started.
            Without one the default sandbox is started for each program, which takes a second.
    """

    def __init__(self, runner: library.CodeRunner | None = None) -> None:
        self._runner = runner

    @property
    def trusted(self) -> bool:
        """Whether it isolates."""
        return self._runner is None or self._runner.isolated

    async def check(self) -> None:
        """Do nothing where programs can run.

        Raises:
            NoSandbox: they cannot; the message says what is missing, and what else can be done.
        """
        if self._runner is not None:
            return
        report = await anyio.to_thread.run_sync(library.probe)
        try:
            report.require()
        except (NoSandbox, MissingExtra) as error:
            raise NoSandbox(
                f"code that a language model wrote runs only in a sandbox, and there is none: {error.detail}. Hand one"
                " in with Analyst(runner=…), or use the fixed rules instead of the model with Analyst(rules=True)"
            ) from None

    async def run(self, code: str, *, files: Mapping[str, Path], output: Output) -> CodeResult:
        """Run `code`; on cancellation the sandbox ends before this returns.

        Raises:
            CodeFailed: the program failed or broke a limit. NoSandbox: there is none.
        """
        if self._runner is not None:
            return await _run(self._runner, code, files, output)
        await self.check()
        async with library.sandbox() as runner:
            return await _run(runner, code, files, output)


async def _run(runner: library.CodeRunner, code: str, files: Mapping[str, Path], output: Output) -> CodeResult:
    try:
        async with runner.session() as session:
            shown = await session.run(code, files={**files, f"{_MODULE}.py": _COLLECTOR}, output=output)
            left = await session.run(_COLLECT)
    except library.CodeFailed as failure:
        raise CodeFailed(failure.reason, failure.detail) from None
    made = {one.name: one.data for one in left.outputs}
    pictures = [one.data for one in shown.outputs if one.mime == "image/png"]
    figures = [one.data for one in shown.outputs if one.mime == "application/vnd.plotly.v1+json"]
    return CodeResult(
        result=_outcome(made.get("_out-outcome.json", b"null")),
        table=made.get("_out-table.csv", b"").decode("utf-8", "replace"),
        picture=pictures[-1] if pictures else b"",
        plotly=made.get("_out-plotly.json", figures[-1] if figures else b"").decode("utf-8", "replace"),
        seconds=shown.seconds,
    )


def _outcome(raw: bytes) -> Json:
    if len(raw) > _RESULT_BYTES:
        raise CodeFailed("result", f"`result` is larger than {_RESULT_BYTES:,} bytes: keep at most 200 rows in it")
    decoded: Json = msgspec.json.decode(raw)
    return decoded
