"""Deltas, merges, differences and checks hold for other families than LLaMA, however stored.

Converting, casting and applying are tested in ``tests/ops/convert``; kinds of adapters in
``tests/ops/merge_lora``.
"""

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.adapters import differing, edit_config, make_adapter, merged_by_peft
from tests.support.families import (
    FAMILIES,
    FORMED,
    MIXTURES,
    TIED,
    VOCABULARY,
    byte_level,
    embedding_of,
    loaded,
    logits,
    make,
    save,
    stored,
    tuned,
    write,
)
from tests.support.folders import assert_same_bits, bits, load
from tests.support.pace import mostly_slow
from weightsmith.errors import TensorsDoNotFit
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert
from weightsmith.ops.diff import diff
from weightsmith.ops.inspect import inspect
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora
from weightsmith.ops.verify.smoke import Settings, smoke
from weightsmith.ops.verify.verify import verify

HEAD = "lm_head.weight"
LAYER_1 = re.compile(r"\w+\.\w+\.1\.")
ANY = Settings(device="cpu", max_new_tokens=3, max_perplexity=1e9)
"""Random weights write nonsense."""


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(bits(before[name]), bits(after[name]))}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tokenizer of a vocabulary of `VOCABULARY` rows."""
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_level(["<|endoftext|>"]).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


# --- deltas ---------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("family, base_form", FORMED)
def test_an_exact_delta_gives_the_target_back(family: str, base_form: str, tmp_path: Path) -> None:
    base = save(tmp_path / "base", family, base_form)
    form = {"whole": "shards", "shards": "bin"}.get(base_form, "whole")
    target = write(tmp_path / "target", family, tuned(stored(family)[1]), form)
    made = make_delta(base, target, tmp_path / "delta")
    assert made.loss is None
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    for path in target.glob("*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    model = loaded(target)
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))
    assert_same_bits(loaded(tmp_path / "out").state_dict(), model.state_dict())
    assert inspect(tmp_path / "delta").kind == "delta"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("family, form", FORMED)
def test_an_additive_delta_loses_what_it_says(family: str, form: str, tmp_path: Path) -> None:
    base, target = stored(family)[1], tuned(stored(family)[1])
    write(tmp_path / "base", family, base, form)
    write(tmp_path / "target", family, target)
    made = make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta", codec="add")
    assert_same_bits(load(tmp_path / "delta"), {n: target[n] - base[n] for n in target})
    assert inspect(tmp_path / "delta").kind == "delta"
    apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    found = load(tmp_path / "out")
    assert_same_bits(found, {n: base[n] + (target[n] - base[n]) for n in target})
    assert made.loss is not None
    assert made.loss.tensors.keys() == changed(target, found)
    loaded(tmp_path / "out")


@pytest.mark.parametrize("family", TIED)
def test_a_second_copy_of_the_embedding_on_one_side_is_no_misfit(
    family: str, tmp_path: Path
) -> None:
    base, target = stored(family)[1], tuned(stored(family)[1])
    delta = {name: target[name] - base[name] for name in base}
    for forms in (("bin", "whole"), ("whole", "bin"), ("bin", "bin shards")):
        names = [" ".join((side, *forms)) for side in ("base", "delta", "out")]
        write(tmp_path / names[0], family, base, forms[0])
        write(tmp_path / names[1], family, delta, forms[1])
        apply_delta(tmp_path / names[0], tmp_path / names[1], target=tmp_path / names[2])
        found = load(tmp_path / names[2])
        assert (HEAD in found) == (forms[0] == "bin" and forms[1] != "whole")
        assert_same_bits(found, {**found, **{n: base[n] + delta[n] for n in delta}})
        loaded(tmp_path / names[2])


@pytest.mark.parametrize("family", ["falcon", "qwen2", "gpt2"])
def test_a_base_without_its_head_is_the_base_of_what_has_one(family: str, tmp_path: Path) -> None:
    """The first GPT-2 and BLOOM have other names on the hub than everything made from them."""
    weights, target = stored(family)[1], tuned(stored(family)[1])
    bare = {name.partition(".")[2]: tensor for name, tensor in weights.items()}
    base = write(tmp_path / "base", family, bare)
    whole = write(tmp_path / "target", family, target, "shards")
    assert diff(base, whole).statuses() == {"changed": len(target)}
    assert diff(whole, base).statuses() == {"changed": len(target)}
    made = make_delta(base, whole, tmp_path / "exact")
    assert made.nbytes < 0.7 * made.target_nbytes
    make_delta(base, whole, tmp_path / "add", codec="add")
    for delta in ("exact", "add"):
        apply_delta(base, tmp_path / delta, target=tmp_path / f"{delta} out")
        assert load(tmp_path / f"{delta} out").keys() == target.keys()
    assert verify(tmp_path / "exact out", against=whole).passed()
    assert verify(base, against=save(tmp_path / "same", family)).passed()


def test_an_output_layer_of_its_own_is_a_misfit(tmp_path: Path) -> None:
    weights = stored("qwen2")[1]
    head = {HEAD: torch.roll(weights[embedding_of(weights)], 1)}
    write(tmp_path / "base", "qwen2", {**weights, **head})
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    write(tmp_path / "delta", "qwen2", zeros)
    with pytest.raises(TensorsDoNotFit) as caught:
        apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    assert list(caught.value.context) == [f"only the base has {HEAD}, F16 [{VOCABULARY}, 48]"]


# --- merges ---------------------------------------------------------------------------------------


def layers_of(family: str) -> list[str]:
    """Names of all linear layers but the output layer."""
    kinds = ("Linear", "FalconLinear", "Conv1D")
    modules = make(family).named_modules()
    found = {n.split(".")[-1] for n, module in modules if type(module).__name__ in kinds}
    return sorted(found - {"lm_head"})


def kinds(family: str) -> dict[str, dict[str, Any]]:
    layers = layers_of(family)
    return {
        "plain": {"target_modules": [*layers, "lm_head"], "bias": "all"},
        "dora": {
            "target_modules": layers,
            "use_dora": True,
            "use_rslora": True,
            "rank_pattern": {layers[0]: 3},
            "alpha_pattern": {layers[-1]: 5},
        },
    }


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "family, kind",
    mostly_slow(
        itertools.product(FAMILIES, ["plain", "dora"]),
        tuple(zip(FAMILIES, itertools.cycle(["plain", "dora"]))),
    ),
)
def test_a_merge_of_any_family_gives_the_bits_of_peft(
    family: str, kind: str, tmp_path: Path
) -> None:
    base = save(tmp_path / "base", family, "shards")
    adapter = make_adapter(tmp_path / "adapter", base, **kinds(family)[kind])
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    theirs = merged_by_peft(base, [adapter])
    theirs.save_pretrained(tmp_path / "theirs")
    expected = load(tmp_path / "theirs")
    assert_same_bits(load(tmp_path / "out"), expected)
    assert len(changed(stored(family)[1], expected)) >= 2
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(theirs.eval()))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
@pytest.mark.parametrize("kind", ["input", "output", "rows", "whole"])
def test_a_tied_output_layer_that_is_stored_twice_goes_with_the_embedding(
    family: str, kind: str, tmp_path: Path
) -> None:
    base = save(tmp_path / "base", family, "bin shards")
    embedding = embedding_of(stored(family)[1])
    module = embedding.split(".")[-2]
    configs: dict[str, dict[str, Any]] = {
        "input": {"target_modules": [module]},
        "output": {"target_modules": ["lm_head"]},
        "rows": {"target_modules": "all-linear", "trainable_token_indices": {module: [9, 3]}},
        "whole": {"target_modules": "all-linear", "modules_to_save": [module]},
    }
    adapter = make_adapter(tmp_path / "adapter", base, **configs[kind])
    theirs = merged_by_peft(base, [adapter])
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    assert not differing(tmp_path / "out", theirs)
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(theirs.eval()))
    # Rounded once, a product for one of the two parts them, for so it was trained.
    merge_lora(base, [adapter], tmp_path / "once")
    merged = json.loads((tmp_path / "once" / "config.json").read_text())
    found = load(tmp_path / "once")
    assert merged["tie_word_embeddings"] == torch.equal(found[embedding], found[HEAD])
    assert merged["tie_word_embeddings"] == (kind == "rows")


def test_equal_matrices_are_not_read_where_no_adapter_changes_them(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "qwen2", "bin shards")
    adapter = make_adapter(tmp_path / "adapter", base)
    merge_lora(base, [adapter], tmp_path / "out")
    found, before = load(tmp_path / "out"), stored("qwen2")[1]
    assert torch.equal(found[HEAD], before[embedding_of(before)])
    assert changed(before, found) == {n for n in before if "q_proj.w" in n or "v_proj.w" in n}


@pytest.mark.parametrize(
    "family, layer", [("falcon", "dense"), ("mistral", "o_proj"), ("gpt2", "c_proj")]
)
def test_a_square_goes_by_its_layer_and_not_by_what_the_config_says(
    family: str, layer: str, tmp_path: Path
) -> None:
    """Peft leaves in ``fan_in_fan_out`` what was right for the last layer that it changed."""
    base = save(tmp_path / "base", family)
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=[layer, "lm_head"])
    assert any(each.shape == (48, 48) for n, each in load(base).items() if f"{layer}.w" in n)
    expected = merged_by_peft(base, [adapter])
    for flag in (False, True):
        edit_config(adapter, fan_in_fan_out=flag)
        merge_lora(base, [adapter], tmp_path / f"out {flag}", rounding="peft")
        assert not differing(tmp_path / f"out {flag}", expected)


def test_a_mixtrals_router_has_another_name_in_memory(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "mixtral")
    adapter = make_adapter(tmp_path / "adapter", base, modules_to_save=["gate"])
    assert any(".mlp.gate." in name for name in load(adapter))
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    merged_by_peft(base, [adapter]).save_pretrained(tmp_path / "theirs")
    assert_same_bits(load(tmp_path / "out"), load(tmp_path / "theirs"))
    assert any("moe.gate" in name for name in changed(load(base), load(tmp_path / "out")))


# --- what is said of them -------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_difference_names_what_was_changed_and_nothing_else(family: str, tmp_path: Path) -> None:
    base = save(tmp_path / "base", family)
    convert(save(tmp_path / "bin", family, "bin"), tmp_path / "anew", max_shard_nbytes=20_000)
    assert diff(base, tmp_path / "anew").equal
    weights = stored(family)[1]
    two = {n: each for n, each in tuned(weights).items() if LAYER_1.match(n) and each.ndim == 2}
    found = diff(base, write(tmp_path / "target", family, {**weights, **two}, "shards"))
    assert {each.name for each in found.tensors if each.status == "changed"} == two.keys()
    assert found.statuses().keys() == {"same", "changed"}
    assert [layer for layer, each in found.layers().items() if each.different] == [1]
    assert sum(each.different for each in found.kinds().values()) == len(two)


OF_VERSION_5 = {
    "token-type-ids",
    "rope-parameters-only",
    "dtype-only",
    "class-forced-by-model-type",  # these models have LLaMA's tokenizer, also where Qwen's is due
}
"""What one version of transformers minds of a model that another saved."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "family, form",
    mostly_slow(FORMED, {("falcon", "bin shards"), ("gpt2", "whole"), ("mixtral", "shards")}),
)
def test_a_model_is_inspected_verified_and_lets_write(
    family: str, form: str, tokenizer: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tokenizer, tmp_path / "base"))
    save(base, family, form)
    found = inspect(base)
    assert found.kind == "model"
    assert {fault for fault, _ in found.faults} <= OF_VERSION_5
    copies = VOCABULARY * 48 if family in TIED and "bin" in form else 0
    assert found.parameters == loaded(base).num_parameters() + copies
    assert verify(base).passed()
    did, checks = smoke(base, ANY)
    assert did is not None
    assert not [check for check in checks if check.verdict == "FAIL"]
    again, checks = smoke(base, replace(ANY, low_cpu_mem=True))
    if family in MIXTURES:  # experts would have to be joined anew for every token
        assert [check.verdict for check in checks] == ["not checked"]
        assert any("mlp.experts" in name for name in checks[0].details[1:])
    else:
        assert again is not None
        assert (again.tokens, again.perplexity) == (did.tokens, did.perplexity)


