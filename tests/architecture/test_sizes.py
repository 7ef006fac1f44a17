"""Sizes of the house: modules, functions, parameters, inheritance.

Comes in: the source of the package. Goes out: a failure that names what is too large, and warnings before that.
It deliberately does not judge what the code does.
"""

from __future__ import annotations

import ast
import datetime as dt
from typing import Final, NamedTuple

from house import Module, modules

MODULE_SOFT: Final = 400
MODULE_HARD: Final = 600
FUNCTION: Final = 60
PARAMETERS: Final = 7
DEPTH: Final = 2


class Exemption(NamedTuple):
    """A module that may be larger, until a day."""

    lines: int
    until: dt.date
    reason: str


# An exemption is dated and has a reason; past its day it fails. Most days this is empty.
EXEMPTIONS: Final[dict[str, Exemption]] = {}


def _lines(module: Module) -> int:
    return module.text.count("\n")


def test_modules_are_small() -> None:
    """No module is longer than the hard limit; those over the soft one are listed."""
    sizes = {module.where: _lines(module) for module in modules()}
    for where, lines in sorted(sizes.items(), key=lambda item: -item[1]):
        if lines > MODULE_SOFT:
            print(f"{where}: {lines} lines, over the {MODULE_SOFT} that are asked for")
    limits = {where: exemption.lines for where, exemption in EXEMPTIONS.items()}
    too_long = {where: lines for where, lines in sizes.items() if lines > limits.get(where, MODULE_HARD)}
    assert not too_long


def test_exemptions_are_needed_and_in_date() -> None:
    """An exemption that is past its day, or not needed any more, goes."""
    sizes = {module.where: _lines(module) for module in modules()}
    today = dt.datetime.now(tz=dt.UTC).date()
    stale = [where for where, one in EXEMPTIONS.items() if one.until < today or sizes.get(where, 0) <= MODULE_HARD]
    assert not stale


def test_functions_are_short() -> None:
    """No function, its docstring left out, is longer than a screen."""
    too_long: dict[str, int] = {}
    for module in modules():
        for place, function in module.functions():
            body = function.body[1:] if ast.get_docstring(function) is not None else function.body
            lines = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > FUNCTION:
                too_long[place] = lines
    assert not too_long


def test_functions_have_few_parameters() -> None:
    """No function has more than seven parameters, `self` and `cls` not counted; overloads and keyword-only ones too."""
    too_many: dict[str, int] = {}
    for module in modules():
        for place, function in module.functions():
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
            if count > PARAMETERS:
                too_many[place] = count
    assert not too_many


def test_no_keyword_dictionaries_as_interface() -> None:
    """A public function says its parameters: no `**kwargs`, except where a ParamSpec passes another's through."""
    loose: list[str] = []
    for module in filter(lambda one: one.public, modules()):
        for place, function in module.functions():
            kwargs = function.args.kwarg
            if kwargs is None or function.name.startswith("_"):
                continue
            if kwargs.annotation is None or not ast.unparse(kwargs.annotation).endswith(".kwargs"):
                loose.append(place)
    assert not loose


def test_inheritance_is_shallow() -> None:
    """No class is more than two below the first of ours that it inherits from; errors draw a tree of their own."""
    bases: dict[str, list[str]] = {}
    for module in modules():
        for cls in module.classes():
            names = [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in cls.bases]
            bases[cls.name] = names

    def depth(name: str, seen: frozenset[str] = frozenset()) -> int:
        own = [base for base in bases.get(name, []) if base in bases and base not in seen | {name}]
        return 1 + max((depth(base, seen | {name}) for base in own), default=-1) if name in bases else 0

    def is_exception(name: str, seen: frozenset[str] = frozenset()) -> bool:
        if name in seen:
            return False
        ours = bases.get(name, [])
        return any(base.endswith(("Error", "Exception")) or is_exception(base, seen | {name}) for base in ours)

    too_deep = {name: depth(name) for name in bases if depth(name) > DEPTH and not is_exception(name)}
    assert not too_deep
