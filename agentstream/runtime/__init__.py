"""The runtime: joins agents, bus, store and readers, and carries runs to their end.

What comes in: teams and inputs. What goes out: runs, each with one log and one terminal event. It is the only room that
starts tasks for runs; it does not know routes or pages.
"""

from agentstream.runtime.bare import Bus
from agentstream.runtime.options import Retention, RuntimeOptions
from agentstream.runtime.produce import Produce, sse
from agentstream.runtime.run import Run, RunText
from agentstream.runtime.runtime import Lifespan, Runtime, RuntimeStatistics
from agentstream.runtime.sync import run_sync

__all__ = (
    "Bus",
    "Lifespan",
    "Produce",
    "Retention",
    "Run",
    "RunText",
    "Runtime",
    "RuntimeOptions",
    "RuntimeStatistics",
    "run_sync",
    "sse",
)
