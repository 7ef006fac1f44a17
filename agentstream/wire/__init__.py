"""The wire: how events look as bytes.

What comes in: events, lines, text, or bytes from a connection. What goes out: lines, frames, messages, typed errors.
It is pure: it knows no socket, clock or store, and nothing of what an event means. (JSON Patch keeps its short verbs in
`agentstream.wire.patch`: `patch.apply`, `patch.get`, `patch.parse`.)
"""

from agentstream.wire import patch
from agentstream.wire.codec import Head, SentEvent, decode_event, decode_sent, encode_event, peek
from agentstream.wire.fit import misfit
from agentstream.wire.sse import (
    HEARTBEAT,
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    MAX_LINE_BYTES,
    MAX_RETRY_MS,
    MIN_RETRY_MS,
    PREAMBLE,
    Decoder,
    Message,
    comment,
    event,
    frame,
    frames,
    frames_at,
    retry_line,
)
from agentstream.wire.text import clean, clean_json, pieces

__all__ = (
    "HEARTBEAT",
    "MAX_EVENT_BYTES",
    "MAX_ID_BYTES",
    "MAX_LINE_BYTES",
    "MAX_RETRY_MS",
    "MIN_RETRY_MS",
    "PREAMBLE",
    "Decoder",
    "Head",
    "Message",
    "SentEvent",
    "clean",
    "clean_json",
    "comment",
    "decode_event",
    "decode_sent",
    "encode_event",
    "event",
    "frame",
    "frames",
    "frames_at",
    "misfit",
    "patch",
    "peek",
    "pieces",
    "retry_line",
)
