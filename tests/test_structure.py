"""The house stands as its design says: imports point downwards, and start-up is light."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import weightsmith
from tests.picture import in_circles, read_package
from tests.support.house import FLOORS, Import, imports_of, part_of, points_up, tree_of
from tests.support.paths import ROOT, TESTS
from weightsmith.cli.main import COMMANDS
from weightsmith.cli.pages import pages
from weightsmith.errors import known_errors, reference_of

PACKAGE = Path(weightsmith.__file__).parent

BESIDE = {"hub", "objects", "smoke"}
"""Parts beside the house, which only `ops` and `sources` may enter."""

HEAVY = {
    "torch": {"checkpoint", "codecs", "smoke"},
    "numpy": {"checkpoint", "codecs"},
    "transformers": {"repair", "smoke"},
    "tokenizers": {"repair", "smoke"},
    "sentencepiece": {"repair"},
    "safetensors": {"checkpoint", "engine", "smoke"},
    "huggingface_hub": {"hub"},
    "obstore": {"objects"},
    "tqdm": {"cli", "progress"},
    "ray": {"engine"},
}
"""Packages that take long to import, and who may do so, inside functions only."""

ARITHMETIC = {
    f"weightsmith.codecs.{name}"
    for name in (
        *("elements", "float_values", "span_measure"),
        *("exact.cast_bits", "exact.grouping", "exact.planes", "exact.span", "exact.coded"),
        *("low_rank.factors", "low_rank.find", "low_rank.integers", "low_rank.judge"),
        "low_rank.largest_part",
        *("low_rank.matrix_pair", "low_rank.one_thread", "low_rank.range_finder"),
        *("low_rank.round_once", "low_rank.weighted_fit"),
    )
}
"""Modules of NumPy throughout: they import it at their top, and count as heavy themselves."""


def modules_after(*args: str) -> set[str]:
    """What a command line has imported by its end, in a process of its own."""
    code = (
        "import sys; from weightsmith.cli.main import run; run(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    found = [each for path in sorted(PACKAGE.rglob("*.py")) for each in imports_of(path, PACKAGE)]
    assert len(found) > 100
    return found


def test_every_part_of_the_house_has_a_floor(imports: list[Import]) -> None:
    assert {each.part for each in imports} <= FLOORS.keys()


def test_imports_point_downwards(imports: list[Import]) -> None:
    assert not [str(each) for each in imports if points_up(each)]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not in_circles(read_package(PACKAGE))


def test_nobody_imports_cli(imports: list[Import]) -> None:
    wrong = [
        str(each)
        for each in imports
        if each.module.startswith("weightsmith.cli") and each.part != "cli"
    ]
    assert not wrong


def test_only_ops_and_sources_enter_hub_and_smoke(imports: list[Import]) -> None:
    wrong = [
        str(each)
        for each in imports
        if part_of(each.module) in BESIDE
        and each.module.startswith("weightsmith.")
        and each.part not in {"ops", "sources", part_of(each.module)}
    ]
    assert not wrong


def test_formats_needs_the_standard_library_only(imports: list[Import]) -> None:
    allowed = sys.stdlib_module_names | {"weightsmith"}
    wrong = [
        str(each)
        for each in imports
        if each.part == "formats" and each.module.split(".")[0] not in allowed
    ]
    assert not wrong


def test_heavy_packages_are_imported_inside_functions(imports: list[Import]) -> None:
    arithmetic = {module.replace(".", "/") + ".py" for module in ARITHMETIC}
    wrong = [
        str(each)
        for each in imports
        if (each.module.split(".")[0] in HEAVY or each.module in ARITHMETIC)
        and not each.deferred
        and each.where.split(":")[0] not in arithmetic
    ]
    assert not wrong


def test_heavy_packages_are_imported_where_they_belong(imports: list[Import]) -> None:
    wrong = [
        str(each)
        for each in imports
        if not each.typing_only
        and each.part not in HEAVY.get(each.module.split(".")[0], {each.part})
    ]
    assert not wrong


def test_tests_share_support_modules_and_nothing_else() -> None:
    """What a second test needs moves to `tests.support`, so that each test file stands alone."""
    private = re.compile(r"^ *(from|import) tests\b.*\b(?P<name>conftest|test_\w+)\b", re.MULTILINE)
    wrong = [
        f"{path.relative_to(TESTS)}: {found.group()}"
        for path in sorted(TESTS.rglob("*.py"))
        for found in private.finditer(path.read_text("utf-8"))
        if found["name"] != path.stem  # a process of its own runs a part of it
    ]
    assert not wrong


def test_every_package_that_the_code_or_a_test_imports_is_asked_for() -> None:
    """What another package happens to bring is missing on the day that it no longer does."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project, built_with = pyproject["project"], pyproject["build-system"]["requires"]
    asked = {
        re.split(r"[^\w.-]", line)[0].lower().replace("_", "-")
        for line in (
            *project["dependencies"],
            *project["optional-dependencies"]["dev"],
            *built_with,
        )
    }
    brings = importlib.metadata.packages_distributions()
    own = sys.stdlib_module_names | {"weightsmith", "tests"} | modules_in(ROOT / "docs")
    missing = {
        f"{path.relative_to(ROOT)} imports {name}"
        for folder in (PACKAGE, TESTS, ROOT / "docs")
        for path in sorted(folder.rglob("*.py"))
        if "rivals" not in path.parts  # other tools, which `make bench PEERS=1` asks for itself
        for each in imports_of(path, folder)
        for name in [each.module.split(".")[0]]
        if name not in own
        and not {dist.lower().replace("_", "-") for dist in brings.get(name, ())} & asked
    }
    assert not missing


