"""What is built from the sources: the pages and man pages in a wheel, all of it in an archive."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from weightsmith.cli.pages import pages

HOOKS = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("built")
    tree = _copy(folder / "tree")
    _build("sdist", folder, tree)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (unpacked,) = folder.glob("weightsmith-*[0-9]")
    return unpacked


def _copy(to: Path) -> Path:
    """What version control holds, without vectors: a build leaves folders where it runs."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)  # noqa: PLW1510
    if listed.returncode:
        pytest.skip("this is no clone: what was built from one has been checked there")
    for name in listed.stdout.splitlines():
        if not name.startswith("tests/vectors/") and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes((ROOT / name).read_bytes())
    return to


def _build(what: str, to: Path, tree: Path) -> None:
    """By the hook that pip and build call, with the setuptools that is here."""
    subprocess.run(
        [sys.executable, "-c", HOOKS.format(what), str(to)],
        cwd=tree,
        check=True,
        capture_output=True,
    )


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_archive_holds_all_that_the_repository_does(source: Path) -> None:
    theirs = files_below(source.parent / "tree")
    built = {
        name
        for name in theirs
        if name.startswith(("build/", "weightsmith.egg-info/")) or "__pycache__" in name
    }
    assert theirs - built - files_below(source) == set()


@pytest.mark.slow
def test_the_wheel_holds_every_page_and_man_page(source: Path) -> None:
    _build("wheel", source.parent, source)
    (wheel,) = source.parent.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"weightsmith/pages/{address}.md" for address in pages()} <= names
    man = {path.name for path in (ROOT / "docs" / "man").iterdir()}
    shared = {name.rpartition("/")[2] for name in names if "/data/share/man/man1/" in name}
    assert man == shared
    assert not [name for name in names if name.startswith(("docs/", "tests/"))]
    (metadata,) = (name for name in names if name.endswith("dist-info/METADATA"))
    said = zipfile.ZipFile(wheel).read(metadata).decode()
    assert re.findall(r"\]\((?!https://|#)[^)]*", said) == []
