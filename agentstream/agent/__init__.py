"""Agents: what users write, and what an agent may do while it runs.

What comes in: classes, functions, tools and prompts. What goes out: events, calls and results. The room does not know
how a run is executed, kept or read; the runtime gives every context an engine.
"""

from agentstream.agent.asking import Answered, Question
from agentstream.agent.assistant import Assistant
from agentstream.agent.context import Context, safe_failure
from agentstream.agent.contract import Agent, Team, as_agent
from agentstream.agent.engine import Call, Engine, File, Recalled
from agentstream.agent.generation import Prompt, Reply
from agentstream.agent.keys import Keys, code_version
from agentstream.agent.options import Budget, Lockstep, Price, RunOptions, StopAfter, lockstep, stop_after
from agentstream.agent.tools import AsyncTool, SyncTool, Tool, ToolContext, current_tool, tool

__all__ = (
    "Agent",
    "Answered",
    "Assistant",
    "AsyncTool",
    "Budget",
    "Call",
    "Context",
    "Engine",
    "File",
    "Keys",
    "Lockstep",
    "Price",
    "Prompt",
    "Question",
    "Recalled",
    "Reply",
    "RunOptions",
    "StopAfter",
    "SyncTool",
    "Team",
    "Tool",
    "ToolContext",
    "as_agent",
    "code_version",
    "current_tool",
    "lockstep",
    "safe_failure",
    "stop_after",
    "tool",
)
