"""What the headers of a refusal say.

What comes in: headers. What goes out: seconds to wait, and facts that are safe to show. It does not know HTTP clients.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC

__all__ = ("facts", "retry_after")

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)


def facts(headers: Mapping[str, str]) -> dict[str, object]:
    """What helps the provider's support, and what the provider itself says about trying again."""
    found: dict[str, object] = {}
    request_id = headers.get("x-request-id", "") or headers.get("request-id", "")  # the second is Anthropic's
    if _REQUEST_ID.fullmatch(request_id):
        found["request_id"] = request_id
    advice = headers.get("x-should-retry", "").lower()
    if advice in ("true", "false"):
        found["should_retry"] = advice == "true"
    return found


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date); None where they say nothing.

    Args:
        now: seconds since the epoch that a date is compared with; None for this machine's clock.

    Source: RFC 9110 §10.2.3; the header in milliseconds is OpenAI's own.
    """
    for text, unit in ((headers.get("retry-after-ms", ""), 1000.0), (headers.get("retry-after", ""), 1.0)):
        try:
            seconds = float(text) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        until = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, until - (time.time() if now is None else now))
