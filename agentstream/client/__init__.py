"""The Python client: runs of another process as if they were here.

What comes in: the address of a server. What goes out: runs with the words of `agentstream.runtime.Run`, whose streams
resume by themselves. It does not know how a server runs teams, and needs none of its code.

    async with connect("http://127.0.0.1:8000") as client:
        run = await client.start("analyst", "Total revenue per region?", files=["sales.csv"])
        async with run.events() as events:
            async for event in events:
                ...
"""

from agentstream.client._client import Client, RunInfo, TeamInfo, connect
from agentstream.client._events import RemoteEvents
from agentstream.client._retry import Retry, Status
from agentstream.client._run import RemoteRun, RemoteText

__all__ = ("Client", "RemoteEvents", "RemoteRun", "RemoteText", "Retry", "RunInfo", "Status", "TeamInfo", "connect")
