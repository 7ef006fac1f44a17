"""The program inside the sandbox: an IPython kernel that limits itself, then serves.

What comes in: one JSON object on standard input, with limits and the numbers of three listening sockets. What goes out:
Jupyter messages on these. It does not import the library: it is started with `-I`, by its path, and whatever it sends
is judged by the other side, because the code that it runs can change it.
"""

# IPython's own parts have no types worth checking against.
# mypy: disable-error-code="no-untyped-call"
# pyright: basic

# Nothing here is a wall: walls are the namespaces, the limits of resources, and the bounds of whoever reads. What is
# here only makes that well-meant code meets an exception that it can handle, before it meets a wall.

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import threading
from pathlib import Path
from stat import S_ISREG
from typing import Any  # Any: messages, and types of a library that has none

import zmq
from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.session import Session
from traitlets.config import Config

_CLIP = 20_000  # characters of each text in a message that is too large as a whole
_FILES = 64  # at most, of one step
# There is no /etc to read it from, and matplotlib asks for it.
_FONTS = "<fontconfig><dir>/usr/share/fonts</dir><cachedir>/tmp/fontconfig</cachedir></fontconfig>"
_STREAMS = ("stdout", "stderr")


class OutputLimitReached(RuntimeError):
    """The step printed more than it may."""


