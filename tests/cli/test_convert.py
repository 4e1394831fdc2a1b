"""``weightsmith convert`` as people and programs see it."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith


@pytest.fixture
def meta(vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of Meta's, and a working directory to write in."""
    monkeypatch.chdir(tmp_path)
    return str(vectors / "meta_llama1_2shards" / "meta" / "13B")


def test_a_meta_folder_is_told_apart_by_what_it_holds(weightsmith: Weightsmith, meta: str) -> None:
    said = weightsmith("convert", meta, "llama-13b")
    assert said.code == 0
    assert said.out.startswith(f"done  {Path('llama-13b').resolve()}\n")
    assert "21 tensors  1.25 MB  F16  2 .pth files" in said.err
    assert "Meta's layout in 2 files, read as Hugging Face's" in said.err
    again = weightsmith("convert", meta, "llama-13b")
    assert "already done" in again.out


def test_a_dry_run_writes_nothing(weightsmith: Weightsmith, meta: str) -> None:
    said = weightsmith("convert", meta, "out", "--dry-run", "--dtype", "bfloat16", "--json")
    document = json.loads(said.out)
    assert document["schema"] == "weightsmith.plan/1"
    assert document["plan"]["verb"] == "convert"
    assert not Path("out").exists()


def test_what_was_checked_is_said_in_both_modes(weightsmith: Weightsmith, meta: str) -> None:
    human = weightsmith("convert", meta, "out", "--check-source")
    assert "params.json: not known, it has none of the published hashes" in human.err
    machine = weightsmith("convert", meta, "out", "--check-source", "--json")
    assert len(json.loads(machine.out)["checked"]) == 4


def test_a_target_is_needed(weightsmith: Weightsmith, meta: str) -> None:
    said = weightsmith("convert", meta)
    assert said.code == 2
    assert "missing --output" in said.err


def test_what_lies_in_the_targets_place_is_left_alone(
    weightsmith: Weightsmith, meta: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    said = weightsmith("convert", meta, "out")
    assert said.code == 9
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
