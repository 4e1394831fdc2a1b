"""The rooms of the house, and what each file of it imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FLOORS = {
    "": 11,
    "cli": 10,
    "ops": 9,
    "sources": 8,
    "engine": 7,
    "plan": 6,
    "hub": 6,
    "objects": 6,
    "smoke": 6,
    "codecs": 5,
    "repair": 5,
    "catalogue": 4,
    "checkpoint": 3,
    "formats": 2,
    "fs": 1,
    "errors": 0,
    "patterns": 0,
    "progress": 0,
    "units": 0,
    "version": 0,
}
"""Each part may import what lies on a lower floor, and itself; ``""`` is the package's face."""


@dataclass(frozen=True)
class Import:
    where: str
    """``weightsmith/plan/model.py:7``."""
    part: str
    """The part of the house that imports: ``plan``."""
    module: str
    """What it imports: ``weightsmith.formats.tensors``."""
    deferred: bool
    """Inside a function, or for type checkers only."""
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.where} imports {self.module}"


def part_of(module: str) -> str:
    """``weightsmith.plan.model`` -> ``plan``."""
    return module.split(".")[1] if "." in module else ""


@cache
def tree_of(path: Path) -> ast.Module:
    """What a file says, parsed once for all who ask."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """All imports of one file of the package, wherever they stand in it."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    part = {"__init__": "", "__main__": "cli"}.get(parts[1], parts[1])

    def walk(node: ast.AST, *, deferred: bool, typing_only: bool) -> Iterator[Import]:
        where = f"{'/'.join(parts)}.py:{getattr(node, 'lineno', 0)}"
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(where, part, alias.name, deferred, typing_only)
            case ast.ImportFrom(module="weightsmith"):
                for alias in node.names:
                    name = f"weightsmith.{alias.name}"
                    is_part = alias.name in FLOORS
                    module = name if is_part else "weightsmith"
                    yield Import(where, part, module, deferred, typing_only)
            case ast.ImportFrom():
                assert node.level == 0, f"{where}: relative import"
                yield Import(where, part, node.module or "", deferred, typing_only)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for child in node.body:
                    yield from walk(child, deferred=True, typing_only=True)
            case _:
                in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for inner in _statements_of(node):
                    yield from walk(
                        inner, deferred=deferred or in_function, typing_only=typing_only
                    )

    yield from walk(tree_of(path), deferred=False, typing_only=False)


def _statements_of(node: ast.AST) -> Iterator[ast.AST]:
    """Those directly in a statement: expressions, most of a tree, hold no imports."""
    for field in ("body", "handlers", "cases", "orelse", "finalbody"):
        yield from getattr(node, field, ())


def points_up(each: Import) -> bool:
    """Whether a part imports one of ours that does not lie below it."""
    target = part_of(each.module)
    ours = each.module.split(".")[0] == "weightsmith"
    return ours and target != each.part and FLOORS[target] >= FLOORS[each.part]
