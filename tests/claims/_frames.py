"""Frames of a stream, taken apart by rules of their own, and counts of what is wrong with them.

Comes in: the bytes that a reader got. Goes out: frames, events, and how many of them are missing, doubled or different.
It deliberately does not use the package's own decoder or codec: what is compared must not come from what is judged.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

__all__ = [
    "Frame",
    "Note",
    "differing",
    "lost_and_doubled",
    "read_frames",
    "split_frames",
    "wrong_notes",
    "wrong_numbers",
]

Note = tuple[str, dict[str, Any]]  # Any: JSON. What an agent wrote down: the type and the payload as the wire shows it.

_FRAME: Final = re.compile(rb"id: ([A-Za-z0-9_-]{22})\.([A-Za-z0-9]{6})\.([1-9][0-9]*)\ndata: (\{[^\r\n]*\})")
_RUNTIMES: Final = frozenset({"agent.started", "agent.finished", "agent.failed"})
_ENVELOPE: Final = frozenset({"seq", "at", "type", "agent", "inv", "agent_seq"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its id's parts, and the event it carries."""

    run: str
    incarnation: str
    seq: int
    event: dict[str, Any]  # Any: JSON

    def note(self) -> Note:
        """The event as its agent would have written it down."""
        return self.event["type"], {key: value for key, value in self.event.items() if key not in _ENVELOPE}


def split_frames(body: bytes) -> list[bytes]:
    """The frames of a native stream, without comments and `retry`; what is unfinished at the end counts as one."""
    lines = [line for line in body.split(b"\n") if not line.startswith((b":", b"retry:"))]
    frames = b"\n".join(lines).split(b"\n\n")
    return frames if frames[-1] else frames[:-1]


def read_frames(frames: Sequence[bytes]) -> tuple[list[Frame], int]:
    """The frames' events, and how many frames do not have the form that the wire promises."""
    found: list[Frame] = []
    ill_formed = 0
    for frame in frames:
        match = _FRAME.fullmatch(frame)
        event = None if match is None else _json(match[4])
        if match is None or event is None:
            ill_formed += 1
        else:
            found.append(Frame(match[1].decode(), match[2].decode(), int(match[3]), event))
    return found, ill_formed


def _json(data: bytes) -> dict[str, Any] | None:  # Any: JSON
    try:
        event: dict[str, Any] = json.loads(data)
    except ValueError:
        return None
    return event if isinstance(event.get("type"), str) else None


def differing(first: Sequence[bytes], second: Sequence[bytes]) -> int:
    """How many places of two lists of frames are not the same bytes; a missing frame differs."""
    return sum(one != other for one, other in zip_longest(first, second))


def wrong_numbers(frames: Sequence[Frame]) -> int:
    """How many events break a rule of numbers: one run and incarnation, `seq` as in the id and gapless from 1, each
    `agent_seq` gapless from 1, one terminal event, and it is the last."""
    wrong = 0
    numbers: defaultdict[str, int] = defaultdict(int)
    whose = {(frame.run, frame.incarnation) for frame in frames}
    for expected, frame in enumerate(frames, 1):
        event = frame.event
        wrong += frame.seq != expected or event.get("seq") != expected
        if "inv" in event:
            numbers[event["inv"]] += 1
            wrong += event.get("agent_seq") != numbers[event["inv"]]
        is_terminal = event["type"] in ("run.finished", "run.failed", "run.stopped")
        wrong += is_terminal != (expected == len(frames))
    return wrong + (len(whose) != 1)


def wrong_notes(frames: Sequence[Frame], notes: Mapping[str, Sequence[Note]]) -> int:
    """How many events of the invocations in `notes` are not, place by place, what their agents wrote down.

    `agent.started` and the closing event are the runtime's own and were written down by nobody.
    """
    seen: defaultdict[str, list[Note]] = defaultdict(list)
    for frame in frames:
        if frame.event["type"] not in _RUNTIMES:
            seen[frame.event.get("inv", "")].append(frame.note())
    return sum(found != noted for inv in notes for found, noted in zip_longest(seen[inv], notes[inv]))


def lost_and_doubled(expected: Sequence[bytes], got: Sequence[bytes]) -> tuple[int, int]:
    """How many of the expected frames a reader never got, and how many it got that it should not have: a second time,
    changed, or out of order."""
    wanted, given = Counter(expected), Counter(got)
    lost = sum((wanted - given).values())
    doubled = sum((given - wanted).values())
    if not lost and not doubled:
        doubled = differing(expected, got)
    return lost, doubled
