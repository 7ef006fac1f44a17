"""Several addresses behind one model: one refuses, one hangs, a third answers, and whoever asks notices nothing.

python examples/endpoint_pool.py

The servers are fakes on this machine that speak the providers' own formats, so nothing leaves it and no key is needed.
"""

from __future__ import annotations

import anyio

from agentstream import Assistant
from agentstream.llm import LLMRequest, Message
from agentstream.llm.pool import Endpoint, EndpointPool
from agentstream.policy import BreakerOptions, Reconnect
from agentstream.testing import FakeProvider, Fault, record

QUESTION = LLMRequest((Message("user", "Are you there?"),))


def show(pool: EndpointPool) -> None:
    """What an operator would look at."""
    for one in pool.statistics().endpoints:
        print(
            f"  {one.name:8} {one.state:9} health {one.health:.2f}  asked {one.total:2}  "
            f"answered {one.succeeded:2}  first token {one.first_token * 1_000:3.0f} ms"
        )


async def main() -> None:
    """Ask over four servers in three formats, of which two are of no use."""
    refusing = FakeProvider(Fault.refusal(500), repeat=True)
    hanging = FakeProvider(Fault.hang(), repeat=True)
    well = FakeProvider("Yes, here.", repeat=True)
    backup = FakeProvider("The backup is here.", repeat=True)
    async with refusing, hanging, well, backup:
        pool = EndpointPool(
            "default",
            [
                Endpoint(name="refusing", url=refusing.url("openai")),
                Endpoint(
                    name="hanging",
                    url=hanging.url("anthropic"),
                    provider="anthropic",
                    timeouts={"first_token": 0.2},  # type: ignore[arg-type]  (pydantic reads tables)
                ),
                Endpoint(name="well", url=well.url("gemini"), provider="gemini", max_concurrency=8),
            ],
            strategy="round_robin",
            breaker=BreakerOptions(failures=3, reconnect=Reconnect(kind="fixed", first=30.0)),
        )
        async with pool:
            answers: list[str] = []

            async def ask() -> None:
                answers.append((await pool.complete(QUESTION)).text)

            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(ask)
                    await anyio.sleep(0.01)
            print("all 40 answered:", answers == ["Yes, here."] * 40)
            show(pool)

            await pool.add(Endpoint(name="backup", url=backup.url("openai"), tier=1))
            await pool.failover("well", seconds=60)
            recording = await record(Assistant("Be brief."), "Are you there?", models=pool)
            print("asked by hand: backup takes over:", recording.result == "The backup is here.")
            pool.restore("well")
            pool.strategy = "health"
            await pool.remove("backup")
            print("back again:", (await pool.complete(QUESTION)).text)
            show(pool)
        print("open streams:", len(pool.streams()))


if __name__ == "__main__":
    anyio.run(main)
