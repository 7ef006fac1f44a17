"""The fake provider: what is on the wire, what goes wrong on purpose, and what is remembered.

Comes in: requests over plain HTTP. Goes out: a failure where a byte of a format's framing, a fault or a recorded
request is not as said. It deliberately uses none of our clients, which would read the wire leniently.
"""

from __future__ import annotations

import json
from typing import Any, Final

import anyio
import httpx
import pytest

from agentstream.errors import InvalidInput
from agentstream.events import Usage
from agentstream.llm import ToolCall
from agentstream.testing import FakeAnswer, FakeProvider, FakeRequest, Fault

pytestmark = pytest.mark.anyio

PATHS: Final = {
    "openai": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m-1:streamGenerateContent?alt=sse",
    "ollama": "/api/chat",
}
ANSWER: Final = FakeAnswer("Hello", "Hm", (ToolCall("a", "f", '{"x": 1}'),), Usage(20, 9, 5, 2, calls=1))


async def ask(server: FakeProvider, provider: str, **body: Any) -> httpx.Response:
    """Ask in a format, and read the whole answer."""
    with anyio.fail_after(10):
        async with httpx.AsyncClient(trust_env=False) as http:
            sent = {"model": "m-1", "messages": [{"role": "user", "content": "Hi"}], **body}
            return await http.post(server.root + PATHS[provider], json=sent, headers={"X-Api-Key": "sk-1"})


# --- framing ----------------------------------------------------------------------------------------------------------
async def test_chat_on_the_wire() -> None:
    """Data lines only, the role first, usage in a chunk without choices, and the mark of the end."""
    async with FakeProvider(ANSWER) as server:
        answer = await ask(server, "openai")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["prompt_tokens"]) == ([], 20)
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert {chunk["model"] for chunk in chunks} == {"m-1"}


async def test_responses_on_the_wire() -> None:
    """Named events, numbered from 0 without a gap, that open and close each item."""
    async with FakeProvider(ANSWER) as server:
        answer = await ask(server, "openai-responses")
    events = [event.split("\ndata: ") for event in answer.text.split("\n\n")[:-1]]
    bodies = [json.loads(data) for _, data in events]
    assert [name for name, _ in events] == [f"event: {body['type']}" for body in bodies]
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    kinds = [body["type"].removeprefix("response.") for body in bodies]
    assert kinds[0] == "created"
    assert kinds[-1] == "completed"
    assert kinds.count("output_item.added") == kinds.count("output_item.done") == 3
    assert bodies[-1]["response"]["usage"]["input_tokens_details"] == {"cached_tokens": 5}


async def test_anthropic_on_the_wire() -> None:
    """Named events with padded JSON, a ping, blocks that open and close, and usage that counts the cache apart."""
    async with FakeProvider(ANSWER) as server:
        answer = await ask(server, "anthropic")
    events = [event.split("\ndata: ") for event in answer.text.split("\n\n")[:-1]]
    bodies = [json.loads(data) for _, data in events]
    kinds = [body["type"] for body in bodies]
    assert [name for name, _ in events] == [f"event: {kind}" for kind in kinds]
    assert any(data.endswith("  }") for _, data in events)
    assert (kinds[0], kinds[1], kinds[-1]) == ("message_start", "ping", "message_stop")
    assert [body["index"] for body in bodies if body["type"] == "content_block_start"] == [0, 1, 2]
    assert bodies[0]["message"]["usage"]["input_tokens"] == 15
    assert bodies[0]["message"]["usage"]["cache_read_input_tokens"] == 5


async def test_gemini_on_the_wire() -> None:
    """Every line ends in CRLF; a call comes whole; usage counts thoughts apart."""
    async with FakeProvider(ANSWER) as server:
        answer = await ask(server, "gemini")
    assert answer.content.count(b"\n") == answer.content.count(b"\r\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\r\n\r\n")[:-1]]
    last = chunks[-1]["candidates"][0]
    assert last["content"]["parts"][0]["functionCall"] == {"name": "f", "args": {"x": 1}, "id": "a"}
    assert last["finishReason"] == "STOP"
    assert chunks[-1]["usageMetadata"]["candidatesTokenCount"] == 7
    assert {chunk["modelVersion"] for chunk in chunks} == {"m-1"}


