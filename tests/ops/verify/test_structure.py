"""What headers and small files give away, and that the message names the cause."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith
from tests.support.story_models import WEIGHTS, Copy, Models, change_weights, edit, forget, read


def test_the_right_result_passes_every_check(models: Models, weightsmith: Weightsmith) -> None:
    said = weightsmith("verify", models.result, "--strict")
    assert said.code == 0, said.out
    for check in ("files", "kind", "shapes", "tokenizer", "leftovers", "numbers", "digests"):
        assert said.verdict(check) == "pass", said.out


def test_a_delta_used_as_a_model_is_called_a_delta(
    models: Models, weightsmith: Weightsmith
) -> None:
    said = weightsmith("verify", models.delta)
    assert said.code == 1
    assert said.verdict("kind") == "FAIL"
    assert "this is a delta, not a model" in said.out
    assert f"weightsmith verify {models.delta} --base BASE" in said.err


def test_missing_tensor_is_named(models: Models, copy: Copy, weightsmith: Weightsmith) -> None:
    folder = copy(models.tuned)
    lacking = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda w: {n: t for n, t in w.items() if n != lacking})
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("shapes")) == (1, "FAIL")
    assert f"{lacking} is missing" in said.out


def test_missing_tensor_that_the_index_promises_is_named(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    weight_map = dict.fromkeys([*read(folder), "model.layers.7.of_another"], WEIGHTS)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("files")) == (1, "FAIL")
    assert "lists 1 tensor " in said.out
    assert "model.layers.7.of_another" in said.out


def test_index_that_names_a_missing_file_is_no_model(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    weight_map = {
        **dict.fromkeys(read(folder), WEIGHTS),
        "more": "model-00002-of-00002.safetensors",
    }
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("files")) == (1, "FAIL")
    assert "names 1 missing file" in said.out
    assert "model-00002-of-00002.safetensors" in said.out


def test_every_truncated_shard_is_named(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.delta)
    names = sorted(path.name for path in folder.glob("*.bin"))
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1000])
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("files")) == (1, "FAIL")
    for name in names:
        assert f"{name} is cut short" in said.words


def test_truncated_safetensors_is_named(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[: len(raw) // 2])
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("files")) == (1, "FAIL")
    assert f"{WEIGHTS} is cut short" in said.words


@pytest.mark.parametrize(
    "key,value,words",
    [
        ("hidden_size", 96, "is [448, 80], the config says [448, 96]"),
        ("vocab_size", 449, "the config says [449, 80]"),
        ("intermediate_size", 200, "the config says [80, 200]"),
        ("num_key_value_heads", 2, "k_proj.weight is [80, 80], the config says [40, 80]"),
        ("num_hidden_layers", 3, "model.layers.2.input_layernorm.weight is missing"),
        ("num_hidden_layers", 1, "lies beyond the 1 layers of the config"),
        ("num_hidden_layers", "two", "num_hidden_layers is 'two'"),
        ("num_hidden_layers", None, "num_hidden_layers is missing"),
    ],
)
def test_config_of_another_model_is_told_by_what_differs(
    models: Models,
    copy: Copy,
    weightsmith: Weightsmith,
    key: str,
    value: object,
    words: str,
) -> None:
    folder = copy(models.tuned)
    edit(folder / "config.json", **{key: value})
    said = weightsmith("verify", folder, "-v")
    assert (said.code, said.verdict("shapes")) == (1, "FAIL")
    assert words in said.words


def test_shapes_of_an_unknown_architecture_are_not_checked(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    forget(folder)
    edit(folder / "config.json", model_type="rwkv9", architectures=["Rwkv9ForCausalLM"])
    said = weightsmith("verify", folder)
    assert said.verdict("shapes") == "not checked"
    assert "no table of tensors for rwkv9" in said.out
    assert said.verdict("numbers") == "pass"
    assert weightsmith("verify", folder, "--strict").code == 1


# --- tokenizer and config -------------------------------------------------------------------------


def test_ids_of_early_conversions_are_told(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    edit(folder / "config.json", bos_token_id=0, eos_token_id=1)
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("tokenizer")) == (1, "warn")
    assert "[token-ids-wrong]" in said.out
    assert f"weightsmith fix-tokenizer {folder}" in said.err
    assert "config.json was changed" in said.out  # and so say the digests


def test_the_tokenizer_of_another_model_fails(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    forget(folder)
    vocab = {f"t{number}": number for number in range(2000)}
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab}}))
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("tokenizer")) == (1, "FAIL")
    assert "[vocab-size-small]" in said.out


def test_blank_special_tokens_are_told(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    edit(folder / "tokenizer_config.json", bos_token="", eos_token="", unk_token="")
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("tokenizer")) == (1, "warn")
    assert "[special-tokens-blank]" in said.out


def test_missing_vocabulary_is_told(models: Models, copy: Copy, weightsmith: Weightsmith) -> None:
    folder = copy(models.tuned)
    for name in ("tokenizer.model", "tokenizer.json"):
        (folder / name).unlink()
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("tokenizer")) == (0, "warn")
    assert said.out.splitlines()[-1].startswith("warn  ")
    assert "1 warning" in said.out
    assert weightsmith("verify", folder, "--strict").code == 1
    assert "[tokenizer-model-missing]" in said.out
    assert "copy the model's own tokenizer there: tokenizer.model or tokenizer.json" in said.err


def test_json_that_is_none_is_told(models: Models, copy: Copy, weightsmith: Weightsmith) -> None:
    folder = copy(models.tuned)
    (folder / "config.json").write_text("{")
    said = weightsmith("verify", folder)
    assert said.code == 1
    assert "config.json is not valid JSON" in said.words


# --- leftovers, and what is no model at all -------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors.incomplete",
        "config.json.tmp",
        "pytorch_model.bin.crdownload",
        ".cache/huggingface/download/a.incomplete",
    ],
)
def test_leftovers_of_a_stopped_download_are_named(
    models: Models, copy: Copy, weightsmith: Weightsmith, name: str
) -> None:
    folder = copy(models.tuned)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("leftovers")) == (1, "FAIL")
    assert f"{name} was left by something unfinished" in said.words


def test_leftovers_of_an_unfinished_run_are_named(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    folder.with_name(f".{folder.name}.weightsmith-partial").mkdir()
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("leftovers")) == (1, "FAIL")
    assert "was left by an unfinished run" in said.out


def test_what_is_not_there_is_an_error_and_no_verdict(
    tmp_path: Path, weightsmith: Weightsmith
) -> None:
    assert weightsmith("verify", tmp_path / "nothing").code == 3
    assert weightsmith("verify", tmp_path).code == 3


# --- tied embeddings ------------------------------------------------------------------------------


def test_tied_model_needs_no_output_layer(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    edit(folder / "config.json", tie_word_embeddings=True)
    change_weights(folder, lambda w: {n: t for n, t in w.items() if n != "lm_head.weight"})
    assert weightsmith("verify", folder).verdict("shapes") == "pass"
    edit(folder / "config.json", tie_word_embeddings=False)
    said = weightsmith("verify", folder)
    assert said.verdict("shapes") == "FAIL"
    why = "lm_head.weight is missing, and the config does not say that embeddings are tied"
    assert why in said.words


def test_output_layer_that_is_not_the_embedding_it_is_tied_to_is_told(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    edit(folder / "config.json", tie_word_embeddings=True)
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("tied")) == (1, "FAIL")
    change_weights(
        folder, lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"].clone()}
    )
    assert weightsmith("verify", folder).verdict("tied") == "pass"
