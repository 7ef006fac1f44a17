"""Claims about models: what real providers sent, what others' clients and servers say, and what faults come to.

Comes in: recorded bodies, the official SDKs, a foreign mock server, and scripts of faults drawn from a seed. Goes out:
the number of differences, with the number of comparisons. It deliberately measures no time: `speed.parse` does.
"""

from __future__ import annotations

import importlib
import json
import os
import random
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import anyio
import anyio.to_thread

from agentstream.errors import LLMError
from agentstream.events import Usage
from agentstream.llm import Assembly, LLMRequest, LLMResult, Message, ToolCall
from agentstream.llm.http import HttpLLM
from agentstream.llm.providers import PROVIDERS
from agentstream.testing import FakeAnswer, FakeProvider
from claims import ROOT, Figure, MissingPart, claim, exactly, real
from claims._bodies import Held, held

# --- what real providers sent -----------------------------------------------------------------------------------------
_PIECES: Final = (1, 2, 3, 5, 7, 16, 64, 256)
_FORMATS: Final = {"openai-chat": "openai"}  # as the files are called, where the format is not
_CLASSES: Final = {"400": "llm_request", "tool_use_failed": "llm_parse", "": ""}


def _recorded() -> list[Path]:
    folder = Path(os.environ.get("AGENTSTREAM_FIXTURES") or ROOT.parent / "shared" / "fixtures" / "llm")
    bodies = sorted(folder.glob("*.body"))
    if not bodies:
        raise MissingPart(f"no recorded bodies in {folder}: name their folder in AGENTSTREAM_FIXTURES")
    return bodies


def _parse(format_: str, pieces: list[bytes]) -> tuple[LLMResult, str]:
    parser, assembly = PROVIDERS[format_].parser("p"), Assembly()
    for piece in pieces:
        for delta in parser.feed(piece):
            assembly.add(delta)
    for delta in parser.end():
        assembly.add(delta)
    return assembly.result(parser.model), parser.error.code if parser.error else ""


def _same(result: LLMResult, error: str, expected: Held) -> bool:
    calls = [(call.name, json.loads(call.arguments)) for call in result.tool_calls]
    return error == _CLASSES[expected.error] and (
        (result.text, result.thinking, calls, (result.usage.input_tokens, result.usage.output_tokens))
        == (expected.text, expected.thinking, expected.calls, expected.usage)
    )


@claim(
    "llm.recorded",
    "Recorded bodies of five providers are read to the text, calls, usage and error that they hold, at every cut",
    unit="cuts with another result",
    quick=False,
    limit=600.0,
)
def recorded() -> Figure:
    """Each body whole, with one cut at every byte, and in pieces of eight sizes, against a reading of its own."""
    cuts = wrong = 0
    providers: Counter[str] = Counter()
    for file in _recorded():
        provider = file.name.partition(".")[0]
        format_ = _FORMATS.get(provider, provider)
        body = file.read_bytes()
        expected = held(provider, body)
        providers[format_] += 1
        ways = [[body], *([body[:at], body[at:]] for at in range(1, len(body)))]
        ways += [[body[at : at + size] for at in range(0, len(body), size)] for size in _PIECES]
        for way in ways:
            cuts += 1
            wrong += not _same(*_parse(format_, way), expected)
    return Figure(
        wrong,
        n=cuts,
        bound=exactly(0),
        ok=set(providers) == set(PROVIDERS),
        detail={"bodies": dict(providers)},
    )


# --- what others wrote ------------------------------------------------------------------------------------------------
_ANSWERS: Final = (
    FakeAnswer("Grüße 🙂 aus Köln.\nZwei Zeilen.", "Hm, ja.", usage=Usage(20, 9, 5, 2, calls=1)),
    FakeAnswer("Ich frage.", "", (ToolCall("a", "f", '{"x":"ü"}'), ToolCall("b", "g", '{"y":[1,2]}'))),
    FakeAnswer("", "Erst denken.", (ToolCall("c", "f", "{}"),), Usage(3, 4, calls=1)),
)
_REASONS: Final = {
    "openai": ("stop", "tool_calls"),
    "openai-responses": ("completed", "completed"),
    "anthropic": ("end_turn", "tool_use"),
    "ollama": ("stop", "stop"),
}


async def _from_fake_provider(foreign: ModuleType) -> tuple[int, list[str]]:
    """The SDKs ask our server: comparisons, and those that failed."""
    checked, wrong = 0, []
    for provider, ask, versioned in (
        ("openai", foreign.ask_chat, True),
        ("openai-responses", foreign.ask_responses, True),
        ("anthropic", foreign.ask_anthropic, False),
        ("ollama", foreign.ask_ollama, False),
    ):
        async with FakeProvider(*_ANSWERS) as server:
            for number, answer in enumerate(_ANSWERS):
                address = server.url(provider) if versioned else server.root
                found = await anyio.to_thread.run_sync(ask, address)
                calls = [(call.name, json.loads(call.arguments)) for call in answer.tool_calls]
                tokens = (answer.usage.input_tokens, answer.usage.output_tokens)
                reason = _REASONS[provider][bool(calls)]
                checked += 1
                if found != (answer.text, answer.thinking, calls, tokens, reason):
                    wrong.append(f"{provider} {number}: {found}")
    return checked, wrong


