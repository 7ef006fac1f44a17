"""The manifest of what agentstream promises: every promise and every rule of the wire, with an id.

Comes in: nothing. Goes out: `RULES` by id, each with its source and its words, and why it waits where it does.
It deliberately does not know the tests; `tests/architecture/test_promises.py` holds the two against each other.

A test shows a rule by `@pytest.mark.promise("P5")`, a claim by `promises=("P5",)`. A rule without `deferred` needs at
least one of them among what `make test` runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["RULES", "Rule"]


class Rule(NamedTuple):
    """One promise or rule of the wire."""

    id: str
    source: str
    text: str
    deferred: str = ""


_GUARANTEES = "docs/guarantees.md"
_WIRE = "docs/wire.md"
_EVENTSOURCE = "WHATWG HTML, server-sent events"

_PROMISES: Final = (
    Rule(
        "P1", _GUARANTEES, "An event is shown to a reader only after the log accepted it; live and replay are one path."
    ),
    Rule("P2", _GUARANTEES, "In one incarnation seq is 1, 2, 3 … without gaps, the same for every reader and replay."),
    Rule("P3", _GUARANTEES, "Events of one invocation keep the order in which it emitted them."),
    Rule(
        "P4",
        _GUARANTEES,
        "What an agent emitted before it called or answered another precedes what the other emits because of it.",
    ),
    Rule(
        "P5",
        _GUARANTEES,
        "A reader that returns with the id of its last complete event gets exactly the following ones.",
    ),
    Rule(
        "P6",
        _GUARANTEES,
        "Where that cannot be, it gets one reset with the reason and the log from its first retained event.",
    ),
    Rule(
        "P7",
        _GUARANTEES,
        "A run ends with exactly one terminal event, everything open is closed before it, nothing follows.",
    ),
    Rule(
        "P8",
        _GUARANTEES,
        "Closing a connection never stops a run; stop does, in bounded time; every end has a named cause.",
    ),
    Rule(
        "P9",
        _GUARANTEES,
        "Every queue is bounded in events and bytes; a slow reader slows neither agents nor other readers.",
    ),
    Rule(
        "P10",
        _GUARANTEES,
        "A run whose worker died is taken over within lease + poll; the dead worker can write nothing more.",
        deferred="takeover comes with several processes; the fence itself is part of the store checks already",
    ),
    Rule(
        "P11",
        _GUARANTEES,
        "A finished step is never executed again; what an unfinished attempt emitted is marked superseded.",
        deferred="recorded results are written from the start and re-used from the takeover on",
    ),
    Rule(
        "P12",
        _GUARANTEES,
        "Durability is a named level: memory, process (survives kill -9), machine (survives power loss).",
    ),
)

_WIRE_RULES: Final = (
    Rule(
        "W-id",
        _WIRE,
        "An id is <run>.<incarnation>.<seq>, at most 64 bytes; only events, reset and up-to-date carry one.",
    ),
    Rule("W-data", _WIRE, "An event is one data: line of compact JSON, no event: line, LF only."),
    Rule("W-parse", _EVENTSOURCE, "The decoder follows the standard at every split of the bytes, within size limits."),
    Rule("W-first-bytes", _WIRE, "A stream begins at once with retry and a comment, and no blank line after them."),
    Rule(
        "W-heartbeat", _WIRE, "A heartbeat is a comment with one LF, between frames only, skipped while a send waits."
    ),
    Rule("W-resume", _WIRE, "A cursor in Last-Event-ID, else after=, is answered as the resume decision table says."),
    Rule(
        "W-get-reads",
        _WIRE,
        "A GET never changes a log; a cursor ahead of the tail gets reset {rollback} for this reader only.",
    ),
    Rule("W-unknown-cursor", _WIRE, "A cursor of another run gets reset {unknown-cursor}."),
    Rule("W-204", _WIRE, "204 means: ended, and nothing after the cursor would be sent in this view."),
    Rule("W-after-tail", _WIRE, "after=tail first sends up-to-date; on an ended run, the terminal."),
    Rule("W-abort", _WIRE, "A response that ends before the terminal ends abortively: no final chunk."),
    Rule("W-drain", _WIRE, "A draining stream GET answers 200 and retry and ends abortively, never 429 or 503."),
    Rule("W-headers", _WIRE, "A stream is text/event-stream, never cached, transformed, buffered or sniffed."),
    Rule("W-before-200", _WIRE, "Input is checked before the 200."),
    Rule(
        "W-pieces",
        _WIRE,
        "A piece is at most 32 KiB; a send that takes too long closes the stream with its cursor valid.",
    ),
    Rule("W-head", _WIRE, "HEAD starts nothing."),
    Rule(
        "W-problem",
        _WIRE,
        "Errors are application/problem+json with a stable code; unknown and forbidden runs answer alike.",
    ),
    Rule("W-poll", _WIRE, "Polling answers 200 with the last position scanned as the cursor, never 204."),
    Rule(
        "W-coalesce", _WIRE, "Neighbouring deltas of one block become one frame with first_seq and the id of the last."
    ),
    Rule("W-filter", _WIRE, "A filter hides numbers and never reorders; run-level events always pass."),
    Rule(
        "W-client",
        _WIRE,
        "Our client drops what it has, checks that ids rise, and takes an end without a terminal for a drop.",
    ),
    Rule("W-unknown-types", _WIRE, "Unknown types and unknown fields pass through untouched."),
    Rule(
        "W-frames",
        _WIRE,
        "Frame k of an event that renders to m frames carries <run>.<incarnation>.<seq-1>.<k> while k < m.",
        deferred="the native dialect renders each event to one frame; the others come later",
    ),
    Rule(
        "W-batch",
        _WIRE,
        "batch=1 sends one event of the stream for several of the log: a JSON array with one id.",
    ),
    Rule(
        "W-abortable",
        _WIRE,
        "A cut stream stays a cut under middleware that would end it cleanly, with abortable() outermost.",
    ),
    Rule(
        "W-gzip",
        _WIRE,
        "Compression, when switched on and accepted, is flushed after each piece.",
        deferred="not switched on by anything yet",
    ),
    Rule(
        "W-prelude",
        _WIRE,
        "A client of another dialect that joins gets a prelude that its own validator accepts.",
        deferred="the native dialect and polling have no prelude",
    ),
    Rule(
        "W-socket",
        _WIRE,
        "A WebSocket closes 1000 only after the terminal.",
        deferred="there is no WebSocket yet",
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.id: rule for rule in (*_PROMISES, *_WIRE_RULES)})
