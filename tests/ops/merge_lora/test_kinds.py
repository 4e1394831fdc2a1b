"""Adapters that are no plain LoRA: their formulas are peft's, and what does not fit is named."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.support.adapters import (
    differing,
    edit_config,
    load_model,
    make_gpt2,
    make_llama,
    merged_by_peft,
    write_adapter,
)
from tests.support.folders import load
from weightsmith.errors import AdapterDoesNotFit
from weightsmith.ops.merge_lora import merge_lora

LINEAR = ["q_proj", "v_proj", "down_proj"]


def configs() -> dict[str, Any]:
    """Settings beyond those of the vectors."""
    import peft

    return {
        "IA3 with biases": peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"]),
        "LoHa with patterns": peft.LoHaConfig(
            r=4, alpha=7, target_modules=LINEAR, rank_pattern={"q_proj": 2}
        ),
        "LoKr of full factors": peft.LoKrConfig(r=100, alpha=7, target_modules=LINEAR),
        "OFT by a series": peft.OFTConfig(
            oft_block_size=8, target_modules=LINEAR, use_cayley_neumann=True
        ),
        "OFT shared": peft.OFTConfig(
            oft_block_size=8, target_modules=LINEAR, block_share=True, use_cayley_neumann=False
        ),
        "VeRA of several sizes": peft.VeraConfig(r=6, target_modules=LINEAR),
        "VB-LoRA": peft.VBLoRAConfig(
            r=2, num_vectors=9, vector_length=4, topk=3, target_modules=["q_proj"]
        ),
        "AdaLoRA": peft.AdaLoraConfig(init_r=5, total_step=10, target_modules=LINEAR, lora_alpha=3),
    }


def make(folder: Path, base: Path, config: Any) -> Path:
    """A random adapter of a kind, saved by peft."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load_model(base), config)
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn_like(parameter) * 0.1
        model.save_pretrained(str(folder))
    return folder


