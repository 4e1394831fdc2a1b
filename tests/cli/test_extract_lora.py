"""``weightsmith extract-lora`` as a user meets it."""

import json
from pathlib import Path

import pytest

from tests.support.adapters import make_adapter, make_llama
from tests.support.command_line import Weightsmith
from tests.support.folders import load, write_model
from weightsmith.ops.merge_lora import merge_lora

EXTRACT = ("extract-lora", "--base", "base", "--target", "target", "lora")


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders ``base`` and ``target`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    base = make_llama(tmp_path / "base", hidden_size=96, intermediate_size=160)
    merge_lora(base, make_adapter(tmp_path / "trained", base, r=2), tmp_path / "target")


def test_an_adapter_is_planned_shown_made_and_found_done_again(
    weightsmith: Weightsmith, pair: None
) -> None:
    said = weightsmith(*EXTRACT)
    assert said.code == 0
    assert "2 matrices: their whole change, rank 2" in said.err
    assert "what merging the adapter does not restore" in said.err
    assert "model.layers.0.self_attn.q_proj.weight  rank 2" in said.err
    assert "merged back, " in said.out
    assert sorted(path.name for path in Path("lora").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "weightsmith.json",
    ]
    again = json.loads(weightsmith(*EXTRACT, "--json").out)
    assert again["schema"] == "weightsmith.extract-lora/1"
    assert again["already_done"] is True
    assert set(again["ranks"].values()) == {2}
    assert [each["rank"] for each in again["tensors"]] == [2, 2]
    assert max(each["error"] for each in again["tensors"]) < 0.02
    merged = weightsmith("merge-lora", "--base", "base", "--lora", "lora", "--target", "again")
    assert merged.code == 0


def test_names_in_order_will_do(weightsmith: Weightsmith, pair: None) -> None:
    said = weightsmith("extract-lora", "base", "target", "lora", "-q")
    assert said.out == f"{Path('lora').resolve()}\n"


def test_a_dry_run_tells_the_ranks_and_writes_nothing(weightsmith: Weightsmith, pair: None) -> None:
    said = weightsmith(*EXTRACT, "--dry-run", "--json")
    assert said.code == 0
    assert set(json.loads(said.out)["ranks"].values()) == {2}
    assert not Path("lora").exists()


def test_a_full_fine_tune_is_refused_with_what_to_ask_for(
    weightsmith: Weightsmith, pair: None
) -> None:
    tensors = load(Path("base"))
    config = json.loads(Path("base/config.json").read_bytes())
    moved = {n: t + t.new_empty(t.shape).normal_() * 0.01 for n, t in tensors.items()}
    write_model(Path("target"), moved, config=config)
    refused = weightsmith(*EXTRACT)
    assert refused.code == 2
    assert "are not of low rank" in refused.err
    assert "--rank 32" in refused.err
    cut = weightsmith(*EXTRACT, "--rank", "4")
    assert cut.code == 0
    assert "the largest part of their change, rank 4" in cut.err


@pytest.mark.parametrize("rank", ["0", "600", "four"])
def test_a_rank_that_is_none_is_a_usage_error(
    weightsmith: Weightsmith, pair: None, rank: str
) -> None:
    said = weightsmith(*EXTRACT, "--rank", rank)
    assert said.code == 2
    assert rank in said.err
