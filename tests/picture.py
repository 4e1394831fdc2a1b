"""The house in numbers: files a room, imports that point up, the longest way of an argument.

    python -m tests.picture [TREE] [--argument NAME]    a checkout, this one by default

To compare with an older commit: `git worktree add ../older COMMIT`, and give that directory.
"""

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.house import Import, imports_of, points_up, tree_of
from tests.support.paths import ROOT

Parameter = tuple[str, str]
"""A function's full name, and the name of one of its parameters."""


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str
    """``weightsmith.plan.model``."""
    tree: ast.Module
    nlines: int
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        """The folder it lies in: ``codecs.exact``; empty for the package's own."""
        return ".".join(self.name.split(".")[1:-1])

    def names(self) -> dict[str, str]:
        """What its names stand for, as far as they are the package's: `weightsmith.fs.rename`."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("weightsmith"):
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = f"{self.name}.{node.name}"
        return found


def read_package(package: Path) -> dict[str, Module]:
    """Every module by its name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        imports = tuple(imports_of(path, package))
        modules[name] = Module(name, tree_of(path), text.count("\n"), imports)
    return modules


def in_circles(modules: Mapping[str, Module]) -> list[str]:
    """Modules that import themselves by way of others, when or after they are imported."""
    arrows = {
        module.name: {each.module for each in module.imports if not each.typing_only}
        for module in modules.values()
    }

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            new = arrows.get(left.pop(), set()) - seen
            seen |= new
            left += new
        return seen

    return [name for name in arrows if "." in name and name in reached(name)]


def ways_of(
    modules: Mapping[str, Module], argument: str
) -> tuple[tuple[Parameter, ...], set[Parameter]]:
    """From a command's parameter of this name on: the longest chain of functions each of which
    hands on what it was given, by whatever name; and all that it is handed on to.
    """
    signatures = {
        f"{module.name}.{node.name}": [*_parameters(node)]
        for module in modules.values()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    arrows: dict[Parameter, set[Parameter]] = defaultdict(set)
    for module in modules.values():
        names = module.names()
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef):
                for given, called in _handed_on(node, names, signatures):
                    arrows[f"{module.name}.{node.name}", given].add(called)

    @cache
    def longest(start: Parameter, before: frozenset[Parameter]) -> tuple[Parameter, ...]:
        ways = (longest(each, before | {start}) for each in arrows[start] if each not in before)
        return (start, *max(ways, key=_length, default=()))

    starts = [
        (name, argument)
        for name, parameters in signatures.items()
        if name.split(".")[1] == "cli" and argument in parameters
    ]
    starts += [
        (name, f"{argument}s")  # given more than once
        for name, parameters in signatures.items()
        if name.split(".")[1] == "cli" and f"{argument}s" in parameters
    ]
    reached, left = {*starts}, [*starts]
    while left:
        new = arrows[left.pop()] - reached
        reached |= new
        left += new
    return max((longest(each, frozenset()) for each in starts), key=_length, default=()), reached


def _length(way: tuple[Parameter, ...]) -> tuple[int, tuple[Parameter, ...]]:
    return len(way), way  # of two as long, always the same one


def _parameters(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    """What a call fills, in order: a function's parameters, a dataclass's fields."""
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            yield each.arg
        return
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id


def _handed_on(
    node: ast.FunctionDef, names: Mapping[str, str], signatures: Mapping[str, list[str]]
) -> Iterator[tuple[str, Parameter]]:
    """Each parameter that a function hands on, and the one that it becomes."""
    own = {name: name for name in _parameters(node)}
    for inner in ast.walk(node):
        match inner:
            # What a call makes of it and calls otherwise is something else: an opened checkpoint.
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Name() | ast.Subscript() | ast.ListComp() as value,
            ) if name not in own:
                for meant in _meant(value, own):
                    own[name] = own[meant]
            case ast.comprehension(target=ast.Name(id=name), iter=value) if name not in own:
                for meant in _meant(value, own):
                    own[name] = own[meant]
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        match call.func:
            case ast.Name(id=name):
                called = names.get(name, "")
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                called = f"{names.get(owner, '')}.{name}"
            case _:
                continue
        parameters = signatures.get(called, [])
        given = [*zip(parameters, call.args, strict=False)]
        given += [(str(word.arg), word.value) for word in call.keywords if word.arg in parameters]
        for becomes, value in given:
            for name in _meant(value, own):
                yield own[name], (called, becomes)


def _meant(value: ast.expr, own: Collection[str]) -> Iterator[str]:
    """`delta`, and what is still the same thing: ``Path(delta)``, ``[located(x) for x in deltas]``,
    ``deltas[0]``.
    """
    match value:
        case ast.Name(id=name):
            if name in own:
                yield name
        case ast.Subscript(value=inner) | ast.Starred(value=inner):
            yield from _meant(inner, own)
        case ast.ListComp(generators=[ast.comprehension(iter=inner)]):
            yield from _meant(inner, own)
        case ast.Call(args=given):
            for each in given:
                if isinstance(each, ast.Name):
                    yield from _meant(each, own)
        case _:
            pass


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.picture")
    parser.add_argument("tree", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--argument", default="delta")
    args = parser.parse_args()
    modules = read_package(args.tree / "weightsmith")
    print(f"{'room':20} files  lines  lines of its longest file")
    for room in sorted({module.room for module in modules.values()}):
        nlines = [module.nlines for module in modules.values() if module.room == room]
        print(f"{room or '.':20} {len(nlines):5} {sum(nlines):6} {max(nlines):6}")
    nlines = [module.nlines for module in modules.values()]
    print(f"{'all':20} {len(nlines):5} {sum(nlines):6} {max(nlines):6}")
    up = [str(each) for module in modules.values() for each in module.imports if points_up(each)]
    print(f"\nimports that point up: {len(up)}", *up, sep="\n    ")
    circles = in_circles(modules)
    print(f"modules in circles: {len(circles)}", *circles, sep="\n    ")
    way, reached = ways_of(modules, args.argument)
    rooms = Counter(function.split(".")[1] for function, _ in reached)
    told = ", ".join(f"{count} of {room}" for room, count in rooms.most_common())
    print(f"{args.argument!r} is handed on to {len(reached)} functions ({told})")
    print(f"its longest way: {len(way)} functions")
    for function, parameter in way:
        print(f"    {function.partition('.')[2]}({parameter})")


if __name__ == "__main__":
    main()
