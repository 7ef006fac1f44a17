"""Clients and a server that others wrote: the SDKs of three providers, and the npm package `@copilotkit/aimock`.

Comes in: an address to ask, or fixtures to serve. Goes out: what the clients understood, or a running server. It
deliberately does not know what either of them should say.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import anthropic
import ollama
import openai

from claims import ROOT, real

__all__ = ["Understood", "ask_anthropic", "ask_chat", "ask_ollama", "ask_responses", "mock_server"]

PACKAGE: Final = "@copilotkit/aimock@1.43.0"
_INSTALL_S: Final = 180.0
_START_S: Final = 20.0
_TOOL: Final[dict[str, Any]] = {"type": "object", "properties": {"x": {"type": "string"}}}  # Any: a JSON schema


class Understood(NamedTuple):
    """What a foreign client read: calls as name and parsed arguments, usage as tokens in and out."""

    text: str
    thinking: str
    calls: list[tuple[str, Any]]
    usage: tuple[int, int]
    reason: str


# --- the SDKs ---------------------------------------------------------------------------------------------------------
def ask_chat(url: str) -> Understood:
    """OpenAI's SDK, its chat format, with its own joining of pieces."""
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0, timeout=20) as client:
        stream = client.chat.completions.stream(
            model="m",
            messages=[{"role": "user", "content": "Hi"}],
            stream_options={"include_usage": True},
        )
        thinking = ""
        with stream as events:
            for event in events:
                if event.type == "chunk" and event.chunk.choices:
                    thinking += getattr(event.chunk.choices[0].delta, "reasoning_content", None) or ""
            final = events.get_final_completion()
    message, usage = final.choices[0].message, final.usage
    assert usage is not None
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    return Understood(message.content or "", thinking, calls, tokens, final.choices[0].finish_reason)


def ask_responses(url: str) -> Understood:
    """OpenAI's SDK, its responses format, with its own joining of pieces."""
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0, timeout=20) as client:
        text, thinking = "", ""
        with client.responses.stream(model="m", input="Hi") as events:
            for event in events:
                if event.type == "response.output_text.delta":
                    text += event.delta
                elif event.type == "response.reasoning_summary_text.delta":
                    thinking += event.delta
            final = events.get_final_response()
    assert final.usage is not None
    assert final.output_text == text
    calls = [(item.name, json.loads(item.arguments)) for item in final.output if item.type == "function_call"]
    return Understood(text, thinking, calls, (final.usage.input_tokens, final.usage.output_tokens), str(final.status))


def ask_anthropic(root: str) -> Understood:
    """Anthropic's SDK, with its own joining of pieces; its address has no version."""
    with anthropic.Anthropic(base_url=root, api_key="k", max_retries=0, timeout=20) as client:
        stream = client.messages.stream(model="m", max_tokens=99, messages=[{"role": "user", "content": "Hi"}])
        with stream as events:
            final = events.get_final_message()
    text = "".join(block.text for block in final.content if block.type == "text")
    thinking = "".join(block.thinking for block in final.content if block.type == "thinking")
    calls = [(block.name, block.input) for block in final.content if block.type == "tool_use"]
    read = final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0)
    return Understood(text, thinking, calls, (read, final.usage.output_tokens), str(final.stop_reason))


def ask_ollama(root: str) -> Understood:
    """Ollama's SDK."""
    text, thinking, usage, reason = "", "", (0, 0), ""
    calls: list[tuple[str, Any]] = []
    for part in ollama.Client(host=root, timeout=20).chat("m", [{"role": "user", "content": "Hi"}], stream=True):
        text += part.message.content or ""
        thinking += part.message.thinking or ""
        calls += [(call.function.name, dict(call.function.arguments)) for call in part.message.tool_calls or []]
        if part.done:
            usage, reason = (part.prompt_eval_count or 0, part.eval_count or 0), part.done_reason or ""
    return Understood(text, thinking, calls, usage, reason)


# --- the server -------------------------------------------------------------------------------------------------------
def _installed() -> Path:
    """The program, installed once into a folder beside the environment, or into the machine's own for such things."""
    version = PACKAGE.rpartition("@")[2]
    beside = ROOT / ".venv"
    folder = (beside if beside.is_dir() else Path(tempfile.gettempdir())) / f"aimock-{version}"
    program = folder / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        done = subprocess.run(
            [real("npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
        if not program.exists():
            raise RuntimeError(f"npm could not install {PACKAGE}:\n{done.stderr[-2_000:]}")
    return program


@contextmanager
def mock_server(fixtures: dict[str, Any]) -> Iterator[str]:  # Any: JSON of the server's own
    """The address of the server, which answers as the fixtures say; it is gone afterwards."""
    node, program = real("node"), _installed()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="agentstream-aimock-") as folder:
        file = Path(folder, "fixtures.json")
        file.write_text(json.dumps(fixtures))
        process = subprocess.Popen(
            [node, str(program), "-p", str(port), "-f", str(file), "--chunk-size", "3", "--log-level", "warn"],
            stdout=sys.stderr,
            env={"PATH": os.environ["PATH"], "HOME": folder},
        )
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/v1/models")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise RuntimeError("aimock did not start")
