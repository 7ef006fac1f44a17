"""The merging bus: many emitters in, one ordered, numbered log out.

What comes in: events of concurrent agents. What goes out: chunks, appended one after the other. The room knows no
store, no run and no reader; the runtime joins it to them.
"""

from agentstream.bus.artifacts import INLINE_BYTES
from agentstream.bus.emitter import Block, Emitter, Keeper
from agentstream.bus.encode import MAX_EVENT_BYTES, encode_event, encode_text, encode_value
from agentstream.bus.merge import DEFAULT_CAPACITY, BusStatistics, MergeBus
from agentstream.bus.source import Source
from agentstream.bus.state import MAX_STATE_BYTES, Document, State
from agentstream.bus.threads import BlockingBlock, BlockingEmitter

__all__ = (
    "DEFAULT_CAPACITY",
    "INLINE_BYTES",
    "MAX_EVENT_BYTES",
    "MAX_STATE_BYTES",
    "Block",
    "BlockingBlock",
    "BlockingEmitter",
    "BusStatistics",
    "Document",
    "Emitter",
    "Keeper",
    "MergeBus",
    "Source",
    "State",
    "encode_event",
    "encode_text",
    "encode_value",
)
