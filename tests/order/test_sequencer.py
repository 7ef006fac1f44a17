"""The sequencer: numbers without a gap, chunks within their bound, and the exact bytes of a line."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.order import MAX_CHUNK_BYTES, Extra, Item, Lane, Sequencer, line_form
from agentstream.wire import decode_event

LANE = Lane("executor.1")
TEXT = line_form("text.delta", "executor", "executor.1")


def delta(n: int, size: int = 1, extra: Extra | None = None) -> Item:
    """A delta of `size` letters."""
    return LANE, n, TEXT, b',"block":"b","text":"%b"}' % (b"x" * size), extra


def test_the_bytes_of_a_line() -> None:
    """Keys in their order, the envelope first, one LF at the end."""
    (chunk,) = Sequencer(11).stamp([delta(5)], 1789)
    assert chunk.lines == (
        b'{"seq":12,"at":1789,"type":"text.delta","agent":"executor","inv":"executor.1","agent_seq":5,'
        b'"block":"b","text":"x"}\n'
    )
    assert (chunk.first, chunk.last, chunk.private, chunk.ends) == (12, 12, b"", "")


def test_a_run_level_line_has_no_agent() -> None:
    """Neither name, invocation nor number of one."""
    bare = (Lane(""), 1, line_form("run.finished"), b',"output":1}', Extra(bare=True, ends="finished"))
    (chunk,) = Sequencer().stamp([bare], 7)
    assert chunk.lines == b'{"seq":1,"at":7,"type":"run.finished","output":1}\n'
    assert chunk.ends == "finished"


def test_an_event_without_payload_ends_behind_its_number() -> None:
    """`rest` may be nothing but the closing brace."""
    (chunk,) = Sequencer().stamp([(LANE, 1, line_form("agent.finished", "a", "a.1"), b"}", None)], 7)
    assert msgspec.json.decode(chunk.lines) == {
        "seq": 1, "at": 7, "type": "agent.finished", "agent": "a", "inv": "a.1", "agent_seq": 1,
    }  # fmt: skip


def test_a_payload_may_hold_percent_signs_and_braces() -> None:
    """What stands in a payload is never taken for a place to fill in."""
    text = b',"block":"b","text":"100 %d %b {} %%"}'
    (chunk,) = Sequencer().stamp([(LANE, 1, TEXT, text, None)], 7)
    assert decode_event(chunk.lines).text == "100 %d %b {} %%"  # type: ignore[union-attr]


def test_nothing_makes_no_chunk() -> None:
    """An empty drain appends nothing and uses up no number."""
    sequencer = Sequencer(3)
    assert sequencer.stamp([], 1) == []
    assert sequencer.last == 3


def test_what_travels_beside_stands_under_its_seq() -> None:
    """Epoch, causes and the recorded value of exactly those lines that have them."""
    items = [
        delta(1),
        delta(2, extra=Extra(private=b'{"r":1}', epoch=4, after={"planner.1": 9})),
        delta(3, extra=Extra(bare=False)),
        delta(4, extra=Extra(private=b"null")),
    ]
    (chunk,) = Sequencer(20).stamp(items, 7)
    assert msgspec.json.decode(chunk.private) == {
        "22": {"epoch": 4, "after": {"planner.1": 9}, "value": {"r": 1}},
        "24": {"value": None},
    }


def test_beside_goes_with_its_chunk() -> None:
    """Where a drain is cut, each chunk has what belongs to its own lines, and only the last one ends the run."""
    items = [delta(n, 300, Extra(private=b"%d" % n)) for n in range(1, 5)]
    items.append((Lane(""), 1, line_form("run.finished"), b"}", Extra(bare=True, ends="finished")))
    chunks = Sequencer(max_bytes=500).stamp(items, 7)
    assert [msgspec.json.decode(chunk.private) for chunk in chunks[:4]] == [{str(n): {"value": n}} for n in range(1, 5)]
    assert [chunk.ends for chunk in chunks] == ["", "", "", "finished"]


@given(
    drains=st.lists(st.lists(st.tuples(st.integers(0, 700), st.booleans()), max_size=12), max_size=6),
    last=st.integers(0, 10**6),
)
@pytest.mark.promise("P2")
def test_numbers_have_no_gap_and_chunks_a_bound(drains: list[list[tuple[int, bool]]], last: int) -> None:
    """Seq goes on by one, a chunk is within its bytes unless it holds a single line, none is empty, and all lines
    together are what was handed in."""
    sequencer = Sequencer(last, max_bytes=1000)
    expected, n = last, 0
    for sizes in drains:
        items = []
        for size, private in sizes:
            n += 1
            items.append(delta(n, size, Extra(private=b"1") if private else None))
        seen = []
        for chunk in sequencer.stamp(items, 1):
            lines = chunk.lines.splitlines(keepends=True)
            assert chunk.first == expected + 1
            assert chunk.last - chunk.first + 1 == len(lines) >= 1
            assert len(chunk.lines) <= 1000 or len(lines) == 1
            for line in lines:
                event = decode_event(line)
                expected += 1
                assert event.seq == expected
                seen.append(event.agent_seq)
        assert seen == [one[1] for one in items]
        assert sequencer.last == expected


def test_the_largest_events_are_cut_at_half_a_mebibyte() -> None:
    """Five events of 200 KiB make chunks of two, two and one."""
    chunks = Sequencer().stamp([delta(n, 200 * 1024) for n in range(1, 6)], 1)
    assert [chunk.last - chunk.first + 1 for chunk in chunks] == [2, 2, 1]
    assert all(len(chunk.lines) <= MAX_CHUNK_BYTES for chunk in chunks)


def test_one_event_above_the_bound_has_a_chunk_of_its_own() -> None:
    """One event always fits."""
    chunks = Sequencer(max_bytes=100).stamp([delta(1), delta(2, 500), delta(3)], 1)
    assert [(chunk.first, chunk.last) for chunk in chunks] == [(1, 1), (2, 2), (3, 3)]


def test_quiet_chunks_say_so() -> None:
    """A drain of nothing but deltas is marked, in every chunk that it makes; another one is not."""
    sequencer = Sequencer(max_bytes=200)
    assert all(chunk.quiet for chunk in sequencer.stamp([delta(n, 100) for n in range(1, 4)], 1, quiet=True))
    assert not any(chunk.quiet for chunk in sequencer.stamp([delta(4)], 1))
