"""Order: the two pure machines that give every event its place.

What comes in: items of many invocations, in the order in which they arrived. What goes out: items in order without
duplicates (`Reassembler`), then numbered chunks (`Sequencer`). The room knows no loop, no clock and no store.
"""

from agentstream.order.reassembler import Extra, Gap, Item, Lane, Reassembler, ReassemblerStatistics
from agentstream.order.sequencer import MAX_CHUNK_BYTES, Sequencer, line_form

__all__ = (
    "MAX_CHUNK_BYTES",
    "Extra",
    "Gap",
    "Item",
    "Lane",
    "Reassembler",
    "ReassemblerStatistics",
    "Sequencer",
    "line_form",
)
