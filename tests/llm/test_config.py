"""Models from a file: what is read, what is refused and in which words, and where keys come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import InvalidInput, NoModelConfigured
from agentstream.llm import LLM
from agentstream.llm.config import ModelsConfig, load_models, models_from_environment
from agentstream.llm.http import HttpLLM
from agentstream.llm.pool import EndpointPool

KEY = "sk-canary-0123456789abcdef"
WHOLE = """
[models.default]
strategy = "round_robin"
max_waiting = 5
retry = { attempts = 2, max_wait = 30.0 }
breaker = { failures = 3 }
reconnect = { kind = "linear", first = 1.0, longest = 9.0 }
[[models.default.endpoints]]
model = "gpt-4o-mini"
key_env = "FIRST_KEY"
weight = 3
max_concurrency = 7
[[models.default.endpoints]]
url = "http://localhost:8000/v1"
model = "llama"
tier = 1
health_check = { active = true, interval = 60 }
timeouts = { first_token = 20 }
connections = { kept = 4 }

[models."small"]
provider = "anthropic"
model = "claude-haiku-4-5"
key_env = "SECOND_KEY"
debug = true
"""
KEYS = {"FIRST_KEY": KEY, "SECOND_KEY": "other"}


def written(folder: Path, text: str, name: str = "models.toml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text)
    return path


def pool_of(model: LLM) -> EndpointPool:
    """Every model of a file is a pool."""
    assert isinstance(model, EndpointPool)
    return model


def test_a_whole_file(tmp_path: Path) -> None:
    """Every table arrives where it belongs, and both ways to write one endpoint are read."""
    models = load_models(written(tmp_path, WHOLE), environ=KEYS)
    assert list(models) == ["default", "small"]
    default, small = pool_of(models["default"]), pool_of(models["small"])
    first, second = default.endpoints
    assert (default.name, default.strategy, first.address) == ("default", "round_robin", "https://api.openai.com/v1")
    assert (first.weight, first.max_concurrency, first.tier, second.tier) == (3.0, 7, 0, 1)
    assert (second.health_check.active, second.timeouts.first_token, second.connections.kept) == (True, 20.0, 4)
    core = default._core
    assert (core.retry.attempts, core.retry.max_wait, core.line.most) == (2, 30.0, 5)
    breaker = core.members["localhost:8000"].breaker._options
    assert (breaker.failures, breaker.reconnect.kind, breaker.reconnect.longest) == (3, "linear", 9.0)
    assert (small.debug, small.endpoints[0].provider, small.endpoints[0].model) == (
        True,
        "anthropic",
        "claude-haiku-4-5",
    )


def test_json_says_the_same(tmp_path: Path) -> None:
    """A JSON file of the same shape makes the same models."""
    tables = {"models": {"m": {"endpoints": [{"url": "http://h/v1", "model": "x", "timeouts": {"first_token": None}}]}}}
    models = load_models(written(tmp_path, json.dumps(tables), "models.json"), environ={})
    assert pool_of(models["m"]).endpoints[0].timeouts.first_token is None


def test_keys_come_from_the_environment(tmp_path: Path) -> None:
    """Each endpoint is asked with the key that its variable holds, and nothing shows it."""
    models = load_models(written(tmp_path, WHOLE), environ=KEYS)
    member = pool_of(models["default"])._core.members["api.openai.com"]
    assert isinstance(member.llm, HttpLLM)
    assert member.llm._headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(models) + repr(pool_of(models["default"]).endpoints) + repr(member.endpoint.model_dump())


def test_a_missing_key_names_its_variable(tmp_path: Path) -> None:
    """Also where the variable is set and blank."""
    for environ in ({}, {"FIRST_KEY": " \n"}):
        with pytest.raises(NoModelConfigured, match=r"models\.toml: model 'default'.*FIRST_KEY"):
            load_models(written(tmp_path, WHOLE), environ=environ)


@pytest.mark.parametrize(
    "line",
    [
        f'key = "{KEY}"',
        f'api_key = "{KEY}"',
        f'apikey = "{KEY}"',
        f'token = "{KEY}"',
        f'key_env = "{KEY}"',
        f'model = "{KEY}"',
        f'headers = {{ Authorization = "Bearer {KEY}" }}',
        f'secrets = ["{KEY}"]',
    ],
)
def test_a_key_in_the_file_is_refused(tmp_path: Path, line: str) -> None:
    """Whatever it is called; the error says what to do, and does not repeat it."""
    text = f'[models.m]\nurl = "http://h/v1"\n{line}\n'
    with pytest.raises(InvalidInput, match=r"models\.m\..*key_env") as caught:
        load_models(written(tmp_path, text), environ={})
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models = 3", "models: "),
        ("", "models: "),
        ("[models.m]", r"models\.m\.endpoints: "),
        ('[models.m]\nurl = "ftp://h"', r"endpoints\[0\]\.url: looks like https"),
        ('[models.m]\nurl = "http://u:p@h/v1"', r"endpoints\[0\]\.url: looks like https"),
        ('[models.m]\nurl = "http://h/v1?q=1"', r"endpoints\[0\]\.url: looks like https"),
        ('[models.m]\nurl = "http://h:99999/v1"', r"endpoints\[0\]\.url: looks like https"),
        ('[models.m]\nurl = "http://h/v1"\nkey_env = "NOT A NAME"', r"key_env: names a variable"),
        ('[models.m]\nurl = "http://h/v1"\nwieght = 3', r"models\.m\.wieght: "),
        ('[models.m]\nurl = "http://h/v1"\nprovider = "nobody"', "there are openai"),
        ('[models.m]\nurl = "http://h/v1"\nweight = 0', r"weight: "),
        ('[models.m]\nurl = "http://h/v1"\nstrategy = "best"', r"models\.m\.strategy: "),
        ('[models.m]\nurl = "http://h/v1"\nreconnect = { kind = "never" }', "kind is exponential"),
        ('[models.m]\nurl = "http://h/v1"\nretry = { attempts = 0 }', "attempts is 1 to 100"),
        ('[models." "]\nurl = "http://h/v1"', "a model's name is"),
        ('[[models.m.endpoints]]\nname = "a"\n[[models.m.endpoints]]\nname = "a"', "two endpoints 'a'"),
        ("[models]]", r"is not TOML \(at line 1"),
    ],
)
def test_what_does_not_fit_is_told_by_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    """The error names file and place; it is an `InvalidInput` whatever is wrong."""
    with pytest.raises(InvalidInput, match=complaint) as caught:
        load_models(written(tmp_path, text), environ={})
    assert "models.toml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a folder, too large, not text, too deep: all told as such."""
    huge = written(tmp_path, "#" * (2 << 20))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    deep = written(tmp_path, "[" * 100_000, "deep.json")
    for path in (tmp_path / "none.toml", tmp_path, huge, binary, deep):
        with pytest.raises(InvalidInput):
            load_models(path, environ={})


