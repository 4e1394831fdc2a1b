"""Adapters of all experts of a layer at once, onto files that hold them in every known way."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.support.adapters import edit_config, write_adapter
from tests.support.expert_models import MODELS, make_expert_adapter, merge_by_peft
from tests.support.folders import assert_same_bits, load
from tests.support.pace import examples
from weightsmith.errors import AdapterDoesNotFit
from weightsmith.ops.merge_lora import merge_lora

DTYPES = (torch.bfloat16, torch.float32)
Make = Callable[..., Path]
FAST = ("mixtral", "gpt_oss", "llama4_text", "granitemoe", "qwen3_vl_moe")
"""One family for each way in which files hold experts."""


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A model of a family in a dtype, made once."""
    root = tmp_path_factory.mktemp("bases")

    @cache
    def made(name: str, dtype: torch.dtype = torch.bfloat16) -> Path:
        return MODELS[name].make(root / f"{name} {dtype}", dtype=dtype)

    return made


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_files_hold_the_family_as_the_table_says(name: str, make: Make) -> None:
    assert any(MODELS[name].names in tensor for tensor in load(make(name)))


@st.composite
def configs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Which parameters are trained, and with which ranks."""
    model = MODELS[name]
    parameters = draw(st.sets(st.sampled_from(model.parameters), min_size=1))
    patterns = st.dictionaries(st.sampled_from(sorted(parameters)), st.integers(1, 9))
    return {
        "r": draw(st.integers(1, 9)),
        "lora_alpha": draw(st.integers(1, 30)),
        "use_rslora": draw(st.booleans()),
        "rank_pattern": draw(patterns),
        "alpha_pattern": draw(patterns),
        "target_parameters": draw(
            st.permutations([*parameters, *([model.router] if draw(st.booleans()) else [])])
        ),
    }


@pytest.mark.sampled(2)
@settings(max_examples=examples(2))
@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
@given(data=st.data())
def test_random_adapters_of_experts_give_the_bits_of_peft(
    name: str, data: st.DataObject, make: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, dtype = MODELS[name], data.draw(st.sampled_from(DTYPES))
    base, config, seed = make(name, dtype), data.draw(configs(name)), data.draw(st.integers(0, 99))
    root = tmp_path_factory.mktemp(name)
    adapter = make_expert_adapter(root / "adapter", base, model, dtype=dtype, seed=seed, **config)
    expected = load(merge_by_peft(root / "expected", base, adapter, model, dtype))
    merge_lora(base, [adapter], root / "out", rounding="peft")
    held = load(base)
    # Transformers loads some of what no adapter touches in float32; its dtype in the file stays.
    assert_same_bits(load(root / "out"), {n: t.to(held[n].dtype) for n, t in expected.items()})
    # Rounded once is what float32 gives, rounded.
    merge_lora(base, [adapter], root / "once")
    merge_lora(base, [adapter], root / "wide", dtype="float32", dtype_all=True)
    wide = load(root / "wide")
    assert_same_bits(load(root / "once"), {n: wide[n].to(t.dtype) for n, t in held.items()})


def test_experts_of_two_adapters_are_merged_one_after_another(make: Make, tmp_path: Path) -> None:
    model, dtype = MODELS["mixtral"], torch.bfloat16
    base = make("mixtral", dtype)
    config = {"r": 3, "target_parameters": list(model.parameters)}
    adapters = [
        make_expert_adapter(tmp_path / str(n), base, model, dtype=dtype, seed=n, **config)
        for n in range(2)
    ]
    first = merge_by_peft(tmp_path / "first", base, adapters[0], model, dtype)
    both = merge_by_peft(tmp_path / "both", first, adapters[1], model, dtype)
    merge_lora(base, adapters, tmp_path / "out", rounding="peft")
    assert_same_bits(load(tmp_path / "out"), load(both))


@pytest.mark.parametrize("turned", [False, True], ids=["stacked", "stacked and transposed"])
def test_files_may_stack_experts_that_others_hold_one_by_one(
    turned: bool, make: Make, tmp_path: Path
) -> None:
    model, dtype = MODELS["qwen3_moe"], torch.bfloat16
    base = make("qwen3_moe", dtype)
    adapter = make_expert_adapter(
        tmp_path / "adapter", base, model, dtype=dtype, seed=1, target_parameters=model.parameters
    )
    merge_lora(base, [adapter], tmp_path / "single", rounding="peft")
    shutil.copytree(base, tmp_path / "base")
    save_file(stacked(load(base), turned=turned), tmp_path / "base" / "model.safetensors")
    merge_lora(tmp_path / "base", [adapter], tmp_path / "out", rounding="peft")
    assert_same_bits(load(tmp_path / "out"), stacked(load(tmp_path / "single"), turned=turned))


def stacked(tensors: dict[str, torch.Tensor], *, turned: bool) -> dict[str, torch.Tensor]:
    """Experts one by one as one tensor of all."""
    layer = "model.layers.0.mlp.experts"
    held = {name: each for name, each in tensors.items() if not name.startswith(layer)}
    parts = {
        part: torch.stack([tensors[f"{layer}.{n}.{part}_proj.weight"] for n in range(3)])
        for part in ("gate", "up", "down")
    }
    all_of_them = {
        f"{layer}.gate_up_proj": torch.cat([parts["gate"], parts["up"]], dim=1),
        f"{layer}.down_proj": parts["down"],
    }
    for name, each in all_of_them.items():
        held[name] = (each.transpose(1, 2) if turned else each).contiguous()
    return held


# --- what does not fit ----------------------------------------------------------------------------

EXPERTS = "base_model.model.model.layers.0.mlp.experts"


@pytest.fixture
def base(make: Make) -> Path:
    """A Qwen3-MoE of three experts."""
    return make("qwen3_moe", torch.float32)


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """One of all its experts, of rank 4."""
    return make_expert_adapter(
        tmp_path / "adapter",
        base,
        MODELS["qwen3_moe"],
        dtype=torch.float32,
        seed=1,
        r=4,
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
    )


def problems(base: Path, adapter: Path) -> list[str]:
    """What is said of an adapter that does not fit; nothing was written then."""
    target = adapter.parent / "out"
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(base, [adapter], target)
    assert not target.exists()
    return list(caught.value.context)


def change(adapter: Path, name: str, value: torch.Tensor) -> None:
    """Set one of the adapter's tensors."""
    held = load_file(adapter / "adapter_model.safetensors")
    write_adapter(adapter, held | {f"{EXPERTS}.{name}.weight": value})


