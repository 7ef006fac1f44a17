"""What a recorded body of a model provider holds, found out the long way.

Comes in: a whole body and the name of its provider. Goes out: text, tool calls, usage and the error's code, as the body
itself says them. It deliberately shares nothing with the parsers that it is compared with: it splits, loads and adds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Held", "held"]


class Held(NamedTuple):
    """What a body holds. `error`: a provider's code, empty where the body holds none."""

    text: str
    thinking: str
    calls: list[tuple[str, Any]]
    usage: tuple[int, int]
    error: str


def _events(body: bytes) -> Iterator[Any]:  # Any: JSON
    """The JSON of each event; whatever `event:` says stands beside it as `_event`."""
    for frame in body.decode().replace("\r\n", "\n").split("\n\n"):
        name, data = "", ""
        for line in frame.split("\n"):
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data += line[5:].strip()
        if data and data != "[DONE]":
            yield {"_event": name, **json.loads(data)}


def held(provider: str, body: bytes) -> Held:
    """What the body holds.

    Raises:
        KeyError: a provider that nobody taught this.
    """
    return {
        "openai-chat": _chat,
        "openai-responses": _responses,
        "anthropic": _anthropic,
        "gemini": _gemini,
        "ollama": _ollama,
    }[provider](body)


def _chat(body: bytes) -> Held:
    text, thinking, error, usage = "", "", "", (0, 0)
    calls: dict[int, list[str]] = {}
    for event in _events(body):
        counted = event.get("usage") or (event.get("x_groq") or {}).get("usage")
        if counted:
            usage = (counted["prompt_tokens"], counted["completion_tokens"])
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            thinking += delta.get("reasoning") or delta.get("reasoning_content") or ""
            for part in delta.get("tool_calls") or []:
                one = calls.setdefault(part["index"], ["", ""])
                one[0] += part["function"].get("name") or ""
                one[1] += part["function"].get("arguments") or ""
        if event.get("error"):
            error = str(event["error"]["code"])
            break
    if error:
        calls, usage = {}, (0, 0)  # such an answer has no end, hence no usage
    return Held(text, thinking, [(name, json.loads(said)) for name, said in calls.values()], usage, error)


def _responses(body: bytes) -> Held:
    text, thinking = "", ""
    last: dict[str, Any] = {}
    for event in _events(body):
        if event["type"] == "response.output_text.delta":
            text += event["delta"]
        elif event["type"] == "response.reasoning_summary_text.delta":
            thinking += event["delta"]
        elif event["type"] in ("response.completed", "response.incomplete", "response.failed"):
            last = event["response"]
    items = [item for item in last["output"] if item["type"] == "function_call"]
    usage = last["usage"]
    return Held(
        text,
        thinking,
        [(item["name"], json.loads(item["arguments"])) for item in items],
        (usage["input_tokens"], usage["output_tokens"]),
        str((last.get("error") or {}).get("code", "")),
    )


def _anthropic(body: bytes) -> Held:
    text, thinking, error, read, written = "", "", "", 0, 0
    calls: dict[int, list[str]] = {}
    for event in _events(body):
        delta = event.get("delta") or {}
        text += delta.get("text", "")
        thinking += delta.get("thinking", "")
        block = event.get("content_block") or {}
        if block.get("type") == "tool_use":
            calls[event["index"]] = [block["name"], ""]
        if "partial_json" in delta:
            calls[event["index"]][1] += delta["partial_json"]
        usage = event.get("usage") or (event.get("message") or {}).get("usage")
        if usage:
            parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
            read = sum(usage.get(part) or 0 for part in parts) or read
            written = usage["output_tokens"]
        if event["type"] == "error":
            error = event["error"]["type"]
    return Held(
        text, thinking, [(name, json.loads(said or "{}")) for name, said in calls.values()], (read, written), error
    )


def _gemini(body: bytes) -> Held:
    text, thinking, error, usage = "", "", "", (0, 0)
    calls: list[tuple[str, Any]] = []
    for event in _events(body):
        counted = event.get("usageMetadata") or {}
        written = counted.get("candidatesTokenCount", 0) + counted.get("thoughtsTokenCount", 0)
        usage = (counted.get("promptTokenCount", 0), written) if counted else usage
        error = str((event.get("error") or {}).get("status", error))
        for candidate in event.get("candidates") or []:
            for part in candidate.get("content", {}).get("parts", []):
                if "functionCall" in part:
                    calls.append((part["functionCall"]["name"], part["functionCall"].get("args", {})))
                elif part.get("thought"):
                    thinking += part["text"]
                else:
                    text += part.get("text", "")
    return Held(text, thinking, calls, usage, error)


def _ollama(body: bytes) -> Held:
    lines = [json.loads(line) for line in body.splitlines() if line.strip()]
    said = [line.get("message") or {} for line in lines]
    return Held(
        "".join(one.get("content", "") for one in said),
        "".join(one.get("thinking") or "" for one in said),
        [
            (call["function"]["name"], call["function"]["arguments"])
            for one in said
            for call in one.get("tool_calls") or []
        ],
        (lines[-1].get("prompt_eval_count", 0), lines[-1].get("eval_count", 0)),
        "error" if "error" in lines[-1] else "",
    )
