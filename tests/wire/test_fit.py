"""Values against schemas, as an edge sees them that does not know the type."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.wire import misfit


class Inner(pydantic.BaseModel):
    """A part."""

    name: str = pydantic.Field(min_length=2, max_length=4, pattern="^[a-z]+$")


class Outer(pydantic.BaseModel):
    """A whole."""

    model_config = pydantic.ConfigDict(extra="forbid")

    parts: list[Inner] = pydantic.Field(min_length=1, max_length=2)
    kind: Literal["a", "b"] = "a"
    count: int | None = None
    share: float = pydantic.Field(default=0.5, gt=0, lt=1)
    pair: tuple[int, str] = (1, "x")
    more: dict[str, int] = {}


SCHEMA = Outer.model_json_schema()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"parts": [{"name": "ab"}]}, ""),
        ({"parts": [{"name": "ab"}], "count": None, "pair": [2, "y"], "more": {"k": 1}, "kind": "b"}, ""),
        ({}, "parts is missing"),
        ({"parts": []}, "parts must have at least 1 items"),
        ({"parts": [{"name": "ab"}] * 3}, "parts must have at most 2 items"),
        ({"parts": [{"name": "a"}]}, "parts[0].name must have at least 2 characters"),
        ({"parts": [{"name": "AB"}]}, "parts[0].name must match ^[a-z]+$"),
        ({"parts": [{"name": "ab"}], "kind": "c"}, "kind must be one of a, b"),
        ({"parts": [{"name": "ab"}], "count": "1"}, "count must be a whole number or count must be null"),
        ({"parts": [{"name": "ab"}], "count": True}, "count must be a whole number or count must be null"),
        ({"parts": [{"name": "ab"}], "share": 1}, "share must be below 1"),
        ({"parts": [{"name": "ab"}], "pair": [1, 2]}, "pair[1] must be text"),
        ({"parts": [{"name": "ab"}], "more": {"k": "v"}}, "more.k must be a whole number"),
        ({"parts": [{"name": "ab"}], "other": 1}, "other is not asked for"),
        ([], "the value must be an object"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(value: Any, said: str) -> None:
    """As pydantic judges, in words for people, without the values."""
    assert misfit(SCHEMA, value) == said
    try:
        Outer.model_validate(value, strict=True)
    except pydantic.ValidationError:
        assert said or "pair" in value  # strict Python wants a tuple where JSON has a list


def test_what_is_not_known_passes() -> None:
    """Keywords, references and types of others refuse nothing."""
    assert misfit({"$ref": "https://example.org/x"}, 1) == ""
    assert misfit({"type": "thing", "format": "date", "if": {}}, 1) == ""
    assert misfit({"pattern": "(?<bad"}, "x") == ""
    assert misfit({"pattern": "^a+$"}, "b" * 5000) == ""
    assert misfit(True, {}) == misfit(None, {}) == ""
    assert misfit(False, 1) == "the value nothing fits here"


def test_a_schema_that_names_itself_ends() -> None:
    """Lists in lists, and a reference to nothing but itself."""
    tree = {"$defs": {"T": {"type": "array", "items": {"$ref": "#/$defs/T"}}}, "$ref": "#/$defs/T"}
    assert misfit(tree, [[], [[]]]) == ""
    assert misfit(tree, [[1]]) == "[0][0] must be a list"
    assert misfit({"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}, 1) == ""


def test_at_most_ten_complaints() -> None:
    """However much is wrong."""
    assert misfit({"items": {"type": "string"}}, list(range(100))).count("\n") == 10


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_what_pydantic_takes_strictly_is_never_refused(value: Any) -> None:
    """For any JSON value: the edge refuses nothing that the writer would take as it stands."""
    for type_ in (int, str, bool, float, list[int], dict[str, int], int | None, Outer):
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type_)
        try:
            adapter.validate_python(value, strict=True)
        except pydantic.ValidationError:
            continue
        assert misfit(adapter.json_schema(), value) == ""


@given(json_values, json_values)
def test_no_schema_breaks_it(schema: Any, value: Any) -> None:
    """Whatever stands where a schema should."""
    assert isinstance(misfit(schema, value), str)
