"""Models from a file.

What comes in: a TOML or JSON file, and the environment for the keys that it names. What goes out: models by name, each
a pool of its endpoints. It does not try addresses, and refuses a file that holds a key.

    # models.toml
    [models.default]                         # agents that name no model use this one
    strategy = "health"
    [[models.default.endpoints]]
    provider = "openai"
    model = "gpt-4o-mini"
    key_env = "OPENAI_API_KEY"               # the variable that holds the key
    [[models.default.endpoints]]
    url = "http://localhost:8000/v1"         # a server of your own, asked when the first cannot answer
    model = "llama-3.3-70b"
    tier = 1

    [models.small]                           # with one endpoint its fields may stand here
    provider = "anthropic"
    model = "claude-haiku-4-5"
    key_env = "ANTHROPIC_API_KEY"
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

import msgspec
import pydantic

from agentstream.errors import InvalidInput, NoModelConfigured
from agentstream.llm.contract import LLM
from agentstream.llm.endpoint import Endpoint, PoolOptions
from agentstream.llm.environment import model_from_environment
from agentstream.llm.pool import EndpointPool
from agentstream.policy import BreakerOptions, Reconnect, Retry, Strategy

__all__ = ("MODELS_VARIABLE", "ModelConfig", "ModelsConfig", "load_models", "models_from_environment")

MODELS_VARIABLE: Final = "AGENTSTREAM_MODELS"
"""The variable that names the file."""

_MOST_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}", re.ASCII)
# Names that people give to keys; `key_env` is the only one that is read.
_SECRET: Final = re.compile(
    r"(api|access|secret|private|auth)?[_-]?(key|token|secret|password)s?|authorization|bearer", re.IGNORECASE
)
_LOOKS_SECRET: Final = re.compile(r"\A((sk|rk|pk|gsk|xai)-|AIza|ghp_|hf_)[A-Za-z0-9_-]{16,}\Z|\ABearer\s", re.ASCII)


class _Written(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _RetryTable(_Written):
    """Fields of `agentstream.policy.Retry`."""

    attempts: int = 4
    first: float = 0.5
    longest: float = 8.0
    max_wait: float = 120.0
    longest_pause: float = 60.0
    budget: float = 10.0
    refund: float = 0.1


class _ReconnectTable(_Written):
    """Fields of `agentstream.policy.Reconnect`."""

    kind: str = "exponential"
    first: float = 5.0
    longest: float = 300.0
    jitter: float = 0.2


class _BreakerTable(_Written):
    """Fields of `agentstream.policy.BreakerOptions`, those of `reconnect` in a table of their own."""

    failures: int = 5
    share: float = 0.5
    least: int = 20
    window: float = 30.0
    successes: int = 2
    forgiven: float = 300.0


class ModelConfig(_Written):
    """One model of the file.

    Attributes:
        endpoints: where it can be asked.
        strategy: how one of them is chosen. retry, breaker, reconnect: see `agentstream.policy`.
        max_waiting, prewarm, idle_after, warn_failures, warn_load, debug: see `PoolOptions`.
    """

    endpoints: tuple[Endpoint, ...] = pydantic.Field(min_length=1, max_length=1_000)
    strategy: Strategy = "health"
    retry: _RetryTable = _RetryTable()
    breaker: _BreakerTable = _BreakerTable()
    reconnect: _ReconnectTable = _ReconnectTable()
    max_waiting: int = pydantic.Field(default=1_000, ge=0, le=1_000_000)
    prewarm: bool = True
    idle_after: float = pydantic.Field(default=300.0, gt=0)
    warn_failures: float = pydantic.Field(default=0.5, gt=0, le=1)
    warn_load: float = pydantic.Field(default=0.8, gt=0, le=1)
    debug: bool = False

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_endpoint(cls, values: object) -> object:
        """A model with one endpoint may carry that one's fields itself."""
        table = _table(values)
        if table is None or "endpoints" in table:
            return values
        own = {name: value for name, value in table.items() if name in Endpoint.model_fields}
        rest = {name: value for name, value in table.items() if name not in own}
        return {**rest, "endpoints": [own]} if own else rest

    def pool(self, name: str, environ: Mapping[str, str]) -> EndpointPool:
        """The pool that this describes.

        Raises:
            NoModelConfigured: a variable that should hold a key is not set.
            InvalidInput: values that do not go together.
        """
        given = self.breaker.model_dump()
        reconnect = Reconnect(**self.reconnect.model_dump())
        options = PoolOptions(
            max_waiting=self.max_waiting,
            prewarm=self.prewarm,
            idle_after=self.idle_after,
            warn_failures=self.warn_failures,
            warn_load=self.warn_load,
            debug=self.debug,
        )
        return EndpointPool(
            name,
            [_with_key(endpoint, environ) for endpoint in self.endpoints],
            strategy=self.strategy,
            retry=Retry(**self.retry.model_dump()),
            breaker=BreakerOptions(**given, reconnect=reconnect),
            options=options,
        )


