"""Files in, artifacts out."""

from __future__ import annotations

from urllib.parse import quote

import anyio
import pytest

from agentstream.ports import Blob
from agentstream.web import WebOptions
from web.serving import serving

pytestmark = pytest.mark.anyio


async def test_a_file_reaches_the_agent() -> None:
    """What was uploaded is what the agent reads, under the last part of the name that the client gave."""
    with anyio.fail_after(10):
        async with serving() as web:
            name = "../../sälés\n 2024.csv"
            data = b"a,b\n" * 70_000
            headers = {"x-file-name": quote(name), "content-type": "text/csv"}
            answer = await web.http.post("/files", content=data, headers=headers)
            assert answer.status_code == 201
            assert answer.json().items() >= {"name": "sälés 2024.csv", "size": len(data)}.items()
            other = (await web.http.post("/files?name=b.bin", content=b"\0")).json()["file"]
            body = {"team": "reads", "input": "x", "files": [answer.json()["file"], other]}
            result = (await web.http.post("/runs", json=body, headers={"prefer": "wait=10"})).json()
            assert result["output"] == f"sälés 2024.csv={len(data)}, b.bin=1"


async def test_uploads_wait_for_their_turn() -> None:
    """No more files than the limit are held in memory at once; the others wait, and all arrive."""
    with anyio.fail_after(10):
        async with serving(WebOptions(max_uploads=1)) as web:
            files: list[str] = []

            async def upload(n: int) -> None:
                files.append((await web.http.post("/files", content=b"x" * (n + 1))).json()["file"])

            async with anyio.create_task_group() as group:
                for n in range(5):
                    group.start_soon(upload, n)
            assert len(set(files)) == 5


async def test_artifacts_run_nowhere() -> None:
    """Pictures are shown, what could run is saved, and the bytes are exact."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.finish("makes")
            made = (await web.http.get(f"/runs/{run}")).json()["artifacts"]
            html, png = [await web.http.get(f"/runs/{run}/artifacts/{artifact['id']}") for artifact in made]
            assert html.headers["content-type"] == "text/html; charset=utf-8"
            assert (
                html.headers["content-disposition"] == "attachment; filename=\"page.html\"; filename*=UTF-8''page.html"
            )
            assert html.text == "<script>hello</script>" * 9000
            assert png.headers["content-type"] == "image/png"
            name = "sch%C3%B6n%20%22x%22%3B%20a%3Db.png"
            assert (
                png.headers["content-disposition"]
                == f"inline; filename=\"sch_n__x___a_b.png\"; filename*=UTF-8''{name}"
            )
            assert png.content == b"\x89PNG" + b"\0" * 300_000
            for response in (html, png):
                assert response.headers["x-content-type-options"] == "nosniff"
                assert response.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
                assert response.headers["cache-control"].startswith("private, ")


@pytest.mark.parametrize(
    "kind", ["image/svg+xml", "application/xhtml+xml", "text/x\r\nset-cookie: a=b", "", "x", "a/b/c"]
)
async def test_no_header_is_made_of_foreign_words(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a store holds as kind and name, headers are well-formed, and what is not known is saved."""

    async def get(scope: str, id: str) -> Blob:
        return Blob("0" * 64, kind, 'a"\r\nset-cookie: c=d\x00', b"data")

    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.finish()
            monkeypatch.setattr(web.runtime.store, "get", get)
            response = await web.http.get(f"/runs/{run}/artifacts/x")
            assert response.status_code == 200
            assert "set-cookie" not in response.headers
            assert response.headers["content-type"] in (
                "image/svg+xml",
                "application/xhtml+xml",
                "application/octet-stream",
            )
            for value in response.headers.values():
                assert value.isprintable()
            assert response.headers["content-disposition"].startswith("attachment; ")


async def test_an_artifact_is_fetched_once() -> None:
    """Its tag gives 304 without a body; unknown ones, and ids that are none, give 404."""
    with anyio.fail_after(10):
        async with serving() as web:
            run = await web.finish("makes")
            state = (await web.http.get(f"/runs/{run}")).json()
            address = f"/runs/{run}/artifacts/{state['artifacts'][0]['id']}"
            first = await web.http.get(address)
            again = await web.http.get(address, headers={"if-none-match": f'"x", {first.headers["etag"]}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
            head = await web.http.head(address)
            assert (head.content, head.headers["content-length"]) == (b"", str(len(first.content)))
            for artifact in ("0" * 64, "nonsense", "%00", "..%2e"):
                missing = await web.http.get(f"/runs/{run}/artifacts/{artifact}")
                assert (missing.status_code, missing.json()["code"]) == (404, "artifact_unknown")
