"""The memory above the file answers only while it is sure, from a gapless end of the log, within its bound."""

from __future__ import annotations

from agentstream.ports import Chunk, Lease, Tail
from agentstream.store._recent import Recent
from agentstream.store._transactions import Taken

_RUN = "a" * 22


def _taken(run: str = _RUN, *, epoch: int = 1, until: float = 10.0, last: int = 1) -> Taken:
    return Taken(Lease(run, "me", epoch, until), "abc123", last)


def _chunk(seq: int, size: int = 100) -> Chunk:
    return Chunk(seq, seq, b"x" * (size - 1) + b"\n")


def test_answers_while_the_lease_lives() -> None:
    """Tail and new chunks come from memory until the lease's last instant; what came before it does not."""
    recent = Recent(10_000)
    assert recent.tail(_RUN, 0.0) is None
    recent.taken(_taken())
    recent.appended(_RUN, 1, _chunk(2))
    assert recent.tail(_RUN, 9.99) == Tail("abc123", 1, 1, 2, False)
    assert recent.read(_RUN, 1, 1_000, 9.99) == [_chunk(2)]
    assert recent.read(_RUN, 2, 1_000, 9.99) == []
    assert recent.read(_RUN, 0, 1_000, 9.99) is None
    assert recent.tail(_RUN, 10.0) is None
    assert recent.read(_RUN, 1, 1_000, 10.0) is None
    recent.renewed(_RUN, 1, 20.0)
    assert recent.read(_RUN, 1, 1_000, 10.0) == [_chunk(2)]


def test_a_lost_lease_is_silent() -> None:
    """A lost, fenced or overtaken lease is never answered for again."""
    for lose in (
        lambda recent: recent.renewed(_RUN, 1, 0.0),
        lambda recent: recent.drop(_RUN),
        lambda recent: recent.drop_older(_RUN, 2),
    ):
        recent = Recent(10_000)
        recent.taken(_taken())
        recent.drop_older(_RUN, 1)
        recent.renewed(_RUN, 7, 0.0)
        assert recent.tail(_RUN, 0.0) is not None
        lose(recent)
        assert recent.tail(_RUN, 0.0) is None
        recent.appended(_RUN, 1, _chunk(2))
        assert recent.tail(_RUN, 0.0) is None


def test_a_new_epoch_keeps_chunks_only_if_nothing_followed() -> None:
    """Chunks stay over a re-take where the log ends as it did, and go where somebody else wrote."""
    recent = Recent(10_000)
    recent.taken(_taken())
    recent.appended(_RUN, 1, _chunk(2))
    recent.taken(_taken(epoch=2, last=2))
    assert recent.read(_RUN, 1, 1_000, 0.0) == [_chunk(2)]
    recent.taken(_taken(epoch=3, last=5))
    assert recent.read(_RUN, 1, 1_000, 0.0) is None
    assert recent.read(_RUN, 5, 1_000, 0.0) == []


def test_other_epochs_and_gaps_are_not_taken_in() -> None:
    """A chunk of another epoch, a repeat, or one that leaves a gap changes nothing."""
    recent = Recent(10_000)
    recent.taken(_taken(epoch=2))
    for epoch, chunk in ((1, _chunk(2)), (2, _chunk(3)), (2, _chunk(1))):
        recent.appended(_RUN, epoch, chunk)
        assert recent.tail(_RUN, 0.0) == Tail("abc123", 2, 1, 1, False)
    assert recent.read(_RUN, 1, 1_000, 0.0) == []


def test_memory_is_bounded() -> None:
    """The runs appended to longest ago lose their chunks first; of one run alone its older half goes."""
    recent = Recent(3_000)
    old, new = "a" * 22, "b" * 22
    recent.taken(_taken(old))
    recent.taken(_taken(new))
    for seq in range(2, 6):
        recent.appended(old, 1, _chunk(seq))
    for seq in range(2, 100):
        recent.appended(new, 1, _chunk(seq))
        assert recent._size <= 3_000
        assert recent._size == sum(held.size for held in recent._held.values())
        assert recent.read(new, seq - 1, 1_000, 0.0) == [_chunk(seq)]
    assert recent.read(old, 4, 1_000, 0.0) is None
    assert recent.read(old, 5, 1_000, 0.0) == []
    recent.drop(new)
    assert recent._size == 0


def test_reads_are_cut() -> None:
    """A read from memory is cut as one from the file: whole chunks, at least one."""
    recent = Recent(10_000)
    recent.taken(_taken())
    for seq in range(2, 7):
        recent.appended(_RUN, 1, _chunk(seq))
    assert [len(recent.read(_RUN, 1, size, 0.0) or ()) for size in (0, 100, 199, 200, 10_000)] == [1, 1, 1, 2, 5]
