"""Models: the contract of one (`LLM`) and the words that are exchanged with it.

What comes in: requests. What goes out: deltas and results. It does not know agents, runs or events; the HTTP client is
in `agentstream.llm.http`, so that nobody pays for its import who brings another model.
"""

from agentstream.llm.contract import LLM, LLMStream
from agentstream.llm.messages import (
    Assembly,
    Delta,
    Finish,
    LLMRequest,
    LLMResult,
    Message,
    Role,
    TextPart,
    ThinkingPart,
    Thought,
    ToolCall,
    ToolCallPart,
    ToolSpec,
)

__all__ = (
    "LLM",
    "Assembly",
    "Delta",
    "Finish",
    "LLMRequest",
    "LLMResult",
    "LLMStream",
    "Message",
    "Role",
    "TextPart",
    "ThinkingPart",
    "Thought",
    "ToolCall",
    "ToolCallPart",
    "ToolSpec",
)
