"""What people write about one endpoint, and what a program may add to a pool of them.

What comes in: values from Python or a configuration file. What goes out: checked, frozen models. It does not know how
an endpoint is reached; a key is named by the variable that holds it and never shown, dumped or compared.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
import pydantic

from agentstream.errors import InvalidInput, LLMError, NoModelConfigured
from agentstream.llm.contract import LLM
from agentstream.llm.http import Timeouts
from agentstream.llm.messages import LLMRequest, LLMResult
from agentstream.llm.providers import provider_named

if TYPE_CHECKING:
    import httpx

__all__ = ("Alarm", "Connections", "Endpoint", "EndpointTimeouts", "HealthCheck", "Opener", "PoolOptions", "credential")

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


class _Written(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class HealthCheck(_Written):
    """How an endpoint's health is found out. Times in seconds.

    Attributes:
        passive: calls count: an endpoint whose calls fail is left alone.
        active: it is also asked each `interval` while it is given up, or idle; only inside `async with pool`. Then real
            calls are not used to try it again.
        path: what is fetched below the address, at no cost in tokens; empty for the provider's list of models. Any
            answer but a failure of the server, or a refused key, is well: many servers know no such path and say 404.
    """

    passive: bool = True
    active: bool = False
    interval: float = pydantic.Field(default=30.0, ge=1, le=86_400)
    timeout: float = pydantic.Field(default=5.0, gt=0, le=600)
    path: str = pydantic.Field(default="", max_length=256, pattern=r"^[A-Za-z0-9_./~-]*$")


class Connections(_Written):
    """The connections to one endpoint.

    Attributes:
        most: at once. It is far above what calls need, since a call has a connection of its own.
        kept: kept open without a call, at most. expiry: seconds that one is kept.
    """

    most: int = pydantic.Field(default=1_000, ge=1, le=100_000)
    kept: int = pydantic.Field(default=100, ge=0, le=10_000)
    expiry: float = pydantic.Field(default=60.0, ge=0, le=86_400)


class EndpointTimeouts(_Written):
    """Limits of one attempt in seconds; None for none. See `agentstream.llm.http.Timeouts`."""

    connect: float | None = pydantic.Field(default=5.0, gt=0)
    write: float | None = pydantic.Field(default=30.0, gt=0)
    pool: float | None = pydantic.Field(default=5.0, gt=0)
    first_token: float | None = pydantic.Field(default=60.0, gt=0)
    between_tokens: float | None = pydantic.Field(default=30.0, gt=0)

    def limits(self) -> Timeouts:
        """The same for the client."""
        return Timeouts(**self.model_dump())


class Endpoint(_Written):
    """One address of a model.

    Attributes:
        url: up to and with the version, for instance `http://localhost:8000/v1`; without user, query and fragment.
            Empty for the provider's own address.
        model: the provider's name for the model. provider: its format, a name in `agentstream.llm.providers`.
        name: unlike any other's in the pool; the host (and port) where none is given.
        key_env: the variable that holds the key. key: the key itself, from a program only; it goes before the variable.
        weight: how often it is chosen, relative to the others of its tier.
        tier: endpoints of a higher tier are asked only while none of a lower one can take a call.
        max_concurrency: calls at once.
    """

    url: str = pydantic.Field(default="", max_length=2048)
    model: str = pydantic.Field(default="", max_length=256)
    provider: str = "openai"
    name: str = pydantic.Field(default="", pattern=rf"^$|{_NAME}")
    key_env: str = pydantic.Field(default="", max_length=128)
    key: pydantic.SecretStr | None = pydantic.Field(default=None, exclude=True, repr=False)
    weight: float = pydantic.Field(default=1.0, gt=0, le=1_000)
    tier: int = pydantic.Field(default=0, ge=0, le=100)
    max_concurrency: int = pydantic.Field(default=64, ge=1, le=10_000)
    health_check: HealthCheck = HealthCheck()
    timeouts: EndpointTimeouts = EndpointTimeouts()
    connections: Connections = Connections()

    @pydantic.field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if not url.strip():
            return ""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port  # reading the port checks it
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        secret = parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme not in ("http", "https") or not host or secret or port == 0:
            raise ValueError("looks like https://host/v1: no user, query or fragment")
        return url.strip().rstrip("/")

    @pydantic.field_validator("key_env")
    @classmethod
    def _is_variable(cls, name: str) -> str:
        if name and _VARIABLE.fullmatch(name) is None:
            raise ValueError(
                "names a variable of the environment, for instance OPENAI_API_KEY; it is never the key itself"
            )
        return name

    @pydantic.field_validator("provider")
    @classmethod
    def _is_provider(cls, provider: str) -> str:
        return provider_named(provider).name  # InvalidInput is a ValueError

    @property
    def address(self) -> str:
        """The address that it is reached at."""
        return self.url or provider_named(self.provider).base_url

    @property
    def label(self) -> str:
        """The name, or the host and port where there is none."""
        return self.name or urlsplit(self.address).netloc.replace("[", "").replace("]", "").lower()[:64]

    def resolve_key(self, environ: Mapping[str, str]) -> str:
        """The key, empty where none is configured.

        Raises:
            NoModelConfigured: the variable that should hold it is not set; the error names it.
        """
        if self.key is not None:
            return self.key.get_secret_value()
        if not self.key_env:
            return ""
        key = environ.get(self.key_env, "").strip()
        if not key:
            raise NoModelConfigured(f"endpoint {self.label!r} takes its key from the variable {self.key_env}: set it")
        return key

    def reaches_as(self, other: Endpoint) -> bool:
        """Whether both are reached over the same client: nothing changed but how it is chosen and judged."""
        names = ("url", "model", "provider", "key_env", "key", "timeouts", "connections")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def credential(key: str) -> str:
    """What tells two keys apart without telling them; empty for none."""
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).hexdigest() if key else ""


# --- what a program may add -------------------------------------------------------------------------------------------
class Alarm(msgspec.Struct, frozen=True):
    """Something an operator may want to know; told once, and again only after it was over.

    Attributes:
        kind: failure_rate (too many attempts fail), load (calls or the queue near their limit), allowance (a limit of
            the provider nearly used up), account and auth (an endpoint was given up until somebody acts), down (no
            endpoint takes calls).
        pool, endpoint: whose; no endpoint where it is the pool's. value, limit: the figure and its bound, as shares.
        message: one sentence, safe to show.
    """

    kind: Literal["failure_rate", "load", "allowance", "account", "auth", "down"]
    pool: str
    endpoint: str = ""
    value: float = 0.0
    limit: float = 0.0
    message: str = ""


Opener: TypeAlias = "Callable[[Endpoint, str, httpx.AsyncClient], LLM]"
"""Makes the client of an endpoint from its description, its key and the HTTP client that it is reached over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Further limits and hooks of a pool. Times in seconds.

    Attributes:
        max_waiting: calls that may wait for a free place; one more is refused.
        prewarm: connect to all endpoints when the pool is entered, and keep used ones connected.
        idle_after: connections of an endpoint without calls for so long are closed; only inside `async with pool`.
        warn_failures: share of failed attempts (of at least 20 in 30 s), warn_load: share of a limit in use, above
            which an `Alarm` is raised.
        debug: log each attempt at level INFO instead of DEBUG.
        retryable: whether a failed attempt is followed by another; None leaves it to the rules. After the first token
            nothing is repeated, whatever it says.
        validate_response: called with each whole answer, before its `Finish` is given out. Raising `ValueError`, or
            returning False, makes it a failed attempt. Bounds are its own: it runs on the event loop.
        sticky: a key of a request; requests of one key go to one endpoint while it can take them (prompt caches).
        on_alarm: called on the event loop; must not raise, block or await.
        check: asks an endpoint whether it is well instead of `HealthCheck.path`; raises where it is not.
        opener: makes the client of an endpoint instead of `HttpLLM`.
        random: source of jitter and choice.
    """

    max_waiting: int = 1_000
    prewarm: bool = True
    idle_after: float = 300.0
    warn_failures: float = 0.5
    warn_load: float = 0.8
    debug: bool = False
    retryable: Callable[[LLMError], bool | None] | None = None
    validate_response: Callable[[LLMResult], object] | None = None
    sticky: Callable[[LLMRequest], str] | None = None
    on_alarm: Callable[[Alarm], object] | None = None
    check: Callable[[Endpoint], Awaitable[object]] | None = None
    opener: Opener | None = None
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        if self.max_waiting < 0 or self.idle_after <= 0:
            raise InvalidInput("pool: max_waiting is from 0, idle_after above 0")
        if not (0 < self.warn_failures <= 1 and 0 < self.warn_load <= 1):
            raise InvalidInput("pool: warn_failures and warn_load are shares, above 0 and at most 1")
