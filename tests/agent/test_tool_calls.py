"""Calls of tools: what is emitted in which order, what is recorded, and what a failure becomes.

Comes in: tools that answer, fail, hang, block and return too much. Goes out: a failure where events, records, limits or
the words for a model are not as said.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import anyio
import anyio.to_thread
import pydantic
import pytest

from agentstream.agent import tool_calls
from agentstream.agent.keys import KeyScope, code_version
from agentstream.agent.tool_calls import MAX_MODEL_CHARS, call_named, call_tool
from agentstream.agent.tools import current_tool, tool
from agentstream.errors import EmitAfterEnd, InvalidInput, LLMServerError, NotSerializable, ToolError, ToolTimeout
from agentstream.events import ToolCalled, ToolFailed, ToolFinished, ToolOutput, ToolProgress, ToolStarted
from agentstream.llm import Message, ToolCall
from recording_host import RecordingHost

pytestmark = pytest.mark.anyio

SECRET = "canary: /home/someone/key"


@pytest.fixture
def host() -> RecordingHost:
    """An invocation that writes everything down."""
    return RecordingHost()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(tool_calls, "backoff", lambda failures, random: 0.0)


class Place(pydantic.BaseModel):
    """A place."""

    name: str


@tool
def where(name: str, times: int = 1) -> list[Place]:
    """Find a place."""
    return [Place(name=name)] * times


async def test_a_call_from_start_to_end(host: RecordingHost) -> None:
    """Opened, called with key and version, accepted before the function runs, finished with its result on record."""
    accepted: list[int] = []

    @tool
    async def look(place: Place, times: int = 2) -> list[Place]:
        """Look."""
        accepted.append(host.accepted)
        return [place] * times

    result = await call_tool(host, look, (Place(name="Alp"),), {})
    assert result == [Place(name="Alp")] * 2
    arguments = {"place": {"name": "Alp"}, "times": 2}
    key = KeyScope("root").next("tool:look", arguments)
    assert host.events == [
        ToolStarted("a.1.1", name="look"),
        ToolCalled("a.1.1", arguments=arguments, key=key, version=code_version(look.fn)),
        ToolFinished("a.1.1", result=[{"name": "Alp"}] * 2),
    ]
    assert accepted == [2]
    assert host.accepted == 3
    assert host.recorded == {2: {"result": [{"name": "Alp"}] * 2}}


async def test_what_a_tool_calls_belongs_to_its_key(host: RecordingHost) -> None:
    """Keys inside a call are made from the call's own, in threads too."""

    @tool
    def inner() -> str:
        """Say whose it is."""
        return host.keys.current.key

    @tool
    async def outer() -> str:
        """Call another."""
        return await call_tool(host, inner, (), {})

    inside = await call_tool(host, outer, (), {})
    outer_key, inner_key = (event.key for event in host.of(ToolCalled))
    assert inside == inner_key
    assert inner_key == KeyScope(outer_key).next("tool:inner", {})


async def test_plain_functions_run_in_threads_and_report(host: RecordingHost) -> None:
    """A blocking function runs beside the loop, and its reports arrive in order before the end."""
    loop_thread = threading.get_ident()

    @tool
    def work(n: int) -> int:
        """Work."""
        here = current_tool().blocking()
        for number in range(n):
            here.progress(done=number, total=n)
        here.output("stdout", "done")
        here.artifact("a.txt", "text")
        return threading.get_ident()

    assert await call_tool(host, work, (3,), {}) != loop_thread
    types = [event.type for event in host.events]
    assert types[2:] == ["tool.progress"] * 3 + ["tool.output", "artifact.created", "tool.finished"]
    assert [event.done for event in host.of(ToolProgress)] == [0, 1, 2]
    assert host.of(ToolOutput)[0].call == "a.1.1"


async def test_arguments_that_are_wrong(host: RecordingHost) -> None:
    """A wrong call from Python is told at once, and nothing was emitted."""
    with pytest.raises(InvalidInput, match="tool where: missing a required argument: 'name'"):
        await call_tool(host, where, (), {})
    with pytest.raises(NotSerializable):
        await call_tool(host, where, (object(),), {})
    assert host.events == []


