"""Text: without lone surrogates, in pieces that fit.

Comes in: any Python text. Goes out: proof that UTF-8 carries the result and that nothing else was changed.
It deliberately knows no event.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.wire import clean, clean_json, pieces

ANY_TEXT = st.text(st.characters())  # lone surrogates among it
HIGH, LOW = "\ud83d", "\ude00"


# ---- clean ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("é 你 😀", "é 你 😀"),
        (HIGH, "\ufffd"),
        (LOW, "\ufffd"),
        (f"a{HIGH}b", "a\ufffdb"),
        (f"{HIGH}{HIGH}", "\ufffd\ufffd"),
        (f"{LOW}{HIGH}", "\ufffd\ufffd"),
        (f"x{HIGH}{LOW}y", "x😀y"),
        (f"{HIGH}{HIGH}{LOW}", "\ufffd😀"),
        ("\ufffe\uffff\ufeff\0", "\ufffe\uffff\ufeff\0"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    """Each lone surrogate becomes one U+FFFD; two halves side by side become their character."""
    assert clean(text) == expected


def test_clean_gives_back_what_is_fine() -> None:
    """Text without surrogates is the same object: nothing is copied."""
    for text in ("plain", "é 你 😀"):
        assert clean(text) is text


@given(ANY_TEXT)
def test_cleaned_text_is_utf8(text: str) -> None:
    """Whatever comes in, the result can be encoded, and cleaning it again changes nothing."""
    cleaned = clean(text)
    assert cleaned.encode().decode() == cleaned
    assert clean(cleaned) is cleaned
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert cleaned is text


# ---- clean_json -----------------------------------------------------------------------------------------------------
def test_clean_json_goes_everywhere() -> None:
    """Keys, values, lists and tuples at any depth; other values stay as they are."""
    marker = object()
    bad: dict[Any, Any] = {f"k{HIGH}": [1, None, f"{LOW}", {"deep": (f"a{LOW}", 2.5)}], "same": ["x"], 3: marker}
    before = copy.copy(bad)
    cleaned = clean_json(bad)
    assert cleaned == {"k\ufffd": [1, None, "\ufffd", {"deep": ("a\ufffd", 2.5)}], "same": ["x"], 3: marker}
    assert bad == before
    assert cleaned["same"] is bad["same"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=20,
)


@given(json_values)
def test_clean_json_gives_back_what_is_fine(value: Any) -> None:
    """Values without surrogates are the same object."""
    assert clean_json(value) is value


# ---- pieces ---------------------------------------------------------------------------------------------------------
@given(ANY_TEXT, st.integers(4, 40))
def test_pieces_fit_and_join(text: str, max_bytes: int) -> None:
    """Pieces are never empty, never above the bound, and joined they are the cleaned text."""
    parts = list(pieces(text, max_bytes))
    assert "".join(parts) == clean(text)
    assert all(0 < len(part.encode()) <= max_bytes for part in parts)


@given(st.text(st.sampled_from("ae\u0301\u0308é你😀\r\n\u200d\ufe0f"), max_size=60), st.integers(12, 40))
def test_pieces_keep_together_what_belongs_together(text: str, max_bytes: int) -> None:
    """No piece begins with the LF of a CRLF; a mark begins one only behind more marks than are worth keeping."""
    parts = list(pieces(text, max_bytes))
    for before, after in itertools.pairwise(parts):
        assert not (before.endswith("\r") and after.startswith("\n"))
        if after[0] in "\u0301\u0308\u200d\ufe0f":
            assert before.rstrip("\u0301\u0308\u200d\ufe0f")[1:] == ""


@pytest.mark.parametrize(
    ("text", "max_bytes", "expected"),
    [
        ("", 4, []),
        ("abcd", 4, ["abcd"]),
        ("abcde", 4, ["abcd", "e"]),
        ("ab你", 4, ["ab", "你"]),
        ("😀😀", 7, ["😀", "😀"]),
        ("abc\r\nd", 4, ["abc", "\r\nd"]),
        ("abce\u0301f", 5, ["abc", "e\u0301f"]),
        ("e\u0301\u0301\u0301", 5, ["e\u0301\u0301", "\u0301"]),
        ("👨\u200d👩x", 8, ["👨\u200d", "👩x"]),
    ],
)
def test_pieces(text: str, max_bytes: int, expected: list[str]) -> None:
    """Cuts move back to the nearest good place, and stay where there is none."""
    assert list(pieces(text, max_bytes)) == expected


def test_pieces_of_nothing_but_marks_end() -> None:
    """A hostile run of marks is cut inside and costs no more than any text."""
    text = "\u0301" * 100_000
    parts = list(pieces(text, 1_000))
    assert "".join(parts) == text
    assert len(parts) == 200


def test_pieces_need_room_for_a_code_point() -> None:
    """A bound below four bytes is refused at the call, not at the first piece."""
    with pytest.raises(ValueError, match="4 or more"):
        pieces("a", 3)
