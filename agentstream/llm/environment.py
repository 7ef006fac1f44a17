"""The model that the environment names.

What comes in: environment variables. What goes out: a client for that model, or None where they name none. It does not
look at files, does not try the address, and sends the key of one provider to no other address.

The first row whose variables are set decides; a variable that is empty, or blank, counts as not set.

| set | provider | address | key |
|---|---|---|---|
| `AGENTSTREAM_PROVIDER` | that | `AGENTSTREAM_BASE_URL`, or as below | `AGENTSTREAM_API_KEY`, or as below |
| `AGENTSTREAM_BASE_URL` | openai | that | `AGENTSTREAM_API_KEY` |
| `AGENTSTREAM_API_KEY` | openai | `OPENAI_BASE_URL`, or its own | that |
| `OPENAI_API_KEY` or `OPENAI_BASE_URL` | openai | `OPENAI_BASE_URL`, or its own | `OPENAI_API_KEY` |
| `ANTHROPIC_API_KEY` | anthropic | `ANTHROPIC_BASE_URL`, or its own | that |
| `GEMINI_API_KEY` or `GOOGLE_API_KEY` | gemini | its own | the first set |
| `OLLAMA_HOST`, and a model | ollama | that | `OLLAMA_API_KEY`, where set |

The model is `AGENTSTREAM_MODEL`, then `OPENAI_MODEL`, `ANTHROPIC_MODEL`, `GEMINI_MODEL` or `OLLAMA_MODEL` of the same
row, then, at the provider's own address, `gpt-4o-mini`, `claude-haiku-4-5` or `gemini-flash-latest`. At an
`AGENTSTREAM_BASE_URL` nothing of the rows below counts: neither their keys nor their models.
`OPENAI_MODEL` and its like alone, and `OLLAMA_HOST` without a model, are left by other programs and ask for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentstream.errors import InvalidInput, NoModelConfigured
from agentstream.llm.contract import LLM
from agentstream.llm.http import HttpLLM
from agentstream.llm.providers import PROVIDERS, provider_named

__all__ = ("DEFAULT_BASE_URL", "DEFAULT_MODEL", "model_from_environment")

DEFAULT_BASE_URL: Final = PROVIDERS["openai"].base_url
DEFAULT_MODEL: Final = "gpt-4o-mini"


@dataclass(frozen=True, slots=True)
class _Variables:
    """The variables of one provider's own clients, and its model at its own address; empty where there is none."""

    keys: tuple[str, ...]
    address: str = ""
    model: str = ""
    default: str = ""


_OWN: Final = {
    "openai": _Variables(("OPENAI_API_KEY",), "OPENAI_BASE_URL", "OPENAI_MODEL", DEFAULT_MODEL),
    "openai-responses": _Variables(("OPENAI_API_KEY",), "OPENAI_BASE_URL", "OPENAI_MODEL", DEFAULT_MODEL),
    "anthropic": _Variables(("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "claude-haiku-4-5"),
    "gemini": _Variables(("GEMINI_API_KEY", "GOOGLE_API_KEY"), "", "GEMINI_MODEL", "gemini-flash-latest"),
    "ollama": _Variables(("OLLAMA_API_KEY",), "OLLAMA_HOST", "OLLAMA_MODEL"),
}


def model_from_environment(environ: Mapping[str, str]) -> LLM | None:
    """The model that `environ` names, or None where it names neither address, provider, model nor key.

    Raises:
        NoModelConfigured: an address without a model, or a model at a provider's address without a key; it names the
            variable to set.
        InvalidInput: an address, a key or a provider's name that cannot be used; it names the variable, never the key.
    """
    provider = _provider(environ)
    if provider is None:
        return None
    own = _OWN[provider]
    key = _first(environ, "AGENTSTREAM_API_KEY")
    base_url = _first(environ, "AGENTSTREAM_BASE_URL")
    model = _first(environ, "AGENTSTREAM_MODEL")
    if not base_url:
        base_url = _address(provider, _first(environ, own.address))
        key = key or _first(environ, *own.keys)
        model = model or _first(environ, own.model)
        if not base_url:
            if not key and provider != "ollama":
                raise NoModelConfigured(_no_key(own))
            base_url, model = PROVIDERS[provider].base_url, model or own.default
    if not model:
        raise NoModelConfigured("a base address is set but no model: set AGENTSTREAM_MODEL to the model's name")
    try:
        return HttpLLM("default", base_url, model, key, provider=provider)
    except InvalidInput as error:
        names = ", ".join(filter(None, ("AGENTSTREAM_BASE_URL", "AGENTSTREAM_API_KEY", own.address, *own.keys)))
        raise InvalidInput(f"one of {names}: {error}") from None


def _provider(environ: Mapping[str, str]) -> str | None:
    """The provider that the first row of the table names."""
    named = _first(environ, "AGENTSTREAM_PROVIDER")
    if named:
        try:
            return provider_named(named).name
        except InvalidInput as error:
            raise InvalidInput(f"AGENTSTREAM_PROVIDER: {error}") from None
    if _first(environ, "AGENTSTREAM_BASE_URL", "AGENTSTREAM_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        return "openai"
    for provider in ("anthropic", "gemini"):
        if _first(environ, *_OWN[provider].keys):
            return provider
    model = _first(environ, "AGENTSTREAM_MODEL")
    if _first(environ, "OLLAMA_HOST") and (model or _first(environ, "OLLAMA_MODEL")):
        return "ollama"
    return "openai" if model else None


def _no_key(own: _Variables) -> str:
    return (
        f"a model is named but neither key nor address: set AGENTSTREAM_API_KEY (or {' or '.join(own.keys)}) for the "
        "provider, or AGENTSTREAM_BASE_URL for a server of your own"
    )


_PORT = re.compile(r"(?:\]|[^:\]]):[0-9]+$")


def _address(provider: str, written: str) -> str:
    """A provider's own variable as an address up to and with the version; they are written without it."""
    if not written or provider.startswith("openai"):
        return written
    written = written.rstrip("/")
    if provider == "anthropic":
        return written if written.endswith("/v1") else f"{written}/v1"
    # What Ollama's server listens on is what its clients are told: `0.0.0.0`, `host`, `host:port` or an address.
    scheme, _, host = written.rpartition("://")
    host = host.removeprefix(":")
    for everywhere, here in (("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")):  # noqa: S104 - read, not listened on
        host = here + host.removeprefix(everywhere) if host.startswith(everywhere) else host
    if not scheme and not _PORT.search(host):
        host = f"{host}:11434"
    return f"{scheme or 'http'}://{host}"


def _first(environ: Mapping[str, str], *names: str) -> str:
    """The first of these variables that is set."""
    return next((value for name in names if (value := environ.get(name, "").strip())), "")