_FIELDS = st.sampled_from(["models", "m", "url", "endpoints", "retry", "weight", "key_env"])
_VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(data=_VALUES)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    """Whatever stands there, there are models or one error of ours."""
    path = written(tmp_path_factory.getbasetemp(), json.dumps(data), "any.json")
    try:
        models = load_models(path, environ={})
    except (InvalidInput, NoModelConfigured):
        return
    assert models


def test_the_variable_names_the_file(tmp_path: Path) -> None:
    """Without it, or without a default model there, the other variables count as before."""
    path = str(written(tmp_path, WHOLE))
    models = models_from_environment({"AGENTSTREAM_MODELS": path, "OPENAI_API_KEY": "k", **KEYS})
    assert list(models) == ["default", "small"]
    alone = models_from_environment({"OPENAI_API_KEY": "k"})
    assert isinstance(alone["default"], HttpLLM)
    assert models_from_environment({"AGENTSTREAM_MODELS": " "}) == {}
    only = str(written(tmp_path, '[models.small]\nurl = "http://h/v1"\n'))
    both = models_from_environment({"AGENTSTREAM_MODELS": only, "OPENAI_API_KEY": "k"})
    assert [type(model) for model in both.values()] == [EndpointPool, HttpLLM]


def test_the_schema_can_be_shown() -> None:
    """Editors may check the file by its JSON schema, which has no place for a key in it that is dumped."""
    schema = json.dumps(ModelsConfig.model_json_schema())
    assert "key_env" in schema
