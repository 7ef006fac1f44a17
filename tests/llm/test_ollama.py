"""Ollama's own format: what is sent, and what every kind of answer means.

Comes in: requests, and JSON lines written here in the server's shapes, cut at every byte. Goes out: a failure where
deltas, usage or the class of an error are wrong. It deliberately opens no connection.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from agentstream.errors import FrameTooLarge, LLMError, LLMParseError, LLMServerError, StreamBroken
from agentstream.events import Usage
from agentstream.llm import LLMRequest, LLMResult, Message, Thought, ToolCall, ToolSpec
from agentstream.llm.ollama import Parser, build
from agentstream.llm.parsing import Lines
from llm.reading import read, read_everywhere


def line(done: bool = False, **fields: Any) -> bytes:
    """One line as the server writes it."""
    body = {"model": "m-1", "created_at": "2026-01-01T00:00:00Z", **fields, "done": done}
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"


def says(content: str = "", **more: Any) -> bytes:
    """More of the message."""
    return line(message={"role": "assistant", "content": content, **more})


def end(reason: str = "stop") -> bytes:
    """The last line."""
    last = {"role": "assistant", "content": ""}
    return line(done=True, message=last, done_reason=reason, prompt_eval_count=20, eval_count=9, total_duration=5)


WHOLE: Final = says(thinking="Hm, ") + says(thinking="ja.") + says("Grüße 🙂") + b"\n" + says(" aus Köln") + end()


def test_text_at_every_cut() -> None:
    """Text, thinking and usage come out alike wherever the network cuts."""
    whole = read_everywhere(Parser, WHOLE)
    assert whole[:2] == (LLMResult("Grüße 🙂 aus Köln", "Hm, ja.", (), Usage(20, 9, calls=1), "stop", "m-1"), None)


def test_line_ends_of_another_machine_and_none_at_the_end() -> None:
    """CRLF is understood, and the last line may lack its end."""
    whole = read(Parser, [WHOLE])
    assert read_everywhere(Parser, WHOLE.replace(b"\n", b"\r\n"))[:2] == whole[:2]
    assert read_everywhere(Parser, WHOLE.removesuffix(b"\n"))[:2] == whole[:2]


def test_whole_calls() -> None:
    """Calls come whole; the thoughts before them are kept for the way back."""
    calls = [{"function": {"index": 0, "name": "f", "arguments": {"x": "ü"}}}, {"id": "b", "function": {"name": "g"}}]
    whole = read_everywhere(Parser, says(thinking="Hm") + says(tool_calls=calls) + end())
    assert whole.result.tool_calls == (ToolCall("", "f", '{"x":"ü"}'), ToolCall("b", "g", "{}"))
    assert whole.result.finish_reason == "tool_calls"
    assert whole.result.thoughts == (Thought("ollama.thinking", "Hm"),)


@pytest.mark.parametrize(
    ("last", "reason", "error"),
    [
        (end("length"), "length", None),
        (end("load"), "load", None),
        (b'{"error": "sk-canary: model runner has unexpectedly stopped"}\n', "", LLMServerError),
        (b'{"error": {"message": "sk-canary"}}\n', "", LLMServerError),
        (b"", "", StreamBroken),
        (b"<html>\n", "", LLMParseError),
        (b"[1]\n", "", LLMParseError),
        (b'{"message": "\xff"}\n', "", LLMParseError),
        (b'{"error": ' + b"[" * 5_000 + b"\n", "", LLMParseError),
    ],
)
def test_ends(last: bytes, reason: str, error: type[LLMError] | None) -> None:
    """How an answer may end; what came before an error is given out."""
    whole = read(Parser, [says("Hel") + last])
    assert (whole.result.text, whole.result.finish_reason, whole.error) == ("Hel", reason, error)
    assert read(Parser, [says("Hel") + last[:3], last[3:]])[:2] == whole[:2]


def test_truncated_at_every_byte_is_never_whole() -> None:
    """Without its last line an answer is broken or unreadable, wherever it was cut."""
    for cut in range(len(WHOLE) - 1):
        found = read(Parser, [WHOLE[:cut]])
        assert found.error in (StreamBroken, LLMParseError)
        assert found.result.finish_reason == ""


def test_lines_are_bounded() -> None:
    """A line above its bound is an error after the lines before it, at every cut, and frees what it held."""
    body = b'{"a":1}\n' + b"x" * 40 + b"\n{}\n"
    for size in (1, 3, 20, len(body)):
        lines = Lines(max_line=16)
        seen: list[bytes] = []
        failed = 0
        for start in range(0, len(body) + 2 * size, size):
            try:
                seen += [message.data for message in lines.feed(body[start : start + size])]
            except FrameTooLarge:
                failed += 1
        assert seen == [b'{"a":1}']
        assert failed


# --- requests ---------------------------------------------------------------------------------------------------------
def test_what_is_sent() -> None:
    """A conversation with tools and pictures becomes the body that Ollama documents."""
    request = LLMRequest(
        messages=(
            Message("system", "Be brief."),
            Message("user", "Look", images=("data:image/png;base64,AA==",)),
            Message("assistant", "", (ToolCall("a", "f", '{"x": 1}'),), thoughts=(Thought("ollama.thinking", "Hm"),)),
            Message("tool", "one", tool_call_id="a", name="f"),
        ),
        tools=(ToolSpec("f", "Does f.", {"type": "object", "properties": {}}),),
        max_tokens=9,
        temperature=0.0,
        thinking="high",
    )
    path, body = build(request, "m-1")
    assert path == "api/chat"
    assert json.loads(body) == {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look", "images": ["AA=="]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}],
                "thinking": "Hm",
            },
            {"role": "tool", "content": "one", "tool_name": "f"},
        ],
        "stream": True,
        "think": True,
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}},
            }
        ],
        "options": {"num_predict": 9, "temperature": 0.0},
    }


def test_a_schema_is_the_format_except_beside_tools() -> None:
    """Held to a schema a model could not call tools; then the schema is told."""
    schema = {"type": "object", "properties": {}}
    alone = json.loads(build(LLMRequest((Message("user", "Hi"),), schema=schema), "m")[1])
    assert alone["format"] == schema
    assert len(alone["messages"]) == 1
    beside = json.loads(build(LLMRequest((Message("user", "Hi"),), (ToolSpec("f"),), schema=schema), "m")[1])
    assert "format" not in beside
    assert '{"type":"object"' in beside["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("model", "thinking", "sent"), [("m", "off", False), ("gpt-oss:20b", "high", "high"), ("gpt-oss:20b", "off", "low")]
)
def test_thinking(model: str, thinking: Any, sent: object) -> None:
    """How much to think is said in the way that the model knows."""
    assert json.loads(build(LLMRequest((), thinking=thinking), model)[1])["think"] == sent
