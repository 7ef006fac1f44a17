"""Speed of the wire: the SSE decoder against the least a Python loop can do, and the framing of log chunks.

Comes in: command-line options. Goes out: CPU time per event and, what counts, ratios of rows measured in one run.
It deliberately knows no network: pieces of a stream are cut from memory.

    python benchmarks/parse.py [--mb 8] [--rounds 7] [--peers]
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import random
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, cast

import msgspec

from agentstream.events import TextDelta
from agentstream.llm import openai_chat
from agentstream.wire import Decoder, decode_event, encode_event, frames, frames_at, peek


class Delta(msgspec.Struct, gc=False):
    content: str | None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta
    finish_reason: str | None = None


class Completion(msgspec.Struct, gc=False):
    choices: list[Choice]
    id: str = ""


decode_completion = msgspec.json.Decoder(Completion).decode


def completions(size: int) -> tuple[bytes, int]:
    """A stream of chat completion chunks as OpenAI-compatible servers send them, 290 bytes a frame."""
    words = (" the", " quick", "ing", ' "so"', "\n", " é", " answer", " x")
    chunk = {
        "id": "chatcmpl-" + "k" * 29,
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    frames_: list[bytes] = []
    for word in words:
        choice = {"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None}
        frames_.append(b"data: %b\n\n" % msgspec.json.encode({**chunk, "choices": [choice]}))
    rounds = size // sum(map(len, frames_)) + 1
    return b"".join(frames_) * rounds, rounds * len(frames_)


def cut(stream: bytes, longest: int) -> list[bytes]:
    """Pieces of 1 to 2,048 bytes at random for `longest` = 0, else all of that length."""
    choose = random.Random(1)
    pieces: list[bytes] = []
    at = 0
    while at < len(stream):
        step = longest or choose.randint(1, 2048)
        pieces.append(stream[at : at + step])
        at += step
    return pieces


def split_only(pieces: list[bytes]) -> int:
    count, rest = 0, b""
    for piece in pieces:
        blocks = (rest + piece).split(b"\n\n")
        rest = blocks.pop()
        count += len(blocks)
    return count


def split_and_decode(pieces: list[bytes]) -> int:
    """The row to compare with: what one writes by hand for one known provider."""
    count, rest = 0, b""
    for piece in pieces:
        blocks = (rest + piece if rest else piece).split(b"\n\n")
        rest = blocks.pop()
        for block in blocks:
            if block[:6] == b"data: ":
                decode_completion(block[6:])
                count += 1
    return count


def decoder_only(pieces: list[bytes]) -> int:
    decoder = Decoder()
    return sum(len(decoder.feed(piece)) for piece in pieces)


def decoder_and_decode(pieces: list[bytes]) -> int:
    decoder, count = Decoder(), 0
    for piece in pieces:
        for message in decoder.feed(piece):
            decode_completion(message.data)
            count += 1
    return count


def our_parser(pieces: list[bytes]) -> int:
    """What a model's client does with the bytes: deltas of an answer, each a value of its own."""
    parser = openai_chat.Parser()
    return sum(len(parser.feed(piece)) for piece in pieces)