class ModelsConfig(_Written):
    """The whole file."""

    models: dict[str, ModelConfig] = pydantic.Field(min_length=1, max_length=1_000)

    @pydantic.field_validator("models")
    @classmethod
    def _named(cls, models: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
        if not all(_NAME.fullmatch(name) for name in models):
            raise ValueError("a model's name is up to 64 letters, digits and any of . _ : / -")
        return models


def load_models(path: str | Path, *, environ: Mapping[str, str] | None = None) -> dict[str, LLM]:
    """The models of a file, by name. They hold no connection before their first call; `aclose` each in the end.

    Args:
        path: of a TOML file, or a JSON file (`.json`) of the same shape.
        environ: where keys are looked up; the process's own where it is None.

    Raises:
        InvalidInput: a file that cannot be read, holds a key, or does not fit; it says where, and never what stands
            there.
        NoModelConfigured: a variable that the file names is not set; the error names it.
    """
    path = Path(path)
    table = _read(path)
    _refuse_keys(table, path)
    try:
        config = ModelsConfig.model_validate(table)
    except pydantic.ValidationError as error:
        raise InvalidInput(f"{path.name}: {'; '.join(_complaints(error))}") from None
    keys = os.environ if environ is None else environ
    models: dict[str, LLM] = {}
    for name, model in config.models.items():
        try:
            models[name] = model.pool(name, keys)
        except (InvalidInput, NoModelConfigured) as error:
            raise type(error)(f"{path.name}: model {name!r}: {error.detail}") from None
    return models


def models_from_environment(environ: Mapping[str, str]) -> dict[str, LLM]:
    """The models of the file that `AGENTSTREAM_MODELS` names; `default`, if not there, from the other variables.

    Raises:
        InvalidInput, NoModelConfigured: as `load_models` and `model_from_environment`.
    """
    path = environ.get(MODELS_VARIABLE, "").strip()
    models = load_models(path, environ=environ) if path else {}
    if "default" not in models:
        model = model_from_environment(environ)
        if model is not None:
            models["default"] = model
    return models


def _with_key(endpoint: Endpoint, environ: Mapping[str, str]) -> Endpoint:
    key = endpoint.resolve_key(environ)
    return endpoint.model_copy(update={"key": pydantic.SecretStr(key)}) if key else endpoint


# --- the file ---------------------------------------------------------------------------------------------------------
def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"the models' file {path} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise InvalidInput(f"the models' file {path.name} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        if path.suffix.lower() == ".json":
            return msgspec.json.decode(data)
        return tomllib.loads(data.decode())
    # What the parsers say may repeat the text, and the text may hold a key after all.
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidInput(f"{path.name} is not JSON") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at .*\)\Z", str(error))
        raise InvalidInput(f"{path.name} is not TOML {place.group() if place else ''}".rstrip()) from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path.name} is not UTF-8") from None


def _refuse_keys(table: object, path: Path) -> None:
    """Raise where a key stands in the file: as a field that is named like one, or as text that looks like one."""
    for place, name, value in _leaves(table, ""):
        named = name != "key_env" and _SECRET.fullmatch(name) is not None
        if isinstance(value, str) and (named or _LOOKS_SECRET.search(value)):
            raise InvalidInput(
                f"{path.name}: {place} holds a key. A key never stands in the file: put it into a variable of the "
                'environment and write key_env = "NAME_OF_THE_VARIABLE"'
            )


def _leaves(value: object, place: str, name: str = "") -> Iterator[tuple[str, str, object]]:
    table = _table(value)
    if table is not None:
        for key, inner in table.items():
            yield from _leaves(inner, f"{place}.{key}" if place else key, key)
    elif isinstance(value, list):
        for number, inner in enumerate(cast("list[object]", value)):
            yield from _leaves(inner, f"{place}[{number}]", name)
    else:
        yield place, name, value


def _table(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _complaints(error: pydantic.ValidationError) -> Iterator[str]:
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"]).lstrip(".")
        yield f"{place or 'the file'}: {one['msg'].removeprefix('Value error, ')}"
