"""The client and the real application, in process: the whole protocol, as the runtime itself has it."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx
import pytest

from agentstream import web
from agentstream.agent import Agent, Context, Team
from agentstream.client import Retry, connect
from agentstream.errors import InvalidInput, KeyReused, RunStoppedError, RunUnknown, UnknownTeam
from agentstream.events import Reset, TextDelta
from agentstream.runtime import Runtime
from agentstream.testing.transport import StreamingTransport

FAST = Retry(shortest=0.0, longest=0.0, give_up=20.0, silence=5.0)


class Writer(Agent[str, str]):
    """Writes its task word by word, and the first line of its file."""

    async def run(self, ctx: Context, task: str, /) -> str:
        async with ctx.text() as block:
            for word in task.split():
                await block.write(word + " ")
                await anyio.lowlevel.checkpoint()
        if ctx.files:
            await ctx.say(ctx.files[0].path.read_text().splitlines()[0])
        return task.upper()


class Sleeper(Agent[str, str]):
    """Waits until it is stopped."""

    async def run(self, ctx: Context, task: str, /) -> str:
        await ctx.say("asleep")
        await anyio.sleep_forever()
        return ""


TEAMS = (Team("writer", Writer(), description="Writes."), Team("sleeper", Sleeper()))


@pytest.mark.anyio
async def test_the_whole_protocol_in_process(tmp_path: Path) -> None:
    """Start with a file, follow, result, state, lists and errors: as the runtime has them."""
    file = tmp_path / "in.txt"
    file.write_text("first line\nsecond")
    with anyio.fail_after(30):
        async with Runtime(teams=TEAMS) as runtime:
            transport = StreamingTransport(web.app(runtime))
            http = httpx.AsyncClient(transport=transport)
            async with http, connect("http://localhost", retry=FAST, http=http) as client:
                run = await client.start(TEAMS[0], "grüße an alle", files=[file], key="k1")
                async with run.events(coalesce=False) as events:
                    seen = [event async for event in events if not isinstance(event, Reset)]
                local = await runtime.get(run.id)
                async with local.events(coalesce=False) as events_here:
                    assert seen == [event async for event in events_here]
                assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
                text = "".join(event.text for event in seen if isinstance(event, TextDelta))
                assert text == "grüße an alle first line"
                assert await run.result() == "GRÜSSE AN ALLE"
                assert (await run.state()).status == "finished"
                async with run.text(agent="writer") as texts:
                    assert "".join([part async for part in texts]) == text
                async with run.events(after=events.cursor) as rest:
                    assert [event async for event in rest] == []
                again = await client.start(TEAMS[0], "grüße an alle", files=[file], key="k1")
                assert again.id == run.id
                assert [team.name for team in await client.teams()] == ["writer", "sleeper"]
                assert [(row.run, row.status) for row in await client.runs()] == [(run.id, "finished")]
                with pytest.raises(KeyReused):
                    await client.start("writer", "something else", key="k1")
                with pytest.raises(UnknownTeam):
                    await client.start("nobody", "x")
                with pytest.raises(InvalidInput):
                    await client.start("writer", "  ")
                with pytest.raises(RunUnknown):
                    await client.get("A" * 22)


@pytest.mark.anyio
async def test_a_stop_arrives() -> None:
    """A stop from the client ends the run there, with its cause and reason, at every reader."""
    with anyio.fail_after(30):
        async with Runtime(teams=TEAMS) as runtime:
            transport = StreamingTransport(web.app(runtime))
            http = httpx.AsyncClient(transport=transport)
            async with http, connect("http://localhost", retry=FAST, http=http) as client:
                run = await client.start("sleeper", "x")
                async with run.events() as events:
                    async for event in events:
                        if isinstance(event, TextDelta):
                            await run.stop(reason="enough")
                with pytest.raises(RunStoppedError, match=r"user_stop.*enough"):
                    await run.result()