@pytest.mark.sampled(5)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "IA3 with biases",
        "LoHa with patterns",
        "LoKr of full factors",
        "OFT by a series",
        "OFT shared",
        "VeRA of several sizes",
        "VB-LoRA",
        "AdaLoRA",
    ],
)
def test_it_gives_what_peft_gives(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base", dtype=dtype, attention_bias=True, mlp_bias=True)
    adapter = make(tmp_path / "adapter", base, configs()[name])
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    expected = merged_by_peft(base, [adapter])
    if name.startswith("OFT"):  # peft multiplies with many zeros, in an order of its library's
        ours, theirs = load_model(tmp_path / "out").state_dict(), expected.state_dict()
        assert ours.keys() == theirs.keys()
        step = torch.finfo(dtype).eps
        assert all(torch.allclose(ours[n], theirs[n], rtol=2 * step, atol=1e-6) for n in ours)
        assert any(not torch.equal(ours[n], load_model(base).state_dict()[n]) for n in ours)
    else:
        assert not differing(tmp_path / "out", expected)


def test_ia3_knows_layers_that_store_their_weight_the_other_way(tmp_path: Path) -> None:
    from peft import IA3Config

    base = make_gpt2(tmp_path / "base")
    config = IA3Config(
        target_modules=["c_attn", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    )
    adapter = make(tmp_path / "adapter", base, config)
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    assert not differing(tmp_path / "out", merged_by_peft(base, [adapter]))


def test_adalora_knows_them_too(tmp_path: Path) -> None:
    from peft import AdaLoraConfig

    base = make_gpt2(tmp_path / "base")
    targets = ["c_attn", "c_proj"]  # of which one is square, and its shape shows nothing
    config = AdaLoraConfig(init_r=4, total_step=9, target_modules=targets, fan_in_fan_out=True)
    adapter = make(tmp_path / "adapter", base, config)
    merge_lora(base, [adapter], tmp_path / "out", rounding="peft")
    assert not differing(tmp_path / "out", merged_by_peft(base, [adapter]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_convolutions_get_what_peft_gives_them(dtype: torch.dtype, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def model() -> nn.ModuleDict:
        torch.manual_seed(0)
        layers = {
            "point": nn.Conv2d(6, 130, 1),
            "square": nn.Conv2d(6, 130, 3),
            "line": nn.Conv1d(5, 7, 4),
        }
        return nn.ModuleDict(layers).to(dtype)

    tuned = get_peft_model(model(), LoraConfig(r=3, target_modules=["point", "square", "line"]))
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter.float()) * 0.1
    tuned.save_pretrained(str(tmp_path / "adapter"))
    base = tmp_path / "base"
    base.mkdir()
    save_file(model().state_dict(), base / "model.safetensors", metadata={"format": "pt"})
    merge_lora(base, [tmp_path / "adapter"], tmp_path / "out", rounding="peft")
    expected = tuned.merge_and_unload().state_dict()
    found = load_file(tmp_path / "out" / "model.safetensors")
    step = torch.finfo(dtype).eps
    assert torch.equal(found["point.weight"], expected["point.weight"])
    # Peft's library sums what a kernel covers in an order of its own.
    assert all(torch.allclose(found[n], expected[n], rtol=step, atol=1e-6) for n in expected)
    assert not torch.equal(found["square.weight"], model().state_dict()["square.weight"])


def test_grouped_convolutions_are_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    layers: Any = nn.ModuleDict({"grouped": nn.Conv2d(6, 8, 3, groups=2)})
    base = tmp_path / "base"
    base.mkdir()
    save_file(layers.state_dict(), base / "model.safetensors", metadata={"format": "pt"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says that it cannot merge them either
        tuned = get_peft_model(layers, LoraConfig(r=4, target_modules=["grouped"]))
    tuned.save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(AdapterDoesNotFit):
        merge_lora(base, [tmp_path / "adapter"], tmp_path / "out")


# --- what does not fit ----------------------------------------------------------------------------

Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    "vector, name, shape, problem",
    [
        ("kind_ia3", f"{Q}.ia3_l", (31, 1), "which these do not fit"),
        ("kind_ia3", f"{Q}.ia3_l", (32,), "which these do not fit"),
        ("kind_loha", f"{Q}.hada_w1_a", (32, 2), "which these do not fit"),
        ("kind_loha", f"{Q}.hada_w2_b", None, "has no hada_w2_b"),
        ("kind_lokr", f"{Q}.lokr_w1", (5, 4), "which these do not fit"),
        ("kind_lokr", f"{Q}.lokr_w2_a", None, "has not lokr_w2 alone, nor lokr_w2_a"),
        ("kind_adalora", f"{Q}.lora_E", (3, 1), "which these do not fit"),
        ("kind_adalora", f"{Q}.lora_B", None, "has no lora_B"),
        ("kind_adalora", f"{Q}.lora_A", (), "a single number"),
        ("kind_oft", f"{Q}.oft_R.weight", (), "a single number"),
        ("kind_oft", f"{Q}.oft_R.weight", (6, 7), "which these do not fit"),
        ("kind_oft", f"{Q}.oft_R.weight", (5, 6), "which these do not fit"),
        ("kind_vera", f"{Q}.vera_lambda_b", (31,), "which these do not fit"),
        ("kind_vera", "base_model.vera_A", None, "has no vera_A"),
        ("kind_vblora", "base_model.vblora_vector_bank", (12, 4), "which these do not fit"),
        ("kind_vblora", f"{Q}.vblora_logits_A", (2, 0, 12), "which these do not fit"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    vector: str,
    name: str,
    shape: tuple[int, ...] | None,
    problem: str,
    vectors: Path,
    tmp_path: Path,
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(vectors / "merge" / vector / "adapter", adapter)
    held = load_file(adapter / "adapter_model.safetensors")
    dropped = held.pop(name)
    write_adapter(adapter, held if shape is None else held | {name: dropped.new_zeros(shape)})
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(vectors / "merge" / vector / "base", [adapter], tmp_path / "out")
    assert any(problem in line for line in caught.value.context)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "vector, shape, problem",
    [
        ("kind_loha", (), "a single number"),
        ("kind_ia3", (), "a single number"),
        ("kind_loha", (0, 32), "has no elements to change"),
    ],
)
def test_a_base_whose_matrix_is_none_is_named(
    vector: str, shape: tuple[int, ...], problem: str, vectors: Path, tmp_path: Path
) -> None:
    base, name = tmp_path / "base", "model.layers.0.self_attn.q_proj.weight"
    shutil.copytree(vectors / "merge" / vector / "base", base)
    held = load(base)
    save_file(held | {name: held[name].new_zeros(shape)}, base / "model.safetensors")
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(base, [vectors / "merge" / vector / "adapter"], tmp_path / "out")
    assert any(line.startswith(name) and problem in line for line in caught.value.context)


def test_a_tensor_of_another_kind_is_named(vectors: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(vectors / "merge" / "kind_ia3" / "adapter", adapter)
    held = load_file(adapter / "adapter_model.safetensors")
    write_adapter(adapter, held | {f"{Q}.vblora_logits_A": torch.zeros(2, 3, 12)})
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(vectors / "merge" / "kind_ia3" / "base", [adapter], tmp_path / "out")
    assert list(caught.value.context) == [f"IA3 adapters have no {Q}.vblora_logits_A"]


def test_a_config_that_lies_about_the_kind_is_told(vectors: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(vectors / "merge" / "kind_ia3" / "adapter", adapter)
    edit_config(adapter, peft_type="LOHA", r=4, alpha=4, feedforward_modules=None)
    edit_config(adapter, init_ia3_weights=None, fan_in_fan_out=None)
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(vectors / "merge" / "kind_ia3" / "base", [adapter], tmp_path / "out")
    assert f"LOHA adapters have no {Q}.ia3_l" in caught.value.context


def test_projections_that_no_layer_takes_are_told(vectors: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(vectors / "merge" / "kind_vera" / "adapter", adapter)
    held = load_file(adapter / "adapter_model.safetensors")
    write_adapter(adapter, {name: each for name, each in held.items() if "lambda" not in name})
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(vectors / "merge" / "kind_vera" / "base", [adapter], tmp_path / "out")
    assert "no layer of the adapter takes base_model.vera_A" in caught.value.context


def test_ranks_that_the_config_denies_are_named(vectors: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(vectors / "merge" / "kind_loha" / "adapter", adapter)
    edit_config(adapter, r=5)
    with pytest.raises(AdapterDoesNotFit):
        merge_lora(vectors / "merge" / "kind_loha" / "base", [adapter], tmp_path / "out")
