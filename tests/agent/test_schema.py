"""Types as models see them.

Comes in: functions and types of users, and JSON that models write. Goes out: a failure where a schema, a conversion, a
refusal or a complaint is wrong.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from pydantic import Field
from typing_extensions import TypedDict

from agentstream.agent.schema import DoesNotFit, Parameters, Shape, decode, jsonable, result_type, summary
from agentstream.errors import InvalidInput, NotSerializable


class Place(pydantic.BaseModel):
    """A place."""

    name: str
    height: float = 0.0


@dataclasses.dataclass
class Point:
    """A point."""

    x: int
    y: int = 0


class Named(TypedDict):
    """A name."""

    name: str


class Wire(msgspec.Struct, tag="wire"):
    """What travels."""

    n: int
    inside: Place | None = None


def search(
    query: str,
    limit: Annotated[int, Field(description="How many at most.", ge=1)] = 10,
    places: list[Place] | None = None,
    *,
    schema: Literal["a", "b"] = "a",
    title: str = "",
) -> list[str]:
    """Search the index.

    More about it.

    Args:
        query: What to look for,
            in any language.
        limit: not this text.
        places (list): Where to look: near, far.

    Returns:
        The names.
    """
    return [query, str(limit), str(places), schema, title]


def test_the_schema_of_a_signature() -> None:
    """Names, types, defaults and descriptions become the JSON schema of an object without extras."""
    schema = Parameters(search).schema
    properties = schema["properties"]
    assert list(properties) == ["query", "limit", "places", "schema", "title"]
    assert schema["required"] == ["query"]
    assert schema["additionalProperties"] is False
    assert properties["query"] == {"type": "string", "description": "What to look for, in any language."}
    assert properties["limit"] == {"type": "integer", "default": 10, "minimum": 1, "description": "How many at most."}
    assert properties["places"]["description"] == "Where to look: near, far."
    assert properties["schema"]["enum"] == ["a", "b"]
    assert "title" not in schema
    assert schema["$defs"]["Place"]["properties"] == {
        "name": {"type": "string"},
        "height": {"type": "number", "default": 0.0},
    }
    assert summary(search) == "Search the index.\n\nMore about it."


def test_a_call_from_json() -> None:
    """JSON is converted to the annotated types, and what is missing is filled in."""
    bound = Parameters(search).check('{"query": "x", "limit": "3", "places": [{"name": "Alp"}]}')
    assert bound.args == ("x", 3, [Place(name="Alp")])
    assert bound.kwargs == {"schema": "a", "title": ""}
    assert Parameters(search).check('{"query": "x", "schema": "b", "title": "t"}').kwargs == {
        "schema": "b",
        "title": "t",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ("{}", "query: Field required"),
        ('{"query": 1}', "query: Input should be a valid string"),
        ('{"query": "x", "limit": 0}', "limit: Input should be greater than or equal to 1"),
        ('{"query": "x", "places": [{}]}', "places.0.name: Field required"),
        ('{"query": "x", "other": 1}', "other: Extra inputs are not permitted"),
    ],
)
def test_complaints_say_what_to_mend(text: str, words: str) -> None:
    """A call that does not fit is answered by the place and the rule."""
    with pytest.raises(DoesNotFit, match=words):
        Parameters(search).check(text)


def test_complaints_are_bounded() -> None:
    """Many mistakes are told in few lines."""
    with pytest.raises(DoesNotFit) as caught:
        Parameters(search).check('{"query": "x", "places": [' + ",".join(["{}"] * 50) + "]}")
    assert len(str(caught.value).splitlines()) == 11
    assert str(caught.value).endswith("… and 40 more")


def test_any_name_of_an_argument_works() -> None:
    """Names that pydantic keeps for itself, or does not take, are as good as others."""

    def odd(copy: int, model_config: int, _hidden: int = 1, json: int = 2, /, self_: int = 3) -> int:
        return copy + model_config + _hidden + json + self_

    parameters = Parameters(odd)
    assert list(parameters.schema["properties"]) == ["copy", "model_config", "_hidden", "json", "self_"]
    bound = parameters.check('{"copy": 1, "model_config": 1, "json": 5}')
    assert odd(*bound.args, **bound.kwargs) == 11


def test_an_argument_left_out_in_the_middle() -> None:
    """A default before a given argument is filled in, not skipped."""

    def three(a: int, b: int = 20, c: int = 30) -> tuple[int, int, int]:
        return a, b, c

    bound = Parameters(three).check('{"a": 1, "c": 3}')
    assert three(*bound.args, **bound.kwargs) == (1, 20, 3)


def test_no_annotations_take_anything() -> None:
    """A function without annotations can still be called."""

    def bare(x, y=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return x, y

    assert Parameters(bare).check('{"x": [1, {"a": 2}]}').args == ([1, {"a": 2}], None)


def _unnamed(*items: int) -> None: ...
def _loose(**items: int) -> None: ...
def _method(self: object, x: int) -> None: ...
def _unknown(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _opaque(x: memoryview) -> None: ...


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (_unnamed, r"\*items"),
        (_loose, r"\*items"),
        (_method, "method without its object"),
        (_unknown, "'Nowhere'"),
        (_opaque, "opaque have no JSON schema"),
    ],
)
def test_functions_that_cannot_be_tools(fn: Any, words: str) -> None:
    """What a model could not call is refused, with the reason."""
    with pytest.raises(InvalidInput, match=words):
        Parameters(fn)


# --- values -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("type_", "value", "plain"),
    [
        (Place, Place(name="Alp", height=1.5), {"name": "Alp", "height": 1.5}),
        (list[Place], [Place(name="Alp")], [{"name": "Alp", "height": 0.0}]),
        (Point, Point(1), {"x": 1, "y": 0}),
        (Named, {"name": "x"}, {"name": "x"}),
        (Wire, Wire(3), {"type": "wire", "n": 3, "inside": None}),
        (dt.date, dt.date(2020, 1, 2), "2020-01-02"),
        (set[int], {1}, [1]),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (dict[int, str], {1: "a"}, {"1": "a"}),
        (bytes, b"abc", "abc"),
        (None, None, None),
        (str, "a\ud800b", "a\ufffdb"),
        (Any, {"a": [1]}, {"a": [1]}),
    ],
)
def test_values_as_json_and_back(type_: Any, value: object, plain: object) -> None:
    """A result becomes plain JSON, and the annotation brings it back."""
    assert jsonable(value) == plain
    if value != "a\ud800b":
        assert decode(type_, plain) == value


def test_models_inside_structs_and_structs_inside_models() -> None:
    """Either kind may hold the other."""
    assert jsonable([Wire(1, Place(name="Alp"))]) == [
        {"type": "wire", "n": 1, "inside": {"name": "Alp", "height": 0.0}}
    ]


@pytest.mark.parametrize("value", [object(), {"a": [object()]}, Wire(object()), b"\xff", lambda: 1])  # type: ignore[arg-type]
def test_values_without_json(value: object) -> None:
    """What JSON cannot hold is refused by name."""
    with pytest.raises(NotSerializable):
        jsonable(value)


def test_recorded_values_that_do_not_fit_any_more() -> None:
    """A record of another type is an error that names the type, not a wrong value."""
    for type_ in (Place, Wire, list[int]):
        with pytest.raises(InvalidInput, match="does not fit"):
            decode(type_, {"name": 1})


def test_the_result_type_of_a_function() -> None:
    """What a function says it returns; anything where it says nothing or names what is not there."""

    async def later() -> Place: ...  # type: ignore[empty-body]
    def bare(): ...  # type: ignore[no-untyped-def]  # noqa: ANN202

    assert result_type(search) == list[str]
    assert result_type(later) is Place
    assert result_type(bare) is Any
    assert result_type(_unknown) is Any


# --- answers of a type ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Place, '{"name": "Alp", "height": 3}', Place(name="Alp", height=3.0)),
        (Place, '```json\n{"name": "Alp"}\n```', Place(name="Alp")),
        (Point, '  {"x": "4"}\n', Point(4)),
        (Named, '{"name": "x"}', {"name": "x"}),
        (int, '{"result": 7}', 7),
        (int, "7", 7),
        (list[Place], '{"result": [{"name": "Alp"}]}', [Place(name="Alp")]),
        (list[Place], '[{"name": "Alp"}]', [Place(name="Alp")]),
        (dict[str, int], '{"result": 1}', {"result": 1}),
        (bool, '```\n{"result": true}\n```', True),
    ],
)
def test_answers_of_a_type(type_: Any, text: str, value: object) -> None:
    """What a model writes is understood, with and without a fence or the wrapping that providers need."""
    shape: Shape[Any] = Shape(type_)
    assert shape.schema["type"] == "object"
    assert shape.name.replace("_", "").replace("-", "").isalnum()
    assert shape.parse(text) == value


def test_wrapped_schemas_keep_their_definitions() -> None:
    """The definitions of a wrapped type stand where its references look for them."""
    schema = Shape(list[Place]).schema
    assert schema["properties"]["result"]["items"] == {"$ref": "#/$defs/Place"}
    assert "Place" in schema["$defs"]


@pytest.mark.parametrize("text", ["", "no", "{", '{"nam": "x"}', '{"name": 1}', '["x"]'])
def test_answers_that_do_not_fit(text: str) -> None:
    """Anything else is refused with a complaint."""
    with pytest.raises(DoesNotFit):
        Shape(Place).parse(text)


def test_types_without_schema() -> None:
    """A type that no schema describes is refused when it is named, not when the model has answered."""
    with pytest.raises(InvalidInput, match="has no JSON schema"):
        Shape(memoryview)
