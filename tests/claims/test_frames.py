"""Shows that the counts behind `order.identical` and `resume.every-byte` see each kind of defect, and no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import anyio
import pytest

from claims._frames import lost_and_doubled, read_frames, split_frames, wrong_numbers
from claims.order import Heard, listen

Frames = list[bytes]


@cache
def _heard() -> Heard:
    """A small run that is right."""
    return anyio.run(lambda: listen("memory:", 7, agents=3, events=60))


def _frames() -> Frames:
    return split_frames(_heard().bodies[0])


def _body(frames: Frames) -> bytes:
    return b"".join(frame + b"\n\n" for frame in frames)


def _drop(frames: Frames) -> Frames:
    return frames[:40] + frames[41:]


def _double(frames: Frames) -> Frames:
    return frames[:41] + frames[40:]


def _swap(frames: Frames) -> Frames:
    return [*frames[:40], frames[41], frames[40], *frames[42:]]


def _change(frames: Frames) -> Frames:
    return [*frames[:40], frames[40].replace(b'"type":"', b'"type":"x.'), *frames[41:]]


def _cut(frames: Frames) -> Frames:
    return [*frames[:-1], frames[-1][:-1]]


_DEFECTS = [_drop, _double, _swap, _change, _cut]


def test_a_right_run_has_no_difference() -> None:
    """Nothing is counted where nothing is wrong, and everything was compared."""
    wrong, events, turns = _heard().check()
    assert (wrong, events) == (0, 3 * 60 + 3 * 2 + 4)
    assert turns > 10


@pytest.mark.parametrize("defect", _DEFECTS)
@pytest.mark.parametrize("reader", [0, 1, 2])
def test_a_defect_of_one_reader_is_counted(defect: Callable[[Frames], Frames], reader: int) -> None:
    """An event that one reader lost, got twice, early, changed or cut off is a difference."""
    heard = _heard()
    bodies = list(heard.bodies)
    bodies[reader] = _body(defect(split_frames(bodies[reader])))
    assert Heard((bodies[0], bodies[1], bodies[2]), heard.notes, heard.live).check()[0] > 0


@pytest.mark.parametrize("defect", _DEFECTS)
def test_a_defect_that_all_readers_share_is_counted(defect: Callable[[Frames], Frames]) -> None:
    """The agents' notes and the numbers show what three equal readers cannot."""
    heard = _heard()
    body = _body(defect(_frames()))
    assert Heard((body, body, body), heard.notes, heard.live).check()[0] > 0


def test_a_loss_with_new_numbers_is_counted() -> None:
    """An event that was lost before it got a number leaves no gap; only its agent knows of it."""
    heard = _heard()
    inv, notes = next(iter(heard.notes.items()))
    more = {**heard.notes, inv: [*notes[:5], ("custom", {"name": "lost"}), *notes[5:]]}
    assert Heard(heard.bodies, more, heard.live).check()[0] > 0


def test_comments_are_left_out() -> None:
    """Heartbeats and the preamble are no part of what is compared."""
    body = _heard().bodies[0]
    assert body.startswith(b"retry:")
    beaten = body.replace(b"\n\nid: ", b"\n\n: hb\nid: ")
    assert beaten != body
    assert split_frames(beaten) == split_frames(body)


def test_numbers_of_a_right_run() -> None:
    """Every frame has the form that the wire promises, and every number its place."""
    frames, ill_formed = read_frames(_frames())
    assert (wrong_numbers(frames), ill_formed, len(frames)) == (0, 0, len(_frames()))


@pytest.mark.parametrize(
    ("defect", "lost", "doubled"), [(_drop, 1, 0), (_double, 0, 1), (_swap, 0, 2), (_change, 1, 1), (_cut, 1, 1)]
)
def test_lost_and_doubled(defect: Callable[[Frames], Frames], lost: int, doubled: int) -> None:
    """What is missing and what is too much are counted apart; a wrong order counts as well."""
    assert lost_and_doubled(_frames(), _frames()) == (0, 0)
    assert lost_and_doubled(_frames(), defect(_frames())) == (lost, doubled)
