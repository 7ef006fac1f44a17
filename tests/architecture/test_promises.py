"""Holds the manifest of promises against the tests and quick claims that show them.

Comes in: `promises.RULES`, and the marks in the sources of all tests. Goes out: a failure that names what is not shown,
or an id that does not exist.
It deliberately does not run the tests it finds, so that a selection of tests sees the same manifest.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

import claims
from promises import RULES

_TESTS: Final = claims.ROOT / "tests"


def _marked_ids(path: Path) -> list[str]:
    """Return the ids in all `pytest.mark.promise("…")` of a file."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise":
            ids = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            assert len(ids) == len(node.args) >= 1, f"{path}:{node.lineno}: ids are written out as text"
            found += [str(id_) for id_ in ids]
    return found


def _shown() -> dict[str, list[str]]:
    """Return id → where it is shown, by tests and quick claims."""
    shown: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(_TESTS.rglob("test_*.py")):
        for id_ in _marked_ids(path):
            shown[id_].append(str(path.relative_to(_TESTS)))
    for claim in claims.load().values():
        if claim.quick:
            for id_ in claim.promises:
                shown[id_].append(claim.id)
    return shown


def test_every_rule_in_scope_is_shown() -> None:
    """Each promise and rule of the wire that does not wait has a test or a quick claim that names it."""
    shown = _shown()
    missing = [f"{rule.id}: {rule.text}" for rule in RULES.values() if not rule.deferred and rule.id not in shown]
    assert not missing, "nothing shows:\n" + "\n".join(missing)


def test_every_mark_names_a_rule() -> None:
    """A mark or a claim, quick or long, names only ids of the manifest."""
    named = set(_shown()) | {id_ for claim in claims.load().values() for id_ in claim.promises}
    assert sorted(named - RULES.keys()) == []


def test_every_rule_has_its_words() -> None:
    """The ids are unique, and each rule has a source and a sentence."""
    assert [id_ for id_, rule in RULES.items() if not (rule.source and rule.text.endswith("."))] == []
    assert all(id_.startswith(("P", "W-")) for id_ in RULES)
