"""Answers and sessions through the client: the same words and errors as in the runtime's own process."""

from __future__ import annotations

import anyio
import httpx
import pytest

from agentstream import web
from agentstream.agent import Context, RunOptions, Team, as_agent
from agentstream.client import Retry, connect
from agentstream.errors import InputAnswered, InputUnknown, InvalidInput, SessionBusy
from agentstream.events import InputRequested
from agentstream.runtime import Runtime
from agentstream.testing.transport import StreamingTransport

FAST = Retry(shortest=0.0, longest=0.0, give_up=20.0, silence=5.0)


@as_agent
async def asker(ctx: Context, task: str) -> int:
    """Asks for a number."""
    return await ctx.ask(task, int)


TEAM = Team("asker", asker)


@pytest.mark.anyio
async def test_a_question_is_answered_from_elsewhere() -> None:
    """Found in the stream, answered once, refused in the same words; a busy session is told at once, not retried."""
    with anyio.fail_after(30):
        async with Runtime(teams=[TEAM]) as runtime:
            http = httpx.AsyncClient(transport=StreamingTransport(web.app(runtime)))
            async with http, connect("http://localhost", retry=FAST, http=http) as client:
                run = await client.start(TEAM, "how many?", session="chat")
                with pytest.raises(SessionBusy) as busy:
                    await client.start(TEAM, "again?", session="chat")
                assert busy.value.details == {"run": run.id}
                later = await client.start(TEAM, "later?", session="chat", options=RunOptions(busy="enqueue"))
                assert (await later.state()).status == "waiting"
                async with run.events(types=("input.*",)) as events:
                    async for event in events:
                        if isinstance(event, InputRequested):
                            with pytest.raises(InvalidInput, match="whole number"):
                                await run.answer(event.request, "many")
                            with pytest.raises(InputUnknown):
                                await run.answer("asker.1.7", 1)
                            await run.answer(event.request, 3, by="kim")
                            with pytest.raises(InputAnswered):
                                await run.answer(event.request, 4)
                assert await run.result() == 3
                assert [ask.status for ask in (await run.state()).asks] == ["answered"]
                await later.stop()
