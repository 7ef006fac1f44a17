"""The model that the environment names.

Comes in: sets of variables. Goes out: a failure where another model, address or key is chosen than documented.
"""

from __future__ import annotations

import pytest

from agentstream.errors import InvalidInput, NoModelConfigured
from agentstream.llm.environment import DEFAULT_BASE_URL, DEFAULT_MODEL, model_from_environment
from agentstream.llm.http import HttpLLM

LOCAL = "http://localhost:8000/v1"


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


def test_keys_do_not_travel() -> None:
    """OpenAI's key is never sent to an address of one's own."""
    environ = {"AGENTSTREAM_BASE_URL": LOCAL, "AGENTSTREAM_MODEL": "m", "OPENAI_API_KEY": "k"}
    found = model_from_environment(environ)
    assert isinstance(found, HttpLLM)
    assert "authorization" not in found._headers


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": " "}, {"OPENAI_MODEL": "m"}, {"PATH": "/bin"}])
def test_nothing_named(environ: dict[str, str]) -> None:
    """Nothing is named, so nothing is chosen."""
    assert model_from_environment(environ) is None


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"AGENTSTREAM_BASE_URL": LOCAL}, "AGENTSTREAM_MODEL"),
        ({"AGENTSTREAM_BASE_URL": LOCAL, "OPENAI_MODEL": "m"}, "AGENTSTREAM_MODEL"),
        ({"AGENTSTREAM_MODEL": "m"}, "AGENTSTREAM_API_KEY"),
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
