"""The sandbox: what of this machine a program in bubblewrap sees, and whether that works here.

What comes in: a Python prefix, limits of disk, and a command. What goes out: the command line that runs it isolated,
and a `SandboxReport`. It does not know what the command does, nor how its process is watched. Linux only.

The program gets: an empty environment; its own process, network, IPC, mount, host name and cgroup namespaces; no
capability and no way to new user namespaces; system libraries and one Python prefix, read-only; a work folder in
memory, bounded; nothing of `/etc`, `/home`, `/var`. It shares the machine's kernel: see `docs/code.md`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from agentstream.agent.code.contract import Limits
from agentstream.errors import MissingExtra, NoSandbox

__all__ = ("INPUTS", "WORK", "Mount", "Sandbox", "SandboxReport", "probe")

WORK: Final = "/sandbox"
"""The work folder, as the program sees it: home, current and only folder that it may fill, beside `/tmp`."""

INPUTS: Final = "/inputs"
"""Where the files lie that were handed in, read-only."""

_NOBODY: Final = "65534"
_SMALL: Final = 64 << 20  # /tmp and /dev/shm
_OLDEST: Final = (0, 8, 0)  # `--disable-userns` and `--size`
_PROBE_SECONDS: Final = 10.0
_LIBRARIES: Final = ("ipykernel", "jupyter_client", "zmq")

_MISSING_PROGRAM: Final = "bubblewrap is not installed (on Debian and Ubuntu: apt-get install bubblewrap)"
_MISSING_NAMESPACES: Final = (
    "the kernel or the container does not allow user namespaces here. In Docker run with a seccomp profile that allows"
    " `unshare` and `clone` with namespaces; on Ubuntu 24.04 give bwrap an AppArmor profile with `userns`; elsewhere"
    " see the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone"
)


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """Whether code can run isolated on this machine.

    Attributes:
        missing: what of the machine stands in the way, each with what to do.
        libraries: what of `agentstream[exec]` is not installed.
        bwrap: where the program is, and version: which. python: the interpreter that code gets.
        drops_root: whether the process, being root, gives that up before anything of the sandbox starts.
    """

    missing: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    bwrap: str = ""
    version: str = ""
    python: str = ""
    drops_root: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing and not self.libraries

    def require(self) -> None:
        """Do nothing where code can run isolated.

        Raises:
            NoSandbox: the machine does not allow it. MissingExtra: only libraries are missing.
        """
        if self.missing:
            raise NoSandbox(f"code cannot be isolated on this machine: {'; '.join(self.missing)}")
        if self.libraries:
            names = ", ".join(self.libraries)
            raise MissingExtra(f"running code in a sandbox needs {names}: pip install 'agentstream[exec]'")

    def __str__(self) -> str:
        if self.ok:
            root = ", root is given up first" if self.drops_root else ""
            return f"bubblewrap {self.version}, code runs with {self.python}{root}"
        libraries = [f"{name} (pip install 'agentstream[exec]')" for name in self.libraries]
        return "no sandbox: " + "; ".join([*self.missing, *libraries])


class Mount(NamedTuple):
    """A folder or file of this machine, and where the program finds it, read-only."""

    source: str
    target: str


class Sandbox:
    """Makes command lines for one Python prefix.

    A server that runs as root would give the program root's own user id behind the mask of the namespace: limits of
    processes would not hold, and a hole in the kernel would be worth more. So there are two stages then. The first, as
    root, only lays out what is visible (also below folders that root alone may enter), and becomes user 65534; the
    second, as that user, isolates.

    Args:
        python: the interpreter. Its prefix, and that of the installation that it was made from, become visible.
    """

    def __init__(self, bwrap: str, *, python: str = sys.executable, limits: Limits) -> None:
        self._bwrap = bwrap
        self._limits = limits
        self.python = python
        self.root = os.geteuid() == 0

    def command(self, program: Sequence[str], *, mounts: Sequence[Mount] = ()) -> list[str]:
        """The command line that runs `program` (a path inside) isolated. Start it with an empty environment."""
        mounts = [*(Mount(prefix, prefix) for prefix in _prefixes()), *mounts]
        if not self.root:
            return [*self._isolated(mounts), "--", *program]
        through = [Mount(f"/src/{number}", mount.target) for number, mount in enumerate(mounts)]
        return [*self._laid_out(mounts), *self._isolated(through), "--", *program]

    def _laid_out(self, mounts: Sequence[Mount]) -> list[str]:
        options = [
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-net",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
        ]
        options += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        # The host's own /proc: a fresh one could not be mounted again in the next namespace. Only bwrap runs here.
        options += ["--bind", "/proc", "/proc", "--dev", "/dev", "--perms", "0755", "--dir", "/src", *_system()]
        options += ["--tmpfs", "/tmp"]  # noqa: S108  (where bwrap itself puts the next root together)
        for number, mount in enumerate(mounts):
            options += ["--ro-bind", mount.source, f"/src/{number}"]
        drop = ["setpriv", "--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups", "--no-new-privs", "--"]
        return [self._bwrap, *options, "--", *drop]

    def _isolated(self, mounts: Sequence[Mount]) -> list[str]:
        options = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
        options += ["--uid", _NOBODY, "--gid", _NOBODY, "--hostname", "sandbox", "--cap-drop", "ALL", "--clearenv"]
        for name, value in _ENVIRONMENT.items():
            options += ["--setenv", name, value]
        options += [*_system(), "--proc", "/proc", "--dev", "/dev"]
        options += ["--size", str(_SMALL), "--tmpfs", "/dev/shm", "--size", str(_SMALL), "--tmpfs", "/tmp"]  # noqa: S108
        options += ["--size", str(self._limits.disk_bytes), "--tmpfs", WORK]
        for mount in mounts:  # after the folders above: an environment may lie in one of these
            options += ["--ro-bind", mount.source, mount.target]
        # The root and /dev are folders in memory, too: what may be written there would have no bound.
        options += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORK]
        return ["bwrap" if self.root else self._bwrap, *options]


# A library that starts a thread for each core would spend the address space on their stacks.
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": WORK,
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108  (the sandbox's own)
    "IPYTHONDIR": "/tmp/ipython",  # noqa: S108
    "FONTCONFIG_FILE": "/tmp/fonts.conf",  # noqa: S108
    "PLOTLY_RENDERER": "plotly_mimetype",
    "PYTHONDONTWRITEBYTECODE": "1",
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
}


def _system() -> list[str]:
    """System libraries: `/usr`, and the folders that are links into it nowadays."""
    options = ["--ro-bind", "/usr", "/usr"]
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64")):
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    return options


def _prefixes() -> list[str]:
    """The environment of this interpreter and the installation below it, where they are not in `/usr` anyway."""
    found = dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix))
    found |= dict.fromkeys(str(Path(prefix).resolve()) for prefix in tuple(found))
    return [prefix for prefix in found if not Path(prefix).is_relative_to("/usr")]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: S603  (bubblewrap, found on the path of this process)
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False, env={}
    )


def _version(bwrap: str) -> str:
    return _run([bwrap, "--version"]).stdout.decode("utf-8", "replace").strip().rpartition(" ")[2]


def _too_old(version: str) -> bool:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    return numbers < _OLDEST


def probe() -> SandboxReport:
    """Look whether code can run isolated here, by running an empty program so. Takes some 50 ms; blocks."""
    if sys.platform != "linux":
        return SandboxReport(missing=(f"bubblewrap is for Linux, this is {sys.platform}: use a hosted runner",))
    libraries = tuple(name for name in _LIBRARIES if importlib.util.find_spec(name) is None)
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return SandboxReport((_MISSING_PROGRAM,), libraries, python=sys.executable)
    missing: list[str] = []
    version = _version(bwrap)
    root = os.geteuid() == 0
    if _too_old(version):
        missing.append(f"bubblewrap {version} is too old: 0.8.0 is the first that can lock user namespaces")
    elif root and shutil.which("setpriv") is None:
        missing.append("setpriv, with which root is given up (on Debian and Ubuntu: apt-get install util-linux)")
    elif problem := _try_out(bwrap):
        missing.append(problem)
    return SandboxReport(
        tuple(missing), libraries, bwrap=bwrap, version=version, python=sys.executable, drops_root=root
    )


def _try_out(bwrap: str) -> str:
    """What went wrong when an empty program was run; empty where nothing did."""
    command = Sandbox(bwrap, limits=Limits()).command([sys.executable, "-I", "-S", "-c", ""])
    try:
        done = _run(command)
    except subprocess.TimeoutExpired:
        return f"an empty program did not end in the sandbox within {_PROBE_SECONDS:g} s"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip()[-300:]
    hint = f": {_MISSING_NAMESPACES}" if "namespace" in said.lower() or "permitted" in said or "uid map" in said else ""
    return f"bubblewrap cannot isolate here ({said or f'status {done.returncode}'}){hint}"
