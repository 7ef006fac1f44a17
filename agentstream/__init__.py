"""agentstream: teams of agents with one ordered, resumable stream.

What comes in: agents, teams, questions. What goes out: one stream of events that survives dropped connections, slow
clients and reloads. This module is the front door: it re-exports what most programs need, and does nothing else.

The rooms behind it:

    agentstream.agent     what you write: agents, teams, tools, roles
    agentstream.runtime   what runs it: runs, the bus alone, web handlers
    agentstream.events    every event type
    agentstream.errors    every error
    agentstream.llm       models
    agentstream.stream    subscriptions, folded state
    agentstream.store     where logs are kept
    agentstream.web       the ASGI application and the developer page
    agentstream.client    the Python client
    agentstream.testing   scripted models, recordings, the store contract
"""

from agentstream.agent import (
    Agent,
    Assistant,
    Budget,
    Call,
    Context,
    File,
    Reply,
    RunOptions,
    Team,
    Tool,
    ToolContext,
    as_agent,
    current_tool,
    lockstep,
    stop_after,
    tool,
)
from agentstream.bus import Block, Emitter
from agentstream.errors import (
    AgentFailedError,
    AgentStreamError,
    InvalidInput,
    NoModelConfigured,
    Overloaded,
    RunFailedError,
    RunLost,
    RunStoppedError,
    ToolError,
)
from agentstream.runtime import Bus, Run, Runtime, RuntimeOptions, run_sync, sse
from agentstream.stream import RunState, Subscription

__all__ = (
    "Agent",
    "AgentFailedError",
    "AgentStreamError",
    "Assistant",
    "Block",
    "Budget",
    "Bus",
    "Call",
    "Context",
    "Emitter",
    "File",
    "InvalidInput",
    "NoModelConfigured",
    "Overloaded",
    "Reply",
    "Run",
    "RunFailedError",
    "RunLost",
    "RunOptions",
    "RunState",
    "RunStoppedError",
    "Runtime",
    "RuntimeOptions",
    "Subscription",
    "Team",
    "Tool",
    "ToolContext",
    "ToolError",
    "as_agent",
    "current_tool",
    "lockstep",
    "run_sync",
    "sse",
    "stop_after",
    "tool",
)
