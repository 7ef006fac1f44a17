"""Answers and sessions over HTTP: what is taken, what is refused and how it is told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentstream.agent import Agent, Context, Team
from web.serving import Serving, serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning"),
]


class Asks(Agent):
    """Asks for a number."""

    async def run(self, ctx: Context, task: str) -> str:
        return f"{await ctx.ask(task, int)} after {[message.content for message in await ctx.history()]}"


async def open_ask(web: Serving, run: str) -> dict[str, Any]:
    """The question of a run, once it is asked."""
    while True:
        state = (await web.http.get(f"/runs/{run}")).json()
        for ask in state["asks"]:
            if ask["status"] == "open":
                found: dict[str, Any] = ask
                return found
        await web.runtime.store.changed(run, state["seq"])


async def test_an_answer_is_taken_once() -> None:
    """202; the same again is 409; another question 404; after the end 410 or 409, never a second answer."""
    with anyio.fail_after(10):
        async with serving() as web:
            web.runtime.add_team(Team("asks", Asks()))
            run = await web.start("asks", "how many?")
            ask = await open_ask(web, run)
            assert (ask["prompt"], ask["schema"], ask["status"]) == ("how many?", {"type": "integer"}, "open")

            async def answer(**body: object) -> tuple[int, str]:
                response = await web.http.post(f"/runs/{run}/input", json=body)
                return response.status_code, response.json().get("code", "")

            misfit = await web.http.post(f"/runs/{run}/input", json={"request": ask["request"], "value": "x"})
            assert (misfit.status_code, misfit.json()["details"]) == (
                422,
                {"errors": ["the value must be a whole number"]},
            )
            assert await answer(request="asks.1.9", value=1) == (404, "input_unknown")
            assert await answer(request=ask["request"]) == (422, "invalid_input")
            assert await answer(request=ask["request"], value=7, by="kim") == (202, "")
            assert await answer(request=ask["request"], value=8) == (409, "input_answered")
            await (await web.runtime.get(run)).result()
            assert await answer(request=ask["request"], value=8) == (409, "input_answered")
            assert (await web.http.get(f"/runs/{run}")).json()["output"] == "7 after []"
            assert (await web.http.post("/runs/AAAAAAAAAAAAAAAAAAAAAA/input", json={})).status_code == 404


async def test_a_question_that_was_closed_is_gone() -> None:
    """410 after a stop."""
    with anyio.fail_after(10):
        async with serving() as web:
            web.runtime.add_team(Team("asks", Asks()))
            run = await web.start("asks", "?")
            ask = await open_ask(web, run)
            await web.http.post(f"/runs/{run}/stop", json={})
            while (await web.http.get(f"/runs/{run}")).json()["status"] == "running":
                await anyio.lowlevel.checkpoint()
            late = await web.http.post(f"/runs/{run}/input", json={"request": ask["request"], "value": 7})
            assert (late.status_code, late.json()["code"]) == (410, "input_expired")


async def test_a_session_takes_one_run_at_a_time() -> None:
    """Busy is 409; `enqueue` waits and knows what was said; the same key is never refused because of its own run."""
    with anyio.fail_after(10):
        async with serving() as web:
            web.runtime.add_team(Team("asks", Asks()))
            body = {"team": "asks", "input": "one?", "session": "chat"}
            key = {"idempotency-key": "k"}
            run = (await web.http.post("/runs", json=body, headers=key)).json()["run"]
            assert (await web.http.post("/runs", json=body, headers=key)).json()["run"] == run
            busy = await web.http.post("/runs", json=body)
            assert (busy.status_code, busy.json()["code"]) == (409, "session_busy")
            assert busy.json()["details"] == {"run": run}
            later = await web.start("asks", "two?", session="chat", options={"busy": "enqueue"})
            assert (await web.http.get(f"/runs/{later}")).json()["status"] == "waiting"
            for one, number in ((run, 1), (later, 2)):
                ask = await open_ask(web, one)
                await web.http.post(f"/runs/{one}/input", json={"request": ask["request"], "value": number})
            assert await (await web.runtime.get(later)).result() == "2 after ['one?', '1 after []']"
