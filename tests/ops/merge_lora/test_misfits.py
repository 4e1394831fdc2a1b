"""Every tensor of an adapter finds its place, or the run says which did not and writes nothing."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.adapters import edit_config, load_model, make_adapter, make_llama, write_adapter
from tests.support.folders import load
from weightsmith.errors import (
    AdapterDoesNotFit,
    AdapterEmpty,
    AdapterNotMergeable,
    NoAdapter,
    NoParameters,
    NoWeights,
    PickleForbidden,
    QuantisationInvalid,
    TargetIsInput,
)
from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora
from weightsmith.units import counted

Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return make_adapter(tmp_path / "adapter", base)


def problems(base: Path, adapter: Path) -> list[str]:
    """What is said of an adapter that does not fit; nothing was written then."""
    target = base.parent / "out"
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(base, [adapter], target)
    assert not target.exists()
    assert counted(len(caught.value.context), "problem") in str(caught.value)
    return list(caught.value.context)


def change(adapter: Path, **tensors: Tensor | None) -> None:
    """Set or remove tensors of the adapter's ``q_proj``."""
    held = load(adapter) | {
        f"{Q}.{name}": each for name, each in tensors.items() if each is not None
    }
    for name, each in tensors.items():
        if each is None:
            del held[f"{Q}.{name}"]
    write_adapter(adapter, held)


def test_tensors_without_a_place_are_all_listed(base: Path, adapter: Path) -> None:
    stray = {f"base_model.model.model.layers.{n}.mlp.up.lora_A.weight" for n in (7, 8)}
    write_adapter(adapter, load(adapter) | {name: torch.zeros(4, 48) for name in stray})
    assert problems(base, adapter) == [
        f"no model.layers.{n}.mlp.up.weight in the base for"
        f" base_model.model.model.layers.{n}.mlp.up.lora_A.weight"
        for n in (7, 8)
    ]


def test_half_a_product_is_named(base: Path, adapter: Path) -> None:
    change(adapter, **{"lora_B.weight": None})
    module = Q.removeprefix("base_model.model.")
    assert problems(base, adapter) == [f"{module} has not both of lora_A and lora_B"]


def test_factors_of_another_model_are_named_with_both_shapes(base: Path, adapter: Path) -> None:
    change(adapter, **{"lora_B.weight": torch.zeros(64, 4)})
    name = f"{Q.removeprefix('base_model.model.')}.weight"
    assert problems(base, adapter) == [f"{name} is [48, 48], the adapter's product [64, 48]"]


def test_a_rank_that_the_config_contradicts_is_named(base: Path, adapter: Path) -> None:
    edit_config(adapter, rank_pattern={"q_proj": 5})
    assert [
        "q_proj has rank 4, where the config says 5" in each for each in problems(base, adapter)
    ]


def test_dora_without_magnitudes_and_magnitudes_without_dora_are_named(
    base: Path, adapter: Path
) -> None:
    edit_config(adapter, use_dora=True)
    found = problems(base, adapter)
    assert len(found) == 2
    assert all("use_dora is True, and lora_magnitude_vector of" in each for each in found)
    edit_config(adapter, use_dora=False)
    change(adapter, lora_magnitude_vector=torch.ones(48))
    assert "use_dora is False" in problems(base, adapter)[0]


def test_a_convolutions_factors_are_named(base: Path, adapter: Path) -> None:
    change(adapter, **{"lora_A.weight": torch.zeros(4, 48, 3, 3)})
    assert "is no linear layer, convolution or embedding" in problems(base, adapter)[0]


def test_the_same_factor_under_two_names_is_named(base: Path, adapter: Path) -> None:
    change(adapter, **{"lora_A.default.weight": torch.zeros(4, 48)})
    assert "is there twice, once as" in problems(base, adapter)[0]


def test_a_bias_for_a_layer_without_one_is_named(tmp_path: Path, adapter: Path) -> None:
    change(adapter, **{"lora_B.bias": torch.zeros(48)})
    assert "q_proj.bias in the base for" in problems(tmp_path / "base", adapter)[0]


def test_a_base_of_bytes_is_named_and_why(base: Path, adapter: Path, tmp_path: Path) -> None:
    name = f"{Q.removeprefix('base_model.model.')}.weight"
    weights = load(base) | {name: torch.zeros(48, 48, dtype=torch.uint8)}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = (base / "config.json").read_text()
    quantised = config.replace("{", '{"quantization_config": {"load_in_8bit": true},', 1)
    (base / "config.json").write_text(quantised)
    with pytest.raises(QuantisationInvalid, match=re.escape(f"{name} is not as its quantiser")):
        plan_merge_lora(base, [adapter], tmp_path / "out")
    (base / "config.json").write_text(config)
    (problem,) = problems(base, adapter)
    assert problem.startswith(f"{name} is U8, which is no float")


