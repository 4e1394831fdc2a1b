"""Any Hugging Face folder written anew: format, dtype and shards change, values do not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import tiny
from tests.support.folders import assert_same_bits, load, state, write_model
from weightsmith.errors import DtypeNotStorable, EncodedRelease, NoWeights, TargetIsInput
from weightsmith.ops.convert import convert, plan_convert
from weightsmith.ops.fix_tokenizer import check_tokenizer

MIXED = {
    "half": torch.arange(12, dtype=torch.float16).reshape(3, 4) / 7,
    "brain": torch.arange(6, dtype=torch.bfloat16) / 3,
    "single": torch.arange(4, dtype=torch.float32) / 3,
    "double": torch.arange(4, dtype=torch.float64) / 3,
    "index": torch.arange(5),
    "packed": torch.arange(250, 256, dtype=torch.uint8),
    "mask": torch.tensor([True, False]),
    "eight": torch.arange(4, dtype=torch.float32).to(torch.float8_e4m3fn),
    "scalar": torch.tensor(1.5, dtype=torch.float16),
    "empty": torch.zeros(0, 3, dtype=torch.float16),
}


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_dtype_is_kept_bit_for_bit_by_default(
    suffix: str, shards: int, tmp_path: Path
) -> None:
    source = write_model(tmp_path / "in", MIXED, suffix=suffix, shards=shards)
    before = state(source)
    convert(source, tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), MIXED)
    assert state(source) == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_cast_touches_floats_of_16_bits_and_more_only(dtype: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "in", MIXED, suffix="bin")
    convert(source, tmp_path / "out", dtype=dtype)  # type: ignore[arg-type]  # of the list above
    wide = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    expected = {
        name: t.to(getattr(torch, dtype)) if t.dtype in wide else t for name, t in MIXED.items()
    }
    assert_same_bits(load(tmp_path / "out"), expected)
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["torch_dtype"] == dtype


def test_shards_are_as_large_as_was_asked_for_and_the_index_names_all(tmp_path: Path) -> None:
    weights = {f"w{n}": torch.randn(100, 10) for n in range(7)}  # 4000 bytes each
    source = write_model(tmp_path / "in", weights)
    convert(source, tmp_path / "out", max_shard_nbytes=9000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_bytes())
    assert sorted(set(index["weight_map"].values())) == [
        f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)
    ]
    assert index["metadata"]["total_size"] == 28_000
    assert_same_bits(load(tmp_path / "out"), weights)


def test_files_that_hold_whole_storages_for_small_views_come_out_small(tmp_path: Path) -> None:
    """As decapoda's 13B: 37 GB on the hub, since each norm was saved with its shard's storage."""
    storage = torch.arange(500_000, dtype=torch.float16)
    views = {"norm": storage[7:39], "matrix": storage[1000:1060].view(6, 10).t()}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text("{}")
    torch.save(views, tmp_path / "in" / "pytorch_model.bin")
    assert (tmp_path / "in" / "pytorch_model.bin").stat().st_size > 1_000_000
    convert(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 1000
    assert_same_bits(load(tmp_path / "out"), views)


def test_a_folder_broken_the_decapoda_way_is_mended(vectors: Path, tmp_path: Path) -> None:
    source = vectors / "vicuna_v1_1" / "base"
    job = plan_convert(source, tmp_path / "out")
    assert "tokenizer-class-misspelt" in job.plan.repairs
    assert job.faults == ()
    convert(source, tmp_path / "out")
    assert check_tokenizer(tmp_path / "out").faults == ()


def test_without_repair_it_keeps_its_files_and_is_told_its_faults(
    vectors: Path, tmp_path: Path
) -> None:
    source = vectors / "vicuna_v1_1" / "base"
    job = plan_convert(source, tmp_path / "out", repair=False)
    assert any("LLaMATokenizer" in fault for fault in job.faults)
    assert job.plan.dropped
    convert(source, tmp_path / "out", repair=False)
    for name in ("tokenizer_config.json", "tokenizer.model", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


def tied_bin(folder: Path, *, config: dict[str, object]) -> dict[str, Tensor]:
    """A ``.bin`` whose output matrix is its embedding, as torch saves tied models."""
    embeddings = torch.randn(20, 8)
    weights = {"model.embed_tokens.weight": embeddings, "lm_head.weight": embeddings}
    write_model(folder, weights, config={**config, "vocab_size": 20}, suffix="bin")
    return weights


def test_a_tied_output_matrix_is_written_once(tmp_path: Path) -> None:
    weights = tied_bin(tmp_path / "in", config={"tie_word_embeddings": True})
    job = plan_convert(tmp_path / "in", tmp_path / "out")
    assert any("lm_head.weight" in note for note in job.plan.notes)
    convert(tmp_path / "in", tmp_path / "out")
    del weights["lm_head.weight"]
    assert_same_bits(load(tmp_path / "out"), weights)


@pytest.mark.parametrize("config", [{"tie_word_embeddings": False}, {}])
def test_a_shared_matrix_is_written_twice_where_the_config_does_not_tie_it(
    config: dict[str, object], tmp_path: Path
) -> None:
    weights = tied_bin(tmp_path / "in", config=config)
    convert(tmp_path / "in", tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), weights)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize(
    "config",
    [{"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": True}}],
    ids=["top", "text"],
)
def test_a_tied_head_with_equal_bytes_of_its_own_is_written_once_and_said_so(
    config: dict[str, object], suffix: str, tmp_path: Path
) -> None:
    embeddings = torch.randn(20, 8)
    weights = {"model.embed_tokens.weight": embeddings, "lm_head.weight": embeddings.clone()}
    source = write_model(tmp_path / "in", weights, config=config, suffix=suffix)
    notes = plan_convert(source, tmp_path / "out").plan.notes
    assert notes == (
        "lm_head.weight is not written: the config ties it to model.embed_tokens.weight",
    )
    convert(source, tmp_path / "out")
    del weights["lm_head.weight"]
    assert_same_bits(load(tmp_path / "out"), weights)


def test_a_head_that_the_config_ties_and_that_is_another_is_kept_and_said_so(
    tmp_path: Path,
) -> None:
    weights = {
        "model.embed_tokens.weight": torch.randn(20, 8),
        "lm_head.weight": torch.randn(20, 8),
    }
    source = write_model(tmp_path / "in", weights, config={"tie_word_embeddings": True})
    notes = plan_convert(source, tmp_path / "out").plan.notes
    assert notes == ("lm_head.weight is not the input embedding, though the config ties it",)
    convert(source, tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), weights)


def test_a_dtype_without_a_name_in_safetensors_is_refused_by_name(tmp_path: Path) -> None:
    weights = {"phase": torch.zeros(2, dtype=torch.complex128)}
    source = write_model(tmp_path / "in", weights, suffix="bin")
    with pytest.raises(DtypeNotStorable, match=r"phase .*C128"):
        plan_convert(source, tmp_path / "out")


def test_sidecars_travel_and_other_files_do_not(tmp_path: Path) -> None:
    source = write_model(tmp_path / "in", {"w": torch.ones(2)})
    for name in ("README.md", "modeling_own.py", "tokenizer.json", "optimizer.pt", "notes.pdf"):
        (source / name).write_text("{}")
    convert(source, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("README.md", "modeling_own.py", "tokenizer.json", "config.json"),
        *("model.safetensors", "weightsmith.json"),
    }


def test_a_conversion_can_be_converted_back_to_the_same_bits(vectors: Path, tmp_path: Path) -> None:
    source = vectors / "alpaca_wdiff" / "base"
    convert(source, tmp_path / "wide", dtype="float32")
    convert(tmp_path / "wide", tmp_path / "back", dtype="float16")
    expected = tiny.read_weights(source)
    assert_same_bits(load(tmp_path / "back"), expected)


def test_the_target_may_not_be_the_source(tmp_path: Path) -> None:
    source = write_model(tmp_path / "in", {"w": torch.ones(2)})
    with pytest.raises(TargetIsInput):
        convert(source, source)


def test_releases_that_must_be_decoded_first_say_so(vectors: Path, tmp_path: Path) -> None:
    for name, option in (("oasst_xor", "--base"), ("point_alpaca_enc", "--key")):
        with pytest.raises(EncodedRelease) as caught:
            convert(vectors / name / "delta", tmp_path / "out")
        assert option in caught.value.hint_text


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(NoWeights):
        convert(tmp_path / "in", tmp_path / "out")


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    source = write_model(tmp_path / "in", MIXED, suffix="bin")
    convert(source, tmp_path / "out")
    assert_same_bits(load_file(tmp_path / "out" / "model.safetensors"), MIXED)


ROUTER = "model.layers.0.mlp.gate.e_score_correction_bias"
SCALE = "model.layers.0.mlp.up_proj.weight_scale_inv"


def test_a_cast_keeps_scales_and_router_biases_and_says_so(tmp_path: Path) -> None:
    weights = {
        "model.embed_tokens.weight": torch.randn(9, 4),
        ROUTER: torch.randn(256) + 8,
        "model.layers.0.mlp.up_proj.weight": torch.randn(4, 4).to(torch.float8_e4m3fn),
        SCALE: torch.rand(1, 1),
    }
    config = {"model_type": "deepseek_v3", "torch_dtype": "float32"}
    source = write_model(tmp_path / "in", weights, config=config)
    notes = plan_convert(source, tmp_path / "out", dtype="bfloat16").plan.notes
    assert any("1 weight_scale_inv (F32)" in note for note in notes)
    assert any("1 e_score_correction_bias (F32)" in note for note in notes)
    convert(source, tmp_path / "out", dtype="bfloat16")
    made = load(tmp_path / "out")
    assert torch.equal(made[ROUTER], weights[ROUTER])
    assert torch.equal(made[SCALE], weights[SCALE])
    assert made["model.embed_tokens.weight"].dtype == torch.bfloat16

    convert(source, tmp_path / "all", dtype="bfloat16", dtype_all=True)
    made = load(tmp_path / "all")
    assert made[ROUTER].dtype == torch.bfloat16
    assert torch.equal(made[SCALE], weights[SCALE])


def test_the_configs_dtype_is_that_of_the_weights_and_not_of_a_quantisers_scales(
    tmp_path: Path,
) -> None:
    weights = {
        "model.embed_tokens.weight": torch.randn(2, 4).bfloat16(),
        "model.layers.0.mlp.up_proj.weight": torch.zeros(8, 1, dtype=torch.uint8),
        "model.layers.0.mlp.up_proj.weight.absmax": torch.rand(64),
    }
    config = {"model_type": "llama", "torch_dtype": "bfloat16", "quantization_config": {}}
    convert(write_model(tmp_path / "in", weights, config=config), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_bytes()) == config
