"""The formats that models are reached by, under the names that configuration uses.

What comes in: a name. What goes out: a `Provider`: how a request is built, how an answer is read, which headers carry
the key, and the provider's own address. It does not know HTTP clients, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from agentstream.errors import InvalidInput
from agentstream.llm import anthropic, gemini, ollama, openai_chat, openai_responses
from agentstream.llm.messages import LLMRequest
from agentstream.llm.parsing import AnswerParser

__all__ = ("PROVIDERS", "Build", "Provider", "provider_named")


class Build(Protocol):
    """Makes the path below the base address and the JSON body of a request."""

    def __call__(self, request: LLMRequest, model: str, *, host: str = "") -> tuple[str, bytes]:
        """`model` is used where the request names none; `host` tells servers that differ."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """One format.

    Attributes:
        name: what configuration calls it.
        base_url: of the provider itself, up to and with the version.
        build: makes a request. parser: reads one answer; called with the name that errors carry.
        key_header, key_prefix: the header that carries the key, and what stands before it there.
        headers: sent with every request besides it.
        models: the path of the list of models, which costs nothing to ask for.
    """

    name: str
    base_url: str
    build: Build
    parser: Callable[[str], AnswerParser]
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    headers: tuple[tuple[str, str], ...] = ()
    models: str = "models"

    def request_headers(self, key: str) -> dict[str, str]:
        """The headers of a request; without a key none carries one."""
        headers = {
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "content-type": "application/json",
            **dict(self.headers),
        }
        if key:
            headers[self.key_header] = f"{self.key_prefix}{key}"
        return headers


_ALL: Final = (
    Provider("openai", "https://api.openai.com/v1", openai_chat.build, openai_chat.Parser),
    Provider("openai-responses", "https://api.openai.com/v1", openai_responses.build, openai_responses.Parser),
    Provider(
        "anthropic",
        "https://api.anthropic.com/v1",
        anthropic.build,
        anthropic.Parser,
        key_header="x-api-key",
        key_prefix="",
        headers=(("anthropic-version", anthropic.VERSION),),
    ),
    Provider(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        gemini.build,
        gemini.Parser,
        key_header="x-goog-api-key",  # never in the address, which servers and proxies write down
        key_prefix="",
    ),
    Provider(
        "ollama",
        "http://127.0.0.1:11434",
        ollama.build,
        ollama.Parser,
        headers=(("accept", "application/x-ndjson"),),
        models="api/tags",
    ),
)

PROVIDERS: Final = MappingProxyType({one.name: one for one in _ALL})
"""All formats by name."""


def provider_named(name: str) -> Provider:
    """The format of that name.

    Raises:
        InvalidInput: there is none; the error lists those that there are.
    """
    if name not in PROVIDERS:
        raise InvalidInput(f"no provider is called {name!r}; there are {', '.join(PROVIDERS)}")
    return PROVIDERS[name]
