"""Sums of models have the bits that float32 and one rounding give, and fit or are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.training_cases import LEFT
from weightsmith.engine.options import Options
from weightsmith.errors import ExpressionInvalid, ModelsDoNotCombine, TargetIsInput
from weightsmith.ops.combine import combine, plan_combine, read_terms

SHAPES = {"model.a.weight": (5, 7), "model.b.weight": (300, 257), "model.c": ()}


def model(
    folder: Path, seed: int, dtype: torch.dtype = torch.bfloat16, **more: torch.Tensor
) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    folder.mkdir()
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in SHAPES.items()} | more
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "x"}))
    return tensors


def made(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("factor, even", [(1.0, True), (0.5, False)])
def test_a_delta_in_a_sum_is_said_to_be_one(tmp_path: Path, factor: float, *, even: bool) -> None:
    norm = "model.layers.0.input_layernorm.weight"
    model(tmp_path / "a", 1, torch.bfloat16, **{norm: torch.ones(8, dtype=torch.bfloat16)})
    model(tmp_path / "d", 2, torch.bfloat16, **{norm: torch.zeros(8, dtype=torch.bfloat16)})
    plan = plan_combine([(factor, tmp_path / "a"), (0.5, tmp_path / "d")], tmp_path / "sum").plan
    said = "d is a delta, summed as the difference that it holds"
    assert any(note.endswith(said) for note in plan.notes)
    assert any("the factors of models sum to 0.5" in note for note in plan.notes) == (not even)


@pytest.mark.parametrize(
    "divided, instead",
    [
        ("a/2", "0.5*a"),
        ("./a/4", "0.25*./a"),
        ("org/b/2", "0.5*org/b"),
        ("llama-7b/2", "0.5*llama"),
    ],
)
def test_a_division_is_refused_before_anybody_is_asked(
    divided: str, instead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "a", 1)
    with pytest.raises(ExpressionInvalid, match="there is no division: write ") as caught:
        plan_combine(f"0.5*org/far + {divided}", tmp_path / "sum")
    assert f"write {instead}" in str(caught.value)


def test_a_folder_with_a_number_for_a_name_is_no_division(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    model(tmp_path / "run" / "2", 1)
    assert read_terms("run/2 + far/7") == [(1.0, "run/2"), (1.0, "far/7")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_sums_are_taken_in_float32_and_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    a, b, c = (model(tmp_path / name, seed, dtype) for seed, name in enumerate("abc"))
    expression = f"0.5*{tmp_path / 'a'} + 0.3*{tmp_path / 'b'} + 0.2*{tmp_path / 'c'}"
    combine(expression, tmp_path / "sum", options=Options(workers=2))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    found = made(tmp_path / "sum")
    for name in SHAPES:
        parts = [
            torch.tensor(factor, dtype=wide) * each[name].to(wide)
            for factor, each in ((0.5, a), (0.3, b), (0.2, c))
        ]
        expected = (parts[0] + parts[1] + parts[2]).to(dtype)
        assert torch.equal(found[name], expected), name


def test_task_arithmetic_and_another_dtype(tmp_path: Path) -> None:
    a, b = model(tmp_path / "a", 1), model(tmp_path / "b", 2)
    terms = [(1.5, tmp_path / "a"), (-0.5, tmp_path / "b")]
    combine(terms, tmp_path / "sum", dtype="float32")
    combine(
        f"{tmp_path / 'a'} + 0.5*({tmp_path / 'a'} - {tmp_path / 'b'})",
        tmp_path / "again",
        dtype="float32",
    )
    for name, tensor in made(tmp_path / "sum").items():
        assert torch.equal(tensor, 1.5 * a[name].float() + -0.5 * b[name].float())
        assert torch.equal(tensor, made(tmp_path / "again")[name])


def test_what_holds_no_floats_is_the_first_models_and_said(tmp_path: Path) -> None:
    model(tmp_path / "a", 1, steps=torch.tensor(900))
    model(tmp_path / "b", 2, steps=torch.tensor(800))
    terms = [(0.5, tmp_path / "a"), (0.25, tmp_path / "b")]
    notes = plan_combine(terms, tmp_path / "sum").plan.notes
    assert f"not summed but taken from {tmp_path / 'a'}, for they hold no floats: 1 tensor" in notes
    assert "the factors sum to 0.75, not to 1: the weights change in size" in notes
    combine(terms, tmp_path / "sum")
    assert made(tmp_path / "sum")["steps"] == 900


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"extra": torch.ones(2)}, "extra is in .*b and not in .*a"),
        ({"model.a.weight": torch.ones(5, 6, dtype=torch.bfloat16)}, r"BF16 \[5, 7\] in .* \[5, 6"),
        ({"model.a.weight": torch.ones(5, 7)}, "model.a.weight is BF16 .* and F32"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor], reason: str
) -> None:
    model(tmp_path / "a", 1)
    model(tmp_path / "b", 2, torch.bfloat16, **change)
    with pytest.raises(ModelsDoNotCombine) as caught:
        plan_combine([(0.5, tmp_path / "a"), (0.5, tmp_path / "b")], tmp_path / "sum")
    assert caught.value.exit_code == 7
    (problem,) = caught.value.context
    assert re.search(reason, problem)


def test_quantised_models_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        model(tmp_path / name, 1)
        config: dict[str, Any] = {"model_type": "x", "quantization_config": {}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelsDoNotCombine, match="2 problems"):
        plan_combine([(0.5, tmp_path / "a"), (0.5, tmp_path / "b")], tmp_path / "sum")


def test_the_target_is_none_of_the_models(tmp_path: Path) -> None:
    model(tmp_path / "a", 1)
    model(tmp_path / "b", 2)
    with pytest.raises(TargetIsInput):
        plan_combine([(0.5, tmp_path / "a"), (0.5, tmp_path / "b")], tmp_path / "b")


def test_training_outputs_are_summed_without_converting_them(tmp_path: Path) -> None:
    hsdp, dcp = LEFT / "fsdp2_hsdp/ckpt", LEFT / "dcp_plain_w4/ckpt"
    combine([(0.5, hsdp), (0.5, dcp)], tmp_path / "sum")
    one = load_file(LEFT / "fsdp2_hsdp/oracle.safetensors")
    two = load_file(LEFT / "dcp_plain_w4/oracle.safetensors")
    for name, tensor in made(tmp_path / "sum").items():
        expected = (0.5 * one[name].float() + 0.5 * two[name].float()).bfloat16()
        assert torch.equal(tensor, expected)
    assert (tmp_path / "sum" / "config.json").exists()
