"""Neighbouring deltas of one block as one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.stream import coalesce
from agentstream.stream.coalesce import MAX_TEXT_BYTES
from agentstream.wire import decode_event
from stream.logs import Script

Row = tuple[int, bytes]


def rows_of(script: Script, first: int = 1) -> list[Row]:
    """Numbered lines."""
    return list(enumerate(script.lines, first))


def kind_of(event: dict[str, Any]) -> tuple[object, ...] | None:
    """What must be equal for two deltas to become one; None for other events."""
    if event["type"] in ("text.delta", "thinking.delta", "tool.delta", "tool.output"):
        return (event["type"], event["inv"], event.get("block"), event.get("call"), event.get("channel"))
    return None


def plainly(rows: list[Row]) -> list[Row]:
    """The same by decoding and encoding, as a second opinion (without the bound of size)."""
    found: list[tuple[int, dict[str, Any]]] = []
    for seq, line in rows:
        event = json.loads(line)
        if found and kind_of(event) is not None and kind_of(found[-1][1]) == kind_of(event):
            before_seq, before = found[-1]
            first = before.get("first_seq", before_seq)
            found[-1] = (seq, event | {"first_seq": first, "text": before["text"] + event["text"]})
        else:
            found.append((seq, event))
    return [(seq, json.dumps(event, sort_keys=True).encode()) for seq, event in found]


texts = st.text(alphabet=st.sampled_from('ab"\\\n\r\u2028é🙂,{}:'), max_size=6)
steps = st.lists(
    st.tuples(
        st.sampled_from(["text.delta", "thinking.delta", "tool.delta", "tool.output", "text.finished", "custom"]),
        st.sampled_from(["a.1", "a.2", "b.1"]),
        st.sampled_from(["1", "2"]),
        texts,
    ),
    max_size=40,
)


def script_of(found: list[tuple[str, str, str, str]], before: int = 0) -> Script:
    """A script out of generated steps."""
    script = Script()
    for _ in range(before):
        script.add("custom", "z.1", name="n")
    for kind, inv, which, text in found:
        id_ = f"{inv}.{which}"
        if kind in ("text.delta", "thinking.delta"):
            script.add(kind, inv, block=id_, text=text)
        elif kind == "tool.delta":
            script.add(kind, inv, call=id_, text=text)
        elif kind == "tool.output":
            script.add(kind, inv, call=id_, channel="stdout" if which == "1" else 'o"', text=text)
        elif kind == "custom":
            script.add(kind, inv, name="n", value={"text": text})
        else:
            script.add(kind, inv, block=id_)
    return script


@pytest.mark.promise("W-coalesce")
@given(steps, st.sampled_from([0, 5, 95]))
def test_says_the_same(found: list[tuple[str, str, str, str]], before: int) -> None:
    """Texts, ids, order and every other field come out as decoding, joining and encoding would give them."""
    rows = rows_of(script_of(found, before))
    joined = coalesce(rows)
    assert [(seq, json.dumps(json.loads(line), sort_keys=True).encode()) for seq, line in joined] == plainly(rows)
    # A second time nothing is left to join that was not joined: the numbers are the same.
    assert [seq for seq, _ in joined] == sorted({seq for seq, _ in joined})


@given(steps, st.data())
def test_cut_anywhere_gives_the_same_text(found: list[tuple[str, str, str, str]], data: st.DataObject) -> None:
    """A reader that is cut and resumes behind a joined line has the text of each block, none missing, none twice."""
    rows = rows_of(script_of(found))
    whole: dict[str, str] = {}
    for _, line in rows:
        event = json.loads(line)
        if kind_of(event):
            key = repr(kind_of(event))
            whole[key] = whole.get(key, "") + event["text"]
    got: dict[str, str] = {}
    after = 0
    while after < len(rows):
        end = data.draw(st.integers(after + 1, len(rows)))
        sent = coalesce(rows[after:end])
        taken = sent[: data.draw(st.integers(1, len(sent)))]
        for _, line in taken:
            event = json.loads(line)
            if kind_of(event):
                key = repr(kind_of(event))
                got[key] = got.get(key, "") + event["text"]
        after = taken[-1][0]
    assert got == whole


def test_numbers_of_the_joined_line() -> None:
    """The joined line has the last's seq, agent_seq and at, and the first's seq as first_seq."""
    rows = rows_of(Script().add("custom", "a.1", name="n").text("a.1", "x", "y", "z"))
    ((_, _), (seq, line)) = coalesce(rows)
    event = decode_event(line)
    assert (seq, event.seq, event.first_seq, event.agent_seq) == (4, 4, 2, 4)
    assert event.at == decode_event(rows[-1][1]).at
    assert json.loads(line)["text"] == "xyz"


def test_one_delta_stays_as_it_is() -> None:
    """A delta without a neighbour is the very same line."""
    rows = rows_of(Script().text("a.1", "x").add("custom", "a.1", name="n").text("a.1", "y"))
    assert coalesce(rows) == rows


def test_hidden_events_make_neighbours() -> None:
    """Deltas between which the reader is sent nothing are joined, whatever the log holds there."""
    rows = rows_of(Script().text("a.1", "x").add("custom", "b.1", name="n").text("a.1", "y"))
    ((seq, line),) = coalesce([rows[0], rows[2]])
    assert (seq, json.loads(line)["first_seq"], json.loads(line)["text"]) == (3, 1, "xy")


@pytest.mark.promise("W-unknown-types")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param((b'"text":"y"', b'"text":"y","mood":"up"'), id="field-behind"),
        pytest.param((b'"text":"y"', b'"text":"y","mood":1'), id="number-behind"),
        pytest.param((b'"agent_seq":2', b'"agent_seq":2,"mood":"up"'), id="field-between"),
        pytest.param((b'"agent_seq":2', b'"agent_seq":2,"m":1'), id="short-field-between"),
        pytest.param((b"text.delta", b"song.delta"), id="unknown-type"),
    ],
)
def test_a_field_of_its_own_is_not_lost(change: tuple[bytes, bytes]) -> None:
    """A delta that says more than the bus would is passed on as it is."""
    lines = Script().text("a.1", "x", "y", "z").lines
    lines[1] = lines[1].replace(*change)
    joined = coalesce(list(enumerate(lines, 1)))
    assert (2, lines[1]) in joined


def test_a_field_where_a_long_number_stood() -> None:
    """A field of its own that takes the very place of a long number is seen as well."""
    lines = Script().text("a.1", "x", "y").lines
    lines[0] = lines[0].replace(b'"agent_seq":1', b'"agent_seq":12345678')
    lines[1] = lines[1].replace(b'"agent_seq":2', b'"agent_seq":1,"m":12')
    rows = list(enumerate(lines, 1))
    assert coalesce(rows) == rows
    assert len(lines[0]) == len(lines[1])


@pytest.mark.promise("P9")
def test_a_joined_line_has_a_bound() -> None:
    """However much is there, no line holds more than 128 KiB of text, and nothing is lost."""
    rows = rows_of(Script().text("a.1", *["x" * 30_000] * 20))
    joined = coalesce(rows)
    assert max(len(json.loads(line)["text"]) for _, line in joined) <= MAX_TEXT_BYTES
    assert sum(len(json.loads(line)["text"]) for _, line in joined) == 600_000
    assert len(joined) == 5
