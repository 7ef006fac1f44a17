"""One run of an agent against a provider that fails as a script says, looked at from all sides.

Comes in: a provider's name and answers with faults. Goes out: what came of it; or an assertion, where the outcome is
not one whole answer or one typed error, where tries were mixed, or where a key or prompt is found in what anybody sees.
It deliberately does not know how scripts are drawn.
"""

from __future__ import annotations

import logging
import random
import ssl
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple
from unittest import mock

import anyio
import httpx

from agentstream.agent import Context, as_agent, generation
from agentstream.errors import LLMError, RunFailedError
from agentstream.events import LLMTryFailed, TextDelta, ThinkingDelta
from agentstream.llm import LLMRequest, Message, TextPart, ThinkingPart, ToolCall, ToolCallPart
from agentstream.llm.http import HttpLLM, Timeouts
from agentstream.llm.providers import PROVIDERS
from agentstream.testing import FakeAnswer, FakeProvider, Fault, record
from agentstream.wire import encode_event

KEY: Final = "sk-canary-7f3a91"
PROMPT: Final = "canary-prompt-5d1e: what is the sum?"
NAMES: Final = tuple(PROVIDERS)

_SECRETS: Final = (KEY, "canary-7f3a91", "canary-prompt-5d1e")
_LIMITS: Final = Timeouts(first_token=0.15, between_tokens=0.15)
_WAITS: Final = ("", "0", "0.01", "120", "Thu, 01 Jan 1970 00:00:10 GMT", "soon", "-1")
_CODES: Final = ("", "insufficient_quota", "rate_limit_exceeded", "context_length_exceeded", "overloaded_error")


class Played(NamedTuple):
    """What came of a script: the error's code, empty for a whole answer; and how many requests it took."""

    code: str
    requests: int


def draw(rng: random.Random) -> list[FakeAnswer]:
    """A script of one to four answers, most of them with a fault."""
    return [answer(number, rng) for number in range(rng.randint(1, 4))]


def answer(number: int, rng: random.Random) -> FakeAnswer:
    """An answer that cannot be taken for any other, with a fault or none."""
    text = f"({number}: {'w' * rng.randint(0, 20)}é{number})"
    thinking = f"[{number}: {'t' * rng.randint(0, 9)}]" if rng.random() < 0.5 else ""
    return FakeAnswer(text, thinking, fault=fault(rng))


def fault(rng: random.Random) -> Fault | None:
    """Any fault, or none."""
    after = rng.randint(0, 9)
    return rng.choice(
        (
            None,
            Fault.refusal(rng.choice((400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529))),
            Fault.refusal(rng.choice((429, 503)), retry_after=rng.choice(_WAITS), code=rng.choice(_CODES)),
            Fault.redirect("http://127.0.0.1:9/elsewhere"),
            Fault.hang(after=after),
            Fault.cut(after=after),
            Fault.cut(after=after, reset=True),
            Fault.error(after=after, code=rng.choice(_CODES)),
            Fault.drip(0.0, size=rng.randint(1, 40)),
            Fault.broken_json(after=after),
            Fault.no_end(),
            Fault.gzip_bomb(4 << 20),
            Fault.wrong_type(rng.choice(("text/html", "application/json", "text/plain", "text/event-stream"))),
        )
    )


def _client() -> httpx.AsyncClient:
    """A client without the machine's certificates, whose reading takes longer than a whole script."""
    return httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


