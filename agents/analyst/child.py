"""Runs one program inside a process of its own and leaves what it made as files.

What comes in: limits and paths as JSON in the first argument, the program as a file. What goes out: `outcome.json`,
`table.csv`, `picture.png` and `plotly.json` in the folder that it is told. It does not import the library or the team:
it is started with `-I`, by its path, and limits itself before it runs the program.
"""

# The limits protect the machine from our own mistakes. They are no sandbox: the program may read files and open
# sockets like any program of this user. That is why only code of our own rules is run here.

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import linecache
import math
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

_FORKS = frozenset(("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec", "subprocess.Popen", "os.spawn"))
_TABLE_ROWS = 10_000
_MESSAGE_CHARS = 4_000


def limit(spec: dict[str, Any]) -> None:
    """Take the limits on; they cannot be raised again."""
    resource.setrlimit(resource.RLIMIT_CPU, (spec["cpu_seconds"], spec["cpu_seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (spec["file_bytes"], spec["file_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    if sys.platform == "linux":  # macOS refuses a limit of address space
        resource.setrlimit(resource.RLIMIT_AS, (spec["memory_bytes"], spec["memory_bytes"]))
        with contextlib.suppress(OSError, ValueError):  # has no effect for uid 0, hence the hook below
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # Should the parent die, nobody is left to end us: the alarm does.
    signal.setitimer(signal.ITIMER_REAL, spec["wall_seconds"] + 5)
    sys.addaudithook(refuse_forks)


def refuse_forks(event: str, _arguments: tuple[Any, ...]) -> None:
    """New processes would escape the limits, which hold for one process each; the rules' code needs none."""
    if event in _FORKS:
        raise PermissionError(errno.EPERM, "code may not start processes")


def plain(value: Any) -> Any:
    """What JSON can hold: numbers that are none become null, numpy's and pandas' values Python's."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def collect(names: dict[str, Any], out: Path) -> Any:
    """Write what the program left behind; its `result`."""
    table: Any = names.get("table")
    if table is not None and hasattr(table, "to_csv"):
        table.head(_TABLE_ROWS).to_csv(out / "table.csv", index=False)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and pyplot.get_fignums():
        pyplot.figure(pyplot.get_fignums()[-1]).savefig(out / "picture.png", dpi=110)
    figure = names.get("plotly_figure")
    if isinstance(figure, dict):
        (out / "plotly.json").write_text(json.dumps(plain(figure), ensure_ascii=False), encoding="utf-8")
    return plain(names.get("result"))


def reason_of(error: BaseException) -> str:
    """Which limit an error means, or `exception`."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "file_size"
    if isinstance(error, PermissionError) and "start processes" in str(error):
        return "processes"
    if isinstance(error, BlockingIOError):  # fork under RLIMIT_NPROC
        return "processes"
    if isinstance(error, ModuleNotFoundError):
        return "module"
    return "exception"


def main() -> None:
    """Run the program that the first argument names."""
    spec = json.loads(sys.argv[1])
    out = Path(spec["out"])
    source = Path(spec["program"]).read_text(encoding="utf-8")
    if "matplotlib" in source:
        # Looks through the fonts of the machine when it is imported for the first time, and needs a thread for that.
        with contextlib.suppress(ImportError):
            importlib.import_module("matplotlib.font_manager")
            sys.modules["matplotlib"].rcParams["text.parse_math"] = False  # a "$" in a column's name is no formula
    limit(spec)
    linecache.cache["<code>"] = (len(source), None, source.splitlines(keepends=True), "<code>")
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(source, "<code>", "exec"), names)  # noqa: S102  # this is what the process is for
        outcome = {"ok": True, "result": collect(names, out)}
    except BaseException as error:  # noqa: BLE001  # SystemExit and KeyboardInterrupt of the program as well
        own = error.__traceback__.tb_next if error.__traceback__ else None
        text = "".join(traceback.format_exception(type(error), error, own, limit=8))
        outcome = {"ok": False, "reason": reason_of(error), "message": text[-_MESSAGE_CHARS:]}
        names.clear()  # what filled the memory
    sys.stdout.flush()
    partial = out / "outcome.partial"
    partial.write_text(json.dumps(outcome, ensure_ascii=False), encoding="utf-8")
    partial.replace(out / "outcome.json")


if __name__ == "__main__":
    main()
