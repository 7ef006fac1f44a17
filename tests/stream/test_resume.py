"""The resume decision table, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import InvalidCursor
from agentstream.events import Reset
from agentstream.ids import Cursor
from agentstream.ports import Tail
from agentstream.stream import Start, decide
from stream.logs import RUN

OTHER = "Run0000000000000000002"
# Events 5 to 9 are retained.
LIVE = Tail("aaaaaa", 1, 5, 9, False)
ENDED = Tail("aaaaaa", 1, 5, 9, True)


def start(after: int, **more: object) -> Start:
    """The answer that begins after this position."""
    return Start("aaaaaa", after, 9, **more)  # type: ignore[arg-type]


def reset(reason: str) -> Start:
    """The answer that begins with a reset."""
    return start(4, reset=Reset(reason, 5, 9))


@pytest.mark.promise("W-resume")
@pytest.mark.promise("W-unknown-cursor")
@pytest.mark.promise("W-get-reads")
@pytest.mark.parametrize(
    ("cursor", "tail", "expected"),
    [
        pytest.param(None, LIVE, start(4), id="none"),
        pytest.param("", LIVE, start(4), id="empty"),
        pytest.param(None, ENDED, start(4), id="none-ended"),
        pytest.param("tail", LIVE, start(9, up_to_date=True), id="tail"),
        pytest.param("tail", ENDED, start(8, up_to_date=True), id="tail-ended"),
        pytest.param("tail", Tail("aaaaaa", 1, 9, 9, True), start(8, up_to_date=True), id="tail-ended-one-left"),
        pytest.param(f"{RUN}.aaaaaa.4", LIVE, start(4), id="first-less-one"),
        pytest.param(f"{RUN}.aaaaaa.7", LIVE, start(7), id="inside"),
        pytest.param(f"{RUN}.aaaaaa.7", ENDED, start(7), id="inside-ended"),
        pytest.param(f"{RUN}.aaaaaa.7.2", LIVE, start(7, part=2), id="inside-an-event"),
        pytest.param(f"{RUN}.aaaaaa.9", LIVE, start(9), id="at-the-tail"),
        pytest.param(f"{RUN}.aaaaaa.9", ENDED, start(9, done=True), id="at-the-end"),
        pytest.param(f"{RUN}.aaaaaa.10", LIVE, reset("rollback"), id="ahead"),
        pytest.param(f"{RUN}.aaaaaa.10", ENDED, reset("rollback"), id="ahead-ended"),
        pytest.param(f"{RUN}.aaaaaa.9.1", LIVE, reset("rollback"), id="ahead-by-a-part"),
        pytest.param(f"{RUN}.aaaaaa.3", LIVE, reset("trimmed"), id="trimmed"),
        pytest.param(f"{RUN}.aaaaaa.0", LIVE, reset("trimmed"), id="zero"),
        pytest.param(f"{RUN}.bbbbbb.7", LIVE, reset("new-log"), id="other-incarnation"),
        pytest.param(f"{RUN}.bbbbbb.99", ENDED, reset("new-log"), id="other-incarnation-ahead"),
        pytest.param(f"{OTHER}.aaaaaa.7", LIVE, reset("unknown-cursor"), id="other-run"),
        pytest.param("17", LIVE, reset("unknown-cursor"), id="foreign"),
        pytest.param(f"{RUN}.aaaaaa.07", LIVE, reset("unknown-cursor"), id="leading-zero"),
        pytest.param(f"{RUN}.aaaaaa.-1", LIVE, reset("unknown-cursor"), id="negative"),
        pytest.param("x" * 128, LIVE, reset("unknown-cursor"), id="longest-foreign"),
    ],
)
def test_table(cursor: str | None, tail: Tail, expected: Start) -> None:
    """Each row of the table gives its answer."""
    assert decide(cursor, RUN, tail) == expected


@pytest.mark.parametrize("cursor", ["x" * 129, "a\nb", "ü", "\x00", "a\x7f"])
def test_not_a_cursor(cursor: str) -> None:
    """What is too long or not printable is refused."""
    with pytest.raises(InvalidCursor):
        decide(cursor, RUN, LIVE)


@given(st.integers(0, 20), st.integers(0, 3), st.integers(1, 10), st.integers(0, 10), st.booleans())
def test_a_position_is_kept_or_reset(seq: int, part: int, first: int, length: int, ended: bool) -> None:
    """Whatever the log looks like, a reader goes on exactly behind its cursor or is told so and begins at the first."""
    tail = Tail("aaaaaa", 1, first, first - 1 + length, ended)
    found = decide(str(Cursor(RUN, "aaaaaa", seq, part)), RUN, tail)
    kept = first - 1 <= seq and seq + (part > 0) <= tail.last
    assert (found.reset is None) == kept
    assert (found.after, found.part) == ((seq, part) if kept else (first - 1, 0))
    assert found.done == (kept and ended and seq == tail.last)
