"""What a terminal would obey never gets through: control characters, escape sequences, turned directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.cli._safe import one_line, safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 数 👩‍💻", "plain ünïcode 数 👩‍💻"),
        ("two\nlines", "two\nlines"),
        ("a\tb", "a    b"),
        ("a\r\nb\rc\u2028d\x85e\x0bf", "a\nb\nc\nd\ne\nf"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hcleared", "cleared"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPsixel\x1b\\after", "after"),
        ("\x9b31mred \x9d0;t\x9cafter", "red after"),
        ("\x1bcreset \x1b(Bset \x1b7save", "reset set save"),
        ("unfinished \x1b[", "unfinished "),
        ("unfinished \x1b]0;never ended", "unfinished "),
        ("bell\x07 back\x08 null\x00 delete\x7f", "bell back null delete"),
        ("\u202eturned\u2066 round\u2069\u200f", "turned round"),
        ("\ufeffmark", "mark"),
    ],
)
def test_what_is_left_of_it(text: str, shown: str) -> None:
    """Sequences go whole, breaks become LF, tabs blanks; letters of every script stay."""
    assert safe(text) == shown


@given(st.text())
def test_nothing_that_is_obeyed_is_left(text: str) -> None:
    """Whatever comes in, only printable characters and LF come out, and doing it twice changes nothing."""
    out = safe(text)
    assert not [char for char in out if char != "\n" and (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0)]
    assert safe(out) == out


def test_one_line() -> None:
    """A line is a line, and has an end."""
    assert one_line(" a\n b\x1b[31m ") == "a b"
    assert one_line("x" * 300) == "x" * 199 + "…"
