"""Adapters with weights are one sum in float32 that is rounded once; the plan says so."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.support.folders import load
from weightsmith.errors import AdapterDoesNotFit, WeightsInvalid, WeightsNeedOnce
from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora


@pytest.fixture
def vector(vectors: Path) -> Path:
    return vectors / "merge" / "multi_weighted"


def loras(vector: Path) -> list[Path]:
    return [vector / "adapters" / str(number) for number in range(3)]


def test_the_plan_says_how_several_are_put_together(vector: Path, tmp_path: Path) -> None:
    plain = plan_merge_lora(vector / "base", loras(vector), tmp_path / "out")
    assert plain.plan.notes[0] == (
        "the adapters are applied one after another, each to the result of the one before"
    )
    weighted = plan_merge_lora(
        vector / "base", loras(vector), tmp_path / "out", weights=[0.5, 0.25, 1], scale=2
    )
    assert weighted.plan.notes[0] == (
        "the adapters are summed in float32 with weight 1, 0.5, 2, and the result is rounded once"
    )


def test_a_weight_is_what_alpha_times_it_would_be(vector: Path, tmp_path: Path) -> None:
    base, lora = vector / "base", loras(vector)[0]
    merge_lora(base, [lora], tmp_path / "none", weights=[0.0], dtype="float32")
    held = {name: tensor.float() for name, tensor in load(base).items()}
    assert all(torch.equal(held[n], t) for n, t in load(tmp_path / "none").items())
    merge_lora(base, [lora], tmp_path / "one", dtype="float32")
    merge_lora(base, [lora], tmp_path / "minus", weights=[-1.0], dtype="float32")
    one, minus = load(tmp_path / "one"), load(tmp_path / "minus")
    assert all(torch.allclose(one[n] + minus[n], 2 * held[n], atol=1e-6) for n in held)


def test_experts_and_other_kinds_are_weighted_too(vectors: Path, tmp_path: Path) -> None:
    for name in ("moe_mixtral", "kind_loha", "kind_lokr", "kind_adalora", "kind_vera"):
        vector = vectors / "merge" / name
        for number, weight in enumerate((1.0, 0.5)):
            merge_lora(
                vector / "base",
                [vector / "adapter"],
                tmp_path / f"{name} {number}",
                weights=[weight],
                dtype="float32",
            )
        base = load(vector / "base")
        whole, half = load(tmp_path / f"{name} 0"), load(tmp_path / f"{name} 1")
        for each, tensor in base.items():
            middle = (tensor.float() + whole[each]) / 2
            assert torch.allclose(half[each], middle, atol=1e-6), each
        assert any(not torch.equal(whole[n], base[n].float()) for n in base)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, float("nan")], [1.0, 2.0, float("inf")]])
def test_each_adapter_needs_one_finite_weight(
    weights: list[float], vector: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsInvalid, match="3 adapters need one finite weight each"):
        plan_merge_lora(vector / "base", loras(vector), tmp_path / "out", weights=weights)


@pytest.mark.parametrize("settings", [{"weights": [1, 1, 1]}, {"scale": 0.5}])
def test_weights_are_for_one_rounding_only(
    settings: dict[str, object], vector: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsNeedOnce):
        plan_merge_lora(
            vector / "base",
            loras(vector),
            tmp_path / "out",
            rounding="peft",
            **settings,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    "name, what",
    [
        ("set_dora", "DoRA is no sum, and cannot be weighted"),
        ("kind_ia3", "ia3 is no sum, and cannot be weighted"),
        ("kind_oft", "oft is no sum, and cannot be weighted"),
        ("set_trainable_tokens_untied", "rows is no sum, and cannot be weighted"),
        ("tied_save_embed", "is replaced as a whole, which cannot be weighted"),
    ],
)
def test_what_is_no_sum_is_not_weighted(
    name: str, what: str, vectors: Path, tmp_path: Path
) -> None:
    vector = vectors / "merge" / name
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out", scale=0.5)
    assert any(what in line for line in caught.value.context)
    shutil.rmtree(tmp_path)
    merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out", scale=1)