async def test_ollama_on_the_wire() -> None:
    """One JSON object a line; the last says that it is."""
    async with FakeProvider(ANSWER) as server:
        answer = await ask(server, "ollama")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["eval_count"] == 9


# --- faults -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("provider", PATHS)
@pytest.mark.parametrize("wait", ["2", "1.5", "Thu, 01 Jan 2099 00:00:00 GMT", ""])
async def test_refusals(provider: str, wait: str) -> None:
    """A status with an error as the provider writes it, and a wait in any form."""
    async with FakeProvider(Fault.refusal(429, retry_after=wait)) as server:
        answer = await ask(server, provider)
    assert answer.status_code == 429
    assert answer.headers.get("retry-after", "") == wait
    assert answer.json()["error"]


async def test_a_redirect() -> None:
    """307 with its place."""
    async with FakeProvider(Fault.redirect("http://127.0.0.1:9/x")) as server:
        answer = await ask(server, "openai")
    assert (answer.status_code, answer.headers["location"]) == (307, "http://127.0.0.1:9/x")


@pytest.mark.parametrize("provider", PATHS)
async def test_errors_inside_the_stream_repeat_what_was_asked(provider: str) -> None:
    """The error follows so many frames, and says key and prompt as some providers do."""
    async with FakeProvider(FakeAnswer("Hello", fault=Fault.error(after=1))) as server:
        answer = await ask(server, provider)
    assert answer.status_code == 200
    last = answer.text.strip().splitlines()[-1]
    assert "sk-1" in last
    assert "Hi" in last


@pytest.mark.parametrize("provider", PATHS)
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_cuts(provider: str, reset: bool) -> None:
    """The connection ends inside a frame."""
    async with FakeProvider(FakeAnswer("Hello", fault=Fault.cut(after=1, reset=reset))) as server:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await ask(server, provider)


@pytest.mark.parametrize("provider", PATHS)
async def test_no_end(provider: str) -> None:
    """The body ends in order; what the format ends an answer with is missing."""
    async with FakeProvider(FakeAnswer("Hello", fault=Fault.no_end()), "Hello") as server:
        short, whole = await ask(server, provider), await ask(server, provider)
    assert len(short.text) < len(whole.text)
    for mark in ("[DONE]", 'finish_reason":"stop', "response.completed", "message_stop", "finishReason", '"done":true'):
        assert mark not in short.text


@pytest.mark.parametrize("provider", PATHS)
async def test_broken_json(provider: str) -> None:
    """One frame cannot be read; the frames after it come nevertheless."""
    braces = FakeAnswer("}{}", fault=Fault.broken_json(after=1))
    async with FakeProvider(braces, "}{}") as server:
        broken, whole = await ask(server, provider), await ask(server, provider)
    assert len(broken.text) == len(whole.text) - 1
    bad = 0
    for line in broken.text.splitlines():
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            try:
                json.loads(data)
            except ValueError:
                bad += 1
    assert bad == 1


async def test_a_bomb_and_a_web_page() -> None:
    """A small packed body that is large when it is unpacked; and 200 with another type."""
    async with FakeProvider(Fault.gzip_bomb(8 << 20), Fault.wrong_type("text/plain")) as server:
        bomb, page = await ask(server, "openai"), await ask(server, "openai")
    assert bomb.headers["content-encoding"] == "gzip"
    assert int(bomb.headers["content-length"]) < 1 << 16
    assert len(bomb.content) > 8 << 20
    assert (page.headers["content-type"], page.content[:15]) == ("text/plain", b"<!doctype html>")


async def test_a_hang_ends_when_the_client_leaves() -> None:
    """So many frames come, then nothing, until the client goes; the server notices."""
    with anyio.fail_after(10):
        async with FakeProvider(FakeAnswer("Hello", fault=Fault.hang(after=1))) as server:
            with pytest.raises(httpx.ReadTimeout):
                async with httpx.AsyncClient(timeout=0.2, trust_env=False) as http:
                    await http.post(server.url() + "/chat/completions", json={})
            await server.until_left(1)
            assert (server.connections, server.left) == (1, 1)