def test_rows_that_are_no_experts_of_the_rank_are_named(base: Path, adapter: Path) -> None:
    change(adapter, "lora_A", torch.zeros(11, 24))
    change(adapter, "lora_B", torch.zeros(32, 11))
    assert problems(base, adapter) == [
        f"{EXPERTS}.lora_A.weight has 11 rows, which are no experts of rank 4 each"
    ]


def test_other_ranks_in_both_factors_are_named(base: Path, adapter: Path) -> None:
    change(adapter, "lora_B", torch.zeros(32, 9))
    assert "other ranks" in problems(base, adapter)[0]
    assert f"{EXPERTS}.lora_B.weight [32, 9]" in problems(base, adapter)[0]


def test_an_adapter_for_another_number_of_experts_is_named(base: Path, adapter: Path) -> None:
    change(adapter, "lora_A", torch.zeros(20, 24))
    change(adapter, "lora_B", torch.zeros(32, 20))
    assert problems(base, adapter) == [
        f"{EXPERTS}.lora_A.weight is for 5 experts of rank 4, and the base has 3"
    ]


def test_factors_of_another_size_are_named(base: Path, adapter: Path) -> None:
    change(adapter, "base_layer.lora_A", torch.zeros(12, 31))
    assert problems(base, adapter) == [
        (
            "model.layers.0.mlp.experts.gate_up_proj is [48, 32] an expert, the adapter's product "
            "[48, 31]"
        )
    ]


@pytest.mark.parametrize("shape", [(0, 24), (12, 24, 1)])
def test_what_is_no_matrix_is_named(base: Path, adapter: Path, shape: tuple[int, ...]) -> None:
    change(adapter, "lora_A", torch.zeros(shape))
    assert f"{EXPERTS}.lora_A.weight is F32 {list(shape)}" in problems(base, adapter)[0]


def test_an_expert_of_the_base_that_is_no_matrix_is_named(base: Path, adapter: Path) -> None:
    name = "model.layers.0.mlp.experts.1.down_proj.weight"
    copy = Path(shutil.copytree(base, adapter.parent / "copy"))
    save_file(load(base) | {name: torch.zeros(24)}, copy / "model.safetensors")
    assert problems(copy, adapter) == [f"{name} is F32 [24], no matrix of an expert"]


def test_parameters_that_the_config_does_not_name_are_not_guessed(
    base: Path, adapter: Path
) -> None:
    edit_config(adapter, target_parameters=["experts.down_proj"])
    assert problems(base, adapter) == [
        (
            "model.layers.0.mlp.experts has factors for 2 parameters, where target_parameters name "
            "down_proj"
        )
    ]


def test_a_family_that_is_not_known_is_refused_by_name(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown"
    shutil.copytree(base, unknown)
    config = json.loads((base / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"model_type": "tomorrow_moe"}))
    (problem,) = problems(unknown, adapter)
    assert problem.endswith("how models of type tomorrow_moe store them is not known")


@pytest.mark.parametrize(
    "version, outcome",
    [("0.21.2", "today"), ("0.18.1", "once"), (None, "once"), ("0.18.2.dev0", "refused")],
)
def test_a_square_lies_as_the_version_that_trained_it_had_it(
    version: str | None, outcome: str, vectors: Path, tmp_path: Path
) -> None:
    """An adapter of square parameters alone, whose shapes show nothing."""
    vector = vectors / "merge" / "moe_qwen3_square"
    adapter = tmp_path / "adapter"
    shutil.copytree(vector / "adapter", adapter)
    held = load_file(adapter / "adapter_model.safetensors")
    kept = {
        name.replace("base_layer.", ""): each
        for name, each in held.items()
        if "experts.base_layer" in name
    }
    write_adapter(adapter, kept)
    edit_config(adapter, target_parameters=["experts.gate_up_proj"], peft_version=version)
    if outcome == "refused":
        assert "peft 0.18.2.dev0 may have meant either" in problems(vector / "base", adapter)[0]
        return
    merge_lora(vector / "base", [adapter], tmp_path / "out", dtype="float32")
    a, b = (kept[f"{EXPERTS}.lora_{side}.weight"] for side in "AB")
    rank = 3
    delta = (b[:, ::4] @ a[:rank]) * 7 / rank  # of the first of four experts
    gate = "model.layers.0.mlp.experts.0.gate_proj.weight"
    expected = load(vector / "base")[gate].float() + (delta if outcome == "today" else delta.T)[:16]
    assert torch.allclose(load(tmp_path / "out")[gate], expected)
