"""The tokenizers that tests of repairs are made from."""

import itertools
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tokenizer_folders import Files, mended, read, trained


@pytest.fixture(scope="session")
def small_model(vectors: Path) -> bytes:
    """A sentencepiece model with LLaMA's settings and 400 pieces."""
    return (vectors / "sp.model").read_bytes()


@pytest.fixture(scope="session")
def broken(vectors: Path) -> Files:
    """A base folder broken the decapoda way, as files."""
    return read(vectors / "vicuna_v1_1" / "base")


@pytest.fixture(scope="session")
def healthy(broken: Files) -> Files:
    """The same folder, repaired."""
    return mended(broken)


@pytest.fixture(scope="session")
def library_lines() -> list[str]:
    """Real text with structure: two megabytes of Python's own library."""

    def lines() -> Iterator[str]:
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            yield from path.read_text(encoding="utf-8", errors="replace").splitlines()

    return [line for line in itertools.islice(lines(), 60_000) if line]


@pytest.fixture(scope="session")
def large_model(library_lines: list[str]) -> bytes:
    """A sentencepiece model of LLaMA's size: 32000 pieces."""
    return trained(library_lines, 32000)