# --- peers, each as its users run it: synchronous, so that no event loop is measured
# --------------------------------------
class _Pieces:
    """A body in memory, shaped like the response of an HTTP client."""

    headers = {"content-type": "text/event-stream"}  # noqa: RUF012 - read only

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def iter_bytes(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        """Nothing to close."""


def httpx_sse_and_json(pieces: list[bytes]) -> int:
    import httpx  # noqa: PLC0415 - only the comparison with peers needs them
    import httpx_sse  # noqa: PLC0415

    response = httpx.Response(200, headers=_Pieces.headers, content=iter(pieces))
    count = 0
    for event in httpx_sse.EventSource(response).iter_sse():
        json.loads(event.data)
        count += 1
    return count


def openai_sdk(pieces: list[bytes]) -> int:
    import openai  # noqa: PLC0415
    from openai.types.chat import ChatCompletionChunk  # noqa: PLC0415

    client = _sdk_client(openai)
    # Any: our body stands in for the SDK's response.
    stream: Any = openai.Stream(cast_to=ChatCompletionChunk, response=cast("Any", _Pieces(pieces)), client=client)
    return sum(1 for _ in stream)


@functools.cache
def _sdk_client(openai: Any) -> Any:  # Any: made once, since it reads the machine's certificates
    return openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9/v1")


Row = tuple[str, Callable[[list[bytes]], int]]


def rounds_of(rows: list[Row], pieces: list[bytes], events: int, rounds: int) -> dict[str, list[float]]:
    """CPU µs per event of each row, round by round; rows take turns, so that a busy neighbour meets all of them."""
    times: dict[str, list[float]] = {name: [] for name, _ in rows}
    for _ in range(rounds + 1):
        for name, run in rows:
            gc.collect()
            start = time.process_time()
            count = run(pieces)
            times[name].append((time.process_time() - start) / events * 1e6)
            assert count == events, (name, count, events)
    return {name: values[1:] for name, values in times.items()}


def measure(rows: list[Row], pieces: list[bytes], events: int, rounds: int) -> dict[str, float]:
    """The medians of the rounds."""
    return {name: median(values) for name, values in rounds_of(rows, pieces, events, rounds).items()}


PEERS: list[Row] = [
    ("split + msgspec", split_and_decode),
    ("Decoder + msgspec", decoder_and_decode),
    ("our deltas", our_parser),
    ("httpx-sse + json", httpx_sse_and_json),
    ("OpenAI SDK", openai_sdk),
]


def against_peers(size: int, rounds: int, longest: int = 0) -> tuple[dict[str, list[float]], int]:
    """All rows on one stream, in pieces as `cut` makes them; and how many events the stream has."""
    stream, events = completions(size)
    return rounds_of(PEERS, cut(stream, longest), events, rounds), events


def show(title: str, results: dict[str, float], base: str) -> None:
    print(title)
    for name, value in results.items():
        print(f"  {name:<28}{value:8.3f} µs/event   {value / results[base]:5.2f} x")


def parsing(size: int, rounds: int) -> None:
    rows: list[Row] = [
        ("split only", split_only),
        ("split + msgspec", split_and_decode),
        ("Decoder", decoder_only),
        ("Decoder + msgspec", decoder_and_decode),
    ]
    stream, events = completions(size)
    for title, longest in (("random ~1 KB reads", 0), ("64 KB reads", 65_536)):
        show(f"completions, LF, {title}", measure(rows, cut(stream, longest), events, rounds), "split + msgspec")
    # Only the decoder can read these; the row by hand above stays the measure.
    reference = measure(rows[1:2], cut(stream, 0), events, rounds)
    variants = {
        "CRLF": stream.replace(b"\n", b"\r\n"),
        "no space after the colon": stream.replace(b"data: ", b"data:"),
        "named events": stream.replace(b"data: ", b"event: chunk\ndata: "),
        "ids": stream.replace(b"data: ", b"id: %b.abcdef.1234567\ndata: " % (b"r" * 22)),
    }
    for title, variant in variants.items():
        reference[title] = measure(rows[3:], cut(variant, 0), events, rounds)["Decoder + msgspec"]
    show("Decoder + msgspec on other streams, random ~1 KB reads", reference, "split + msgspec")


def peers(rounds: int) -> None:
    for title, longest in (("random ~1 KB reads", 0), ("64 KB reads", 65_536)):
        figures, _ = against_peers(400_000, rounds, longest)
        show(f"peers, {title}, least of the rounds", {name: min(all_) for name, all_ in figures.items()}, PEERS[0][0])


def framing(rounds: int) -> None:
    delta = TextDelta(
        seq=123_456,
        at=1_760_000_000_123,
        agent="executor",
        inv="executor.2",
        agent_seq=1234,
        block="executor.2.3",
        text=" it",
    )
    line = encode_event(delta)
    prefix = b"r" * 22 + b".abcdef."
    print(f"log chunks of {len(line)}-byte lines")
    for count in (1, 8, 64, 512):
        lines = b"\n".join([line] * count)
        repeat = 40_000 // count
        best = {"frames": 9e9, "frames_at": 9e9}
        for _ in range(rounds + 1):
            for name, run in (("frames", frames), ("frames_at", frames_at)):
                start = time.process_time()
                for _ in range(repeat):
                    run(prefix, 1_000, lines)
                best[name] = min(best[name], (time.process_time() - start) / repeat / count * 1e9)
        print(f"  {count:>4} lines: " + "   ".join(f"{name} {value:6.0f} ns/event" for name, value in best.items()))
    print("one line")
    for name, call in (
        ("encode_event", lambda: encode_event(delta)),
        ("decode_event", lambda: decode_event(line)),
        ("peek", lambda: peek(line)),
    ):
        best_ns = 9e9
        for _ in range(rounds + 1):
            start = time.process_time()
            for _ in range(40_000):
                call()
            best_ns = min(best_ns, (time.process_time() - start) / 40_000 * 1e9)
        print(f"  {name:<28}{best_ns:8.0f} ns")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, default=8, help="size of the stream, default 8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="compare with httpx-sse and the OpenAI SDK too")
    options = parser.parse_args()
    if options.peers:
        peers(options.rounds)
    parsing(int(options.mb * 1e6), options.rounds)
    framing(options.rounds)


if __name__ == "__main__":
    main()
