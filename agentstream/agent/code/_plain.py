"""The program of `UnsafeSubprocess`: takes limits on, then runs a file.

What comes in: limits as JSON in the first argument, a path in the second. What goes out: whatever the file does. It
does not import the library: it is started with `-I`, by its path.
"""

from __future__ import annotations

import json
import linecache
import resource
import sys
import traceback
from pathlib import Path


def limit(limits: dict[str, int]) -> None:
    """Take the limits on; for a process of root the one on processes means nothing."""
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))
    kinds = [(resource.RLIMIT_FSIZE, limits["file_bytes"]), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 512)]
    if sys.platform == "linux":  # macOS refuses a limit of addresses, and counts all processes of the user
        kinds += [(resource.RLIMIT_AS, limits["memory_bytes"]), (resource.RLIMIT_NPROC, limits["processes"])]
    for kind, most in kinds:
        resource.setrlimit(kind, (most, most))


def main() -> int:
    """Run the file; what it raises goes to standard error without our own lines."""
    limits, path = json.loads(sys.argv[1]), sys.argv[2]
    source = Path(path).read_text(encoding="utf-8")
    linecache.cache["<code>"] = (len(source), None, source.splitlines(keepends=True), "<code>")
    sys.path.append(str(Path.cwd()))
    limit(limits)
    try:
        exec(compile(source, "<code>", "exec"), {"__name__": "__main__"})  # noqa: S102  # what it is for
    except Exception as error:  # noqa: BLE001  # shown as Python shows it
        own = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, own)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
