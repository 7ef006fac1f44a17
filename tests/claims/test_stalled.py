"""The short form of `reader.stalled`: one run with one stalled reader, without a comparison of cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from claims.reader import one_round


@pytest.mark.real("uvicorn")
@pytest.mark.promise("P5")
@pytest.mark.promise("P9")
@pytest.mark.promise("W-pieces")
@pytest.mark.promise("W-abort")
def test_a_stalled_reader_is_cut_off_and_loses_nothing(tmp_path: Path) -> None:
    """One of five stops: the others read to the end, it is cut off after the send timeout and reads the rest."""
    found = one_round(tmp_path / "round", stalled=True, total=24 << 20)
    assert found.wrong == 0
    assert found.frames > 5 * (24 << 10)
    assert 2.0 <= found.cut_after < 6.0
    assert found.unread > 0.5
