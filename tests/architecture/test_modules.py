"""What each module of the house looks like: its docstring, its imports, its names.

Comes in: the source of the package, and the package itself for what it exports. Goes out: a failure with the place.
It deliberately repeats what ruff checks only where a comment in the source could switch that off.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections import defaultdict
from types import ModuleType
from typing import Final

import pytest

from house import ROOT, Module, modules

# Modules that know which loop runs; everything else speaks anyio.
KNOW_THE_LOOP: Final = frozenset({"agentstream.loops"})
LOOPS: Final = frozenset({"asyncio", "trio", "uvloop"})
PURE: Final = frozenset({"clock", "dialects", "errors", "events", "ids", "order", "policy", "ports", "wire"})

_SENTENCE_END: Final = re.compile(r"[.!?:](?:\s|$)")


def _exporting() -> list[Module]:
    return [module for module in modules() if module.public]


def _load(module: Module) -> ModuleType:
    return importlib.import_module(module.name)


def test_modules_say_what_they_know() -> None:
    """Each module with code begins with a docstring of three sentences: in, out, and what it does not know."""
    short: list[str] = []
    for module in modules():
        docstring = ast.get_docstring(module.tree) or ""
        statements = ast.Expr | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign
        only_exports = module.path.name == "__init__.py" and all(
            isinstance(node, statements) for node in module.tree.body
        )
        if len(_SENTENCE_END.findall(docstring)) < (1 if only_exports else 3):
            short.append(module.where)
    assert not short


def test_imports_stand_at_the_top() -> None:
    """No function imports: that is how knots between modules hide."""
    hidden = [
        f"{module.where}:{node.lineno}"
        for module in modules()
        for _, function in module.functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not hidden


def test_walls_are_kept() -> None:
    """No room imports a name or module with an underscore from another room."""
    through = [
        f"{module.where}:{line} {name}"
        for module in modules()
        for line, name in module.imports()
        if name.startswith("agentstream.")
        and name.split(".")[1] != module.room
        and any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    ]
    assert not through


def test_tasks_have_owners() -> None:
    """Nobody starts a task outside a task group."""
    starts = {"create_task", "ensure_future", "spawn_system_task"}
    orphans = [
        f"{module.where}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Attribute) and node.attr in starts)
        or (isinstance(node, ast.Name) and node.id in starts)
    ]
    assert not orphans


def test_only_loops_knows_which_loop_runs() -> None:
    """asyncio, trio and uvloop are imported in one place; everything else runs on any of them."""
    knowing = [
        f"{module.where}:{line} {name}"
        for module in modules()
        for line, name in module.imports()
        if name.partition(".")[0] in LOOPS and module.name not in KNOW_THE_LOOP and module.room != "testing"
    ]
    assert not knowing


def test_no_names_change_after_import() -> None:
    """No function rebinds a name of its module."""
    changing = [
        f"{module.where}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    ]
    assert not changing


def test_any_has_a_reason() -> None:
    """A module that writes `Any` has a comment that says why, with the word in it."""
    unexplained = [
        module.where
        for module in modules()
        if any(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(module.tree))
        and not any(re.search(r"\bAny\b", comment) for comment in module.comments())
    ]
    assert not unexplained


def test_the_floors_name_every_room() -> None:
    """The rooms that are pure by design are held to it by import-linter as soon as they exist."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = configuration["tool"]["importlinter"]["contracts"]
    held = {name for contract in contracts for name in contract.get("source_modules", [])}
    built = {f"agentstream.{module.room}" for module in modules() if module.room in PURE}
    assert built <= held
    backends = {module.name for module in modules() if module.public and module.name.startswith("agentstream.store.")}
    strangers = {name for contract in contracts for name in contract.get("modules", [])}
    assert backends <= strangers


# ---- exports --------------------------------------------------------------------------------------------------------


def _defined(tree: ast.Module) -> set[str]:
    """Return the public names that a module's own statements make, imports left out."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def _type_variables(loaded: ModuleType) -> set[str]:
    kinds = ("TypeVar", "ParamSpec", "TypeVarTuple")
    return {name for name, value in vars(loaded).items() if type(value).__name__ in kinds}


@pytest.mark.parametrize("module", [pytest.param(module, id=module.name) for module in _exporting()])
def test_exports_are_complete(module: Module) -> None:
    """`__all__` holds every public name that the module defines, each once, and nothing that is not there."""
    loaded = _load(module)
    exported = list(getattr(loaded, "__all__", ()))
    assert len(exported) == len(set(exported))
    assert [name for name in exported if not hasattr(loaded, name)] == []
    assert sorted(_defined(module.tree) - set(exported) - _type_variables(loaded)) == []


def test_every_name_has_one_home() -> None:
    """A public class or function is defined in one place and exported by one room, and by the front door if at all."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for module in _exporting():
        loaded = _load(module)
        for name in getattr(loaded, "__all__", ()):
            value = getattr(loaded, name)
            if module.room and (isinstance(value, type) or callable(value)):
                homes[f"{getattr(value, '__module__', '?')}.{name}"].add(module.room)
    shared = {name: sorted(rooms) for name, rooms in homes.items() if len(rooms) > 1}
    assert not shared


def test_the_front_door_only_shows_what_a_room_exports() -> None:
    """Each name of `agentstream` itself is the same object as one that a room exports under the same name."""
    front = importlib.import_module("agentstream")
    rooms = [_load(module) for module in _exporting() if module.room]
    homeless = [
        name
        for name in getattr(front, "__all__", ())
        if not name.startswith("__")
        and not any(
            name in getattr(room, "__all__", ()) and getattr(room, name) is getattr(front, name) for room in rooms
        )
    ]
    assert not homeless


def test_no_function_is_named_like_a_room() -> None:
    """Importing a room would put the module over the function of the same name."""
    rooms = {module.room for module in modules()}
    clashes = [
        f"{module.name}.{name}"
        for module in _exporting()
        for name in getattr(_load(module), "__all__", ())
        if name in rooms and not isinstance(getattr(_load(module), name), ModuleType)
    ]
    assert not clashes
