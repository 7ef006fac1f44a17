"""Text from elsewhere, made safe for a terminal.

What comes in: text that a model, a file or another program wrote. What goes out: the same text without anything that a
terminal would obey: escape sequences, control characters, marks that turn the direction of what follows. It does not
know colours or width.
"""

from __future__ import annotations

import re
import sys
from typing import Final

__all__ = ("one_line", "safe", "safe_output")

# Whole sequences go, so that nothing of them is left as text: CSI, the strings (OSC, DCS, SOS, PM, APC) up to their end
# or the end of the text, and the short ones (ECMA-48; the eight-bit forms as well).
_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_BREAK: Final = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")


def safe(text: str) -> str:
    """`text` with lines ended by LF, tabs as four blanks, and nothing that a terminal obeys."""
    if text.isprintable():
        return text
    text = _BREAK.sub("\n", _SEQUENCE.sub("", text))
    return _CONTROL.sub("", text).replace("\t", "    ")


def one_line(text: str, limit: int = 200) -> str:
    """The beginning of `text` on one line."""
    line = " ".join(safe(text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def safe_output() -> None:
    """Let characters that the terminal's encoding lacks become `?` instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
