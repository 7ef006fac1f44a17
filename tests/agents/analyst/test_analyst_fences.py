"""Code comes out of a model's answer whatever surrounds it, however it is cut."""

from __future__ import annotations

import pytest

from team_loading import load

FenceFilter = load("analyst", "fences").FenceFilter

CASES = {
    "x = 1\ny = 2\n": "x = 1\ny = 2\n",
    "x = 1": "x = 1",
    "```python\nx = 1\n```": "x = 1\n",
    "\n\n```\nx = 1\n```\nThat is all.\n": "x = 1\n",
    "```py\ns = '```'\n  ```\nmore": "s = '```'\n",
    "```python\nx = 1": "x = 1",
    "": "",
    "```": "",
    "# `code`\nx = `1`\n": "# `code`\nx = `1`\n",
}


@pytest.mark.parametrize("answer", CASES, ids=repr)
def test_fence_is_taken_off_at_every_cut(answer: str) -> None:
    """Cut at any place, the pieces that come out are the code, and `text` is all of them."""
    for cut in range(len(answer) + 1):
        fences = FenceFilter()
        pieces = [fences.feed(answer[:cut]), fences.feed(answer[cut:]), fences.end()]
        assert "".join(pieces) == CASES[answer] == fences.text, cut
    by_character = FenceFilter()
    pieces = [by_character.feed(character) for character in answer] + [by_character.end()]
    assert "".join(pieces) == CASES[answer]


def test_code_comes_out_while_it_comes_in() -> None:
    """Once the first line is known, a piece is passed on at once and not held back to the line's end."""
    fences = FenceFilter()
    assert fences.feed("```python\n") == ""
    assert fences.feed("total = ") == "total = "
    assert fences.feed("1") == "1"
