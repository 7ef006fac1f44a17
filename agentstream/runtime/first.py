"""The first events of a run, made before anything executes it.

What comes in: what a run is. What goes out: the chunk that creates its log. It does not know the store.
"""

from __future__ import annotations

from agentstream.bus import encode_event
from agentstream.events import Event, RunStarted, RunWaiting
from agentstream.order import Extra, Item, Lane, Sequencer, line_form
from agentstream.ports import Chunk

__all__ = ("first_chunk",)


def first_chunk(
    started: RunStarted, at: int, position: int | None = None, *, origin: bytes = b"", behind: int | None = None
) -> Chunk:
    """`run.started`, and `run.waiting` for a run that gets a place later.

    Args:
        at: wall milliseconds. origin: what another process needs to start the run again; it travels beside the line.
        position: among the runs that wait for a place. behind: how many runs of its session it waits for.
    """
    lane = Lane("")
    events: list[Event] = [started]
    if behind is not None:
        events.append(RunWaiting("session", position=behind))
    elif position is not None:
        events.append(RunWaiting("slot", position=position))
    items: list[Item] = []
    for n, event in enumerate(events, 1):
        cut = len(event.type) + 10  # behind {"type":"…"
        extra = Extra(private=origin if n == 1 else b"", bare=True)
        items.append((lane, n, line_form(event.type), encode_event(event)[cut:], extra))
    return Sequencer().stamp(items, at)[0]
