"""What can be wrong with a request that no lower floor knows of.

What comes in: what was found. What goes out: errors with a stable code and an HTTP status, shown as problem documents.
It does not know how they are found.
"""

from __future__ import annotations

from agentstream.errors import RunError, UsageError

__all__ = (
    "ArtifactUnknown",
    "BodyTooSlow",
    "HostNotAllowed",
    "InvalidJson",
    "InvocationUnknown",
    "MethodNotAllowed",
    "NotFound",
    "OriginNotAllowed",
    "TooManyRequests",
    "UnsupportedMediaType",
)


class NotFound(UsageError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class MethodNotAllowed(UsageError):
    """The address takes other methods; `allow` lists them."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, allow: str) -> None:
        super().__init__(f"this address takes {allow}", details={"allow": allow})
        self.allow = allow


class UnsupportedMediaType(UsageError):
    """The body is of a kind that is not taken here."""

    code = "unsupported_media_type"
    status = 415


class InvalidJson(UsageError):
    """The body is not JSON."""

    code = "invalid_json"


class BodyTooSlow(UsageError):
    """The body stopped coming."""

    code = "body_too_slow"
    status = 408


class OriginNotAllowed(UsageError):
    """A page of another site sent this, and it is not on the list."""

    code = "origin_not_allowed"
    status = 403


class HostNotAllowed(UsageError):
    """The server was called by a name that is not its own."""

    code = "host_not_allowed"
    status = 421


class TooManyRequests(UsageError):
    """One client asks too often; `retry_after` is in seconds."""

    code = "too_many_requests"
    status = 429
    retryable = True

    def __init__(self, detail: str, *, retry_after: float) -> None:
        super().__init__(detail, details={"retry_after": round(retry_after, 3)})
        self.retry_after = retry_after


class InvocationUnknown(RunError):
    """The run has no invocation of that id."""

    code = "invocation_unknown"
    status = 404


class ArtifactUnknown(RunError):
    """The run has no artifact of that id."""

    code = "artifact_unknown"
    status = 404
