"""The model that the environment names.

What comes in: environment variables. What goes out: a client for that model, or None where they name none. It does not
look at files, does not try the address, and sends the key of one provider to no other address.

| variable | meaning |
|---|---|
| `AGENTSTREAM_BASE_URL` | address of a server that speaks OpenAI's chat format, e.g. `http://localhost:8000/v1` |
| `AGENTSTREAM_MODEL` | the name of the model there |
| `AGENTSTREAM_API_KEY` | the key; servers of your own often need none |
| `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_MODEL` | the same three; read only without `AGENTSTREAM_BASE_URL` |

The first name wins over the second. Without any address it is OpenAI's own, with `gpt-4o-mini` where no model is named.
A variable that is empty, or blank, counts as not set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentstream.errors import InvalidInput, NoModelConfigured
from agentstream.llm.contract import LLM
from agentstream.llm.http import HttpLLM

__all__ = ("DEFAULT_BASE_URL", "DEFAULT_MODEL", "model_from_environment")

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
DEFAULT_MODEL: Final = "gpt-4o-mini"


def model_from_environment(environ: Mapping[str, str]) -> LLM | None:
    """The model that `environ` names, or None where it names neither address, model nor key.

    Raises:
        NoModelConfigured: an address without a model, or a model at OpenAI's address without a key; it names the
            variable to set.
        InvalidInput: an address or a key that cannot be used; it names the variable, never the key.
    """
    base_url, model, key = (_first(environ, f"AGENTSTREAM_{name}") for name in ("BASE_URL", "MODEL", "API_KEY"))
    if not base_url:
        base_url = _first(environ, "OPENAI_BASE_URL")
        model = model or _first(environ, "OPENAI_MODEL")
        key = key or _first(environ, "OPENAI_API_KEY")
    if not (base_url or key or _first(environ, "AGENTSTREAM_MODEL")):
        return None  # OPENAI_MODEL alone is left by other programs and asks for nothing
    if base_url and not model:
        raise NoModelConfigured("a base address is set but no model: set AGENTSTREAM_MODEL to the model's name")
    if not base_url and not key:
        raise NoModelConfigured(
            "a model is named but neither key nor address: set AGENTSTREAM_API_KEY (or OPENAI_API_KEY) for OpenAI, "
            "or AGENTSTREAM_BASE_URL for a server of your own"
        )
    try:
        return HttpLLM("default", base_url or DEFAULT_BASE_URL, model or DEFAULT_MODEL, key)
    except InvalidInput as error:
        raise InvalidInput(f"AGENTSTREAM_BASE_URL, AGENTSTREAM_API_KEY or their OPENAI_… namesakes: {error}") from None


def _first(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()
