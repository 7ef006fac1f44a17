"""The verbs: what each makes of its arguments, made final at the emit, closed whatever happens."""

from __future__ import annotations

import base64
import dataclasses
import enum
from collections.abc import AsyncIterator

import anyio
import msgspec
import pydantic
import pytest

from agentstream import events as ev
from agentstream.bus import INLINE_BYTES, encode_event, encode_value
from agentstream.errors import EmitAfterEnd, InvalidInput, NotSerializable, StoreDown
from agentstream.events import (
    AgentFinished,
    AgentStarted,
    ArtifactCreated,
    Custom,
    RunFinished,
    StepStarted,
    TextDelta,
    TextStarted,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from bus_kit import Rig

pytestmark = pytest.mark.anyio


# --- text -------------------------------------------------------------------------------------------------------------
async def test_say_and_think_are_whole_blocks() -> None:
    """Started, one delta, finished, with an id of the invocation's own."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            await emitter.say("hello")
            await emitter.think("hm")
    assert rig.log.types() == [
        *("text.started", "text.delta", "text.finished"),
        *("thinking.started", "thinking.delta", "thinking.finished"),
    ]
    assert [event.block for event in rig.log.events] == ["a.1.1"] * 3 + ["a.1.2"] * 3  # type: ignore[union-attr]
    rig.log.check()


async def test_long_text_goes_out_in_parts_and_empty_text_not_at_all() -> None:
    """Joined they are the text; each fits its event even where JSON takes six bytes a character."""
    text = "\x01" * 100_000 + "é🙂" * 20_000
    with anyio.fail_after(10):
        async with Rig() as rig:
            async with rig.emitter().text() as block:
                await block.write("")
                await block.write(text)
            assert block.value == text
    deltas = [event.text for event in rig.log.events if isinstance(event, TextDelta)]
    assert "".join(deltas) == text
    assert len(deltas) == 5
    assert max(map(len, rig.log.lines)) <= 256 * 1024


async def test_a_block_takes_an_asynchronous_iterable() -> None:
    """`write_all` writes each text as it comes."""

    async def words() -> AsyncIterator[str]:
        for word in ("one ", "two ", "three"):
            yield word

    with anyio.fail_after(10):
        async with Rig() as rig:
            async with rig.emitter().thinking() as block:
                await block.write_all(words())
            assert block.value == "one two three"
    assert rig.log.types().count("thinking.delta") == 3


async def test_lone_surrogates_become_replacement_characters() -> None:
    """In deltas, names, keys and values; a pair of halves is the character that it means."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            await emitter.say("a\ud800b")
            await emitter.say("\ud83d\ude42")
            await emitter.custom("n\udfff", {"k\ud800": ["\udc00", 1]})
            await emitter.emit(TextDelta("b", "\ud800"))
    texts = [event.text for event in rig.log.events if isinstance(event, TextDelta)]
    assert texts == ["a\ufffdb", "🙂", "\ufffd"]
    custom = next(event for event in rig.log.events if isinstance(event, Custom))
    assert (custom.name, custom.value) == ("n\ufffd", {"k\ufffd": ["\ufffd", 1]})


class _Word(str):
    __slots__ = ()


class _Colour(enum.StrEnum):
    RED = "red"


async def test_only_text_is_text() -> None:
    """Bytes, lists and None are refused, not sent as something else; subclasses of str are what they hold."""
    with anyio.fail_after(10):
        async with Rig() as rig, rig.emitter().text() as block:
            for wrong in (b"bytes", ["a"], None, 5):
                with pytest.raises(NotSerializable, match="text is expected"):
                    await block.write(wrong)  # type: ignore[arg-type]
            await block.write(_Word("w"))
            await block.write(_Colour.RED)
    assert [event.text for event in rig.log.events if isinstance(event, TextDelta)] == ["w", "red"]


async def test_a_block_takes_text_only_while_it_is_open() -> None:
    """Before it is entered and after it is left, writing raises and emits nothing."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            block = rig.emitter().text()
            with pytest.raises(EmitAfterEnd, match="async with"):
                await block.write("early")
            async with block:
                await block.write("in time")
            with pytest.raises(EmitAfterEnd):
                await block.write("late")
    assert rig.log.types() == ["text.started", "text.delta", "text.finished"]


@pytest.mark.promise("P7")
async def test_a_block_is_closed_when_its_body_fails_or_is_cancelled() -> None:
    """Exceptions and cancellations leave no open block, also on a full bus whose log hangs."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            with pytest.raises(ZeroDivisionError):
                async with emitter.text():
                    raise ZeroDivisionError
            rig.log.hang()
            with anyio.move_on_after(0.05) as scope:
                async with emitter.text() as block:
                    await block.write("x")
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
    assert rig.log.types() == ["text.started", "text.finished", "text.started", "text.delta", "text.finished"]
    rig.log.check()


@pytest.mark.promise("P7")
async def test_a_block_whose_opening_was_cancelled_while_parked_is_closed() -> None:
    """The opening had its number, so it counts; its end follows."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            await emitter.progress()
            await anyio.wait_all_tasks_blocked()
            await emitter.progress()
            with anyio.move_on_after(0):
                async with emitter.text():
                    pytest.fail("not reached")
    assert rig.log.types()[2:] == ["text.started", "text.finished"]
    rig.log.check()


@pytest.mark.promise("P7")
async def test_what_never_got_its_number_is_not_closed_either() -> None:
    """A tool call whose start was cancelled in the line for a number never was: nothing closes it."""
    with anyio.fail_after(10):
        async with Rig(capacity=1) as rig:
            emitter = rig.emitter()
            rig.log.hang()
            await emitter.progress()
            await anyio.wait_all_tasks_blocked()
            await emitter.progress()
            for _ in range(8):
                with anyio.move_on_after(0):
                    await emitter.progress()
            with anyio.move_on_after(0):
                await emitter.emit(ToolStarted("c", "search"))
            emitter.close_open()
    assert set(rig.log.types()) == {"agent.progress"}


@pytest.mark.promise("P7")
async def test_the_end_of_an_invocation_closes_everything_newest_first() -> None:
    """Blocks, tools and steps, however they were opened; afterwards the emitter lets nothing through."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            await emitter.text().__aenter__()
            await emitter.emit(ToolStarted("done", "search"))
            await emitter.emit(ToolFinished("done"))
            await emitter.emit(ToolStarted("open", "search"))
            await emitter.emit(StepStarted("step", name="s"))
            await emitter.emit(TextStarted("mine"))
            emitter.finish(AgentFinished())
            assert emitter.finish(AgentFinished()) is None
            with pytest.raises(EmitAfterEnd, match=r"a\.1 has ended"):
                await emitter.progress()
    closing = rig.log.events[-5:]
    assert [event.type for event in closing] == [
        *("text.finished", "step.failed", "tool.failed", "text.finished", "agent.finished")
    ]
    assert closing[2] == ToolFailed(
        "open",
        code="stopped",
        message="the invocation ended before the tool did",
        **{name: getattr(closing[2], name) for name in ("seq", "at", "agent", "inv", "agent_seq")},
    )
    rig.log.check()


# --- values -----------------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class _Row:
    name: str
    n: int


class _Model(pydantic.BaseModel):
    a: int


async def test_values_are_final_at_the_emit() -> None:
    """What the caller does with his list afterwards is not seen by anybody."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            rig.log.hang()
            value = {"rows": [1, 2]}
            await emitter.custom("v", value)
            await emitter.state.set("/v", value)
            value["rows"].append(3)
            assert emitter.state.get("/v/rows") == [1, 2]
    assert b"[1,2]" in rig.log.lines[0]
    assert b"[1,2]" in rig.log.lines[1]


async def test_what_json_can_hold_through_the_usual_classes() -> None:
    """Dataclasses, pydantic models and tuples travel; NaN is null, as JSON has none."""
    value = {"row": _Row("x", 1), "model": _Model(a=2), "pair": (1, 2), "nan": float("nan"), "bytes": b"ab"}
    with anyio.fail_after(10):
        async with Rig() as rig:
            await rig.emitter().custom("v", value)
    event = rig.log.events[0]
    assert isinstance(event, Custom)
    assert event.value == {
        "row": {"name": "x", "n": 1}, "model": {"a": 2}, "pair": [1, 2], "nan": None, "bytes": "YWI=",
    }  # fmt: skip


def _loop() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [object(), {(1, 2): 3}, {"a": {1j}}, lambda: 1, _loop(), ["\ud800", object()], ["\ud800", _loop()]],
    ids=["object", "tuple key", "complex", "function", "itself", "surrogate and object", "surrogate and itself"],
)
async def test_what_json_cannot_hold_is_refused_at_the_emitter(value: object) -> None:
    """`NotSerializable` where it was emitted; nothing is numbered and nobody else is harmed."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            with pytest.raises(NotSerializable):
                await emitter.custom("v", value)
            with pytest.raises(NotSerializable):
                await emitter.record(ToolFinished("c"), value)
            with pytest.raises(NotSerializable):
                await emitter.state.set("/v", value)
            assert emitter.state.value == {}
            await emitter.progress()
    assert [event.agent_seq for event in rig.log.events] == [1]


_PUBLIC = [
    cls
    for cls in ev.EVENT_TYPES
    if not str(cls.__struct_config__.tag).startswith(
        ("run.", "agent.started", "agent.finished", "agent.failed", "attempt.", "budget.", "input.")
    )
]


def _required(cls: type[ev.Event]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(cls) if field.required]


@pytest.mark.parametrize("cls", [cls for cls in ev.EVENT_TYPES if cls not in _PUBLIC], ids=lambda cls: cls.__name__)
async def test_the_runtimes_own_types_are_refused(cls: type[ev.Event]) -> None:
    """The order of a run's life is not the user's to write; the message says what to use."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            with pytest.raises(InvalidInput, match="custom"):
                await rig.emitter().emit(cls(**dict.fromkeys(_required(cls), "x")))
    assert rig.log.chunks == []


async def test_the_envelope_is_filled_in_here() -> None:
    """What somebody wrote into it is not believed."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            await rig.emitter().emit(Custom("n", seq=99, at=5, agent="boss", inv="boss.1", agent_seq=7, first_seq=3))
    event = rig.log.events[0]
    assert (event.seq, event.agent, event.inv, event.agent_seq, event.first_seq) == (1, "a", "a.1", 1, 0)


def test_an_encoded_event_begins_with_its_type() -> None:
    """The bus cuts there: whatever the payload, values that are encoded already included."""
    for event in (Custom("\ud800", value={"a": "\ud800"}), RunFinished(), AgentStarted(role="\ud800", task=[1])):
        encoded = encode_event(event)
        assert encoded.startswith(b'{"type":"%b"' % event.type.encode())
    assert encode_value("\ud800") == '"\ufffd"'.encode()


# --- artifacts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "data", "mime", "seen", "inside"),
    [
        ("t.csv", "a,b\n1,2\n", None, "text/csv", "a,b\n1,2\n"),
        ("p.png", b"\x89PNG", None, "image/png", base64.b64encode(b"\x89PNG").decode()),
        ("x", {"a": [1]}, None, "application/json", '{"a":[1]}'),
        ("x", "plain", None, "text/plain", "plain"),
        ("x", b"\xff\xfe", "text/plain", "text/plain", base64.b64encode(b"\xff\xfe").decode()),
        ("code.py", "print()", None, "text/x-python", "print()"),
        ("x.bin", b"x" * (INLINE_BYTES + 1), None, "application/octet-stream", None),
        ("x.txt", "\x01" * INLINE_BYTES, None, "text/plain", None),
        ("x.txt", "\ud800", None, "text/plain", "\ufffd"),
    ],
)
async def test_artifacts_are_kept_and_small_ones_travel_inside(
    name: str, data: object, mime: str | None, seen: str, inside: str | None
) -> None:
    """Type by name and data; text as it is, bytes as base64, and above the bound (as JSON, too) the address alone."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            key = await rig.emitter().artifact(name, data, mime=mime)
    event = rig.log.events[0]
    assert isinstance(event, ArtifactCreated)
    assert (event.id, event.mime, event.name, event.data, event.uri) == (key, seen, name, inside, f"/artifacts/{key}")
    assert event.size == len(rig.kept[key])


# --- records ----------------------------------------------------------------------------------------------------------
async def test_a_record_travels_beside_its_line() -> None:
    """Readers get the event, recovery the value; a large value is an artifact."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            await emitter.record(ToolFinished("c"), {"r": 1})
            await emitter.record(ToolFinished("d"), "x" * 200_000)
            await emitter.flush()
    assert b"private" not in rig.log.lines[0]
    beside = b"".join(chunk.private for chunk in rig.log.chunks)
    assert b'"value":{"r":1}' in beside
    assert len(beside) < 1000
    assert [len(data) for data in rig.kept.values()] == [200_002]


async def test_an_emitter_of_a_failed_bus_says_why() -> None:
    """The error that waits get is the log's own."""
    with anyio.fail_after(10):
        async with Rig() as rig:
            emitter = rig.emitter()
            rig.log.error = StoreDown("no disk")
            await emitter.progress()
            with pytest.raises(StoreDown, match="no disk"):
                await emitter.flush()
