"""One isolated process of this machine, from its start to the end of all that it started. Linux only.

What comes in: a command line of bubblewrap, what to write to its standard input, sockets to hand on. What goes out: its
status, once nothing of its process namespace lives. It does not know what runs in it.

Reason for not using the event loops' own processes: bubblewrap ends with the *thread* that started it
(`PR_SET_PDEATHSIG`), and trio starts processes in worker threads that end when they were idle for a while. Here the
loop's own thread starts it, which takes some 5 ms, and a pidfd tells on every loop when it ended.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import anyio

__all__ = ("IsolatedProcess",)

_END_SECONDS: Final = 5.0
_POLITE_SECONDS: Final = 2.0
_LOOK_AGAIN_S: Final = 0.01
_log = logging.getLogger(__name__)


class IsolatedProcess:
    """A started sandbox. `end` must be called.

    Args:
        stdin: at most 64 KiB, which a pipe takes without waiting.
        log: takes what bubblewrap, or the program before it is up, complains about.
    """

    def __init__(self, command: Sequence[str], *, stdin: bytes, sockets: Sequence[int], log: IO[bytes]) -> None:
        self._process = subprocess.Popen(  # noqa: S603  (the sandbox's own command line)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={},  # bubblewrap's own environment can be read inside, as that of process 1
            cwd="/",
            pass_fds=sockets,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                pipe.write(stdin)
        except BrokenPipeError:
            pass  # it ended at once; its log says why
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except BaseException:  # before Linux 5.3 there is none
            self._process.kill()
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        """The process id of the outermost bubblewrap."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, as a shell counts it; None while it lives."""
        status = self._process.poll()
        return status if status is None or status >= 0 else 128 - status

    async def wait(self) -> int:
        """Wait for its end."""
        while (status := self.status) is None:
            try:
                await anyio.wait_readable(self._pidfd)
            except (anyio.BusyResourceError, anyio.ClosedResourceError):  # somebody else waits for it, or ends it
                await anyio.sleep(_LOOK_AGAIN_S)
        return status

    async def end(self) -> None:
        """Kill all of it and wait until nothing is left; also when the caller is cancelled. Takes 5 s at most."""
        if self._pidfd < 0:  # it was called before
            return
        with anyio.move_on_after(_END_SECONDS, shield=True):
            # The first process of the namespace takes all others with it, and the outer one waits for that.
            for child in self._children():
                _kill(child)
            with anyio.move_on_after(_POLITE_SECONDS if self._children() or self.status is not None else 0.0):
                await self.wait()
            if self.status is None:
                self._process.kill()
                await self.wait()
        pidfd, self._pidfd = self._pidfd, -1
        anyio.notify_closing(pidfd)
        os.close(pidfd)
        if self._process.returncode is None:
            _log.error("the sandbox %d did not end within %g s of being killed", self.pid, _END_SECONDS)

    def _children(self) -> list[int]:
        if self.status is not None:
            return []
        try:
            listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in listed.split()]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