def limit(limits: dict[str, int]) -> None:
    """Take the limits on; they cannot be raised again."""
    cpu = limits["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, 512),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


class Meter:
    """Counts what a step prints, over both streams."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left = most

    def take(self, text: str) -> str:
        """The beginning of `text` that may still be printed, and one character more, so that the reader knows."""
        kept = text[: max(0, self.left + 1)]
        self.left -= len(kept)
        return kept

    @property
    def used_up(self) -> bool:
        """Whether more was printed than may be."""
        return self.left < 0


class MeteredStream(OutStream):
    """A standard stream that ends a step which prints too much, where it prints."""

    meter: Meter
    flush_interval = 0.05

    def write(self, string: str) -> int:
        """Write, up to the limit."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if kept := self.meter.take(string):
            super().write(kept)
        # Another thread may be the one that copies what programs write; an exception would end it for good.
        if self.meter.used_up and threading.current_thread() is threading.main_thread():
            raise OutputLimitReached(f"more than {self.meter.most} bytes of output")
        return len(string)


class BoundedSession(Session):
    """Clips messages that the other side would refuse as a whole, and the connection with them."""

    most = 1 << 20

    def serialize(self, msg: dict[str, Any], ident: Any = None) -> list[bytes]:
        """The frames of a message, small enough."""
        frames: list[bytes] = super().serialize(msg, ident)
        if max(map(len, frames)) > self.most:
            frames = super().serialize({**msg, "content": clip(msg["content"], self.most)}, ident)
        return frames


def clip(value: Any, most: int) -> Any:
    """The same, with what is too long cut, and pictures and the like left out."""
    if isinstance(value, str):
        return value if len(value) <= _CLIP else f"{value[:_CLIP]}\n[cut: {len(value)} characters]"
    if isinstance(value, dict):
        if "data" in value and isinstance(value["data"], dict):
            sizes = {mime: len(json.dumps(data, default=str)) for mime, data in value["data"].items()}
            kept = {mime: clip(data, most) for mime, data in value["data"].items() if mime == "text/plain"}
            left = [f"{mime} of {size} bytes" for mime, size in sizes.items() if mime not in kept]
            return {**value, "data": kept | ({"application/x-left-out": ", ".join(left)[:_CLIP]} if left else {})}
        return {key: clip(item, most) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clip(item, most) for item in value[-100:]]
    return value


class Folder:
    """The work folder: what was handed in lies in it as links, what is new in it is taken out after a step."""

    def __init__(self, inputs: str, most_file: int, most_all: int) -> None:
        self.inputs = Path(inputs)
        self.work = Path.cwd()
        self.most_file, self.most_all = most_file, most_all
        self.seen: dict[str, tuple[int, int]] = {}

    def link(self) -> None:
        """Lay the files beside the code that were handed in since the last step."""
        for path in self.inputs.iterdir():
            with contextlib.suppress(FileExistsError):
                (self.work / path.name).symlink_to(path)

    def changed(self) -> tuple[list[str], list[bytes], list[str]]:
        """Names and bytes of the files that are new or other than after the last step; and what is too much."""
        names: list[str] = []
        parts: list[bytes] = []
        left_out: list[str] = []
        room = self.most_all
        for path, size in self._files():
            if size > self.most_file or size > room or len(names) >= _FILES:
                left_out.append(path.relative_to(self.work).as_posix())
                continue
            names.append(path.relative_to(self.work).as_posix())
            parts.append(path.read_bytes())
            room -= size
        return names, parts, left_out[:_FILES]

    def _files(self) -> list[tuple[Path, int]]:
        found: list[tuple[int, Path, int]] = []
        for folder, folders, files in os.walk(self.work):
            folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    state = path.lstat()
                    mark = (state.st_mtime_ns, state.st_size)
                    if name.startswith(".") or not S_ISREG(state.st_mode) or self.seen.get(str(path)) == mark:
                        continue
                    self.seen[str(path)] = mark
                    found.append((state.st_mtime_ns, path, state.st_size))
        return [(path, size) for _, path, size in sorted(found)]


class Application(IPKernelApp):
    """A kernel on sockets that listen already, without files, heartbeat and debugger."""

    sockets: dict[str, int]

    def init_connection_file(self) -> None:
        """There is none."""

    def write_connection_file(self, **_kwargs: Any) -> None:
        """There is none."""

    def init_poller(self) -> None:
        """The sandbox ends with its parent."""

    def init_heartbeat(self) -> None:
        """Whoever started the sandbox sees it end."""

    def _bind_socket(self, s: zmq.Socket[bytes], port: int) -> int:  # noqa: ARG002  (nobody chooses one)
        if s is self.stdin_socket:  # nobody answers there, and the kernel is told so with each step
            s.bind("inproc://stdin")
        else:
            known = {self.shell_socket: "shell", self.control_socket: "control"}
            self._listen(s, known.get(s, "iopub"))
        return 1

    def _listen(self, socket: zmq.Socket[bytes], name: str) -> None:
        socket.setsockopt(zmq.USE_FD, self.sockets[name])
        socket.setsockopt(zmq.SNDHWM, 0)  # a slow reader must not make a publisher drop: memory is bounded anyway
        socket.bind(f"ipc:///{name}")  # the name means nothing: the socket is bound elsewhere

    def init_control(self, context: zmq.Context[Any]) -> None:
        """The control channel, which interrupts; and no debugger, which would look for us by the name for ever."""
        super().init_control(context)
        self.debug_shell_socket.close(linger=0)
        self.debug_shell_socket = context.socket(zmq.DEALER)


def settings() -> Config:
    """Plain tracebacks, no history, no files of IPython's own."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.xmode = "Plain"
    config.InteractiveShell.cache_size = 0  # results of earlier steps would be kept alive
    config.IPKernelApp.outstream_class = "__main__.MeteredStream"
    config.IPKernelApp.log_level = 50
    return config


def main() -> None:
    """Serve until the sandbox is ended."""
    spec: dict[str, Any] = json.load(sys.stdin)
    limit(spec["limits"])
    for number in spec["sockets"].values():
        os.set_inheritable(number, False)  # programs that the code starts have no business with them
    Path(os.environ["FONTCONFIG_FILE"]).write_text(_FONTS)
    for name in spec["preload"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    MeteredStream.meter = Meter(spec["limits"]["output_bytes"])
    BoundedSession.most = spec["message_bytes"]
    sys.path.append(str(Path.cwd()))  # modules that lie beside the code; last, so that none hides a library
    folder = Folder(spec["inputs"], spec["limits"]["result_bytes"], 4 * spec["limits"]["result_bytes"])
    app = Application(config=settings(), session=BoundedSession(key=b""))
    app.sockets = spec["sockets"]
    app.initialize([])
    # The kernel's own hints for a notebook: text goes to models and logs here.
    for name in ("CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR"):
        os.environ.pop(name, None)
    os.environ["TERM"] = "dumb"
    for name in _STREAMS:
        # What programs print is copied to where the kernel itself would print: nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name)._original_stdstream_copy)
    kernel = app.kernel

    async def files_request(socket: Any, identity: Any, parent: dict[str, Any]) -> None:
        names, parts, left_out = folder.changed()
        content = {"status": "ok", "names": names, "left_out": left_out}
        kernel.session.send(socket, "files_reply", content, parent, ident=identity, buffers=parts)

    def begin(_info: Any) -> None:
        MeteredStream.meter.left = MeteredStream.meter.most
        folder.link()

    kernel.shell.run_cell("None", silent=True)  # the first step is slow: what it loads is loaded now
    kernel.shell_handlers["files_request"] = files_request
    kernel.shell.events.register("pre_run_cell", begin)
    app.start()


if __name__ == "__main__":
    main()
