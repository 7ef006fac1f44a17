"""A process that serves a runtime: the door of the extra `server`, and the only module that knows uvicorn.

What comes in: a runtime that was not entered, and settings. What goes out: a listening server, and at its end the exit
status of the process. It does not know routes, or where teams come from.

On SIGTERM or SIGINT it drains: no new runs, every stream ends with `retry` and abortively, so that its client resumes
elsewhere or later; runs get `settings.drain` seconds and are then stopped. A second signal takes these seconds away.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

import anyio
from typing_extensions import override

from agentstream.answer import ASGIApp, Message, Receive, Scope, Send
from agentstream.errors import MissingExtra, StreamAborted
from agentstream.loops import current_loop
from agentstream.web.application import app
from agentstream.web.guard import Guard
from agentstream.web.listening import address_of, listen
from agentstream.web.settings import Settings, is_loopback

if TYPE_CHECKING:
    from agentstream.runtime import Runtime

try:
    import uvicorn
except ImportError:
    raise MissingExtra("a server needs `agentstream[server]`: pip install 'agentstream[server]'") from None

__all__ = ("STUCK", "Serving", "run_server", "serve")

_log = logging.getLogger("agentstream.server")
_access = logging.getLogger("agentstream.access")

STUCK: Final = 70
"""Exit status when agents could not be ended (EX_SOFTWARE): whoever supervises the process starts it anew."""

_LAST_BYTES: Final = 3
"""Seconds that connections get to close, once all runs have ended and all streams were told."""

_KEEP_ALIVE: Final = 30
"""Seconds that an idle connection is kept; longer than the pauses of a page that polls."""


class Serving(Protocol):
    """A server that takes requests.

    Attributes:
        url: where, for people.
    """

    @property
    def url(self) -> str:
        """Where, for people."""
        ...

    def stop(self) -> None:
        """Drain and end, as the first SIGTERM does; the second call is the second signal. On the loop's thread."""
        ...


async def serve(
    runtime: Runtime,
    settings: Settings | None = None,
    *,
    ready: Callable[[Serving], None] | None = None,
    leave: Callable[[int], None] = os._exit,
) -> int:
    """Serve until the process is told to stop; returns its exit status. On asyncio only, which is uvicorn's loop.

    Args:
        runtime: it is entered and left here.
        settings: defaults where it is None. `store`, `teams` and `limits` are whoever's who made the runtime.
        ready: called once requests are taken.
        leave: ends the process at once. Called with `STUCK` when an agent could not be ended, when the loop stood still
            for two leases, or when draining took longer than its limit: there is no other way out then.

    Raises:
        InvalidInput: the address cannot be listened on, or is public without `settings.public`.

    Bounds: after the first signal, `settings.drain` + 3 × `RuntimeOptions.stop_grace` + 5 s.
    """
    settings = settings or Settings()
    settings.check_bind()
    sock = listen(settings.host, settings.port)
    noise = _Noise()
    logging.getLogger("uvicorn.error").addFilter(noise)
    try:
        return await _Process(runtime, settings, leave).run(sock, ready)
    finally:
        logging.getLogger("uvicorn.error").removeFilter(noise)
        sock.close()


def run_server(
    runtime: Runtime, settings: Settings | None = None, *, ready: Callable[[Serving], None] | None = None
) -> int:
    """`serve` as the main part of a process: sets up its log where nobody has, and takes uvloop where it is installed.

    Raises:
        InvalidInput: as `serve`.
    """
    settings = settings or Settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs the whole address of each request
    options = {"use_uvloop": importlib.util.find_spec("uvloop") is not None}

    async def main() -> int:
        return await serve(runtime, settings, ready=ready)

    return anyio.run(main, backend="asyncio", backend_options=options)


