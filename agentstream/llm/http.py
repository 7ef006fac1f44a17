"""Models over HTTP: the one module that knows the HTTP library.

What comes in: an address, a provider's name, a key and limits of time. What goes out: clients that stream answers, or
raise one `LLMError` that says what failed. It does not know what the bytes mean (`providers` does), and it never tries
again: who asked knows what was already shown.

Any client shaped like `httpx.AsyncClient` will do (`httpx2` is). Keys, prompts and what a provider wrote never reach an
error, an address or a log line from here.
"""

from __future__ import annotations

import importlib
import re
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from agentstream.errors import InvalidInput
from agentstream.llm._exchange import MAX_ANSWER_BYTES, Exchange, Outgoing, Timeouts
from agentstream.llm._headers import retry_after
from agentstream.llm.contract import LLMStream
from agentstream.llm.messages import LLMRequest, LLMResult
from agentstream.llm.providers import provider_named

if TYPE_CHECKING:
    import httpx

__all__ = ("MAX_ANSWER_BYTES", "HttpLLM", "Timeouts", "retry_after")

_KEY = re.compile(r"[\x21-\x7e]*", re.ASCII)


class HttpLLM:
    """A model behind one address.

    Args:
        name: what errors call it, for instance `openai`.
        base_url: the address up to and with the version, for instance `https://api.openai.com/v1`.
        model: the provider's name for the model; a request may name another.
        api_key: sent in the header that the provider reads it from; empty sends none (local servers).
        provider: the format spoken there: `openai` (its chat format, which most servers speak), `openai-responses`,
            `anthropic`, `gemini` or `ollama`.
        http: an `httpx.AsyncClient` or one shaped like it; who made it closes it. None: one is made at the first
            request and closed by `aclose`, after which a further request makes a new one.

    Raises:
        InvalidInput: the address is not an http(s) address without user, query and fragment, there is no such provider,
            or the key holds a character that a header cannot carry (a line end from a file, for instance).
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        model: str,
        api_key: str = "",
        *,
        provider: str = "openai",
        http: httpx.AsyncClient | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.timeouts = timeouts or Timeouts()
        self._base_url, self._host = _checked(base_url)
        self._provider = provider_named(provider)
        # Refused here, since the HTTP library would repeat the header's value in its own error.
        if _KEY.fullmatch(api_key) is None:
            raise InvalidInput(f"the key of model {name!r} holds a blank, a line end or a character outside ASCII")
        self._headers = self._provider.request_headers(api_key)
        self._given = http
        self._own: httpx.AsyncClient | None = None
        # Not at the top: importing httpx takes longer than all of ours, draws in rich and click where they are
        # installed, and is for nothing where another client was handed in or no model is configured.
        self._library: ModuleType | None = importlib.import_module("httpx") if http is None else None

    def __repr__(self) -> str:
        names = f"name={self.name!r}, base_url={self._base_url!r}, model={self.model!r}"
        return f"HttpLLM({names}, provider={self._provider.name!r})"

    @property
    def provider(self) -> str:
        """The name of the format that is spoken."""
        return self._provider.name

    def stream(self, request: LLMRequest) -> AbstractAsyncContextManager[LLMStream]:
        """Ask, and read the answer while it comes; leaving the context closes the connection if it is not used up.

        Raises:
            LLMError: on entering or while reading; the class says who can mend it.
        """
        path, body = self._provider.build(request, self.model, host=self._host)
        outgoing = Outgoing(self._base_url, path, self._headers, body)
        return Exchange(self._client(), outgoing, self._provider.parser(self.name), self.name, self.timeouts)

    async def complete(self, request: LLMRequest) -> LLMResult:
        """Ask, and wait for the whole answer; the same limits and errors as `stream`."""
        async with self.stream(request) as stream:
            async for _ in stream:
                pass
            return stream.result

    async def aclose(self) -> None:
        """Close the client that it made itself, if there is one."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._given is not None:
            return self._given
        if self._own is None:
            assert self._library is not None
            # Connections are kept for a minute: an agent's next request often comes after a tool that took seconds.
            limits = self._library.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=60.0)
            self._own = cast("httpx.AsyncClient", self._library.AsyncClient(limits=limits, follow_redirects=False))
        return self._own


def _checked(base_url: str) -> tuple[str, str]:
    """The address without its last slash, and its host."""
    try:
        parts = urlsplit(base_url.strip())
        host = parts.hostname or ""
        fits = parts.scheme in ("http", "https") and host and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        fits, host = False, ""
    if not fits:
        raise InvalidInput("the base address of a model looks like https://host/v1: no user, query or fragment")
    return base_url.strip().rstrip("/"), host
