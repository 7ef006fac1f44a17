"""A server as a process of its own, with agents that behave and one that does not.

Comes in: the store's address and the drain's seconds as arguments. Goes out: the server's address as the first line;
then what a server's process does.
"""

from __future__ import annotations

import sys

import anyio

from agentstream.agent import Agent, Context, Team
from agentstream.runtime import Runtime, RuntimeOptions
from agentstream.web import Settings
from agentstream.web.server import run_server


class Lingers(Agent):
    """Says a word, and the rest when the server is told to stop."""

    async def run(self, ctx: Context, task: str) -> str:
        await ctx.say("before")
        while not runtime.draining:  # noqa: ASYNC110  # nobody tells agents
            await anyio.sleep(0.01)
        for n in range(20):
            await ctx.progress(f"after {n}")
        return "ended by itself"


class Waits(Agent):
    """Waits for ever."""

    async def run(self, ctx: Context, task: str) -> str:
        await ctx.say("before")
        await anyio.sleep_forever()
        raise AssertionError


class Stays(Agent):
    """Does not end when it is told to."""

    async def run(self, ctx: Context, task: str) -> str:
        await ctx.say("before")
        while True:
            try:
                await anyio.sleep_forever()
            except BaseException:  # noqa: BLE001  # the very thing that is tested
                continue


runtime = Runtime(
    sys.argv[1],
    teams=[Team(agent.name, agent) for agent in (Lingers(), Waits(), Stays())],
    options=RuntimeOptions(stop_grace=0.5),
    models={},
)

if __name__ == "__main__":
    settings = Settings(port=0, drain=float(sys.argv[2]))
    sys.exit(run_server(runtime, settings, ready=lambda serving: print(serving.url, flush=True)))