async def test_a_drip_is_whole() -> None:
    """Slow, in small pieces, and all of it."""
    async with FakeProvider(FakeAnswer("Hello", fault=Fault.drip(0.0, size=3)), "Hello") as server:
        assert (await ask(server, "ollama")).text == (await ask(server, "ollama")).text


# --- the script and what is remembered --------------------------------------------------------------------------------
async def test_requests_are_remembered() -> None:
    """Format, path, headers in lower case and the body; a key is there to be checked, and not shown."""
    async with FakeProvider("Hi.") as server:
        await ask(server, "anthropic", max_tokens=9)
    (request,) = server.requests
    assert (request.provider, request.method, request.path) == ("anthropic", "POST", "/v1/messages")
    assert request.headers["x-api-key"] == "sk-1"
    assert request.body["max_tokens"] == 9
    assert "sk-1" not in repr(request)
    assert "max_tokens" in repr(request)


async def test_the_script() -> None:
    """One item a request, functions of the request too; beyond its end every request is refused."""

    def by_request(request: FakeRequest) -> str:
        return f"You said {request.body['messages'][0]['content']}"

    async with FakeProvider(
        by_request, [ToolCall("a", "f"), ToolCall("b", "g")], ToolCall("c", "h"), piece=99
    ) as server:
        assert "You said Hi" in (await ask(server, "openai")).text
        assert '"name":"g"' in (await ask(server, "openai")).text
        assert '"name":"h"' in (await ask(server, "ollama")).text
        beyond = await ask(server, "openai")
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (400, "script_used_up")


async def test_the_last_item_may_be_repeated() -> None:
    """`repeat` is for servers that many requests are made to."""
    async with FakeProvider(Fault.refusal(500), "Hi.", repeat=True) as server:
        assert [(await ask(server, "openai")).status_code for _ in range(4)] == [500, 200, 200, 200]


async def test_lists_of_models_need_no_script() -> None:
    """What clients ask to see whether a server is well is answered, and remembered."""
    async with FakeProvider() as server, httpx.AsyncClient(trust_env=False) as http:
        statuses = [
            (await http.get(server.root + path)).status_code for path in ("/v1/models", "/api/tags", "/nothing")
        ]
    assert statuses == [200, 200, 404]
    assert [request.provider for request in server.requests] == ["", "", ""]


async def test_errors_pass_as_they_are() -> None:
    """What the block raises is raised, not a group of it: a test may expect it; and a cancelled block ends."""
    with pytest.raises(KeyError):
        async with FakeProvider("Hi."):
            raise KeyError
    with anyio.move_on_after(0.01) as scope:
        async with FakeProvider("Hi."):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_nothing_is_left() -> None:
    """Afterwards nobody listens, even if a client was still reading."""
    with anyio.fail_after(10):
        async with httpx.AsyncClient(trust_env=False) as http:
            async with FakeProvider(Fault.hang(after=1)) as server:
                request = http.build_request("POST", server.url() + "/chat/completions", json={})
                answer = await http.send(request, stream=True)
            with pytest.raises(httpx.TransportError):
                await answer.aread()
            with pytest.raises(httpx.ConnectError):
                await http.get(server.root)


@pytest.mark.parametrize(
    "rubbish", [b"\0\1\2\r\n\r\n", b"GET", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"x" * 70_000]
)
async def test_rubbish_ends_its_connection_only(rubbish: bytes) -> None:
    """Who does not speak HTTP is left alone; the next one is served."""
    with anyio.fail_after(10):
        async with FakeProvider("Hi.") as server:
            async with await anyio.connect_tcp("127.0.0.1", int(server.root.rpartition(":")[2])) as stream:
                await stream.send(rubbish)
                await stream.send_eof()
                try:
                    while True:
                        await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
            assert (await ask(server, "openai")).status_code == 200


async def test_what_is_no_script() -> None:
    """A format that nobody knows, and an item that is none, are told."""
    with pytest.raises(InvalidInput, match="one character"):
        FakeProvider("x", piece=0)
    with pytest.raises(InvalidInput, match="anthropic"):
        FakeProvider().url("antropic")
