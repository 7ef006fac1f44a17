"""Bodies that real servers of OpenAI's chat format sent.

Comes in: recorded bodies from `$AGENTSTREAM_FIXTURES`, or from `../shared/fixtures/llm` beside the repository; they are
not part of the project. Goes out: a failure where what we read differs from what the body holds, at any split.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from agentstream.errors import LLMError, LLMParseError, LLMRequestError
from agentstream.events import Usage
from agentstream.llm import Assembly, LLMResult
from agentstream.llm.openai_chat import Parser

_BESIDE: Final = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "llm"
FIXTURES: Final = Path(os.environ.get("AGENTSTREAM_FIXTURES", _BESIDE))
_STRIDE_FROM: Final = 4_000  # bytes; longer bodies are cut at every 37th place


class Expected(NamedTuple):
    """What a body holds."""

    text: str
    thinking: str
    calls: tuple[tuple[str, str], ...]
    usage: Usage
    error: type[LLMError] | None


BODIES: Final = {
    "async_chat_completion_multiple_tools_streaming_with_content.0": Expected(
        "",
        "",
        (
            ("get_current_weather", '{"location": "Seattle, WA"}'),
            ("get_current_weather", '{"location": "San Francisco, CA"}'),
        ),
        Usage(75, 51, calls=1),
        None,
    ),
    "openrouter_stream_error.0": Expected(
        "", "We need to respond to a greeting. The user", (), Usage(), LLMRequestError
    ),
    "run_stream_sync_streams_real_model.0": Expected(
        "", "", (("get_capital", '{"country":"UK"}'),), Usage(53, 15, calls=1), None
    ),
    "run_stream_sync_streams_real_model.1": Expected(
        "The capital of the UK is London.", "", (), Usage(78, 9, calls=1), None
    ),
    "tool_use_failed_error_streaming.0": Expected("", "We need to call the tool", (), Usage(), LLMParseError),
    "tool_use_failed_error_streaming.1": Expected(
        "",
        "We need to call the function with correct parameter",
        (("get_something_by_name", '{"name":"example"}'),),
        Usage(304, 49, reasoning_tokens=23, calls=1),
        None,
    ),
    "tool_use_failed_error_streaming.2": Expected(
        "The tool returned the expected result for the valid call.",
        "The user wants to test error handling",
        (),
        Usage(339, 58, reasoning_tokens=38, calls=1),
        None,
    ),
}


def read(pieces: list[bytes]) -> tuple[LLMResult, type[LLMError] | None]:
    """What our reader makes of a body that comes in these pieces."""
    parser, assembly = Parser(), Assembly()
    for piece in pieces:
        for delta in parser.feed(piece):
            assembly.add(delta)
    for delta in parser.end():
        assembly.add(delta)
    return assembly.result(), type(parser.error) if parser.error else None


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no recorded bodies on this machine")
@pytest.mark.parametrize("name", BODIES)
def test_recorded(name: str) -> None:
    """A recorded body gives its text, thinking, calls, usage and error, whole and at every split."""
    body = (FIXTURES / f"openai-chat.{name}.body").read_bytes()
    expected = BODIES[name]
    whole, error = read([body])
    assert whole.text == expected.text
    assert whole.thinking.startswith(expected.thinking)
    assert tuple((call.name, call.arguments) for call in whole.tool_calls) == expected.calls
    assert whole.usage == expected.usage
    assert error is expected.error
    for cut in range(1, len(body), 1 if len(body) < _STRIDE_FROM else 37):
        assert read([body[:cut], body[cut:]]) == (whole, error)
    for size in (1, 2, 3, 5, 7, 100):
        assert read([body[start : start + size] for start in range(0, len(body), size)]) == (whole, error)
