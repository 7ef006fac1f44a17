"""Reading runs: positions in a log, what a reader is sent of it, and what a run amounts to.

What comes in: a log, a run and a cursor. What goes out: pages, events, folded state. It does not know HTTP, frames or
dialects, and keeps nothing for readers that do not ask.
"""

from agentstream.stream.audience import Audience, Seat
from agentstream.stream.coalesce import coalesce
from agentstream.stream.fold import AgentState, ArtifactState, AskState, Failure, RunState, VerdictState, fold
from agentstream.stream.kept import KEEP_EVERY, StateKeeper, load_state
from agentstream.stream.reader import PAGE_BYTES, LogReader, Page, open_reader
from agentstream.stream.resume import TAIL, Start, decide
from agentstream.stream.subscription import Subscription
from agentstream.stream.view import View

__all__ = (
    "KEEP_EVERY",
    "PAGE_BYTES",
    "TAIL",
    "AgentState",
    "ArtifactState",
    "AskState",
    "Audience",
    "Failure",
    "LogReader",
    "Page",
    "RunState",
    "Seat",
    "Start",
    "StateKeeper",
    "Subscription",
    "VerdictState",
    "View",
    "coalesce",
    "decide",
    "fold",
    "load_state",
    "open_reader",
)
