"""Types as models see them, and values as JSON: the one place that speaks pydantic's schema language.

What comes in: functions, types, and text that a model wrote. What goes out: JSON schemas, checked arguments and values,
plain JSON values, and complaints that a model can act on. It does not know tools, events or models.

Descriptions come from `Annotated[…, Field(description=…)]`, else from the `Args:` section of the docstring.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeGuard, TypeVar, cast, get_args, get_type_hints

import msgspec
import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from agentstream.errors import InvalidInput, NotSerializable
from agentstream.events import Json
from agentstream.wire.text import clean_json

__all__ = (
    "DoesNotFit",
    "Form",
    "Parameters",
    "Shape",
    "check_signature",
    "decode",
    "jsonable",
    "result_type",
    "summary",
)

T = TypeVar("T")

_MAX_COMPLAINTS: Final = 10
_RESULT: Final = "result"


class DoesNotFit(ValueError):
    """Text or arguments that a model wrote do not fit; the message tells the model what to mend."""


# --- values -----------------------------------------------------------------------------------------------------------
def jsonable(value: object) -> Json:
    """`value` as JSON can hold it: pydantic models, dataclasses, Structs, dates, sets and so on become plain values;
    lone surrogates in text become U+FFFD.

    Raises:
        NotSerializable: something in it has no JSON form.
    """
    try:
        return clean_json(to_jsonable_python(value, fallback=_struct))
    except NotSerializable:
        raise
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise NotSerializable(
            f"a value of type {type(value).__name__} has no JSON form: {_first_line(error)}"
        ) from None


def _struct(value: object) -> Json:
    # Anything else than a Struct comes back to `jsonable` only from inside one, so this ends.
    if not isinstance(value, msgspec.Struct):
        raise NotSerializable(f"a value of type {type(value).__name__} has no JSON form")
    return msgspec.to_builtins(value, str_keys=True, enc_hook=jsonable)


def decode(type_: Any, value: Json) -> Any:  # Any: the type is known only to whoever names it
    """A JSON value as `type_` again; what `Any`, `None` and a missing annotation name comes back as it is.

    Raises:
        InvalidInput: the value does not fit the type.
    """
    if type_ is Any or type_ is inspect.Parameter.empty or isinstance(type_, TypeVar):
        return value
    try:
        adapter = _adapter(type_)
        return adapter.validate_json(msgspec.json.encode(value))
    except pydantic.ValidationError as error:
        raise InvalidInput(f"the recorded value does not fit {_name(type_)}: {_complaint(error)}") from None
    except pydantic.errors.PydanticUserError:  # msgspec's own types
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"the recorded value does not fit {_name(type_)}: {error}") from None


def result_type(fn: Callable[..., object]) -> object:
    """What `fn` is annotated to return (for an async function: what awaiting it gives); `Any` where it says nothing."""
    try:
        return _hints(fn).get("return", Any)
    except InvalidInput:  # a name that exists for type checkers only
        return Any


def _adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return _kept_adapter(type_)
    except TypeError:  # a type that cannot be hashed, for instance with a list in its metadata
        return pydantic.TypeAdapter(type_)


@functools.lru_cache(maxsize=256)
def _kept_adapter(type_: Any) -> pydantic.TypeAdapter[Any]:  # Any: everything that can be annotated
    return pydantic.TypeAdapter(type_)


def _name(type_: object) -> str:
    return getattr(type_, "__name__", None) or str(type_)


def _complaint(error: pydantic.ValidationError) -> str:
    """What does not fit, a line each, without the values themselves."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, problem['loc'])) or 'the value'}: {problem['msg']}" for problem in problems]
    more = [f"… and {len(lines) - _MAX_COMPLAINTS} more"] if len(lines) > _MAX_COMPLAINTS else []
    return "\n".join(lines[:_MAX_COMPLAINTS] + more)


