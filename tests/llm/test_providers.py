"""All formats over HTTP: addresses, headers, and one answer in each of them.

Comes in: requests to a local server that speaks all formats. Goes out: a failure where an answer differs between them,
or a key is sent anywhere but in its header. It deliberately does not look into bodies; each format's own test does.
"""

from __future__ import annotations

import anyio
import pytest

from agentstream.errors import InvalidInput
from agentstream.events import Usage
from agentstream.llm import LLMRequest, Message, ToolCall
from agentstream.llm.http import HttpLLM
from agentstream.llm.providers import PROVIDERS, provider_named
from agentstream.testing import FakeAnswer, FakeProvider

pytestmark = pytest.mark.anyio

KEY = "sk-canary-1"
ANSWER = FakeAnswer(
    "Grüße 🙂 aus Köln",
    "Hm, ja.",
    (ToolCall("a", "f", '{"x":"ü"}'), ToolCall("b", "g", "{}")),
    Usage(20, 9, 5, 2, calls=1),
)
COUNTED = {"anthropic": Usage(20, 9, 5, 0, calls=1), "ollama": Usage(20, 9, 0, 0, calls=1)}  # what they do not tell


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_one_answer_in_every_format(provider: str) -> None:
    """Text, thinking, parallel calls, usage and reason come out alike, over one connection."""
    with anyio.fail_after(10):
        async with FakeProvider(ANSWER, "Hi.", FakeAnswer("Cut", finish_reason="length")) as server:
            llm = HttpLLM("p", server.url(provider), "m-1", KEY, provider=provider)
            whole, text, cut = [await llm.complete(LLMRequest((Message("user", "Hi"),))) for _ in range(3)]
            await llm.aclose()
            assert (whole.text, whole.thinking, whole.model) == (ANSWER.text, ANSWER.thinking, "m-1")
            assert [(call.id, call.name, call.arguments) for call in whole.tool_calls] == [
                ("a", "f", '{"x":"ü"}'),
                ("b", "g", "{}"),
            ]
            assert whole.usage == COUNTED.get(provider, ANSWER.usage)
            assert (whole.finish_reason, text.finish_reason, cut.finish_reason) == ("tool_calls", "stop", "length")
            assert (text.text, cut.text) == ("Hi.", "Cut")
            assert server.connections == 1


@pytest.mark.parametrize(
    ("provider", "path", "header", "value"),
    [
        ("openai", "/v1/chat/completions", "authorization", f"Bearer {KEY}"),
        ("openai-responses", "/v1/responses", "authorization", f"Bearer {KEY}"),
        ("anthropic", "/v1/messages", "x-api-key", KEY),
        ("gemini", "/v1beta/models/m-1:streamGenerateContent?alt=sse", "x-goog-api-key", KEY),
        ("ollama", "/api/chat", "authorization", f"Bearer {KEY}"),
    ],
)
async def test_the_key_is_in_its_header_and_nowhere_else(provider: str, path: str, header: str, value: str) -> None:
    """Each provider reads the key from one header; it is in no address, no body and no representation."""
    with anyio.fail_after(10):
        async with FakeProvider("Hi.", repeat=True) as server:
            for key in (KEY, ""):
                llm = HttpLLM("p", server.url(provider), "m-1", key, provider=provider)
                await llm.complete(LLMRequest((Message("user", "Hi"),)))
                assert KEY not in repr(llm)
                await llm.aclose()
            with_key, without = server.requests
            assert with_key.path == path
            assert with_key.headers[header] == value
            assert [name for name, one in with_key.headers.items() if KEY in one] == [header]
            assert KEY not in f"{with_key.path} {with_key.body} {with_key!r}"
            assert header not in without.headers
            assert with_key.headers["accept-encoding"] == "identity"


async def test_anthropics_version_is_sent() -> None:
    """Without its version the provider refuses a request."""
    assert PROVIDERS["anthropic"].request_headers("")["anthropic-version"] == "2023-06-01"


async def test_a_provider_that_nobody_knows() -> None:
    """A misspelled name is refused at once, with the names that there are."""
    with pytest.raises(InvalidInput, match=r"antropic.*openai, openai-responses, anthropic, gemini, ollama"):
        HttpLLM("p", "http://host/v1", "m", provider="antropic")
    assert provider_named("gemini").name == "gemini"
