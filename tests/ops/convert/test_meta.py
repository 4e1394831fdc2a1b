"""Meta's own files become Hugging Face's, every bit, however they were split."""

import itertools
import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file

from tests.support.folders import assert_same_bits, contents, load, state
from tests.support.meta_layout import random_llama, write_meta
from weightsmith.engine.options import Options
from weightsmith.errors import MetaFilesDoNotFit, ParamsInvalid, ShardMissing
from weightsmith.ops.convert import convert, plan_convert
from weightsmith.sources.recognise import open_model

VECTOR = "meta_llama1_2shards"


@pytest.fixture(scope="module")
def vector(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vector, converted."""
    target = tmp_path_factory.mktemp("meta") / "out"
    convert(vectors / VECTOR / "meta" / "13B", target)
    return target


def test_llama_1_comes_out_as_transformers_4_31_converted_it(vector: Path, vectors: Path) -> None:
    assert_same_bits(
        load(vector), load_file(vectors / VECTOR / "expected" / "expected.safetensors")
    )


def test_the_config_means_what_transformers_4_31_wrote(vector: Path, vectors: Path) -> None:
    ours, theirs = (
        json.loads((folder / "config.json").read_bytes())
        for folder in (vector, vectors / VECTOR / "expected")
    )
    del theirs["transformers_version"], theirs["pretraining_tp"]  # whose, and unused since 2024
    assert {key: ours[key] for key in theirs} == theirs


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
def test_tokens_and_ids_are_those_that_transformers_4_31_wrote(
    name: str, vector: Path, vectors: Path
) -> None:
    ours, theirs = (
        json.loads((folder / name).read_bytes())
        for folder in (vector, vectors / VECTOR / "expected")
    )
    for key in theirs.keys() - {"transformers_version", "sp_model_kwargs", "model_max_length"}:
        theirs_said = theirs[key]["content"] if isinstance(theirs[key], dict) else theirs[key]
        if theirs_said is not None and key != "legacy":
            assert ours[key] == theirs_said, key


def test_the_tokenizer_cuts_text_as_the_one_of_transformers_4_31(
    vector: Path, vectors: Path
) -> None:
    from tokenizers import Tokenizer

    ours, theirs = (
        Tokenizer.from_file(str(folder / "tokenizer.json"))
        for folder in (vector, vectors / VECTOR / "expected")
    )
    for text in ["The boat is near the old mill.", " two  spaces", "é ü 猫\n\ttab", "</s>USER: a"]:
        assert ours.encode(text).ids == theirs.encode(text).ids
    model = vectors / VECTOR / "meta" / "tokenizer.model"
    assert (vector / "tokenizer.model").read_bytes() == model.read_bytes()


def test_transformers_loads_the_result_and_finds_every_weight(vector: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(vector, output_loading_info=True)
    model, report = loaded
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.rms_norm_eps == 1e-06
    assert AutoTokenizer.from_pretrained(vector)("The")["input_ids"][0] == 1


SHARDINGS = list(itertools.product((1, 2, 4, 8), (None, 8), ("rows", "columns")))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("shards, kv_heads, embedding", SHARDINGS)
def test_every_sharding_of_llama_1_2_and_3_gives_the_model_back(
    shards: int, kv_heads: int | None, embedding: Literal["rows", "columns"], tmp_path: Path
) -> None:
    dtype = torch.bfloat16 if embedding == "rows" else torch.float16
    weights = random_llama(hidden=128, heads=16, kv_heads=kv_heads, dtype=dtype)
    meta = write_meta(
        tmp_path / "meta",
        weights,
        heads=16,
        kv_heads=kv_heads,
        shards=shards,
        embedding=embedding,
    )
    before = state(meta)
    convert(meta, tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), weights)
    assert state(meta) == before
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config["num_key_value_heads"] == (kv_heads or 16)
    assert config["intermediate_size"] == 96
    assert config["vocab_size"] == 160
    assert config["torch_dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "options",
    [Options(workers=1), Options(workers=4), Options(low_cpu_mem=True), Options(verify="disk")],
)
def test_a_matrix_of_many_spans_is_the_same_in_every_way_of_running(
    options: Options, tmp_path: Path
) -> None:
    # 2.9 MB of q and k in rows of 2400 bytes, so that a span ends inside a row of a head.
    weights = random_llama(hidden=1200, intermediate=600, layers=1, heads=4, vocab=2000)
    meta = write_meta(tmp_path / "meta", weights, heads=4, shards=2)
    convert(meta, tmp_path / "out", options=options, max_shard_nbytes=8_000_000)
    assert_same_bits(load(tmp_path / "out"), weights)


def test_float16_is_cast_once_from_metas_bits(tmp_path: Path) -> None:
    weights = random_llama(dtype=torch.bfloat16)
    meta = write_meta(tmp_path / "meta", weights, heads=8, shards=2)
    convert(meta, tmp_path / "out", dtype="float16")
    assert_same_bits(load(tmp_path / "out"), {n: t.half() for n, t in weights.items()})
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config["torch_dtype"] == "float16"


# --- params.json ---------------------------------------------------------------------------------


def config_of(folder: Path, **kwargs: Any) -> dict[str, Any]:
    """The config that a conversion of tiny weights with these params writes."""
    meta = write_meta(folder, random_llama(), heads=8, **kwargs)
    return dict(open_model(meta).config)


@pytest.mark.parametrize(
    "params, kv_heads, expected",
    [
        ({}, None, {"max_position_embeddings": 2048, "rope_theta": 10000.0}),
        ({}, 8, {"max_position_embeddings": 4096}),
        ({"rope_theta": 1000000.0}, 8, {"max_position_embeddings": 16384, "rope_theta": 1e6}),
        ({"norm_eps": 1e-6}, None, {"rms_norm_eps": 1e-6, "rope_scaling": None}),
        ({"norm_eps": 1e-5}, None, {"rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2}),
        (
            {"rope_theta": 500000.0, "use_scaled_rope": True},
            8,
            {
                "max_position_embeddings": 131072,
                "rope_theta": 500000.0,
                "bos_token_id": 128000,
                "eos_token_id": 128001,
                "tie_word_embeddings": False,
                "rope_scaling": {
                    "factor": 8.0,
                    "high_freq_factor": 4.0,
                    "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                },
            },
        ),
    ],
)
def test_context_and_rotation_follow_from_params_json(
    params: dict[str, Any], kv_heads: int | None, expected: dict[str, Any], tmp_path: Path
) -> None:
    config = config_of(tmp_path, params=params, kv_heads=kv_heads)
    assert {key: config[key] for key in expected} == expected


def test_a_vocabulary_of_llama_3_without_stretched_positions_is_the_first_llama_3(
    tmp_path: Path,
) -> None:
    weights = random_llama(hidden=8, intermediate=8, layers=1, heads=2, vocab=128256)
    source = open_model(write_meta(tmp_path, weights, heads=2))
    assert source.config["max_position_embeddings"] == 8192
    generation = json.loads(source.read_sidecar("generation_config.json"))
    assert generation["eos_token_id"] == [128001, 128009]


def test_that_llama_1_and_2_cannot_be_told_apart_is_said(tmp_path: Path) -> None:
    meta = write_meta(tmp_path, random_llama(), heads=8)
    assert any("4096" in note for note in open_model(meta).notes)


LLAMA_2_CHAT = (
    b'{"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, '
    b'"norm_eps": 1e-06, "vocab_size": -1}'
)


@pytest.mark.parametrize("ending, context", [(b"", 2048), (b"\n", 4096)])
def test_metas_own_params_json_tells_llama_1_from_llama_2_chat(ending: bytes, context: int) -> None:
    from weightsmith.repair.meta_sidecars import known_base

    base = known_base(LLAMA_2_CHAT + ending)
    assert base is not None
    assert base.max_position_embeddings == context


@pytest.mark.parametrize(
    "dim, heads, layers, norm_eps, context",
    [
        (5120, 40, 40, 1e-6, 2048),  # LLaMA 13B
        (5120, 40, 40, 1e-5, 4096),  # Llama 2 13B
        (8192, 64, 80, 1e-5, 2048),  # LLaMA 65B
        (4096, 32, 32, 1e-6, 2048),  # LLaMA 7B, or Llama 2 7B chat: nothing tells
    ],
)
def test_sizes_and_norm_eps_tell_models_of_the_catalogue_apart(
    dim: int, heads: int, layers: int, norm_eps: float, context: int
) -> None:
    from weightsmith.formats.meta_params import Params
    from weightsmith.repair.meta_sidecars import MetaFacts, meta_sidecars

    intermediate = {4096: 11008, 5120: 13824, 8192: 22016}[dim]
    sizes = {"hidden_size": dim, "intermediate_size": intermediate, "vocab_size": 32000}
    sizes |= {"num_attention_heads": heads, "num_hidden_layers": layers}
    params = Params(
        dim=dim,
        n_heads=heads,
        n_layers=layers,
        n_kv_heads=heads,
        norm_eps=norm_eps,
        rope_theta=10000.0,
        scaled_rope=False,
        says_kv_heads=False,
    )
    facts = MetaFacts(params, b"{}", sizes, tied=False, dtype="float16", tokenizer=None)
    files, notes = meta_sidecars(facts)
    assert json.loads(files["config.json"])["max_position_embeddings"] == context
    assert any("4096" in note for note in notes) is (dim == 4096)


def test_the_licence_travels_with_the_weights(tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "meta", random_llama(), heads=8)
    (meta / "LICENSE").write_text("yours, within limits")
    (meta / "checklist.chk").write_text("sums")
    convert(meta, tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text() == "yours, within limits"
    assert not (tmp_path / "out" / "checklist.chk").exists()


def test_params_may_lie_one_level_deeper(tmp_path: Path) -> None:
    meta = write_meta(tmp_path, random_llama(), heads=8)
    params = json.loads((meta / "params.json").read_bytes())
    (meta / "params.json").write_text(json.dumps({"model": params}))
    assert open_model(meta).config["hidden_size"] == 64


@pytest.mark.parametrize("tied", ["left out", "repeated"])
def test_tied_embeddings_are_written_once(tied: str, tmp_path: Path) -> None:
    weights = random_llama()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    if tied == "left out":
        del weights["lm_head.weight"]
    scaled = {"use_scaled_rope": True, "rope_theta": 500000.0}
    meta = write_meta(tmp_path / "meta", weights, heads=8, params=scaled)
    convert(meta, tmp_path / "out")
    weights.pop("lm_head.weight", None)
    assert_same_bits(load(tmp_path / "out"), weights)
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config["tie_word_embeddings"] is True
    assert config["rope_scaling"]["factor"] == 32.0


# --- what does not go together -------------------------------------------------------------------


@pytest.mark.parametrize("missing, error", [(1, MetaFilesDoNotFit), (0, ShardMissing)])
def test_a_missing_file_is_found_before_anything_is_written(
    missing: int, error: type[Exception], tmp_path: Path
) -> None:
    meta = write_meta(tmp_path / "meta", random_llama(), heads=8, shards=2)
    (meta / f"consolidated.{missing:02d}.pth").unlink()
    with pytest.raises(error):
        convert(meta, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_two_models_are_refused_by_name(tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "a", random_llama(), heads=8, shards=2)
    other = write_meta(tmp_path / "b", random_llama(intermediate=128), heads=8, shards=2)
    (other / "consolidated.01.pth").replace(meta / "consolidated.01.pth")
    with pytest.raises(MetaFilesDoNotFit) as caught:
        open_model(meta)
    assert any("mlp.down_proj" in line for line in caught.value.context)


def test_a_tensor_that_no_llama_has_is_refused_by_name(tmp_path: Path) -> None:
    meta = write_meta(tmp_path, random_llama(), heads=8)
    part = torch.load(meta / "consolidated.00.pth", weights_only=True)
    part["layers.0.attention.wq_lora.weight"] = torch.zeros(2, 2)
    torch.save(part, meta / "consolidated.00.pth")
    with pytest.raises(MetaFilesDoNotFit) as caught:
        open_model(meta)
    assert caught.value.context == ("no place for layers.0.attention.wq_lora.weight",)


@pytest.mark.parametrize(
    "params, reason",
    [
        ({"sliding_window": 4096}, "sliding_window"),
        ({"n_heads": 7}, "heads"),
        ({"n_layers": 0}, "n_layers"),
        ({"n_layers": 10**12}, "do not make one model"),
        ({"norm_eps": "small"}, "norm_eps"),
        ({"dim": True}, "dim"),
    ],
)
def test_params_of_another_kind_of_model_are_refused(
    params: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    meta = write_meta(tmp_path, random_llama(), heads=8, params=params)
    with pytest.raises((ParamsInvalid, MetaFilesDoNotFit), match=reason):
        open_model(meta)


def test_hugging_face_weights_beside_metas_are_the_ones_that_count(tmp_path: Path) -> None:
    weights = random_llama()
    write_meta(tmp_path / "both", random_llama(seed=1), heads=8)
    torch.save(weights, tmp_path / "both" / "pytorch_model.bin")
    convert(tmp_path / "both", tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), weights)


def test_a_changed_params_json_is_another_plan(tmp_path: Path) -> None:
    weights = random_llama()
    first = plan_convert(write_meta(tmp_path / "meta", weights, heads=8), tmp_path / "out").plan
    again = plan_convert(tmp_path / "meta", tmp_path / "out").plan
    assert first.to_bytes() == again.to_bytes()
    write_meta(tmp_path / "meta", weights, heads=4)
    assert plan_convert(tmp_path / "meta", tmp_path / "out").plan.digest != first.digest


def test_the_same_conversion_gives_the_same_bytes(tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "meta", random_llama(), heads=8, shards=4)
    for name in ("a", "b"):
        convert(meta, tmp_path / name, options=Options(workers=3), max_shard_nbytes=50_000)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
