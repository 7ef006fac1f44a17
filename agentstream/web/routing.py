"""Which handler answers a method and path.

What comes in: a table of routes, then methods and paths. What goes out: the handler and the path's parameters, or an
error that says which methods there are. It is pure: it does not know requests, runs, or what a handler does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from agentstream.web.exchange import Handler
from agentstream.web.problems import MethodNotAllowed, NotFound

__all__ = ("Router",)

_LONGEST: Final = 512


class _Route(NamedTuple):
    parts: tuple[str, ...]
    handlers: Mapping[str, Handler]


class Router:
    """Routes by whole parts of the path: `/runs/{run}/events`. HEAD is answered by GET's handler.

    Args:
        table: path → method → handler.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self._routes = [_Route(_parts(path), handlers) for path, handlers in table.items()]

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """The handler, and the parts of the path that stand for `{names}`.

        Raises:
            NotFound, MethodNotAllowed: there is none.
        """
        route, parameters = self._match(path)
        handler = route.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise MethodNotAllowed(_allow(route))
        return handler, parameters

    def allow(self, path: str) -> str:
        """The methods of a path, as the header `Allow` lists them.

        Raises:
            NotFound: there is nothing.
        """
        return _allow(self._match(path)[0])

    def _match(self, path: str) -> tuple[_Route, dict[str, str]]:
        given = _parts(path) if len(path) <= _LONGEST else ()
        for route in self._routes:
            if len(route.parts) != len(given):
                continue
            pairs = list(zip(route.parts, given, strict=True))
            if all(part == text or (part.startswith("{") and text) for part, text in pairs):
                return route, {part[1:-1]: text for part, text in pairs if part.startswith("{")}
        raise NotFound("there is nothing at this address")


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def _allow(route: _Route) -> str:
    methods = {*route.handlers, "OPTIONS", *(["HEAD"] if "GET" in route.handlers else [])}
    return ", ".join(sorted(methods))
