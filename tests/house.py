"""The package as source text: its modules, parsed once, with the names that the rules of the house speak of.

Comes in: the folder `agentstream/`. Goes out: `modules()`, each with its path, dotted name, room and syntax tree.
It deliberately does not import the package, so a rule about imports cannot change what it looks at.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["AGENTS", "PACKAGE", "ROOT", "Module", "modules"]

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = ROOT / "agentstream"
AGENTS: Final = ROOT / "agents"


@dataclass(frozen=True, slots=True)
class Module:
    """One source file of the package."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def where(self) -> str:
        """The path as a person writes it."""
        return str(self.path.relative_to(ROOT))

    @property
    def room(self) -> str:
        """The first name under `agentstream`; empty for the front door itself."""
        return self.name.partition(".")[2].partition(".")[0]

    @property
    def public(self) -> bool:
        """Whether no part of its name begins with an underscore, and it is not the start of a program."""
        return not any(part.startswith("_") for part in self.name.split("."))

    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        """Yield every function and method with its place."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{self.where}:{node.lineno} {node.name}", node

    def comments(self) -> Iterator[str]:
        """Yield the text of every comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return (token.string for token in tokens if token.type == tokenize.COMMENT)

    def classes(self) -> Iterator[ast.ClassDef]:
        """Yield every class."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and absolute name of every import: relative ones resolved, names after `from` included."""
        parent = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = parent.split(".")[: len(parent.split(".")) - node.level + 1]
                    base = ".".join([*above, *([base] if base else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@cache
def modules() -> tuple[Module, ...]:
    """Return all modules of the package, in alphabetical order."""
    found: list[Module] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(path, name, text, ast.parse(text, str(path))))
    return tuple(found)
