"""The bus without agents: tasks and a worker thread emit, one ordered log comes out.

python examples/bus_alone.py
"""

from __future__ import annotations

import anyio
import anyio.to_thread

from agentstream import Bus
from agentstream.bus import BlockingEmitter
from agentstream.events import AgentProgress, Custom


def measure(emitter: BlockingEmitter) -> None:
    """Runs in a worker thread; each call returns when the bus has taken its event."""
    for number in range(5):
        emitter.custom("measured", {"number": number})


async def count(bus: Bus, name: str) -> None:
    """Runs on the loop."""
    async with bus.emitter(name) as emitter:
        for number in range(1, 6):
            await emitter.progress("counting", done=number, total=5)
            await anyio.sleep(0.001)


async def main() -> None:
    """Emit from three sides at once, then read the log."""
    async with Bus() as bus:
        async with anyio.create_task_group() as group:
            group.start_soon(count, bus, "left")
            group.start_soon(count, bus, "right")
            async with bus.emitter("sensor") as sensor:
                await anyio.to_thread.run_sync(measure, sensor.blocking())
        figures = bus.statistics()
        print(f"{figures.accepted} events accepted, {figures.waiting} waiting, in {figures.appends} appends")
        seen: dict[str, list[float]] = {}
        async with bus.events() as events:
            for _ in range(1 + figures.accepted):
                match await anext(events):
                    case AgentProgress(agent=agent, done=float() | int() as done):
                        seen.setdefault(agent, []).append(done)
                    case Custom(agent=agent, value=value):
                        seen.setdefault(agent, []).append(value["number"])
                    case _:
                        pass
    for agent, numbers in sorted(seen.items()):
        print(f"{agent:7} {numbers}")


if __name__ == "__main__":
    anyio.run(main)