async def play(provider: str, script: Sequence[FakeAnswer]) -> Played:
    """Run an agent that asks such a provider, and look at the outcome, the events and the log."""
    with _everything_logged() as logged:
        async with FakeProvider(*script) as server, _client() as http:
            llm = HttpLLM("prov", server.url(provider), "m", KEY, provider=provider, http=http, timeouts=_LIMITS)
            with mock.patch.object(generation, "random", _NoPauses):
                recording = await record(as_agent(_ask), "go", models=llm)
            asked = len(server.requests)
    whole = {one.text: one for one in script if one.fault is None or one.fault.kind == "drip"}
    texts, thoughts = _of_tries_that_count(recording.events)
    if recording.error is None:
        assert recording.result in whole
        assert texts == recording.result
        assert thoughts == whole[recording.result].thinking
        code = ""
    else:
        assert isinstance(recording.error, RunFailedError)
        code = recording.error.failure
        assert code in {one.code for one in _errors(LLMError)}
        assert (texts, thoughts) == ("", "")
    _nothing_told([encode_event(event).decode() for event in recording.events], [repr(recording.error)], logged)
    return Played(code, asked)


async def play_raw(provider: str, one: FakeAnswer) -> Played:
    """Ask once without any agent: what is read is the beginning of that answer, and whole or an error."""
    one = replace(one, tool_calls=(ToolCall("a", "f", '{"x":"ü"}'), ToolCall("b", "g", "{}")))
    text, thinking, calls = "", "", ""
    with _everything_logged() as logged:
        async with FakeProvider(one) as server, _client() as http:
            llm = HttpLLM("prov", server.url(provider), "m", KEY, provider=provider, http=http, timeouts=_LIMITS)
            error: LLMError | None = None
            try:
                async with llm.stream(LLMRequest((Message("user", PROMPT),))) as stream:
                    async for delta in stream:
                        text += delta.text if isinstance(delta, TextPart) else ""
                        thinking += delta.text if isinstance(delta, ThinkingPart) else ""
                        calls += f"{delta.name}{delta.arguments}" if isinstance(delta, ToolCallPart) else ""
                    result = stream.result
                assert (result.text, result.thinking, result.finish_reason) == (one.text, one.thinking, "tool_calls")
                assert [(call.id, call.arguments) for call in result.tool_calls] == [("a", '{"x":"ü"}'), ("b", "{}")]
                assert one.fault is None or one.fault.kind == "drip"
            except LLMError as caught:
                error = caught
    assert one.text.startswith(text)
    assert one.thinking.startswith(thinking)
    assert 'f{"x":"ü"}g{}'.startswith(calls)
    if error is not None:
        _nothing_told(traceback.format_exception(error), [repr(error), repr(error.details)], logged)
    return Played(error.code if error else "", 1)


async def _ask(ctx: Context, _task: str) -> str:
    return (await ctx.generate(PROMPT)).text


def _of_tries_that_count(events: Sequence[object]) -> tuple[str, str]:
    """Text and thinking of the blocks that no failed try is marked on."""
    failed = {event.block for event in events if isinstance(event, LLMTryFailed)}
    found: defaultdict[type, str] = defaultdict(str)
    for event in events:
        if isinstance(event, TextDelta | ThinkingDelta) and event.block not in failed:
            found[type(event)] += event.text
    return found[TextDelta], found[ThinkingDelta]


def _nothing_told(*places: Sequence[str]) -> None:
    for place in places:
        for words in place:
            for secret in _SECRETS:
                assert secret not in words, words


def _errors(parent: type[LLMError]) -> Iterator[type[LLMError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from _errors(child)


class _NoPauses:
    """In place of the module: all pauses between tries are the shortest."""

    @staticmethod
    def random() -> float:
        return 0.0


class _Keeping(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.words: list[str] = []
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(f"{self.format(record)} {record.args!r}")


@contextmanager
def _everything_logged() -> Iterator[list[str]]:
    """Every record of every logger, at every level, with its arguments and tracebacks."""
    root, handler = logging.getLogger(), _Keeping()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.words
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


async def play_all(scripts: Sequence[tuple[str, Sequence[FakeAnswer]]]) -> list[Played]:
    """All scripts, one after the other, each alone and each of its answers raw."""
    played: list[Played] = []
    for provider, script in scripts:
        with anyio.fail_after(30):
            played.append(await play(provider, script))
            played += [await play_raw(provider, one) for one in script]
    return played