_SAID: Final = "Größe 🙂 ist relativ, sagt man."
_FIXTURES: Final[dict[str, Any]] = {  # Any: JSON of the server's own
    "fixtures": [
        {"match": {"userMessage": "text"}, "response": {"content": _SAID}},
        {"match": {"userMessage": "think"}, "response": {"content": _SAID, "reasoning": "Hm, ja."}},
        {
            "match": {"userMessage": "tools"},
            "response": {
                "toolCalls": [{"name": "f", "arguments": '{"x":"ü"}'}, {"name": "g", "arguments": '{"y":[1,2]}'}]
            },
        },
        {"match": {"userMessage": "length"}, "response": {"content": _SAID, "finishReason": "length"}},
        {
            "match": {"userMessage": "limit"},
            "response": {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429},
        },
        # With a pause between its pieces, so that some are sent before the connection ends.
        {"match": {"userMessage": "broken"}, "response": {"content": _SAID}, "truncateAfterChunks": 4, "latency": 20},
    ]
}
_CALLS: Final = [("f", {"x": "ü"}), ("g", {"y": [1, 2]})]
_EXPECTED: Final[dict[str, tuple[str, str, list[tuple[str, Any]], str]]] = {  # text, thinking, calls, end
    "text": (_SAID, "", [], "stop"),
    "think": (_SAID, "Hm, ja.", [], "stop"),
    "tools": ("", "", _CALLS, "tool_calls"),
    "length": (_SAID, "", [], "length"),
    "limit": ("", "", [], "llm_rate_limited"),
    "broken": ("", "", [], "llm_stream_broken"),
}
# What that server does not do: its Ollama names thinking as OpenAI's servers do, and always says `stop`.
_GAPS: Final[dict[tuple[str, str], tuple[str, str, list[tuple[str, Any]], str]]] = {
    ("ollama", "think"): (_SAID, "", [], "stop"),
    ("ollama", "length"): (_SAID, "", [], "stop"),
}
_PREFIXES: Final = {"openai": "/v1", "openai-responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta", "ollama": ""}


async def _from_mock(root: str) -> tuple[int, list[str]]:
    """Our clients ask the foreign server: comparisons, and those that failed."""
    checked, wrong = 0, []
    for provider, prefix in _PREFIXES.items():
        llm = HttpLLM("p", root + prefix, "gpt-4o", "k", provider=provider)
        for prompt, expected in _EXPECTED.items():
            checked += 1
            found = await _asked(llm, prompt)
            if found != _GAPS.get((provider, prompt), expected):
                wrong.append(f"{provider} {prompt}: {found}")
        await llm.aclose()
    return checked, wrong


async def _asked(llm: HttpLLM, prompt: str) -> tuple[str, str, list[tuple[str, Any]], str]:
    try:
        result = await llm.complete(LLMRequest((Message("user", prompt),)))
    except LLMError as error:
        return "", "", [], error.code
    calls = [(call.name, json.loads(call.arguments)) for call in result.tool_calls]
    return result.text, result.thinking, calls, result.finish_reason


def _foreign() -> ModuleType:
    """Not imported at the top: the SDKs take seconds, and a machine without them can still list its claims."""
    for part in ("openai", "anthropic", "ollama", "node", "npm"):
        real(part)
    return importlib.import_module("claims._foreign")


@claim(
    "llm.foreign-clients",
    "The SDKs of OpenAI, Anthropic and Ollama read our fake provider, and our clients read a server that others wrote",
    unit="answers read otherwise",
    quick=False,
    limit=400.0,
)
async def foreign_clients() -> Figure:
    """Text, thinking, parallel calls, usage and ends, both ways; to our clients also errors and a broken answer."""
    foreign = _foreign()
    asked, wrong = await _from_fake_provider(foreign)
    with foreign.mock_server(_FIXTURES) as root, anyio.fail_after(120):
        served, also_wrong = await _from_mock(root)
    return Figure(
        len(wrong) + len(also_wrong),
        n=asked + served,
        bound=exactly(0),
        detail={"read by SDKs": asked, "read from aimock": served, "otherwise": [*wrong, *also_wrong]},
    )


# --- what faults come to ----------------------------------------------------------------------------------------------
_SCRIPTS: Final = 120


@claim(
    "llm.fault-script",
    "Any script of faults ends in one whole answer or one typed error, and tells no key and no prompt",
    unit="scripts with another outcome",
    limit=240.0,
)
async def fault_script(seed: int) -> Figure:
    """Scripts drawn from the seed, in all formats: a run with its tries, then each answer alone."""
    scripts = importlib.import_module("llm.faults")
    rng = random.Random(seed)
    failed: list[str] = []
    outcomes: Counter[str] = Counter()
    played = 0
    for number in range(_SCRIPTS):
        provider = scripts.NAMES[number % len(scripts.NAMES)]
        script = scripts.draw(rng)
        try:
            for one in await scripts.play_all([(provider, script)]):
                outcomes[one.code or "whole"] += 1
                played += 1
        except AssertionError as error:
            failed.append(f"script {number}, {provider}: {script}: {str(error)[:200]}")
    return Figure(
        len(failed),
        n=played,
        bound=exactly(0),
        # A promise that is kept because nothing ever worked, or never failed, would be none.
        ok=outcomes["whole"] > played / 20 and len(outcomes) > 5,
        seed=seed,
        detail={"outcomes": dict(outcomes.most_common()), "otherwise": failed[:5]},
    )
