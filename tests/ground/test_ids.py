"""Identities: what is made is well-formed, and what comes from outside is told apart without a crash."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream import ids
from agentstream.errors import InvalidCursor, InvalidInput
from agentstream.ids import Cursor

_RUNS = (
    st.binary(min_size=16, max_size=16)
    .filter(lambda raw: raw[0] >> 2 not in (62, 63))
    .map(lambda raw: ids.new_run_id(lambda n: raw))
)
_INCARNATIONS = st.text(string.ascii_letters + string.digits, min_size=6, max_size=6)
_NUMBERS = st.integers(0, 10**18 - 1)


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1))
def test_run_ids_are_well_formed_whatever_the_bytes(drawn: list[bytes]) -> None:
    """Any random bytes give 22 characters of base64url of which the first is a letter or digit."""
    supply = iter([*drawn, b"\x00" * 16])
    run = ids.new_run_id(lambda n: next(supply))
    assert len(run) == 22
    assert run[0].isalnum()
    assert set(run) <= set(string.ascii_letters + string.digits + "-_")
    assert ids.is_run_id(run)
    assert ids.check_run_id(run) == run


def test_run_ids_come_from_128_random_bits() -> None:
    """The source of randomness is asked for 16 bytes, and other bytes give another id."""
    asked: list[int] = []

    def random(n: int) -> bytes:
        asked.append(n)
        return bytes([len(asked)]) * n

    assert ids.new_run_id(random) != ids.new_run_id(random)
    assert asked == [16, 16]
    assert len({ids.new_run_id() for _ in range(100)}) == 100


def test_an_incarnation_is_six_letters_or_digits() -> None:
    """No dot, dash or underscore: it stands inside a cursor."""
    for _ in range(50):
        incarnation = ids.new_incarnation()
        assert len(incarnation) == 6
        assert incarnation.isascii()
        assert incarnation.isalnum()


@given(run=_RUNS, incarnation=_INCARNATIONS, seq=_NUMBERS, part=_NUMBERS)
@pytest.mark.promise("W-id")
def test_a_cursor_survives_its_text(run: str, incarnation: str, seq: int, part: int) -> None:
    """What is written is read again, and stays within 64 bytes for any log that can exist."""
    cursor = Cursor(run, incarnation, seq, part)
    assert Cursor.parse(str(cursor)) == cursor
    assert len(str(Cursor(run, incarnation, 2**32, 2**32))) <= 64
    assert str(Cursor(run, incarnation, seq)).count(".") == 2


@given(st.text(max_size=200))
def test_hostile_text_is_a_cursor_none_or_refused(text: str) -> None:
    """Any text is a cursor whose text it is, none of ours, or `InvalidCursor`: nothing else is raised."""
    try:
        cursor = Cursor.parse(text)
    except InvalidCursor:
        assert not text or len(text) > 128 or not (text.isascii() and text.isprintable())
    else:
        assert cursor is None or str(cursor) == text or str(cursor) + ".0" == text


_RUN = "A" * 22


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "42",
        "a.b.c",
        f"{_RUN}.abcdef",
        f"{_RUN}.abcdef.",
        f"{_RUN}.abcdef.01",
        f"{_RUN}.abcdef.-1",
        f"{_RUN}.abcdef.1.2.3",
        f"{_RUN}.abcdef.1e3",
        f"{_RUN}.abc-ef.1",
        f"{_RUN}.abcdefg.1",
        f"-{_RUN[1:]}.abcdef.1",
        f"{_RUN}A.abcdef.1",
        f"{_RUN}.abcdef.{10**18}",
        f" {_RUN}.abcdef.1",
        f"{_RUN}.abcdef.1 ",
        "../../../etc/passwd",
    ],
)
def test_what_looks_nearly_like_a_cursor_is_none(text: str) -> None:
    """A position is never guessed from text that breaks the grammar."""
    assert Cursor.parse(text) is None


@pytest.mark.parametrize("text", ["", "x" * 129, "a\nb", "a\x00b", "é", "\ud800", "a\tb", "\uff11\uff12"])
def test_what_cannot_be_an_id_of_an_event_is_refused(text: str) -> None:
    """Empty, long, unprintable or foreign characters are the caller's mistake and not a lost position."""
    with pytest.raises(InvalidCursor):
        Cursor.parse(text)


@given(st.text(max_size=40))
def test_check_run_id_lets_nothing_else_through(text: str) -> None:
    """What passes has the grammar's letters only, so it may stand in a key or a path."""
    try:
        assert ids.check_run_id(text) == text
    except InvalidInput:
        assert not ids.is_run_id(text)
    else:
        assert len(text) == 22
        assert text.isascii()
        assert not set(text) & set("./\\:%\0 ")


@pytest.mark.parametrize("text", ["A" * 22 + "\n", "\n" + "A" * 22, "A" * 21, "\uff21" * 22])
def test_a_line_end_or_wide_letter_is_no_run_id(text: str) -> None:
    """Anchors that match before a line end, and Unicode's letters, do not get through."""
    assert not ids.is_run_id(text)


@pytest.mark.parametrize("name", ["a", "executor", "a-b_c9", "a" * 32])
def test_agent_names(name: str) -> None:
    """A lower-case letter, then up to 31 letters, digits, dashes and underscores."""
    assert ids.check_agent_name(name) == name
    assert ids.agent_of(f"{name}.12") == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a b", "a.b", "a" * 33, "é", "a\n", "a%b", 'a"b'])
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    """The message says what a name is made of, and `details` which one was wrong."""
    with pytest.raises(InvalidInput, match="lower-case letter") as refused:
        ids.check_agent_name(name)
    assert refused.value.details == {"name": name}


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("FactChecker", "fact_checker"),
        ("Planner", "planner"),
        ("HTTPServer", "http_server"),
        ("CSVReader2", "csv_reader2"),
        ("_Private", "private"),
        ("A", "a"),
        ("already_snake", "already_snake"),
        ("Grüße", "gr__e"),
        ("X" * 40, "x" * 32),
    ],
)
def test_class_names_become_agent_names(name: str, snake: str) -> None:
    """A class that names no agent gets a name that the grammar takes."""
    assert ids.snake_case(name) == snake
    ids.check_agent_name(ids.snake_case(name))
