"""Adapters that change how many tokens there are, or one of two tied matrices."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.adapters import (
    VOCABULARY,
    differing,
    edit_config,
    load_model,
    make_adapter,
    make_gpt2,
    make_llama,
    merged_by_peft,
    write_adapter,
)
from tests.support.folders import bits, load
from weightsmith.errors import AdapterDoesNotFit
from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora

E, H = "model.embed_tokens.weight", "lm_head.weight"
GROWN = VOCABULARY + 6
TIED: dict[str, Any] = {"tie_word_embeddings": True}


def config_of(folder: Path) -> dict[str, object]:
    config: dict[str, object] = json.loads((folder / "config.json").read_text())
    return config


def same_logits(folder: Path, base: Path, adapter: Path) -> bool:
    """Whether the merged model computes what base and unmerged adapter compute."""
    from peft import PeftModel

    tokens = torch.arange(12).reshape(1, 12)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = load_model(folder)(tokens).logits
        theirs = PeftModel.from_pretrained(load_model(base), adapter)(tokens).logits
    return torch.allclose(ours, theirs, atol=1e-4)


# --- more tokens ----------------------------------------------------------------------------------


def test_resized_embeddings_stored_whole_replace_the_bases(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    adapter = make_adapter(
        tmp_path / "adapter", base, tokens=GROWN, modules_to_save=["embed_tokens", "lm_head"]
    )
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    assert not differing(tmp_path / "out", merged_by_peft(base, [adapter], tokens=GROWN))
    assert config_of(tmp_path / "out")["vocab_size"] == GROWN
    assert load_model(tmp_path / "out").lm_head.weight.shape[0] == GROWN


def test_resized_embeddings_that_peft_saves_by_itself_are_taken(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.float16)
    adapter = make_adapter(
        tmp_path / "adapter", base, tokens=GROWN, save={"save_embedding_layers": True}
    )
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    assert not differing(tmp_path / "out", merged_by_peft(base, [adapter], tokens=GROWN))


def test_a_low_rank_change_of_resized_embeddings_is_merged_into_them(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    adapter = make_adapter(
        tmp_path / "adapter", base, tokens=GROWN, target_modules=["embed_tokens", "lm_head"]
    )
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    assert not differing(tmp_path / "out", merged_by_peft(base, [adapter], tokens=GROWN))
    assert config_of(tmp_path / "out")["vocab_size"] == GROWN


def test_adapters_in_order_may_each_add_tokens(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    whole: dict[str, Any] = {"modules_to_save": ["embed_tokens", "lm_head"]}
    first = make_adapter(tmp_path / "first", base, tokens=GROWN, **whole)
    second = make_adapter(tmp_path / "second", base, tokens=GROWN + 1, seed=2, **whole)
    merge_lora(base, [first, second], tmp_path / "out")
    found, last = load(tmp_path / "out"), load(second)
    assert torch.equal(found[E], last[f"base_model.model.{E}"])
    assert config_of(tmp_path / "out")["vocab_size"] == GROWN + 1


def test_token_rows_behind_the_last_are_added_where_none_stays_unknown(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", **TIED)
    adapter = make_adapter(tmp_path / "adapter", base, trainable_token_indices=[3, 4])
    edit_config(adapter, trainable_token_indices=[7, VOCABULARY])
    merge_lora(base, [adapter], tmp_path / "out")
    before, found = load(base)[E], load(tmp_path / "out")[E]
    rows = load(adapter)[
        f"base_model.model.{E.removesuffix('weight')}token_adapter.trainable_tokens_delta"
    ]
    expected = torch.cat((before, rows[1:]))
    expected[7] = rows[0]
    assert torch.equal(found, expected)
    assert config_of(tmp_path / "out")["vocab_size"] == VOCABULARY + 1

    edit_config(adapter, trainable_token_indices=[7, VOCABULARY + 1])
    with pytest.raises(AdapterDoesNotFit) as caught:
        plan_merge_lora(base, [adapter], tmp_path / "other")
    assert f"{E} has {VOCABULARY} rows" in caught.value.context[0]


def test_vocabularies_of_two_sizes_are_refused(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    adapter = make_adapter(
        tmp_path / "adapter", base, tokens=GROWN, modules_to_save=["embed_tokens", "lm_head"]
    )
    write_adapter(adapter, {n: tensor for n, tensor in load(adapter).items() if "lm_head" not in n})
    with pytest.raises(AdapterDoesNotFit) as caught:
        plan_merge_lora(base, [adapter], tmp_path / "out")
    assert list(caught.value.context) == [
        f"{H} would have {VOCABULARY} rows",
        f"{E} would have {GROWN} rows",
    ]


def test_a_matrix_that_has_no_row_a_token_must_keep_its_shape(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, modules_to_save=["down_proj"])
    name = "base_model.model.model.layers.0.mlp.down_proj.weight"
    write_adapter(adapter, {**load(adapter), name: torch.zeros(49, 80)})
    with pytest.raises(AdapterDoesNotFit) as caught:
        plan_merge_lora(base, [adapter], tmp_path / "out")
    assert (
        "down_proj.weight is F32 [48, 80] in the base, not F32 [49, 80]" in caught.value.context[0]
    )


def test_a_whole_tensor_of_integers_is_not_taken_for_floats(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base)
    name = "base_model.model.model.norm.weight"
    write_adapter(adapter, {**load(adapter), name: torch.ones(48, dtype=torch.int32)})
    with pytest.raises(AdapterDoesNotFit) as caught:
        plan_merge_lora(base, [adapter], tmp_path / "out")
    assert "norm.weight is F32 [48] in the base, not I32 [48]" in caught.value.context[0]


# --- tied embeddings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
    ],
    ids=str,
)
def test_a_change_of_one_of_two_tied_matrices_parts_them(
    config: dict[str, Any], tmp_path: Path
) -> None:
    base = make_llama(tmp_path / "base", **TIED)
    adapter = make_adapter(tmp_path / "adapter", base, **config)
    job = plan_merge_lora(base, [adapter], tmp_path / "out")
    assert f"{H} is no longer tied to {E}: lora changes one" in job.plan.notes
    merge_lora(base, [adapter], tmp_path / "out")
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    assert same_logits(tmp_path / "out", base, adapter)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"trainable_token_indices": [1, 5]},
    ],
    ids=str,
)
def test_rounding_peft_does_with_tied_matrices_what_peft_does(
    config: dict[str, Any], tmp_path: Path
) -> None:
    base = make_llama(tmp_path / "base", dtype=torch.bfloat16, **TIED)
    adapter = make_adapter(tmp_path / "adapter", base, **config)
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    model = merged_by_peft(base, [adapter])
    assert not differing(tmp_path / "out", model)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] == model.config.tie_word_embeddings


@pytest.mark.parametrize(
    "config",
    [{"target_modules": ["wte"]}, {"target_modules": ["wte", "c_attn"], "use_dora": True}],
    ids=str,
)
def test_a_product_for_resized_tied_matrices_goes_to_both_as_in_peft(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Peft saves what the product starts from twice, and its magnitudes under two names."""
    base = make_gpt2(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(tmp_path / "adapter", base, tokens=GROWN, **config)
    assert {f"base_model.model.{H}", "base_model.model.transformer.wte.base_layer.weight"} <= (
        load(adapter).keys()
    )
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    assert not differing(tmp_path / "out", merged_by_peft(base, [adapter], tokens=GROWN))
    merge_lora(base, [adapter], tmp_path / "parted")
    found = load(tmp_path / "parted")
    assert torch.equal(found[H], load(adapter)[f"base_model.model.{H}"])
    assert not torch.equal(found[H], found["transformer.wte.weight"])


def test_token_rows_of_tied_matrices_leave_them_tied(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", **TIED)
    adapter = make_adapter(tmp_path / "adapter", base, trainable_token_indices=[1, 5])
    merge_lora(base, [adapter], tmp_path / "out")
    assert H not in load(tmp_path / "out")
    assert same_logits(tmp_path / "out", base, adapter)


def test_token_rows_beside_a_change_of_the_tied_output_layer_are_refused(tmp_path: Path) -> None:
    """Peft itself leaves such a model half merged."""
    base = make_llama(tmp_path / "base", **TIED)
    adapter = make_adapter(
        tmp_path / "adapter", base, trainable_token_indices=[1], target_modules=["lm_head"]
    )
    with pytest.raises(AdapterDoesNotFit) as caught:
        plan_merge_lora(base, [adapter], tmp_path / "out")
    assert list(caught.value.context) == [
        f"{E} and {H} are tied, and one has token rows, the other a change"
    ]


def test_tied_matrices_that_were_saved_twice_stay_one(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", **TIED)
    adapter = make_adapter(
        tmp_path / "adapter", base, tokens=GROWN, save={"save_embedding_layers": True}
    )
    assert f"base_model.model.{H}" in load(adapter)
    merge_lora(base, [adapter], tmp_path / "out")
    assert not differing(tmp_path / "out", merged_by_peft(base, [adapter], tokens=GROWN))
    assert config_of(tmp_path / "out") == config_of(base) | {"vocab_size": GROWN}


def test_a_base_saved_without_its_head_takes_the_adapter_of_the_whole_model(
    tmp_path: Path,
) -> None:
    base = make_gpt2(tmp_path / "base")
    adapter = make_adapter(
        tmp_path / "adapter", base, target_modules=["c_attn"], fan_in_fan_out=True
    )
    headless = tmp_path / "headless"
    load_model(base).transformer.save_pretrained(headless)
    assert "h.0.attn.c_attn.weight" in load(headless)
    merge_lora(headless, [adapter], tmp_path / "out", rounding="peft")
    expected = merged_by_peft(base, [adapter]).transformer.state_dict()
    found = load(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(bits(found[name]), bits(expected[name])) for name in expected)


def test_a_gpt2s_embedding_parts_from_its_head(tmp_path: Path) -> None:
    base = make_gpt2(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["wte"])
    merge_lora(base, [adapter], tmp_path / "out")
    assert torch.equal(load(tmp_path / "out")[H], load(base)["transformer.wte.weight"])
    assert same_logits(tmp_path / "out", base, adapter)
