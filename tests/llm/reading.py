"""Reading a body with a format's parser, cut in every way.

Comes in: a parser's class and bytes. Goes out: the deltas, the joined result and the failure; or an assertion, where a
cut changes any of them. It deliberately does not know a format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from agentstream.errors import LLMError
from agentstream.llm import Assembly, Delta, LLMResult
from agentstream.llm.parsing import AnswerParser


class Read(NamedTuple):
    """What a body holds."""

    result: LLMResult
    error: type[LLMError] | None
    deltas: list[Delta]


def read(make: Callable[[str], AnswerParser], pieces: list[bytes]) -> Read:
    """What the parser makes of a body that comes in these pieces."""
    parser, assembly, deltas = make("p"), Assembly(), list[Delta]()
    for piece in pieces:
        deltas += parser.feed(piece)
    deltas += parser.end()
    for delta in deltas:
        assembly.add(delta)
    assert parser.feed(b"data: {}\n\n") == []  # what follows the end is nobody's
    assert parser.end() == []
    if parser.error is not None:
        assert parser.error.provider == "p"
        assert not parser.finished
    return Read(assembly.result(parser.model), type(parser.error) if parser.error else None, deltas)


def read_everywhere(make: Callable[[str], AnswerParser], body: bytes) -> Read:
    """The same, whole; asserts that one cut at any byte, and any size of pieces, give the same."""
    whole = read(make, [body])
    for cut in range(1, len(body)):
        assert read(make, [body[:cut], body[cut:]])[:2] == whole[:2], cut
    for size in (1, 2, 3, 7, 64):
        assert read(make, [body[start : start + size] for start in range(0, len(body), size)])[:2] == whole[:2], size
    return whole