def test_a_second_adapter_that_does_not_fit_is_named(base: Path, adapter: Path) -> None:
    other = make_adapter(base.parent / "other", make_llama(base.parent / "large", hidden_size=64))
    with pytest.raises(AdapterDoesNotFit, match=str(other)):
        plan_merge_lora(base, [adapter, other], base.parent / "out")


def test_an_adapter_without_tensors_is_refused(base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({}, adapter / "adapter_model.bin")
    with pytest.raises(AdapterEmpty):
        merge_lora(base, [adapter], base.parent / "out")


def test_an_adapter_that_zero_3_saved_empty_is_damaged_in_those_words(
    base: Path, adapter: Path
) -> None:
    path = adapter / "adapter_model.safetensors"
    save_file(dict.fromkeys(load(adapter), torch.empty(0)), path)
    with pytest.raises(NoParameters, match="not a single parameter") as caught:
        merge_lora(base, [adapter], base.parent / "out")
    assert "ZeRO-3" in caught.value.hint_text


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_no_adapter(name: str, base: Path, adapter: Path) -> None:
    (adapter / name).unlink()
    with pytest.raises(NoAdapter) as caught:
        merge_lora(base, [adapter], base.parent / "out")
    assert len(caught.value.context) == 1


def test_a_model_is_no_adapter_and_an_adapter_no_base(base: Path, adapter: Path) -> None:
    with pytest.raises(NoAdapter):
        merge_lora(base, [base], base.parent / "out")
    with pytest.raises(NoWeights):
        merge_lora(adapter, [adapter], base.parent / "out")


def test_llavas_whole_tensors_beside_the_adapter_are_refused(base: Path, adapter: Path) -> None:
    torch.save({"mm_projector.weight": torch.zeros(2)}, adapter / "non_lora_trainables.bin")
    with pytest.raises(AdapterNotMergeable, match=r"non_lora_trainables\.bin") as caught:
        merge_lora(base, [adapter], base.parent / "out")
    assert "LLaVA" in caught.value.hint_text


def test_nothing_in_an_adapters_pickle_is_run(base: Path, adapter: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (exec, ("raise SystemExit('it ran')",))

    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"x": Hostile()}, adapter / "adapter_model.bin")
    with pytest.raises(PickleForbidden):
        merge_lora(base, [adapter], base.parent / "out")


def test_the_target_may_not_be_the_adapter(base: Path, adapter: Path) -> None:
    with pytest.raises(TargetIsInput):
        merge_lora(base, [adapter], adapter)


# --- what is no fault, and said -------------------------------------------------------------------


def notes(base: Path, adapter: Path) -> list[str]:
    return list(plan_merge_lora(base, [adapter], base.parent / "out").plan.notes)


def without_b(adapter: Path) -> dict[str, Tensor]:
    """The adapter as it was before training: one factor random, the other zero."""
    return {
        name: torch.zeros_like(tensor) if "lora_B" in name else tensor
        for name, tensor in load(adapter).items()
    }


def test_an_adapter_of_zeros_is_said_aloud_and_gives_the_base(base: Path, adapter: Path) -> None:
    write_adapter(adapter, without_b(adapter))
    assert "lora is all zero: merging it changes nothing" in notes(base, adapter)
    merge_lora(base, [adapter], base.parent / "out")
    found = load(base.parent / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in load(base).items())


def test_one_number_other_than_zero_is_enough(base: Path, adapter: Path) -> None:
    tensors = without_b(adapter)
    tensors[f"{Q}.lora_B.weight"][-1, -1] = 1e-6
    write_adapter(adapter, tensors)
    assert not [note for note in notes(base, adapter) if "zero" in note]


def test_an_adapter_for_another_base_is_said_aloud(base: Path, adapter: Path) -> None:
    edit_config(adapter, base_model_name_or_path="huggyllama/llama-7b")
    assert f"lora says that it was trained on huggyllama/llama-7b; is {base} the same model?" in (
        notes(base, adapter)
    )


@pytest.mark.parametrize(
    "name",
    ["someone/Base", "/home/someone/models/base/", "unsloth/base-unsloth-bnb-4bit", None, ""],
)
def test_the_same_base_under_another_owners_name_is_no_doubt(
    name: str | None, base: Path, adapter: Path
) -> None:
    edit_config(adapter, base_model_name_or_path=name)
    assert not notes(base, adapter)


def test_a_base_in_the_hubs_cache_is_known_by_its_repository(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--huggyllama--llama-7b" / "snapshots" / "0123abc"
    load_model(base).save_pretrained(snapshot)
    edit_config(adapter, base_model_name_or_path="huggyllama/llama-7b")
    assert not notes(snapshot, adapter)
