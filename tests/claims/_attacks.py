"""Fourteen things that code must not be able to do to the machine it runs on, as programs that try.

Comes in: a runner. Goes out: what came of each attack: `no`, `allowed`, or how it was stopped.
It deliberately tries harmless forms only: it reads, connects and signals what the claim itself set up.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from agentstream.agent.code import CodeFailed, CodeRunner

__all__ = ["ATTACKS", "DOCUMENTED", "Targets", "targets", "try_all"]

_ALLOWED: Final = "allowed"

# Each prints how far it came; whatever it raises counts as `no`, or as the limit that it met.
ATTACKS: Final[dict[str, str]] = {
    "read /etc/passwd": "open('/etc/passwd').read(); print('allowed')",
    "secret in its own environment": "import os; print('allowed' if SECRET in str(os.environ) else 'no')",
    "secret in /proc/*/environ": """
import glob
found = False
for path in glob.glob('/proc/[0-9]*/environ'):
    try:
        found = found or SECRET.encode() in open(path, 'rb').read()
    except OSError:
        pass
print('allowed' if found else 'no')""",
    "write outside of its folder": """
import pathlib
for folder in (OUTSIDE, '/', '/usr', '/usr/lib', '/etc', '/dev', '/proc', '/inputs', '/var/tmp', '/root'):
    try:
        path = pathlib.Path(folder, NAME)
        path.write_text('x')
        path.unlink()
        print('allowed')
        break
    except OSError:
        pass
else:
    print('no')""",
    "connect to the host's loopback": """
import socket
socket.create_connection(('127.0.0.1', PORT), 5)
print('allowed')""",
    "abstract Unix socket of the host": """
import socket
socket.socket(socket.AF_UNIX).connect(chr(0) + NAME)
print('allowed')""",
    "signal the server": "import os; os.kill(PID, 0); print('allowed')",
    "300 processes": """
import os, time
pids = []
try:
    for _ in range(300):
        pid = os.fork()
        if pid == 0:
            time.sleep(20)
            os._exit(0)
        pids.append(pid)
    print('allowed')
except OSError:
    print('stopped at', len(pids))
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)""",
    "2 GB of memory": "data = bytearray(2 << 30); print('allowed')",
    "a file of 300 MB": "open('big', 'wb').write(bytes(300 << 20)); print('allowed')",
    "10 s of processor time": """
import time
while time.process_time() < 10:
    pass
print('allowed')""",
    "new user namespace": """
import ctypes
print('allowed' if ctypes.CDLL(None).unshare(0x10000000) == 0 else 'no')""",
    "ptrace its own child": """
import ctypes, os
pid = os.fork()
if pid == 0:
    os._exit(0 if ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0 else 1)
print('allowed' if os.waitpid(pid, 0)[1] == 0 else 'no')""",
    "200 MB on standard output": """
import sys
for _ in range(2000):
    sys.stdout.write('x' * 100_000)
sys.stdout.flush()
sys.stderr.write('allowed')""",
}

# What docs/code.md says of the default runner.
DOCUMENTED: Final[dict[str, str]] = {
    **dict.fromkeys(ATTACKS, "no"),
    "300 processes": "stopped",
    "2 GB of memory": "memory",
    "a file of 300 MB": "file_size",
    "10 s of processor time": "cpu",
    "ptrace its own child": _ALLOWED,
    "200 MB on standard output": "output",
}


class Targets:
    """What the attacks aim at, all of it the claim's own."""

    def __init__(self, port: int, name: str, outside: Path, secret: str) -> None:
        self._values = {"PORT": port, "NAME": name, "OUTSIDE": str(outside), "SECRET": secret, "PID": os.getpid()}

    def program(self, attack: str) -> str:
        """The attack, aimed."""
        return "".join(f"{name} = {value!r}\n" for name, value in self._values.items()) + ATTACKS[attack]


@contextmanager
def targets() -> Iterator[Targets]:
    """Set up what can be attacked: a port, a socket, a folder for everybody, a secret in two environments."""
    name, secret = f"agentstream-{secrets.token_hex(8)}", f"sk-{secrets.token_hex(16)}"
    with ExitStack() as stack:
        outside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentstream-outside-")))
        outside.chmod(0o777)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        abstract.listen()
        os.environ["AGENTSTREAM_TEST_SECRET"] = secret
        stack.callback(os.environ.pop, "AGENTSTREAM_TEST_SECRET")
        # Our own environment as the kernel shows it is that of our start; this one's holds the secret.
        holder = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={"SECRET": secret})
        )
        stack.callback(holder.kill)
        yield Targets(tcp.getsockname()[1], name, outside, secret)


async def try_all(runner: CodeRunner, aim: Targets) -> dict[str, str]:
    """Attack → outcome, each in a session of its own."""
    return {attack: await _outcome(runner, aim.program(attack)) for attack in ATTACKS}


async def _outcome(runner: CodeRunner, program: str) -> str:
    try:
        result = await runner.run(program)
    except CodeFailed as failure:
        return "no" if failure.reason == "exception" else failure.reason
    said = (result.stderr if "allowed" in result.stderr[-20:] else result.stdout).strip()
    return said[-40:] or "nothing"
