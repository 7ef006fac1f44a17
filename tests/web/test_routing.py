"""Routes as a table."""

from __future__ import annotations

import pytest

from agentstream.answer import ASGIApp
from agentstream.web.exchange import HttpRequest, sub_path
from agentstream.web.problems import MethodNotAllowed, NotFound
from agentstream.web.routing import Router


async def get(request: HttpRequest) -> ASGIApp:
    """A handler."""
    raise NotImplementedError


async def post(request: HttpRequest) -> ASGIApp:
    """Another."""
    raise NotImplementedError


ROUTER = Router({"/": {"GET": get}, "/runs": {"GET": get, "POST": post}, "/runs/{run}/events/{id}": {"GET": get}})


def test_parts_of_the_path() -> None:
    """Named parts come out decoded as they are, and HEAD is GET's."""
    assert ROUTER.find("GET", "/runs/a b/events/%2e") == (get, {"run": "a b", "id": "%2e"})
    assert ROUTER.find("HEAD", "/runs") == (get, {})
    assert ROUTER.find("POST", "/runs") == (post, {})
    assert ROUTER.find("GET", "/") == (get, {})


@pytest.mark.parametrize("path", ["", "//", "/runs/", "runs", "/Runs", "/runs//events/x", "/runs/a/events", "/" * 600])
def test_nothing_there(path: str) -> None:
    """Whole parts only; an empty part is no name; a path of any length costs little."""
    with pytest.raises(NotFound):
        ROUTER.find("GET", path)
    with pytest.raises(NotFound):
        ROUTER.allow(path)


def test_other_methods() -> None:
    """The error lists the methods that there are, in order."""
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.find("DELETE", "/runs")
    assert caught.value.allow == ROUTER.allow("/runs") == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/runs", "", "/runs"),
        ("/a/runs", "/a", "/runs"),
        ("/a/runs", "/a/", "/runs"),
        ("/runs", "/a", "/runs"),
        ("/a", "/a", ""),
        ("/a/", "/a", "/"),
        ("/ab/runs", "/a", "/ab/runs"),
    ],
)
def test_below_the_mount_point(path: str, root: str, below: str) -> None:
    """The mount point is taken away once, and only as a whole."""
    assert sub_path({"path": path, "root_path": root}) == below