def test_a_model_without_its_head_runs_in_little_memory(tokenizer: Path, tmp_path: Path) -> None:
    """As the first GPT-2 and BLOOM were saved."""
    base = Path(shutil.copytree(tokenizer, tmp_path / "base"))
    weights = stored("gpt2")[1].items()
    bare = {name.removeprefix("transformer."): tensor for name, tensor in weights}
    write(base, "gpt2", bare)
    whole, parts = (smoke(base, replace(ANY, low_cpu_mem=low))[0] for low in (False, True))
    assert whole is not None
    assert parts is not None
    assert whole.tokens == parts.tokens


def test_a_model_that_was_saved_without_its_head_is_sound(tokenizer: Path, tmp_path: Path) -> None:
    """As models that embed texts are."""
    base = Path(shutil.copytree(tokenizer, tmp_path / "base"))
    make("mistral").model.save_pretrained(base)
    assert "layers.0.mlp.up_proj.weight" in load(base)
    report = verify(base)
    assert report.passed()
    assert {check.name: check.verdict for check in report.checks}["shapes"] == "pass"


# --- what old transformers left in files ----------------------------------------------------------


def masked(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A GPT-2 as transformers 4.30 saved it in float16, the causal mask of each layer with it."""
    mask = torch.ones(1, 1, 512, 512).tril().bool()
    return weights | {
        f"transformer.h.{layer}.attn.{name}": tensor
        for layer in (0, 1)
        for name, tensor in (("bias", mask), ("masked_bias", torch.tensor(-1e9).half()))
    }


def test_causal_masks_are_no_weights(tmp_path: Path) -> None:
    weights = stored("gpt2")[1]
    old = write(tmp_path / "old", "gpt2", masked(weights), "bin")
    new = write(tmp_path / "new", "gpt2", tuned(weights))
    assert diff(old, write(tmp_path / "same", "gpt2", weights, "bin")).equal
    report = verify(old, against=tmp_path / "same")
    assert report.passed()
    assert {check.name: check.verdict for check in report.checks}["numbers"] == "pass"
    convert(old, tmp_path / "converted")
    assert_same_bits(load(tmp_path / "converted"), weights)
    make_delta(old, new, tmp_path / "delta", codec="add")
    apply_delta(old, tmp_path / "delta", target=tmp_path / "out")
    assert load(tmp_path / "out").keys() == weights.keys()
    adapter = make_adapter(tmp_path / "adapter", new, target_modules=["c_attn"])
    plan = plan_merge_lora(old, [adapter], tmp_path / "merged").plan
    assert sorted(plan.dropped) == sorted(masked(weights).keys() - weights.keys())
    # An exact delta gives back whatever its target holds.
    make_delta(new, old, tmp_path / "exact")
    apply_delta(new, tmp_path / "exact", target=tmp_path / "restored")
    assert load(tmp_path / "restored").keys() == {*masked(weights), HEAD}
