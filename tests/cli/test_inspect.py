"""`inspect` of several sources: a line each."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith
from tests.support.folders import copied


@pytest.fixture
def shelf(vectors: Path, tmp_path: Path) -> Path:
    """A directory of models, a delta and an adapter, and of something else."""
    shelf = tmp_path / "shelf"
    copied(vectors / "vicuna_v1_1" / "base", shelf / "base")
    copied(vectors / "vicuna_v1_1" / "delta", shelf / "delta")
    copied(vectors / "lora" / "plain_fp16" / "adapter", shelf / "lora")
    (shelf / "notes").mkdir()
    return shelf


def test_a_directory_of_models_is_told_a_line_each(shelf: Path, weightsmith: Weightsmith) -> None:
    said = weightsmith("inspect", str(shelf))
    assert said.code == 0
    title, *rows = said.out.splitlines()
    assert title.split() == ["source", "is", "size", "dtypes"]
    assert [row.split()[1] for row in rows] == ["model", "delta", "adapter"]
    assert all(len(row) <= 100 for row in rows)


def test_an_adapter_is_told_with_its_rank_and_what_to_do_with_it(
    shelf: Path, weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf / "lora").rename(shelf / "my lora")
    monkeypatch.chdir(shelf)
    said = weightsmith("inspect", "my lora")
    assert "  built as  LORA, rank 4\n" in said.out
    assert "  tensors   8, " in said.out
    assert said.err == "hint: weightsmith merge-lora --base BASE --lora 'my lora' --output DIR\n"
    document = json.loads(weightsmith("inspect", "my lora", "--json").out)
    assert document["next"] == "weightsmith merge-lora --base BASE --lora 'my lora' --output DIR"


def test_several_sources_are_one_document(shelf: Path, weightsmith: Weightsmith) -> None:
    said = weightsmith("inspect", str(shelf / "base"), str(shelf / "delta"), "--json")
    document = json.loads(said.out)
    assert document["schema"] == "weightsmith.inspect-all/1"
    assert [each["kind"] for each in document["sources"]] == ["model", "delta"]


def test_one_that_cannot_be_read_is_a_line_and_the_exit_code(
    shelf: Path, weightsmith: Weightsmith
) -> None:
    (shelf / "base" / "config.json").unlink()
    for file in (shelf / "base").glob("*.bin"):
        file.write_bytes(file.read_bytes()[:500])
    said = weightsmith("inspect", str(shelf))
    assert said.code == 6
    assert len(said.out.splitlines()) == 4
    assert said.out.splitlines()[1].split()[1] == "?"


def test_one_model_in_a_directory_is_not_looked_for(shelf: Path, weightsmith: Weightsmith) -> None:
    for name in ("base", "delta"):
        shutil.rmtree(shelf / name)
    said = weightsmith("inspect", str(shelf))
    assert said.code == 3
    assert "[no-weights]" in said.err
