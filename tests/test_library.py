"""The public functions, used as the docs use them."""

import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import weightsmith


def test_every_public_name_is_explained_by_its_docstring() -> None:
    for name in set(weightsmith.__all__) - {"__version__"}:
        public = getattr(weightsmith, name)
        assert callable(public)
        assert public.__doc__


def test_every_function_that_writes_a_model_has_a_plan_that_runs() -> None:
    for name in ("apply_delta", "convert", "extract_lora", "make_delta", "merge_lora"):
        plan = getattr(weightsmith, f"plan_{name}")
        returned = typing.get_type_hints(plan)["return"]
        assert issubclass(returned, weightsmith.Job)
        ours = inspect.signature(getattr(weightsmith, name)).parameters.keys() - {"options"}
        assert ours == inspect.signature(plan).parameters.keys()


def test_the_tables_of_names_agree() -> None:
    assert sorted(weightsmith._MODULES) == sorted(weightsmith.__all__) == sorted(dir(weightsmith))
    with pytest.raises(AttributeError):
        _ = weightsmith.unheard_of


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = (
        "import sys, weightsmith; print([m for m in sys.modules if m.startswith('weightsmith.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_delta_is_applied_and_the_result_verified(vectors: Path, tmp_path: Path) -> None:
    vicuna = vectors / "vicuna_v1_1"
    outcome = weightsmith.apply_delta(
        vicuna / "base", vicuna / "delta", target=tmp_path / "vicuna-7b"
    )
    report = weightsmith.verify(outcome.target)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["digests"] == "pass"
    model = weightsmith.open_checkpoint(outcome.target)
    assert len(model) == 21
    assert len(repr(outcome)) < 200 + len(str(outcome.target))
    assert not weightsmith.diff(outcome.target, vicuna / "base").equal
    assert weightsmith.diff(outcome.target, outcome.target).equal


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FLOATS += [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]
OTHERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", [*FLOATS, *OTHERS], ids=str)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_values_are_those_that_were_written(dtype: torch.dtype, file: str, tmp_path: Path) -> None:
    values = torch.arange(12).reshape(3, 4).to(torch.float32).to(dtype)
    tensors = {"w": values, "empty": values[:0].clone(), "scalar": values[0, 1].clone()}
    if file.endswith(".bin"):
        torch.save(tensors, tmp_path / file)
    else:
        save_file(tensors, tmp_path / file)
    with weightsmith.open_checkpoint(tmp_path) as checkpoint:
        assert {*checkpoint} == {*tensors}
        for name, expected in tensors.items():
            lazy = checkpoint[name]
            assert lazy.shape == tuple(expected.shape)
            assert lazy.torch().dtype == dtype
            raw = expected.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            assert lazy.torch().reshape(-1).view(torch.uint8).numpy().tobytes() == raw
            assert lazy.numpy().shape == lazy.shape
            assert lazy.numpy().tobytes() == raw
        assert [name for name, _ in checkpoint.iter_tensors("np")] == [*checkpoint]
        assert "nothing" not in checkpoint
        with pytest.raises(KeyError):
            _ = checkpoint["nothing"]


def test_an_array_that_needs_a_package_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"w": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    checkpoint = weightsmith.open_checkpoint(tmp_path)
    with pytest.raises(weightsmith.WeightsmithError, match="ml_dtypes") as caught:
        checkpoint["w"].numpy()
    assert caught.value.hint_text == "pip install 'ml_dtypes'"


def test_one_adapter_is_no_list_of_letters(vectors: Path, tmp_path: Path) -> None:
    folder = vectors / "lora" / "plain_fp16"
    job = weightsmith.plan_merge_lora(folder / "base", str(folder / "adapter"), tmp_path / "x")
    assert [*job.bindings.inputs] == ["base", "lora"]