# --- failures ---------------------------------------------------------------------------------------------------------
async def test_what_an_exception_says_is_not_shown(host: RecordingHost, caplog: pytest.LogCaptureFixture) -> None:
    """Readers, callers and models see the class of a stranger's exception; the process's log has the cause."""

    @tool
    def fails() -> None:
        """Fail."""
        raise ValueError(SECRET)

    caplog.set_level(logging.ERROR)
    with pytest.raises(ToolError) as caught:
        await call_tool(host, fails, (), {})
    message = await call_named(host, [fails], ToolCall("x", "fails"))
    assert message == Message("tool", "error: the tool fails failed (ValueError)", tool_call_id="x", name="fails")
    assert str(caught.value) == "the tool fails failed (ValueError)"
    assert isinstance(caught.value.__cause__, ValueError)
    assert all(SECRET not in repr(event) for event in host.events)
    assert host.of(ToolFailed)[0] == ToolFailed(
        "a.1.1", code="tool_error", message="the tool fails failed (ValueError)"
    )
    assert SECRET in str(caplog.records[0].exc_info)
    host.assert_closed()


async def test_a_tool_error_speaks_for_itself(host: RecordingHost) -> None:
    """What a tool wants to say reaches the model, the caller and the readers; it is not tried again."""
    calls: list[int] = []

    @tool(retries=3)
    async def picky(x: int) -> None:
        """Refuse."""
        calls.append(x)
        raise ToolError("no such row; try 1 to 9")

    message = await call_named(host, [picky], ToolCall("x", "picky", '{"x": 12}'))
    assert message.content == "error: no such row; try 1 to 9"
    assert host.of(ToolFailed)[0].message == "no such row; try 1 to 9"
    assert calls == [12]


async def test_errors_of_the_library_keep_their_code(host: RecordingHost) -> None:
    """A tool that asks a model and gets no answer fails with that error's code."""

    @tool
    async def ask() -> None:
        """Ask."""
        raise LLMServerError("the provider failed")

    with pytest.raises(ToolError) as caught:
        await call_tool(host, ask, (), {})
    assert host.of(ToolFailed)[0].code == "llm_server"
    assert caught.value.details == {"code": "llm_server"}


async def test_results_without_json_are_an_error_now(host: RecordingHost) -> None:
    """A result that cannot be recorded fails the call, not a recovery some day."""

    @tool
    async def odd() -> object:
        """Return something odd."""
        return object()

    with pytest.raises(ToolError, match="no JSON form"):
        await call_tool(host, odd, (), {})
    assert host.of(ToolFailed)[0].code == "not_serializable"
    assert host.recorded == {}


async def test_timeouts_of_both_kinds(host: RecordingHost) -> None:
    """A hanging coroutine is cancelled; a hanging thread is left behind, and may not report any more."""
    release, late = threading.Event(), threading.Event()
    errors: list[Exception] = []

    @tool(timeout=0.05)
    async def hangs() -> None:
        """Hang."""
        await anyio.sleep_forever()

    @tool(timeout=0.05)
    def blocks() -> None:
        """Block."""
        release.wait(10)
        try:
            current_tool().blocking().progress("late")
        except EmitAfterEnd as error:
            errors.append(error)
        late.set()

    for one in (hangs, blocks):
        with anyio.fail_after(5), pytest.raises(ToolTimeout, match=r"did not end within 0\.05 s") as caught:
            await call_tool(host, one, (), {})
        assert isinstance(caught.value, TimeoutError)
    seen = len(host.events)
    release.set()
    assert await anyio.to_thread.run_sync(late.wait, 5)
    assert len(errors) == 1
    assert len(host.events) == seen
    assert [event.code for event in host.of(ToolFailed)] == ["tool_timeout"] * 2


