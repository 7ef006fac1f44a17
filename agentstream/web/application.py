"""The ASGI application: every request to its route, every error to a problem document.

What comes in: a runtime and a server's scopes. What goes out: answers. It does not know any framework, and does not
need to be the outermost application: it may be mounted under a path of another.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from agentstream.answer import ASGIApp, Message, ProblemAnswer, Receive, Scope, Send
from agentstream.errors import AgentStreamError, RuntimeNotRunning, StreamAborted
from agentstream.web.bodies import ClientLeft
from agentstream.web.exchange import Handler, HttpRequest, WholeAnswer, sub_path
from agentstream.web.facts import FactRoutes
from agentstream.web.files import FileRoutes
from agentstream.web.options import WebOptions
from agentstream.web.page import PageRoutes
from agentstream.web.problems import MethodNotAllowed, TooManyRequests
from agentstream.web.rate import Rates
from agentstream.web.routing import Router
from agentstream.web.runs import RunRoutes
from agentstream.web.security import Gate

if TYPE_CHECKING:
    from agentstream.runtime import Runtime

__all__ = ("app",)

_log = logging.getLogger("agentstream.web")
_POLICY_VIOLATION: Final = 1008


def app(runtime: Runtime, *, options: WebOptions | None = None) -> ASGIApp:
    """The routes of `runtime` as an ASGI application: for a server, or to mount in an application of yours.

    As a server's own application it enters the runtime at startup and leaves it at shutdown, unless it is running
    already. Mounted, its lifespan is never run: give the outer application `lifespan=runtime.lifespan`. Middleware that
    would end a stream cleanly that was cut is put right by `agentstream.web.abortable`, outermost.

    **There is no authentication.** Whoever can reach it can start runs and read those of the owner "". Browsers are
    kept to pages of the same origin and of `options.cors`; see `WebOptions.hosts` for names.
    """
    return _App(runtime, options or WebOptions())


class _App:
    def __init__(self, runtime: Runtime, options: WebOptions) -> None:
        self._runtime = runtime
        self._gate = Gate(options)
        self._rates = Rates(options)
        self._router = Router(_routes(runtime, options))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, self._gate.marked(scope, send))
            case "lifespan":
                await _lifespan(self._runtime, receive, send)
            case "websocket":
                await receive()
                await send(
                    {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "there is no WebSocket here"}
                )
            case other:
                raise RuntimeError(f"{other} is nothing that this application answers")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def tell(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            answer = await self._answer(scope, receive)
            await answer(scope, receive, tell)
        except ClientLeft:
            return
        except StreamAborted:
            raise
        except Exception as error:
            if started:
                raise
            if not isinstance(error, AgentStreamError):
                _log.exception("%s %r failed", scope["method"], scope["path"][:200])
            headers = [(b"allow", error.allow.encode("ascii"))] if isinstance(error, MethodNotAllowed) else []
            if isinstance(error, TooManyRequests):
                headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
            await ProblemAnswer(error, headers)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        self._gate.check(scope)
        self._rates.check(scope)
        path = sub_path(scope) or "/"
        if scope["method"] == "OPTIONS":
            return WholeAnswer(204, self._gate.preflight(scope, self._router.allow(path)))
        handler, parameters = self._router.find(scope["method"], path)
        return await handler(HttpRequest(scope, receive, parameters))


def _routes(runtime: Runtime, options: WebOptions) -> dict[str, dict[str, Handler]]:
    runs, files, facts = RunRoutes(runtime, options), FileRoutes(runtime, options), FactRoutes(runtime)
    routes: dict[str, dict[str, Handler]] = {
        "/runs": {"GET": runs.list, "POST": runs.start},
        "/runs/{run}": {"GET": runs.state},
        "/runs/{run}/events": {"GET": runs.events},
        "/runs/{run}/stop": {"POST": runs.stop},
        "/runs/{run}/input": {"POST": runs.input},
        "/runs/{run}/artifacts/{id}": {"GET": files.artifact},
        "/files": {"POST": files.upload},
        "/teams": {"GET": facts.teams},
        "/endpoints": {"GET": facts.endpoints},
        "/health": {"GET": facts.health},
        "/ready": {"GET": facts.ready},
    }
    if options.page:
        page = PageRoutes()
        routes |= {"/": {"GET": page.index}, **{f"/{name}": {"GET": page.file} for name in page.names}}
    return routes


async def _lifespan(runtime: Runtime, receive: Receive, send: Send) -> None:
    """The server's startup and shutdown (ASGI lifespan): the runtime lives in between, in this one task."""
    await receive()
    if _is_running(runtime):
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    try:
        await runtime.__aenter__()
    except AgentStreamError as error:
        await send({"type": "lifespan.startup.failed", "message": error.detail})
        return
    try:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    finally:
        await runtime.__aexit__(None, None, None)
    await send({"type": "lifespan.shutdown.complete"})


def _is_running(runtime: Runtime) -> bool:
    try:
        runtime.statistics()
    except RuntimeNotRunning:
        return False
    return True