class Form(Generic[T]):
    """The type of an answer that a person gives: a pydantic model, dataclass, TypedDict or built-in type.

    Attributes:
        schema: of the JSON value that is asked for.

    Raises:
        InvalidInput: the type has no JSON schema.
    """

    def __init__(self, type_: type[T]) -> None:
        try:
            self._adapter: pydantic.TypeAdapter[T] = _adapter(type_)
            self.schema: dict[str, Json] = cast("dict[str, Json]", _without_titles(self._adapter.json_schema()))
        except pydantic.errors.PydanticUserError as error:
            raise InvalidInput(f"{_name(type_)} has no JSON schema: {_first_line(error)}") from None

    def check(self, value: Json) -> T:
        """The value as the type.

        Raises:
            DoesNotFit: it is none.
        """
        try:
            return self._adapter.validate_json(msgspec.json.encode(value))
        except pydantic.ValidationError as error:
            raise DoesNotFit(_complaint(error)) from None


# --- a function's arguments -------------------------------------------------------------------------------------------
class Parameters:
    """The arguments of one function: as a JSON schema, and checked.

    Raises:
        InvalidInput: arguments that a model cannot name (`*args`, `**kwargs`, an unbound `self`), a name in an
            annotation that does not exist, or a type that has no schema. The message says which.
    """

    def __init__(self, fn: Callable[..., object]) -> None:
        self._fn = fn
        self._signature = inspect.signature(fn)
        check_signature(fn)
        hints, said = _hints(fn), _argument_texts(inspect.getdoc(fn) or "")
        names = list(self._signature.parameters)
        fields: dict[str, Any] = {}  # Any: pydantic's pairs of a type and a field
        for number, name in enumerate(names):
            parameter = self._signature.parameters[name]
            hint = hints.get(name, Any)
            # Fields get names of ours and the real ones as aliases: `schema`, `copy` or `_x` would clash with pydantic.
            fields[f"p{number}"] = (hint, _field(name, parameter, hint, said.get(name)))
        self._fields = dict(zip(names, fields, strict=True))
        try:
            config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=False)
            self._model = pydantic.create_model("Arguments", __config__=config, **fields)
            schema = self._model.model_json_schema(by_alias=True)
        except pydantic.errors.PydanticUserError as error:
            raise InvalidInput(f"the arguments of {_name(fn)} have no JSON schema: {_first_line(error)}") from None
        self.schema: dict[str, Json] = cast("dict[str, Json]", _without_titles(schema))

    def check(self, arguments: str) -> inspect.BoundArguments:
        """The call that a model's JSON asks for, converted to the annotated types.

        Raises:
            DoesNotFit: not JSON, or not these arguments.
        """
        try:
            checked = self._model.model_validate_json(arguments.strip() or "{}")
        except pydantic.ValidationError as error:
            raise DoesNotFit(_complaint(error)) from None
        given = checked.model_fields_set
        values = {name: getattr(checked, field) for name, field in self._fields.items() if field in given}
        bound = inspect.BoundArguments(self._signature, values)
        bound.apply_defaults()
        return bound

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
        """The call with these arguments, unchecked, with defaults filled in.

        Raises:
            TypeError: as the call itself would.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound


def check_signature(fn: Callable[..., object]) -> None:
    """Refuse what cannot be called by name; cheap, and looks at no annotation.

    Raises:
        InvalidInput: as `Parameters`.
    """
    for number, parameter in enumerate(inspect.signature(fn).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidInput(f"{_name(fn)} takes *{parameter.name}: a tool's arguments need names, so write them out")
        if number == 0 and parameter.name in ("self", "cls"):
            raise InvalidInput(f"{_name(fn)} is a method without its object: use tool(object.{_name(fn)})")


def _field(name: str, parameter: inspect.Parameter, hint: object, said: str | None) -> FieldInfo:
    told = any(isinstance(meta, FieldInfo) and meta.description for meta in get_args(hint)[1:])
    default = ... if parameter.default is parameter.empty else parameter.default
    if said is None or told:
        return cast("FieldInfo", pydantic.Field(default, alias=name))
    return cast("FieldInfo", pydantic.Field(default, alias=name, description=said))


def _hints(fn: Callable[..., object]) -> dict[str, Any]:  # Any: annotations
    name = _name(fn)
    plain: Any = fn  # Any: what can be called has no common type
    if functools.partial in inspect.getmro(type(fn)):
        plain = plain.func
    if not (inspect.isroutine(plain) or isinstance(plain, type)):
        plain = type(plain).__call__
    try:
        return get_type_hints(plain, include_extras=True)
    except NameError as error:
        raise InvalidInput(f"an annotation of {name} names {error.name!r}, which does not exist there") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _without_titles(schema: Json) -> Json:
    """The schema without the titles that pydantic makes from names: they tell a model nothing and cost tokens."""
    if _is_list(schema):
        return [_without_titles(entry) for entry in schema]
    if not _is_object(schema):
        return schema
    cleaned: dict[str, Json] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in ("properties", "$defs"):  # what stands below are names of the user's, `title` perhaps among them
            cleaned[key] = {name: _without_titles(entry) for name, entry in value.items()}
        elif key in ("default", "const", "enum", "examples"):
            cleaned[key] = value
        else:
            cleaned[key] = _without_titles(value)
    return cleaned


def _is_object(value: Json) -> TypeGuard[dict[str, Json]]:
    return isinstance(value, dict)


def _is_list(value: Json) -> TypeGuard[list[Json]]:
    return isinstance(value, list)


# --- docstrings -------------------------------------------------------------------------------------------------------
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|Bounds|Source):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def summary(fn: Callable[..., object]) -> str:
    """The docstring up to its first section, as a model reads it."""
    lines: list[str] = []
    for line in (inspect.getdoc(fn) or "").splitlines():
        if _SECTION.match(line):
            break
        lines.append(line)
    return "\n".join(lines).strip()


def _argument_texts(doc: str) -> dict[str, str]:
    """The `Args:` section of a docstring in Google's style; a longer text continues on deeper lines."""
    section: list[str] = []
    inside = False
    for line in doc.splitlines():
        if match := _SECTION.match(line):
            inside = match.group(1) in ("Args", "Arguments", "Parameters")
        elif inside:
            section.append(line)
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in textwrap.dedent("\n".join(section)).splitlines():
        if match := _ARGUMENT.match(line):
            lines = found.setdefault(match.group(1), [])
            lines.append(match.group(2))
        elif lines is not None and line[:1].isspace():
            lines.append(line.strip())
    return {name: " ".join(filter(None, lines)) for name, lines in found.items()}