async def test_threads_left_behind_are_counted(host: RecordingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that does not end keeps its place: the number of threads has a bound even so."""
    monkeypatch.setattr(tool_calls, "_THREADS", 2)
    monkeypatch.setattr(tool_calls, "_threads", anyio.lowlevel.RunVar("test_threads"))
    release = threading.Event()

    @tool(timeout=0.05)
    def blocks() -> bool:
        """Block."""
        return release.wait(10)

    for _ in range(2):
        with pytest.raises(ToolTimeout):
            await call_tool(host, blocks, (), {})
    limiter: anyio.CapacityLimiter = tool_calls._threads.get()
    assert limiter.borrowed_tokens == 2
    with pytest.raises(ToolTimeout):
        await call_tool(host, blocks, (), {})
    assert limiter.borrowed_tokens == 2
    release.set()
    with anyio.fail_after(5):
        while limiter.borrowed_tokens:
            await anyio.lowlevel.checkpoint()
        assert await call_tool(host, blocks, (), {}) is True


async def test_tries_are_visible_before_they_act(host: RecordingHost) -> None:
    """A tool with retries is called again after an exception; each further try was accepted before it began."""
    accepted: list[tuple[int, int]] = []

    @tool(retries=2)
    async def flaky() -> str:
        """Fail twice."""
        accepted.append((current_tool().attempt, host.accepted))
        if len(accepted) < 3:
            raise ConnectionError(SECRET)
        return "ok"

    assert await call_tool(host, flaky, (), {}) == "ok"
    assert accepted == [(1, 2), (2, 3), (3, 4)]
    assert [event.message for event in host.of(ToolProgress)] == ["try 2 of 3", "try 3 of 3"]
    host.assert_closed()


async def test_a_stopped_call_is_closed(host: RecordingHost) -> None:
    """Who stops waiting for a tool leaves no open call behind."""
    begun = anyio.Event()

    @tool
    async def hangs() -> None:
        """Hang."""
        begun.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(call_tool, host, hangs, (), {})
        await begun.wait()
        group.cancel_scope.cancel()
    assert host.of(ToolFailed)[0].code == "stopped"
    host.assert_closed()


async def test_the_end_of_the_run_is_not_the_tool_s_failure(host: RecordingHost) -> None:
    """When the log takes nothing more, that error passes as it is."""

    @tool
    async def late() -> None:
        """Report too late."""
        raise EmitAfterEnd("the run has ended")

    with pytest.raises(EmitAfterEnd):
        await call_named(host, [late], ToolCall("x", "late"))
    assert host.of(ToolFailed) == []


# --- what a model asks for --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (ToolCall("x", "nowhere", "{}"), "unknown_tool", "there is no tool of that name; there are: where"),
        (ToolCall("x", "where", "{"), "invalid_arguments", "Invalid JSON"),
        (ToolCall("x", "where", "{}"), "invalid_arguments", "name: Field required"),
        (ToolCall("x", "where", '{"name": "A", "times": "many"}'), "invalid_arguments", "times: Input should be"),
    ],
)
async def test_mistakes_of_a_model_are_told_to_it(
    host: RecordingHost, request_: ToolCall, code: str, words: str
) -> None:
    """A call that cannot be made is closed, and the model learns what to mend."""
    message = await call_named(host, [where], request_)
    assert message.role == "tool"
    assert message.tool_call_id == "x"
    assert message.content.startswith("error: ")
    assert words in message.content
    assert host.of(ToolFailed)[0].code == code
    assert host.of(ToolCalled) == []
    host.assert_closed()


async def test_a_call_that_was_opened_before(host: RecordingHost) -> None:
    """Where the arguments were streamed, the call is open already and goes on under its id."""
    message = await call_named(host, [where], ToolCall("x", "where", '{"name": "A"}'), call="a.1.77")
    assert host.of(ToolStarted) == []
    assert host.of(ToolFinished)[0].call == "a.1.77"
    assert json.loads(message.content) == [{"name": "A"}]


async def test_text_is_not_quoted_for_a_model(host: RecordingHost) -> None:
    """A tool that returns text says just that."""

    @tool
    def hello() -> str:
        """Greet."""
        return 'say "hi"'

    assert (await call_named(host, [hello], ToolCall("x", "hello", ""))).content == 'say "hi"'


async def test_large_results(host: RecordingHost) -> None:
    """A result that would fill the stream is kept whole as an artifact, shown by its beginning, cut for the model."""

    @tool
    def much(text: str) -> str:
        """Return much."""
        return text * 100

    long = "abc" * 30_000
    message = await call_named(host, [much], ToolCall("x", "much", json.dumps({"text": long})))
    called, finished = host.of(ToolCalled)[0], host.of(ToolFinished)[0]
    assert called.arguments["bytes"] > 90_000
    assert finished.result["artifact"] == "art-1"
    assert finished.result["beginning"].startswith('"abcabc')
    kept: Any = host.artifacts["art-1"]
    assert json.loads(kept) == long * 100
    assert list(host.recorded.values()) == [{"artifact": "art-1"}]
    assert message.content.endswith(f"[cut: these are {MAX_MODEL_CHARS} of {len(long) * 100} characters]")
    assert len(message.content) < MAX_MODEL_CHARS + 100
