"""Any script of faults ends in one whole answer or one typed error, and tells nobody a secret.

Comes in: scripts drawn at random, in every format, on every loop. Goes out: a failure with the script that broke the
promise. It deliberately fixes no outcome: which error a fault becomes is each format's own test.
"""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.testing import FakeAnswer, Fault
from llm.faults import NAMES, answer, play, play_all, play_raw

LOOPS = {"asyncio": "asyncio", "trio": "trio"}


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=15)
@given(provider=st.sampled_from(NAMES), rng=st.randoms(use_true_random=False), size=st.integers(1, 3))
def test_any_script(loop: str, provider: str, rng: random.Random, size: int) -> None:
    """One whole try or one typed error, never a mixture; no key or prompt in any event, log record or error."""
    script = [answer(number, rng) for number in range(size)]
    played = anyio.run(play_all, [(provider, script)], backend=LOOPS[loop])
    assert len(played) == 1 + len(script)


@pytest.mark.anyio
@pytest.mark.parametrize("provider", NAMES)
async def test_a_broken_try_is_followed_by_a_whole_one(provider: str) -> None:
    """The answer is the second's, whole; nothing of the first is in it."""
    script = (FakeAnswer("(0: first)", fault=Fault.cut(after=4)), FakeAnswer("(1: second)", "[1]"))
    assert await play(provider, script) == ("", 2)


@pytest.mark.anyio
@pytest.mark.parametrize("provider", NAMES)
async def test_a_bomb_is_not_unpacked(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed answer is refused before anything unpacks it."""

    def unpacked(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("zlib.decompressobj", unpacked)
    assert (await play_raw(provider, FakeAnswer("x", fault=Fault.gzip_bomb()))).code == "llm_parse"
