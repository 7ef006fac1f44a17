"""The first events of a run, made before anything executes it.

What comes in: what a run is. What goes out: the chunk that creates its log. It does not know the store.
"""

from __future__ import annotations

from agentstream.bus import encode_event
from agentstream.events import RunStarted, RunWaiting
from agentstream.order import Extra, Item, Lane, Sequencer, line_form
from agentstream.ports import Chunk

__all__ = ("first_chunk",)


def first_chunk(started: RunStarted, at: int, position: int | None = None) -> Chunk:
    """`run.started`, and `run.waiting` for a run that gets a place later. `at` is wall milliseconds."""
    lane = Lane("")
    events = [started] if position is None else [started, RunWaiting("slot", position=position)]
    items: list[Item] = []
    for n, event in enumerate(events, 1):
        cut = len(event.type) + 10  # behind {"type":"…"
        items.append((lane, n, line_form(event.type), encode_event(event)[cut:], Extra(bare=True)))
    return Sequencer().stamp(items, at)[0]
