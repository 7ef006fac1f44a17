"""Which pages and names are let in."""

from __future__ import annotations

import anyio
import pydantic
import pytest

from agentstream.web import WebOptions
from web.serving import serving

pytestmark = pytest.mark.anyio

LOCAL = "http://127.0.0.1:8000"
GOOD = {"team": "echo", "input": "x"}


async def status(base: str, method: str = "GET", options: WebOptions | None = None, **headers: str) -> int:
    """Ask `/runs` with these headers."""
    async with serving(options, base=base) as web:
        json = GOOD if method == "POST" else None
        response = await web.http.request(method, "/runs", json=json, headers=headers)
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            if method == "POST":
                assert (await web.http.get("/runs")).json() == {"runs": []}
        return response.status_code


@pytest.mark.parametrize(
    ("base", "host", "hosts", "expected"),
    [
        (LOCAL, "127.0.0.1:8000", (), 200),
        (LOCAL, "localhost:8000", (), 200),
        (LOCAL, "LOCALHOST.:8000", (), 200),
        (LOCAL, "[::1]:8000", (), 200),
        (LOCAL, "evil.example:8000", (), 421),
        (LOCAL, "127.0.0.1.evil.example", (), 421),
        (LOCAL, "localhost@evil.example", (), 421),
        (LOCAL, "", (), 421),
        (LOCAL, "agents.example.com", ("agents.example.com",), 200),
        (LOCAL, "localhost", ("agents.example.com",), 200),
        (LOCAL, "evil.example", ("*",), 200),
        ("http://[::1]:8000", "evil.example", (), 421),
        ("http://10.0.0.5:8000", "anything.example", (), 200),
        ("http://10.0.0.5:8000", "anything.example", ("agents.example.com",), 421),
    ],
)
async def test_names(base: str, host: str, hosts: tuple[str, ...], expected: int) -> None:
    """A connection to this machine is answered under its own names only, so that no foreign name can be bound to it."""
    with anyio.fail_after(10):
        assert await status(base, options=WebOptions(hosts=hosts), host=host) == expected


@pytest.mark.parametrize(
    ("origin", "cors", "expected"),
    [
        ("", (), 201),
        (LOCAL, (), 201),
        ("https://127.0.0.1:8000", (), 201),
        ("http://127.0.0.1:9000", (), 403),
        ("https://evil.example", (), 403),
        ("null", (), 403),
        ("https://app.example", ("https://app.example",), 201),
        ("https://app.example.evil.example", ("https://app.example",), 403),
        ("https://evil.example", ("*",), 201),
    ],
)
async def test_pages_that_write(origin: str, cors: tuple[str, ...], expected: int) -> None:
    """A page starts runs if it is of this server or listed; a program without an origin always may."""
    with anyio.fail_after(10):
        headers = {"origin": origin} if origin else {}
        assert await status(LOCAL, "POST", WebOptions(cors=cors), **headers) == expected


async def test_a_page_behind_a_proxy() -> None:
    """Where a proxy put its own name into Host, the browser's word that the page is of this server counts."""
    with anyio.fail_after(10):
        headers = {"origin": "https://agents.example", "host": "127.0.0.1:8000"}
        assert await status(LOCAL, "POST", **headers, **{"sec-fetch-site": "same-origin"}) == 201
        assert await status(LOCAL, "POST", **headers, **{"sec-fetch-site": "same-site"}) == 403
        assert await status(LOCAL, "POST", **headers, **{"sec-fetch-site": "cross-site"}) == 403


async def test_no_page_elsewhere_reads_by_default() -> None:
    """Without a list no answer has a CORS header, whoever asks, and a preflight allows nothing."""
    with anyio.fail_after(10):
        async with serving() as web:
            headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
            for response in (
                await web.http.get("/runs", headers=headers),
                await web.http.options("/runs", headers=headers),
                await web.http.post("/runs", json=GOOD, headers=headers),
            ):
                assert [name for name in response.headers if name.startswith("access-control")] == []


async def test_a_listed_page_reads() -> None:
    """It gets its own origin back, on answers, streams and problems alike, and may read the headers that it needs."""
    with anyio.fail_after(10):
        async with serving(WebOptions(cors=("https://App.example/",))) as web:
            run = await web.finish()
            mine, other = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
            for path in ("/runs", f"/runs/{run}/events", "/nothing"):
                response = await web.http.get(path, headers=mine)
                assert response.headers["access-control-allow-origin"] == "https://app.example"
                assert "x-run-id" in response.headers["access-control-expose-headers"].lower()
                assert "access-control-allow-credentials" not in response.headers
                foreign = await web.http.get(path, headers=other)
                assert "access-control-allow-origin" not in foreign.headers
                assert response.headers["vary"] == foreign.headers["vary"] == "Origin"
            asks = {
                **mine,
                "access-control-request-method": "POST",
                "access-control-request-headers": "idempotency-key",
            }
            preflight = await web.http.options("/runs", headers=asks)
            assert preflight.status_code == 204
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "idempotency-key" in preflight.headers["access-control-allow-headers"].lower()
            assert preflight.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("value", ["app.example", "https://app.example/path", "https://a b", "javascript:x", ""])
def test_lists_are_checked(value: str) -> None:
    """What no browser would send as an origin, or no client as a host, is refused when the options are made."""
    with pytest.raises(pydantic.ValidationError):
        WebOptions(cors=(value,))
    with pytest.raises(pydantic.ValidationError):
        WebOptions(hosts=(value if value != "app.example" else "app.example:80",))
