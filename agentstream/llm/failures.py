"""What a provider's refusals and error objects mean, whichever provider it is.

What comes in: a status, an error object or a body as a provider wrote it. What goes out: the `LLMError` whose class
says who can mend it. It does not know HTTP clients, time or keys, and never puts a provider's words into an error: they
may repeat the prompt or the key. Only short codes that look like codes are kept.
"""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from agentstream.errors import (
    LLMAuthError,
    LLMContentRefused,
    LLMError,
    LLMParseError,
    LLMQuotaExceeded,
    LLMRateLimited,
    LLMRequestError,
    LLMServerError,
)
from agentstream.events import Json

__all__ = ("failure", "refusal")

# Words with separators, or a short number: what codes look like, and no key does.
_CODE = re.compile(r"(?=.{1,64}\Z)[A-Za-z]+(?:[_.:-][A-Za-z]+)*|[0-9]{1,6}", re.ASCII)

_QUOTA = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "insufficient_balance",
    }
)
_CONTENT = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "image_content_policy_violation",
        "moderation_blocked",
        "cyber_policy",
        "bio_policy",
    }
)
_RATE = frozenset({"rate_limit_exceeded", "rate_limit_error", "tokens", "requests", "RESOURCE_EXHAUSTED"})
_AUTH = frozenset(
    {
        "invalid_api_key",
        "authentication_error",
        "permission_error",
        "permission_denied",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    }
)
# Google answers 400 to a key that it does not know.
_KEY_UNKNOWN = frozenset({"API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "CONSUMER_SUSPENDED"})
_REQUEST = frozenset(
    {
        "invalid_request_error",
        "invalid_prompt",
        "invalid_image",
        "not_found_error",
        "request_too_large",
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "NOT_FOUND",
        "OUT_OF_RANGE",
    }
)
# The model wrote a call that its own provider could not read: another answer may do better.
_MODEL_SLIP = frozenset({"tool_use_failed", "json_validate_failed"})

_SAID: Final = {
    "context_length_exceeded": "the conversation is longer than the model takes",
    "request_too_large": "the request is larger than the provider takes",
    "model_not_found": "the provider does not know this model",
    "overloaded_error": "the provider is overloaded",
}


class _Fact(msgspec.Struct, gc=False):
    """One entry of Google's `details`."""

    reason: str | None = None
    retry_delay: str | None = msgspec.field(default=None, name="retryDelay")


class _Error(msgspec.Struct, gc=False):
    code: Json = None
    type: Json = None
    status: Json = None
    status_code: Json = None
    details: Json = None


class _Body(msgspec.Struct, gc=False):
    error: Json = None
    object: Json = None
    code: Json = None
    type: Json = None


def refusal(status: int, body: bytes, provider: str = "", *, retry_after: float | None = None) -> LLMError:
    """What an answer means that is no stream: a status other than 200, or JSON.

    Args:
        body: at most its first 64 KiB; only codes are looked at.
        retry_after: seconds, as read from the headers; a wait that the body names counts where the headers are silent.
    """
    error = _error_of(body)
    if status == 200 and not error:
        return LLMParseError("the server answered, but did not stream its answer", provider=provider)
    found = failure(status, error, provider)
    found.retry_after = found.retry_after if retry_after is None else retry_after
    return found


def _error_of(body: bytes) -> Json:
    try:
        # Gemini wraps it into an array where no event stream was asked for.
        found = msgspec.json.decode(body, type=_Body | list[_Body])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    one = found if isinstance(found, _Body) else (found[0] if found else _Body())
    if not one.error and one.object == "error":  # Mistral, and vLLM up to 0.9: the body is the error
        return {"code": one.code, "type": one.type}
    return one.error


def failure(status: int | None, error: Json, provider: str = "") -> LLMError:
    """What an error object means.

    Args:
        status: of HTTP; None for an error inside a stream, where HTTP's was 200 by then.
        error: as decoded; anything that is no error object says nothing, and the status decides.
    """
    try:
        fields = msgspec.convert(error, _Error)
    except msgspec.ValidationError:
        fields = _Error()
    facts = _facts(fields.details)
    said = (fields.code, fields.type, fields.status, *(fact.reason for fact in facts))
    words = [word for word in said if isinstance(word, str) and _CODE.fullmatch(word)]
    kind = next((number for number in (status, fields.code, fields.status_code) if _is_status(number)), None)
    class_, detail = _class_of(kind, set(words))
    detail = next((_SAID[word] for word in words if word in _SAID), detail)
    details: dict[str, object] = {"provider_code": words[0]} if words else {}
    waits = [seconds for fact in facts if (seconds := _seconds(fact.retry_delay)) is not None]
    return class_(detail, provider=provider, http_status=status, retry_after=max(waits, default=None), details=details)


def _facts(details: Json) -> list[_Fact]:
    try:
        return msgspec.convert(details, list[_Fact])
    except msgspec.ValidationError:
        return []


def _seconds(text: str | None) -> float | None:
    """Seconds of a duration as Google's JSON writes it, `12.5s`."""
    try:
        seconds = float((text or "").removesuffix("s"))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _is_status(number: Json) -> bool:
    return isinstance(number, int) and 300 <= number <= 599


def _class_of(status: int | None, words: set[str]) -> tuple[type[LLMError], str]:
    """The class that says who can mend it: nobody but time, the caller, or the owner of the account.

    As the clients of OpenAI and Anthropic sort them: 408, 409, 429 and 5xx pass, other 4xx do not. A used-up quota
    comes as 429 and does not pass.
    """
    by_word: tuple[tuple[frozenset[str], type[LLMError], str], ...] = (
        (_QUOTA, LLMQuotaExceeded, "the account has no quota left"),
        (_CONTENT, LLMContentRefused, "the model or its provider refused to answer this"),
        (_MODEL_SLIP, LLMParseError, "the model wrote a tool call that its provider could not read"),
        (_KEY_UNKNOWN, LLMAuthError, "the provider refused the key"),
    )
    for known, class_, detail in by_word:
        if words & known:
            return class_, detail
    if status == 429 or (status is None and words & _RATE):
        return LLMRateLimited, "too many requests"
    if status == 402:
        return LLMQuotaExceeded, "the account has no quota left"
    if status in (401, 403) or (status is None and words & _AUTH):
        return LLMAuthError, "the provider refused the key"
    if status in (408, 409) or (status is not None and status >= 500):
        return LLMServerError, "the provider failed"
    if status is not None and status < 400:
        detail = "the address answers with a redirect, which is not followed: configure the final address"
        return LLMRequestError, detail
    if status is not None or words & _REQUEST or words & {"context_length_exceeded", "model_not_found"}:
        return LLMRequestError, "the provider refused the request"
    return LLMServerError, "the provider failed while it answered"