def modules_in(folder: Path) -> set[str]:
    """The scripts of a folder, which import each other by name."""
    return {path.stem for path in folder.glob("*.py")}


def test_only_cli_prints() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "cli"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not wrong


def test_the_library_names_no_flag() -> None:
    """It speaks Python, ```overwrite=True```; cli shows that as a flag. A whole command is a
    command, as a person runs it.
    """
    flag, command = re.compile(r"(?<![\w-])--[a-z]"), re.compile(r"(weightsmith|accelerate) [a-z]")
    wrong = [
        f"{path.relative_to(PACKAGE)}: {text[:60]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "cli"
        for text in texts_of(tree_of(path))
        if flag.search(text) and not command.search(text)
    ]
    assert not wrong


def texts_of(tree: ast.AST) -> Iterator[str]:
    """All string constants, an f-string as one."""
    match tree:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts
            )
        case _:
            for child in ast.iter_child_nodes(tree):
                yield from texts_of(child)


@pytest.mark.parametrize("args", [["--help"], ["-h"], [], ["--version"]])
def test_start_up_imports_no_heavy_package_and_no_command(args: list[str]) -> None:
    modules = modules_after(*args)
    assert "weightsmith.cli.main" in modules
    assert not modules & (HEAVY.keys() | {"weightsmith.engine.run", "blake3"})
    assert not modules & {module for module, _ in COMMANDS.values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported_and_is_the_one_announced(name: str) -> None:
    module, summary = COMMANDS[name]
    command = importlib.import_module(module).command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").split("\n\n")[0] == summary
    assert len(f"  fix-tokenizer  {summary}") <= 78  # click's margin; longer ones would wrap


def test_planning_imports_no_heavy_package(vectors: Path, tmp_path: Path) -> None:
    sources = [f"--{role}={vectors / 'vicuna_v1_1' / role}" for role in ("base", "delta")]
    modules = modules_after("apply-delta", *sources, f"--target={tmp_path / 'x'}", "--dry-run")
    assert "weightsmith.plan.align" in modules
    assert not modules & (HEAVY.keys() - {"sentencepiece", "tokenizers"})  # these prove a repair


def test_error_references_are_unique_and_explained() -> None:
    errors = list(known_errors())
    references = [reference_of(error) for error in errors]
    assert len(set(references)) == len(references)
    assert not [error.__name__ for error in errors if not (error.__doc__ or "").strip()]
    for error in errors:
        assert error.exit_code in {2, 3, 4, 5, 6, 7, 8, 9, 10, 70, 129, 130}, error.__name__


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_that_a_command_points_to_exists(name: str) -> None:
    command = importlib.import_module(COMMANDS[name][0]).command
    assert not command.docs or command.docs in pages()
