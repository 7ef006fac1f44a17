"""What the end of code means: which limit an exception or an exit status stands for, and how to say so.

What comes in: the class and text of an exception, or the status of a process. What goes out: a `Reason` and words for
people and models. It does not know which runner asks.
"""

from __future__ import annotations

import signal
from typing import Final

from agentstream.agent.code.contract import Reason

__all__ = ("explain", "of_exception", "of_status")

_TRACEBACK_CHARS: Final = 4_000

_BY_NAME: Final[dict[str, Reason]] = {
    "OutputLimitReached": "output",
    "BlockingIOError": "processes",
    "KeyboardInterrupt": "interrupted",
}
_BY_NUMBER: Final[tuple[tuple[str, Reason], ...]] = (
    ("[Errno 27]", "file_size"),
    ("[Errno 28]", "disk"),
    ("[Errno 11]", "processes"),
    ("[Errno 12]", "memory"),
)
_TOLD: Final[dict[Reason, str]] = {
    "exception": "the code failed:",
    "interrupted": "the code was interrupted:",
    "memory": "the code needs more memory than it may have:",
    "file_size": "the code wrote a file larger than it may:",
    "disk": "the code wrote more into its folder than it may:",
    "processes": "the code started more processes and threads than it may:",
    "output": "the code printed more than it may:",
}
_BY_SIGNAL: Final[dict[int, tuple[Reason, str]]] = {
    signal.SIGXCPU: ("cpu", "used more processor time than it may, and was ended"),
    signal.SIGKILL: ("memory", "was killed: it used up the processor time that it may, or the memory that there is"),
    signal.SIGSEGV: ("crash", "crashed (segmentation fault)"),
    signal.SIGABRT: ("crash", "crashed (abort)"),
    signal.SIGXFSZ: ("file_size", "wrote a file larger than it may, and was ended"),
}


def of_exception(name: str, text: str) -> Reason:
    """Which limit an exception stands for; `exception` where it is the code's own."""
    if name == "RuntimeError" and "start new thread" in text:
        return "processes"
    if name.endswith("MemoryError"):  # numpy has one of its own
        return "memory"
    if name in _BY_NAME:
        return _BY_NAME[name]
    for mark, reason in _BY_NUMBER:
        if text.startswith(mark):
            return reason
    return "exception"


def of_status(status: int) -> tuple[Reason, str]:
    """What the status of a process means that ended by itself or by a limit; counted as a shell does."""
    reason, said = _BY_SIGNAL.get(status - 128, ("crash", f"ended with status {status}"))
    return reason, f"the process of the code {said}"


def explain(reason: Reason, traceback: str) -> str:
    """What to tell people and models: the reason, and the end of the traceback."""
    if len(traceback) > _TRACEBACK_CHARS:
        traceback = f"…{traceback[-_TRACEBACK_CHARS:]}"
    return f"{_TOLD.get(reason, _TOLD['exception'])}\n{traceback}"
