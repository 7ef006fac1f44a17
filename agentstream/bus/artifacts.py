"""The data of artifacts: what a value is as bytes, and how small ones travel inside their event.

What comes in: a name and bytes, text or a JSON value. What goes out: bytes and a media type, or the text for the
event's `data`. It does not know where bytes are kept.
"""

from __future__ import annotations

import base64
import mimetypes
from typing import Final, cast

from agentstream.bus.encode import encode_value
from agentstream.wire import clean

__all__ = ("INLINE_BYTES", "inline", "is_text", "to_bytes")

INLINE_BYTES: Final = 64 * 1024
"""Larger data is fetched by its address: base64 of 64 KiB fits an event twice over. So is text that JSON makes longer
than twice this: a control character takes six bytes."""

_EXTRA_TYPES: Final = {".csv": "text/csv", ".py": "text/x-python", ".md": "text/markdown", ".json": "application/json"}


def to_bytes(name: str, data: object, mime: str | None) -> tuple[bytes, str]:
    """`data` as bytes, and its media type."""
    if mime is None:
        suffix = name[name.rfind(".") :].lower() if "." in name else ""
        mime = _EXTRA_TYPES.get(suffix) or mimetypes.guess_type(name)[0]
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(cast("bytes | bytearray", data)), mime or "application/octet-stream"
    if isinstance(data, str):
        return clean(data).encode(), mime or "text/plain"
    return encode_value(data), mime or "application/json"


def is_text(mime: str) -> bool:
    """Whether data of this type travels as text; other data travels as base64."""
    return mime.startswith("text/") or mime.endswith(("json", "+xml", "/xml", "javascript"))


def inline(raw: bytes, mime: str) -> str | None:
    """The event's `data`: text as it is where it is UTF-8, everything else as base64; None if it is too large for
    that."""
    if len(raw) > INLINE_BYTES:
        return None
    if is_text(mime):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            pass  # not text after all: the reader tells by the type and gets what the address serves
        else:
            return text if len(encode_value(text)) <= 2 * INLINE_BYTES else None
    return base64.b64encode(raw).decode("ascii")