class _Process:
    """One server from its start to its end."""

    def __init__(self, runtime: Runtime, settings: Settings, leave: Callable[[int], None]) -> None:
        self.url = ""
        self._runtime = runtime
        self._settings = settings
        self._leave = leave
        self._signals = 0
        self._first, self._second = anyio.Event(), anyio.Event()
        self._call_soon = current_loop().call_soon
        self._guard = Guard(2 * runtime.options.lease, self._give_up)

    async def run(self, sock: socket.socket, ready: Callable[[Serving], None] | None) -> int:
        """Serve, drain, and say with which status to exit."""
        settings = self._settings
        status = 0
        self.url = address_of(sock)
        config = uvicorn.Config(
            _logged(app(self._runtime, options=settings.web())),
            ws="none",
            lifespan="off",  # the runtime is entered here, so that it can be drained before connections are waited for
            log_config=None,
            log_level="warning",
            access_log=False,  # ours leaves out query strings, which hold cursors
            proxy_headers=False,  # nothing here believes in the client's address
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_LAST_BYTES,
        )
        server = _Server(config, self._signalled, partial(self._started, ready))
        with self._guard:
            async with self._runtime, anyio.create_task_group() as group:
                group.start_soon(self._guard.stamp)
                group.start_soon(self._drain_when_told, server)
                await server.serve(sockets=[sock])
                held = self._runtime.statistics()
                status = STUCK if held.abandoned or held.runs else 0
                if status:
                    # Their tasks would be waited for, for ever.
                    self._give_up(f"{held.abandoned} agents and {held.runs} runs could not be ended")
                group.cancel_scope.cancel()
        return status

    def stop(self) -> None:
        """See `Serving.stop`."""
        self._bound()
        self._signals += 1
        (self._first if self._signals == 1 else self._second).set()

    def _signalled(self) -> None:
        """On the main thread, between any two instructions; the loop may be blocked by an agent."""
        self._bound()
        self._call_soon(self.stop)

    def _bound(self) -> None:
        """The third signal ends the process as it is; the guard's thread does it, since the loop may not be able to."""
        stopping = 3 * self._runtime.options.stop_grace + _LAST_BYTES + 2
        self._guard.end_within((self._settings.drain + stopping, stopping, 0)[min(self._signals, 2)])

    def _started(self, ready: Callable[[Serving], None] | None) -> None:
        _log.info("serving %d teams on %s", len(self._runtime.teams), self.url)
        if not is_loopback(self._settings.host):
            _log.warning("%s can be reached from other machines, and there is no authentication", self._settings.host)
        if ready is not None:
            ready(self)

    async def _drain_when_told(self, server: _Server) -> None:
        await self._first.wait()
        runs = self._runtime.statistics().runs
        _log.info("draining: %d runs get %g s; a second signal stops them now", runs, self._settings.drain)
        async with anyio.create_task_group() as group:
            group.start_soon(self._hurry)
            await self._runtime.drain(self._settings.drain)
            group.cancel_scope.cancel()
        server.should_exit = True

    async def _hurry(self) -> None:
        await self._second.wait()
        await self._runtime.drain(0)

    def _give_up(self, reason: str) -> None:
        _log.error("the process is ended: %s", reason)
        logging.shutdown()
        self._leave(STUCK)


class _Server(uvicorn.Server):
    """uvicorn's server, with signals and the start handed over to us."""

    def __init__(self, config: uvicorn.Config, signalled: Callable[[], None], started: Callable[[], None]) -> None:
        super().__init__(config)
        self._signalled = signalled
        self._told_started = started

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told_started()

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not passed on: uvicorn would close the listener and raise the signal again at the end.
        self._signalled()


class _Noise(logging.Filter):
    """Keeps the server from logging each cut stream as an error with a traceback: it is how a cut is said in ASGI.

    What is cancelled because the process ends is no error either.
    """

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return error is None or (isinstance(error, Exception) and not isinstance(error, StreamAborted))


def _logged(inner: ASGIApp) -> ASGIApp:
    """`inner`, with one line in the log for each response as it begins: method, path without query, status."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Quoted: a path may hold what a terminal or a log would take for its own.
                _access.info("%s %s %d", scope["method"], quote(scope["path"])[:200], message["status"])
            await send(message)

        await inner(scope, receive, tell if scope["type"] == "http" and _access.isEnabledFor(logging.INFO) else send)

    return wrapped
