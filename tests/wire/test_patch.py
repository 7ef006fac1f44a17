"""JSON Pointer and JSON Patch: tables after the two standards, and properties.

Comes in: documents, pointers and operations. Goes out: proof of what they give, and that nothing is changed in place.
It deliberately knows neither runs nor their bounds.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.errors import PatchError
from agentstream.wire import patch

# A document with the odd keys that RFC 6901 section 5 goes through.
ODD: dict[str, Any] = {
    "list": ["first", "second"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
    "~1": 9,
    "00": {"-": 10},
}


# ---- pointers -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pointer", "keys", "value"),
    [
        ("", (), ODD),
        ("/list", ("list",), ["first", "second"]),
        ("/list/0", ("list", "0"), "first"),
        ("/list/1", ("list", "1"), "second"),
        ("/", ("",), 0),
        ("/a~1b", ("a/b",), 1),
        ("/c%d", ("c%d",), 2),
        ("/e^f", ("e^f",), 3),
        ("/g|h", ("g|h",), 4),
        ("/i\\j", ("i\\j",), 5),
        ('/k"l', ('k"l',), 6),
        ("/ ", (" ",), 7),
        ("/m~0n", ("m~n",), 8),
        ("/~01", ("~1",), 9),
        ("/00/-", ("00", "-"), 10),
    ],
)
def test_pointer(pointer: str, keys: tuple[str, ...], value: Any) -> None:
    """A pointer splits into its keys and finds its value; ~01 is ~1 and never a slash."""
    assert patch.parse(pointer) == keys
    assert patch.get(ODD, pointer) == value


@pytest.mark.parametrize("pointer", ["list", "list/0", "#/list", "/m~n", "/m~2n", "/m~", "/~"])
def test_malformed_pointer(pointer: str) -> None:
    """Neither empty nor behind a slash, or a tilde that escapes nothing."""
    with pytest.raises(PatchError, match="JSON pointer"):
        patch.parse(pointer)


@pytest.mark.parametrize(
    "pointer",
    [
        *("/none", "/list/2", "/list/-", "/list/00", "/list/01", "/list/-1", "/list/+1", "/list/ 1", "/list/1.0"),
        *("/list/x", "/list/", "/list/\u0661", "/list/" + "9" * 5000, "/list/0/0", "//x", "/00/x"),
    ],
    ids=lambda pointer: pointer[:12],
)
def test_pointer_to_nothing(pointer: str) -> None:
    """Missing keys, indexes outside or none at all, ways through text and numbers; the message stays short."""
    with pytest.raises(PatchError) as caught:
        patch.get(ODD, pointer)
    assert len(caught.value.detail) < 300


keys = st.text(st.sampled_from("ab/~01é"), max_size=4)


def escaped(key: str | int) -> str:
    """A key as a part of a pointer."""
    return "/" + str(key).replace("~", "~0").replace("/", "~1")


@given(st.lists(keys, max_size=5))
def test_parse_undoes_escaping(path: list[str]) -> None:
    """Any keys survive being written as a pointer."""
    assert patch.parse("".join(map(escaped, path))) == tuple(path)


# ---- operations -----------------------------------------------------------------------------------------------------
def op(name: str, path: str, **more: Any) -> dict[str, Any]:
    """One operation; `from_` is the member `from`."""
    return {"op": name, "path": path, **{key.rstrip("_"): value for key, value in more.items()}}


APPLIES: list[tuple[str, Any, list[dict[str, Any]], Any]] = [
    # After appendix A of RFC 6902, in its order.
    ("add a member", {"x": 1}, [op("add", "/y", value=2)], {"x": 1, "y": 2}),
    ("add an element", {"x": ["a", "c"]}, [op("add", "/x/1", value="b")], {"x": ["a", "b", "c"]}),
    ("remove a member", {"x": 1, "y": 2}, [op("remove", "/y")], {"x": 1}),
    ("remove an element", {"x": ["a", "b", "c"]}, [op("remove", "/x/1")], {"x": ["a", "c"]}),
    ("replace a value", {"x": 1, "y": 2}, [op("replace", "/y", value=3)], {"x": 1, "y": 3}),
    (
        "move a value",
        {"a": {"x": 1, "y": 2}, "b": {"z": 3}},
        [op("move", "/b/w", from_="/a/x")],
        {"a": {"y": 2}, "b": {"z": 3, "w": 1}},
    ),
    ("move an element", {"x": [1, 2, 3, 4]}, [op("move", "/x/3", from_="/x/1")], {"x": [1, 3, 4, 2]}),
    ("test a value", {"x": "a", "y": [1, "b", 2]}, [op("test", "/x", value="a"), op("test", "/y/1", value="b")], None),
    ("add a nested object", {"x": 1}, [op("add", "/y", value={"z": {}})], {"x": 1, "y": {"z": {}}}),
    ("ignore unknown members", {"x": 1}, [op("add", "/y", value=2, why="because")], {"x": 1, "y": 2}),
    ("test with escapes", {"/": 9, "~1": 10}, [op("test", "/~01", value=10), op("test", "/~1", value=9)], None),
    ("add an array to an array", {"x": ["a"]}, [op("add", "/x/-", value=["b", "c"])], {"x": ["a", ["b", "c"]]}),
    # Further rules of its section 4.
    ("add over a member", {"x": 1}, [op("add", "/x", value=None)], {"x": None}),
    ("add in front", [2], [op("add", "/0", value=1)], [1, 2]),
    ("add behind the last", [1], [op("add", "/1", value=2)], [1, 2]),
    ("add the whole", {"x": 1}, [op("add", "", value=[1])], [1]),
    ("replace the whole", {"x": 1}, [op("replace", "", value=None)], None),
    ("replace an element", [1, 2, 3], [op("replace", "/1", value="b")], [1, "b", 3]),
    ("remove a null", {"x": None}, [op("remove", "/x")], {}),
    ("copy a value", {"x": {"y": 1}}, [op("copy", "/z", from_="/x")], {"x": {"y": 1}, "z": {"y": 1}}),
    ("copy into itself", {"x": {}}, [op("copy", "/x/y", from_="/x")], {"x": {"y": {}}}),
    (
        "copy, then change one",
        {"x": {"y": 1}},
        [op("copy", "/z", from_="/x"), op("add", "/z/y", value=2)],
        {"x": {"y": 1}, "z": {"y": 2}},
    ),
    ("move to where it is", {"x": 1}, [op("move", "/x", from_="/x")], None),
    ("move up", {"x": {"y": 1}}, [op("move", "/x", from_="/x/y")], {"x": 1}),
    ("move to the whole", {"x": {"y": 1}}, [op("move", "", from_="/x")], {"y": 1}),
    ("move to the end", [1, 2, 3], [op("move", "/-", from_="/0")], [2, 3, 1]),
    ("test numbers by value", [1, 1.0], [op("test", "", value=[1.0, 1])], None),
    ("test objects in any order", {"x": 1, "y": [{}]}, [op("test", "", value={"y": [{}], "x": 1})], None),
    ("deep in lists", {"x": [[1, [2]]]}, [op("add", "/x/0/1/0", value=3)], {"x": [[1, [3, 2]]]}),
    ("nothing to do", {"x": 1}, [], None),
]


@pytest.mark.parametrize(("document", "ops", "expected"), [pytest.param(*rest, id=name) for name, *rest in APPLIES])
def test_apply(document: Any, ops: list[dict[str, Any]], expected: Any) -> None:
    """Operations give the new document and leave the old one alone; None in the table: nothing changes."""
    before = copy.deepcopy(document)
    result = patch.apply(document, ops)
    assert result == (before if expected is None and ops[:1] != [op("replace", "", value=None)] else expected)
    assert document == before


@pytest.mark.parametrize(
    ("document", "bad"),
    [
        ({"x": 1}, op("add", "/y/z", value=2)),
        ({"x": 1}, op("add", "/x/z", value=2)),
        ({"x": [1]}, op("add", "/x/2", value=2)),
        ({"x": [1]}, op("add", "/x/01", value=2)),
        ({"x": [1]}, op("add", "/x/one", value=2)),
        ({"x": [1]}, op("replace", "/x/-", value=2)),
        ({"x": [1]}, op("replace", "/x/1", value=2)),
        ({"x": 1}, op("replace", "/y", value=2)),
        ({"x": 1}, op("remove", "/y")),
        ({"x": [1]}, op("remove", "/x/1")),
        ({"x": [1]}, op("remove", "/x/-")),
        ({"x": 1}, op("remove", "")),
        ({"x": 1}, op("copy", "/y", from_="/z")),
        ({"x": {"y": 1}}, op("move", "/x/y/z", from_="/x")),
        ({"x": {"y": 1}}, op("move", "/x/y", from_="")),
        ({"x": 1}, op("move", "/y", from_="/z")),
        ({"x": 1}, op("test", "/x", value=2)),
        ({"x": 1}, op("test", "/x", value=True)),
        ({"x": 1}, op("test", "/x", value="1")),
        ({"x": [0]}, op("test", "/x", value=[False])),
        ({"x": {}}, op("test", "/x", value=[])),
        ({"x": [1, 2]}, op("test", "/x", value=[1])),
        ({"x": {"y": 1}}, op("test", "/x", value={"z": 1})),
        ({"x": None}, op("test", "/y", value=None)),
        ({"x": 1}, op("append", "/x", value=2)),
        ({"x": 1}, {"path": "/x"}),
        ({"x": 1}, {"op": ["add"], "path": "/x", "value": 1}),
        ({"x": 1}, {"op": "add", "value": 1}),
        ({"x": 1}, {"op": "add", "path": 7, "value": 1}),
        ({"x": 1}, {"op": "add", "path": "/x"}),
        ({"x": 1}, {"op": "test", "path": "/x"}),
        ({"x": 1}, {"op": "move", "path": "/x"}),
        ({"x": 1}, {"op": "copy", "path": "/x", "from": None}),
        ("text", op("add", "/0", value="a")),
        (None, op("add", "/x", value=1)),
    ],
)
def test_what_does_not_apply(document: Any, bad: dict[str, Any]) -> None:
    """An operation that does not apply fails by its index, and nothing before it has happened."""
    before = copy.deepcopy(document)
    with pytest.raises(PatchError, match="operation 1") as caught:
        patch.apply(document, [op("test", "", value=before), bad, op("replace", "", value="never")])
    assert caught.value.details == {"index": 1}
    assert document == before


def test_what_did_not_change_is_shared() -> None:
    """The new document holds the very objects of the old one beside the path, and copies on it."""
    document: dict[str, Any] = {"a": {"deep": [1]}, "b": {"c": [{"d": 1}, {"e": 2}]}}
    result = patch.apply(document, [op("add", "/b/c/0/new", value=3)])
    assert result["a"] is document["a"]
    assert result["b"]["c"][1] is document["b"]["c"][1]
    assert result["b"] is not document["b"]
    assert result["b"]["c"][0] == {"d": 1, "new": 3}


def test_a_deep_document() -> None:
    """Depth costs steps, not stack."""
    document: Any = {"leaf": 0}
    for _ in range(5_000):
        document = {"x": document}
    pointer = "/x" * 5_000 + "/leaf"
    assert patch.get(patch.apply(document, [op("replace", pointer, value=1)]), pointer) == 1
    assert patch.get(document, pointer) == 0


# ---- properties -----------------------------------------------------------------------------------------------------
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=15
)


@st.composite
def places(draw: st.DrawFn) -> tuple[Any, str]:
    """A document and a pointer at which a value can be added."""
    document = draw(documents)
    value, pointer = document, ""
    while isinstance(value, (dict, list)):
        existing: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not existing or draw(st.booleans()):
            new = draw(keys) if isinstance(value, dict) else len(value)
            return document, pointer + escaped(new)
        key = draw(st.sampled_from(existing))
        value, pointer = value[key], pointer + escaped(key)
    return document, pointer


@given(places(), documents)
def test_what_was_added_is_there(place: tuple[Any, str], value: Any) -> None:
    """After an add the pointer finds the value; removing it again gives back the document, unless it replaced one."""
    document, pointer = place
    before = copy.deepcopy(document)
    added = patch.apply(document, [op("add", pointer, value=value)])
    assert patch.get(added, pointer) is value
    assert document == before
    replaced = patch.apply(added, [op("replace", pointer, value="other")])
    assert patch.get(replaced, pointer) == "other"
    if pointer:
        parent = patch.get(document, pointer.rpartition("/")[0])
        if isinstance(parent, list) or patch.parse(pointer)[-1] not in parent:
            assert patch.apply(added, [op("remove", pointer)]) == before


@given(documents, documents)
def test_a_document_equals_only_itself(a: Any, b: Any) -> None:
    """`test` agrees with equality of the values as JSON writes them, where true is not 1."""
    patch.apply(a, [op("test", "", value=copy.deepcopy(a))])
    if a != b:
        with pytest.raises(PatchError):
            patch.apply(a, [op("test", "", value=b)])
