"""The model that the environment names.

Comes in: sets of variables. Goes out: a failure where another model, address or key is chosen than documented.
"""

from __future__ import annotations

import pytest

from agentstream.errors import InvalidInput, NoModelConfigured
from agentstream.llm.environment import DEFAULT_BASE_URL, DEFAULT_MODEL, model_from_environment
from agentstream.llm.http import HttpLLM

LOCAL = "http://localhost:8000/v1"
ANTHROPIC = "https://api.anthropic.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta"


@pytest.mark.parametrize(
    ("environ", "base_url", "model", "key"),
    [
        ({"OPENAI_API_KEY": "k"}, DEFAULT_BASE_URL, DEFAULT_MODEL, "k"),
        ({"OPENAI_API_KEY": " k\n", "OPENAI_MODEL": "m"}, DEFAULT_BASE_URL, "m", "k"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": LOCAL, "OPENAI_MODEL": "m"}, LOCAL, "m", "k"),
        ({"OPENAI_BASE_URL": LOCAL + "/", "OPENAI_MODEL": "m"}, LOCAL, "m", ""),
        ({"AGENTSTREAM_API_KEY": "k"}, DEFAULT_BASE_URL, DEFAULT_MODEL, "k"),
        ({"AGENTSTREAM_API_KEY": "a", "OPENAI_API_KEY": "o"}, DEFAULT_BASE_URL, DEFAULT_MODEL, "a"),
        ({"AGENTSTREAM_MODEL": "m", "OPENAI_API_KEY": "k", "OPENAI_MODEL": "n"}, DEFAULT_BASE_URL, "m", "k"),
        ({"AGENTSTREAM_BASE_URL": LOCAL, "AGENTSTREAM_MODEL": "m"}, LOCAL, "m", ""),
        ({"AGENTSTREAM_BASE_URL": LOCAL, "AGENTSTREAM_MODEL": "m", "AGENTSTREAM_API_KEY": "k"}, LOCAL, "m", "k"),
    ],
)
def test_what_is_chosen(environ: dict[str, str], base_url: str, model: str, key: str) -> None:
    """Address, model and key as the table says."""
    found = model_from_environment(environ)
    assert isinstance(found, HttpLLM)
    assert (found._base_url, found.model) == (base_url, model)
    assert found._headers.get("authorization", "Bearer ") == f"Bearer {key}"


@pytest.mark.parametrize(
    ("environ", "provider", "base_url", "model", "key"),
    [
        # each provider's own
        ({"ANTHROPIC_API_KEY": "k"}, "anthropic", ANTHROPIC, "claude-haiku-4-5", "k"),
        ({"ANTHROPIC_API_KEY": "k", "ANTHROPIC_MODEL": "m"}, "anthropic", ANTHROPIC, "m", "k"),
        (
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://h:1/", "ANTHROPIC_MODEL": "m"},
            "anthropic",
            "http://h:1/v1",
            "m",
            "k",
        ),
        ({"GEMINI_API_KEY": "k"}, "gemini", GOOGLE, "gemini-flash-latest", "k"),
        ({"GOOGLE_API_KEY": "k", "GEMINI_MODEL": "m"}, "gemini", GOOGLE, "m", "k"),
        ({"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": "k"}, "gemini", GOOGLE, "gemini-flash-latest", "k"),
        ({"OLLAMA_HOST": "box", "OLLAMA_MODEL": "m"}, "ollama", "http://box:11434", "m", ""),
        ({"OLLAMA_HOST": "box:80", "AGENTSTREAM_MODEL": "m"}, "ollama", "http://box:80", "m", ""),
        ({"OLLAMA_HOST": "0.0.0.0", "OLLAMA_MODEL": "m"}, "ollama", "http://127.0.0.1:11434", "m", ""),
        ({"OLLAMA_HOST": "0.0.0.0:9", "OLLAMA_MODEL": "m"}, "ollama", "http://127.0.0.1:9", "m", ""),
        ({"OLLAMA_HOST": "[::]", "OLLAMA_MODEL": "m"}, "ollama", "http://[::1]:11434", "m", ""),
        (
            {"OLLAMA_HOST": "https://ollama.com", "OLLAMA_MODEL": "m", "OLLAMA_API_KEY": "k"},
            "ollama",
            "https://ollama.com",
            "m",
            "k",
        ),
        # who goes before whom
        (
            {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g"},
            "openai",
            DEFAULT_BASE_URL,
            DEFAULT_MODEL,
            "o",
        ),
        (
            {"ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g", "OLLAMA_HOST": "h"},
            "anthropic",
            ANTHROPIC,
            "claude-haiku-4-5",
            "a",
        ),
        (
            {"GEMINI_API_KEY": "g", "OLLAMA_HOST": "h", "OLLAMA_MODEL": "m"},
            "gemini",
            GOOGLE,
            "gemini-flash-latest",
            "g",
        ),
        ({"AGENTSTREAM_MODEL": "m", "ANTHROPIC_API_KEY": "a"}, "anthropic", ANTHROPIC, "m", "a"),
        ({"AGENTSTREAM_API_KEY": "k", "ANTHROPIC_API_KEY": "a"}, "openai", DEFAULT_BASE_URL, DEFAULT_MODEL, "k"),
        # a provider that is named
        (
            {"AGENTSTREAM_PROVIDER": "anthropic", "AGENTSTREAM_API_KEY": "k"},
            "anthropic",
            ANTHROPIC,
            "claude-haiku-4-5",
            "k",
        ),
        (
            {"AGENTSTREAM_PROVIDER": "gemini", "OPENAI_API_KEY": "o", "GEMINI_API_KEY": "g", "OPENAI_MODEL": "n"},
            "gemini",
            GOOGLE,
            "gemini-flash-latest",
            "g",
        ),
        (
            {"AGENTSTREAM_PROVIDER": "openai-responses", "OPENAI_API_KEY": "o", "OPENAI_MODEL": "m"},
            "openai-responses",
            DEFAULT_BASE_URL,
            "m",
            "o",
        ),
        (
            {
                "AGENTSTREAM_PROVIDER": "anthropic",
                "AGENTSTREAM_BASE_URL": LOCAL,
                "AGENTSTREAM_MODEL": "m",
                "ANTHROPIC_API_KEY": "a",
            },
            "anthropic",
            LOCAL,
            "m",
            "",
        ),
        ({"AGENTSTREAM_PROVIDER": "ollama", "AGENTSTREAM_MODEL": "m"}, "ollama", "http://127.0.0.1:11434", "m", ""),
    ],
)
def test_which_provider(environ: dict[str, str], provider: str, base_url: str, model: str, key: str) -> None:
    """The first row of the table whose variables are set decides; the rows below it do not count."""
    found = model_from_environment(environ)
    assert isinstance(found, HttpLLM)
    assert (found.provider, found._base_url, found.model) == (provider, base_url, model)
    keys = [
        value.removeprefix("Bearer ")
        for name, value in found._headers.items()
        if "key" in name or name == "authorization"
    ]
    assert keys == [key] * bool(key)


@pytest.mark.parametrize("provider", ["", "openai", "openai-responses", "anthropic", "gemini", "ollama"])
def test_keys_do_not_travel(provider: str) -> None:
    """No provider's key is ever sent to an address of one's own."""
    keys = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "OLLAMA_API_KEY")
    environ = {"AGENTSTREAM_BASE_URL": LOCAL, "AGENTSTREAM_MODEL": "m", "AGENTSTREAM_PROVIDER": provider}
    found = model_from_environment({**environ, **dict.fromkeys(keys, "canary")})
    assert isinstance(found, HttpLLM)
    assert "canary" not in "".join(found._headers.values())


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OPENAI_API_KEY": " "},
        {"OPENAI_MODEL": "m"},
        {"PATH": "/bin"},
        {"OLLAMA_HOST": "127.0.0.1"},
        {"ANTHROPIC_BASE_URL": "http://h", "ANTHROPIC_MODEL": "m"},
    ],
)
def test_nothing_named(environ: dict[str, str]) -> None:
    """Nothing is named, so nothing is chosen."""
    assert model_from_environment(environ) is None


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"AGENTSTREAM_BASE_URL": LOCAL}, "AGENTSTREAM_MODEL"),
        ({"AGENTSTREAM_BASE_URL": LOCAL, "OPENAI_MODEL": "m"}, "AGENTSTREAM_MODEL"),
        ({"AGENTSTREAM_MODEL": "m"}, "AGENTSTREAM_API_KEY"),
        ({"AGENTSTREAM_PROVIDER": "anthropic"}, "ANTHROPIC_API_KEY"),
        ({"AGENTSTREAM_PROVIDER": "gemini", "ANTHROPIC_API_KEY": "a"}, "GEMINI_API_KEY"),
        ({"AGENTSTREAM_PROVIDER": "ollama"}, "AGENTSTREAM_MODEL"),
        ({"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://h"}, "AGENTSTREAM_MODEL"),
    ],
)
def test_half_a_configuration(environ: dict[str, str], variable: str) -> None:
    """What is missing is named."""
    with pytest.raises(NoModelConfigured, match=variable):
        model_from_environment(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"AGENTSTREAM_API_KEY": "sk-ca nary"},
        {"AGENTSTREAM_BASE_URL": "http://user:sk-ca nary@host", "AGENTSTREAM_MODEL": "m"},
    ],
)
def test_values_that_cannot_be_used(environ: dict[str, str]) -> None:
    """A broken value is told by its variable, never by its content."""
    with pytest.raises(InvalidInput, match="AGENTSTREAM_BASE_URL") as caught:
        model_from_environment(environ)
    assert "nary" not in str(caught.value)


def test_a_provider_that_nobody_knows() -> None:
    """A misspelled name is told by its variable, with the names that there are."""
    with pytest.raises(InvalidInput, match=r"AGENTSTREAM_PROVIDER.*anthropic"):
        model_from_environment({"AGENTSTREAM_PROVIDER": "antropic"})
