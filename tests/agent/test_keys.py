"""Keys and versions of recorded work.

Comes in: names, arguments, functions and processes of another hash seed. Goes out: a failure where two units share a
key, one unit gets two, or a digest depends on the process.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.agent.keys import Keys, KeyScope, code_version
from agentstream.errors import NotSerializable

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
units = st.tuples(st.text(max_size=4), json_values)


@given(st.lists(units, max_size=12), st.randoms())
def test_keys_do_not_know_the_order_of_arrival(work: list[tuple[str, object]], random: object) -> None:
    """The same units in any order get the same keys, and no key is given out twice."""
    shuffled = list(work)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = KeyScope("k"), KeyScope("k")
    keys = sorted(one.next(name, args) for name, args in work)
    assert keys == sorted(other.next(name, args) for name, args in shuffled)
    assert len(set(keys)) == len(keys)


def test_keys_depend_on_scope_name_and_arguments() -> None:
    """Another enclosing unit, name or argument is another key; the order of a dict's keys is not."""
    first = KeyScope("k").next("f", {"a": 1, "b": 2})
    assert KeyScope("k").next("f", {"b": 2, "a": 1}) == first
    assert len({first, KeyScope("l").next("f", {"a": 1, "b": 2}), KeyScope("k").next("g", {"a": 1, "b": 2})}) == 3
    assert KeyScope("k").next("f", {"a": 1, "b": 3}) != first
    assert KeyScope("k").next("f", {"a": "1", "b": 2}) != first


def test_repeats_are_numbered() -> None:
    """Exactly the same unit again gets the next number, and only that."""
    scope = KeyScope("k")
    first, second = scope.next("f", [1]), scope.next("f", [1])
    assert second == f"{first}-1"
    assert scope.next("f", [2]) != first


def test_arguments_without_json_are_refused() -> None:
    """A unit whose arguments cannot be written down cannot be found again."""
    with pytest.raises(NotSerializable):
        KeyScope("k").next("f", [object()])


@pytest.mark.anyio
async def test_scopes_follow_tasks_but_not_invocations() -> None:
    """Inside a step its scope is current, in tasks begun there as well; another invocation's is its own."""
    mine, other = Keys("mine"), Keys("other")
    seen: list[str] = []

    async def child() -> None:
        seen.append(mine.current.key)
        seen.append(other.current.key)

    with mine.within("step"):
        async with anyio.create_task_group() as group:
            group.start_soon(child)
        with mine.within("inner") as inner:
            assert mine.current is inner
        assert mine.current.key == "step"
    assert seen == ["step", "other"]
    assert mine.current.key == "mine"


# --- versions ---------------------------------------------------------------------------------------------------------
def plain(x: int) -> int:
    """Add."""
    return x + 1


def other_constant(x: int) -> int:
    """Add."""
    return x + 2


def other_name(y: int) -> int:
    """Add."""
    return y + 1


def nested(x: int) -> Callable[[], int]:
    """Add."""
    return lambda: x + 1


def other_nested(x: int) -> Callable[[], int]:
    """Add."""
    return lambda: x + 2


def wrapping(fn: Callable[[int], int]) -> Callable[[int], int]:
    """Decorate."""

    @functools.wraps(fn)
    def inner(x: int) -> int:
        return fn(x)

    return inner


class Adder:
    """An object that can be called."""

    def __call__(self, x: int) -> int:
        """Add."""
        return x + 1


def test_versions_see_the_code() -> None:
    """Each change of the code, in nested and decorated functions too, is another version."""
    functions = [plain, other_constant, other_name, nested, other_nested, wrapping(plain), wrapping(other_constant)]
    assert len({code_version(fn) for fn in functions}) == len(functions)
    assert code_version(plain) == code_version(functools.partial(plain, 1))
    assert code_version(Adder()) == code_version(Adder())
    assert code_version(Adder()) != code_version(plain)
    assert code_version(len) != code_version(print)


def test_versions_do_not_see_the_place() -> None:
    """The same code further down in another file is the same version."""
    source = "def f(x):\n    # why\n    return x in {'a', 'b', 'c', 'd'}\n"
    versions = set()
    for text, name in ((source, "one.py"), ("\n\n" + source.replace("# why", "# because"), "two.py")):
        space: dict[str, Callable[..., object]] = {}
        exec(compile(text, name, "exec"), space)
        versions.add(code_version(space["f"]))
    assert len(versions) == 1


def test_versions_are_the_same_in_every_process(tmp_path: Path) -> None:
    """The order of a set of constants changes with the hash seed; the version does not."""
    script = tmp_path / "one.py"
    script.write_text(
        "from agentstream.agent.keys import KeyScope, code_version\n"
        "def f(x):\n    return x in {'alpha', 'beta', 'gamma', 'delta', 'epsilon'} or (1.5, b'x', None, ...)\n"
        "print(code_version(f), KeyScope('k').next('f', {'b': [1, 'ü'], 'a': None}))\n",
        encoding="utf-8",
    )
    root = Path(__file__).resolve().parents[2]
    outputs = {
        subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            check=True,
            timeout=30,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
