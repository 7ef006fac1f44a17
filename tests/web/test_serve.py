"""`serve` inside this process: for programs that have a loop already."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from agentstream.agent import Team
from agentstream.errors import InvalidInput
from agentstream.runtime import Runtime
from agentstream.web import Settings
from web.serving import Echo

server = pytest.importorskip("agentstream.web.server", exc_type=Exception)

pytestmark = [pytest.mark.anyio, pytest.mark.real("uvicorn")]


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=pytest.mark.real("uvloop")),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The loops that the server runs on."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


async def test_from_start_to_stop() -> None:
    """`ready` is called when requests are taken, with the address; `stop` ends it with status 0."""
    runtime = Runtime(teams=[Team("echo", Echo())], models={})
    handles: list[Any] = []
    started = anyio.Event()
    statuses: list[int] = []

    def ready(serving: Any) -> None:
        handles.append(serving)
        started.set()

    async def run() -> None:
        statuses.append(await server.serve(runtime, Settings(port=0, drain=0), ready=ready))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await started.wait()
            async with httpx.AsyncClient(base_url=handles[0].url, timeout=10, trust_env=False) as http:
                answer = await http.post("/runs", json={"team": "echo", "input": "x"}, headers={"prefer": "wait=10"})
                assert answer.json()["output"] == "echo: x"
                assert "server" not in answer.headers
                port = httpx.URL(handles[0].url).port
                with pytest.raises(InvalidInput, match="another process listens there"):
                    await server.serve(Runtime(models={}), Settings(port=port))
            handles[0].stop()
    assert statuses == [0]


async def test_a_public_address_must_be_meant() -> None:
    """Nothing listens where others can reach it unless that was asked for."""
    with pytest.raises(InvalidInput, match="no authentication"):
        await server.serve(Runtime(models={}), Settings(host="0.0.0.0", port=0))