# --- an answer of a certain type --------------------------------------------------------------------------------------
class Shape(Generic[T]):
    """The type that a model's answer must have: a pydantic model, dataclass, TypedDict or built-in type.

    Providers want the schema of an object, so other types are asked for as `{"result": …}`; an answer without that
    wrapping is understood as well.

    Attributes:
        name: for the provider. schema: of the object to ask for.

    Raises:
        InvalidInput: the type has no JSON schema.
    """

    def __init__(self, type_: type[T]) -> None:
        try:
            self._adapter: pydantic.TypeAdapter[T] = _adapter(type_)
            schema: dict[str, Json] = self._adapter.json_schema()
        except pydantic.errors.PydanticUserError as error:
            raise InvalidInput(f"{_name(type_)} has no JSON schema: {_first_line(error)}") from None
        self.name = re.sub(r"[^A-Za-z0-9_-]", "_", _name(type_))[:64]
        self._wrapped = schema.get("type") != "object"
        definitions = schema.pop("$defs", None) if self._wrapped else None
        if self._wrapped:
            properties = {_RESULT: schema}
            schema = {"type": "object", "properties": properties, "required": [_RESULT], "additionalProperties": False}
        if definitions is not None:
            schema["$defs"] = definitions
        self.schema: dict[str, Json] = cast("dict[str, Json]", _without_titles(schema))

    def parse(self, text: str) -> T:
        """The value that a model's text holds; a fence of Markdown around it is taken off.

        Raises:
            DoesNotFit: no JSON, or not of this type.
        """
        text = _without_fence(text)
        if self._wrapped:
            try:
                fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            except msgspec.MsgspecError:
                fields = {}
            if set(fields) == {_RESULT}:
                text = bytes(fields[_RESULT]).decode()
        try:
            return self._adapter.validate_json(text)
        except pydantic.ValidationError as error:
            raise DoesNotFit(_complaint(error)) from None


_FENCE = re.compile(r"\A```[\w-]*\n(.*?)\n?```\Z", re.DOTALL)


def _without_fence(text: str) -> str:
    text = text.strip()
    match = _FENCE.match(text)
    return match.group(1) if match else text
