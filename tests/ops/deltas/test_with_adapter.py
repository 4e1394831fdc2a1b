"""A delta of a merged LoRA is made of its own factors, where they are given."""

from pathlib import Path

import pytest
import torch

from tests.support.adapters import make_adapter, make_llama, write_adapter
from tests.support.folders import contents, copied, load
from weightsmith.engine.options import Options
from weightsmith.errors import (
    AdapterDoesNotFit,
    FactorsNotFinite,
    NoAdapter,
    OptionMeaningless,
    TargetIsInput,
)
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta, plan_make_delta
from weightsmith.ops.merge_lora import merge_lora


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base``, ``lora`` and ``target``, which no test writes to."""
    folder = tmp_path_factory.mktemp("adapter")
    sizes = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 512}
    base = make_llama(folder / "base", dtype=torch.bfloat16, **sizes)
    modules = ["q_proj", "down_proj", "embed_tokens"]
    lora = make_adapter(folder / "lora", base, r=3, target_modules=modules)
    merge_lora(base, lora, folder / "target")
    return folder


def test_its_factors_are_taken_and_make_the_delta_smaller(folder: Path, tmp_path: Path) -> None:
    base, target, lora = (folder / name for name in ("base", "target", "lora"))
    plain = make_delta(base, target, tmp_path / "plain")
    made = make_delta(base, target, tmp_path / "made", adapter=lora)
    assert made.low_rank == "3 of 12 tensors are their base plus rank 3"
    assert made.nbytes < 0.95 * plain.nbytes
    apply_delta(base, tmp_path / "made", target=tmp_path / "out")
    for name in ("model.safetensors", "config.json"):
        assert contents(tmp_path / "out")[name] == contents(target)[name]


def test_the_plan_says_what_is_taken_and_another_adapter_is_another_plan(
    folder: Path, tmp_path: Path
) -> None:
    base, target, lora = (folder / name for name in ("base", "target", "lora"))
    plans = [
        plan_make_delta(base, target, tmp_path / "delta", adapter=adapter).plan
        for adapter in (None, lora)
    ]
    assert "the adapter has factors for 3 of the base's tensors" in plans[1].notes
    assert plans[0].digest != plans[1].digest
    assert type(plans[1]).from_document(plans[1].to_document()) == plans[1]


def test_a_delta_is_not_made_in_the_place_of_its_adapter(folder: Path, tmp_path: Path) -> None:
    base, target = folder / "base", folder / "target"
    lora = copied(folder / "lora", tmp_path / "lora")
    before = contents(lora)
    for delta in (lora, lora / "inside", tmp_path):
        with pytest.raises(TargetIsInput):
            make_delta(base, target, delta, adapter=lora, options=Options(overwrite=True))
    assert contents(lora) == before


def test_an_adapter_that_was_not_merged_does_no_harm(folder: Path, tmp_path: Path) -> None:
    base, target = folder / "base", folder / "target"
    other = make_adapter(tmp_path / "other", base, r=2, target_modules=["q_proj"], seed=7)
    plain = make_delta(base, target, tmp_path / "plain")
    made = make_delta(base, target, tmp_path / "made", adapter=other)
    assert made.nbytes == plain.nbytes
    assert made.low_rank == plain.low_rank


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_factors_that_are_no_numbers_are_refused(
    folder: Path, tmp_path: Path, wrong: float
) -> None:
    tensors = load(folder / "lora")
    name = next(name for name in tensors if "q_proj.lora_A" in name)
    tensors[name] = tensors[name].clone()
    tensors[name][0, 0] = wrong
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    config = (folder / "lora" / "adapter_config.json").read_bytes()
    (damaged / "adapter_config.json").write_bytes(config)
    write_adapter(damaged, tensors)
    with pytest.raises(FactorsNotFinite, match="q_proj"):
        make_delta(folder / "base", folder / "target", tmp_path / "delta", adapter=damaged)
    assert not (tmp_path / "delta").exists()


def test_an_adapter_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    small = make_llama(tmp_path / "small", dtype=torch.bfloat16)
    lora = make_adapter(tmp_path / "lora", small, r=3)
    with pytest.raises(AdapterDoesNotFit):
        make_delta(folder / "base", folder / "target", tmp_path / "delta", adapter=lora)
    with pytest.raises(NoAdapter):
        make_delta(folder / "base", folder / "target", tmp_path / "delta", adapter=small)
    assert not (tmp_path / "delta").exists()


def test_an_additive_delta_has_no_use_for_one(folder: Path, tmp_path: Path) -> None:
    base, target, lora = (folder / name for name in ("base", "target", "lora"))
    with pytest.raises(OptionMeaningless):
        plan_make_delta(base, target, tmp_path / "delta", adapter=lora, codec="add")
