"""What every code runner has in common: its words, its limits, its results, its failures.

What comes in: Python code, files to lay beside it, and a function that takes its output while it runs. What goes out: a
`CodeResult`, or `CodeFailed` with the limit or error that ended it. It does not know how or where code is executed.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Protocol, Self

import msgspec

from agentstream.errors import InvalidInput, ToolError

__all__ = (
    "PLOTLY",
    "CodeFailed",
    "CodeResult",
    "CodeRunner",
    "CodeSession",
    "Limits",
    "OutputCallback",
    "Reason",
    "RichOutput",
    "check_files",
    "mime_of",
)

PLOTLY: Final = "application/vnd.plotly.v1+json"
"""The type of a plotly figure."""

Reason = Literal[
    "exception", "time", "cpu", "memory", "output", "file_size", "disk", "processes", "crash", "interrupted", "start"
]
"""Why code did not end well: an exception of its own, a limit, a process that died, or one that never came up."""

OutputCallback = Callable[[str, str], Awaitable[None]]
"""Takes the channel (`stdout` or `stderr`) and more text of it. Code waits while it does."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the code of one session may use.

    Attributes:
        wall_seconds: for one `run`; then it is interrupted, and killed if that does not end it within `grace_seconds`.
        cpu_seconds: processor time of each process, over the whole session.
        memory_bytes: addresses of each process (`RLIMIT_AS`); pandas and matplotlib take about 0.7 GiB before any data.
        output_bytes: of stdout and stderr together, for one `run`.
        file_bytes: one file. disk_bytes: the whole work folder, which lies in memory where it is a sandbox's own.
        processes: and threads, at the same time. A Jupyter kernel has a dozen threads of its own.
        result_bytes: one picture, table or written file, and all of those of one `run` together four times that.
        grace_seconds: between an interrupt and the end by force.
    """

    wall_seconds: float = 60.0
    cpu_seconds: int = 120
    memory_bytes: int = 2 << 30
    output_bytes: int = 1 << 20
    file_bytes: int = 64 << 20
    disk_bytes: int = 256 << 20
    processes: int = 64
    result_bytes: int = 8 << 20
    grace_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise InvalidInput(f"the limit {name} is a number above 0, not {getattr(self, name)!r}")


class RichOutput(msgspec.Struct, frozen=True):
    """One thing that code showed or wrote, apart from text.

    Attributes:
        name: a file name: the one the code chose, else `picture-1.png`, `table-2.html`, `figure-1.plotly.json`.
        mime: `image/png`, `image/svg+xml`, `text/html`, `application/vnd.plotly.v1+json`, or by a file's name.
        data: the bytes. source: whether the code displayed it, or left it in its work folder.
    """

    name: str
    mime: str
    data: bytes
    source: Literal["display", "file"] = "display"


class CodeResult(msgspec.Struct, frozen=True):
    """What one `run` left behind.

    Attributes:
        text: the value of the last expression as text; empty where there was none.
        stdout, stderr: what was printed, up to the limit of output.
        outputs: pictures, tables, figures and written files, in the order in which they came.
        left_out: names of what was too large, or too much, to be taken.
        seconds: from start to end.
    """

    text: str = ""
    stdout: str = ""
    stderr: str = ""
    outputs: tuple[RichOutput, ...] = ()
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0


class CodeFailed(ToolError):
    """The code did not end well.

    Attributes:
        reason: the limit or error; also in `details`, for programs.
        detail: what to tell people and models; for `exception` the traceback of the code.
        result: what there was up to then.
        state_lost: whether the session's variables and files are gone with it.
    """

    code: ClassVar[str] = "code_failed"

    def __init__(
        self, reason: Reason, detail: str, *, result: CodeResult | None = None, state_lost: bool = False
    ) -> None:
        super().__init__(detail, details={"reason": reason})
        self.reason: Reason = reason
        self.result = CodeResult() if result is None else result
        self.state_lost = state_lost


class CodeSession(Protocol):
    """One place where code runs, step after step: variables and files of a step are there in the next."""

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        """Run one step.

        Args:
            files: laid beside the code under their names, for this step and those after it. They cannot be changed.
            output: takes stdout and stderr while the code runs.

        Raises:
            CodeFailed: the code failed or broke a limit. InvalidInput: a name that is no plain file name.
        """
        ...


class CodeRunner(Protocol):
    """Something that runs Python: a sandbox on this machine, a plain process, a service elsewhere.

    Enter it before use. What it started ends before `__aexit__` returns, whatever happened.
    """

    @property
    def isolated(self) -> bool:
        """Whether it may be given code that nobody has read, such as a language model's."""
        ...

    async def __aenter__(self) -> Self:
        """Get ready.

        Raises:
            NoSandbox: it cannot isolate on this machine; the message says what is missing.
        """
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything that was started."""
        ...

    def session(self) -> AbstractAsyncContextManager[CodeSession]:
        """A fresh place whose state lasts from step to step; entering it may wait for one to start."""
        ...

    async def run(
        self, code: str, *, files: Mapping[str, Path] | None = None, output: OutputCallback | None = None
    ) -> CodeResult:
        """Run one step in a session of its own; raises what `CodeSession.run` does."""
        ...


def check_files(files: Mapping[str, Path]) -> None:
    """Refuse names that would lie elsewhere than beside the code.

    Raises:
        InvalidInput: a name that is no plain file name, or a path that is no file.
    """
    for name, path in files.items():
        if not name or Path(name).name != name or "\0" in name or len(name.encode()) > 200:
            raise InvalidInput(f"{name!r} is no plain file name")
        if not path.is_file():
            raise InvalidInput(f"the file {name!r} that was to be laid beside the code is not there")


def mime_of(name: str) -> str:
    """What a file probably is, by its name."""
    if name.endswith(".plotly.json"):
        return PLOTLY
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
