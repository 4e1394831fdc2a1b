"""With ``rounding="peft"`` every kind of adapter gives the bits that peft's merge gives."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.engine.folders import bits, load
from tests.lora.adapters import (
    VOCABULARY,
    differing,
    make_adapter,
    make_gpt2,
    make_llama,
    merged_by_peft,
)
from weightsmith.ops.merge_lora import merge_lora

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"down_proj": 6, r"layers\.\d\.self_attn\.q_.*": 3, "q_proj": 5},
    "alpha_pattern": {"q_proj": 5, "model.layers.0.mlp.down_proj": 3},
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "patterns": {"target_modules": LINEAR, **PATTERNS},
    "rslora": {"target_modules": LINEAR, "use_rslora": True, **PATTERNS},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "embedding dora": {"target_modules": ["embed_tokens"], "use_dora": True},
    "head": {"target_modules": ["lm_head"]},
    "modules_to_save": {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "lora_bias": {"target_modules": LINEAR, "lora_bias": True},
    "bias all": {"bias": "all"},
    "bias lora_only": {"bias": "lora_only"},
    "token rows": {"trainable_token_indices": [7, 1, 2, 3, 149]},
    "token rows by module": {"trainable_token_indices": {"embed_tokens": [0], "lm_head": [5, 4]}},
}
CONV1D: dict[str, dict[str, Any]] = {
    "fan_in_fan_out": {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "fan_in_fan_out dora": {
        "target_modules": ["c_attn", "c_proj"],
        "fan_in_fan_out": True,
        "use_dora": True,
    },
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, torch.dtype], Path]:
    """A LLaMA with biases, one with tied embeddings, and a GPT-2, in each dtype."""
    root = tmp_path_factory.mktemp("bases")
    found = {}
    for dtype in DTYPES:
        for name, tied in (("llama", False), ("tied", True)):
            found[name, dtype] = make_llama(
                root / f"{name} {dtype}",
                dtype=dtype,
                attention_bias=True,
                mlp_bias=True,
                tie_word_embeddings=tied,
            )
        found["gpt2", dtype] = make_gpt2(root / f"gpt2 {dtype}", dtype=dtype)
    return found


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        pytest.param(torch.float16, marks=pytest.mark.slow),
        pytest.param(torch.float32, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [*KINDS, *CONV1D])
def test_one_adapter_and_two_give_the_bits_of_peft(
    kind: str, dtype: torch.dtype, bases: dict[tuple[str, torch.dtype], Path], tmp_path: Path
) -> None:
    base = bases["gpt2" if kind in CONV1D else "llama", dtype]
    config = (KINDS | CONV1D)[kind]
    # The first is stored as old trainers did it, in half precision and as a torch file.
    first = make_adapter(tmp_path / "first", base, dtype=torch.float16, as_bin=True, **config)
    second = make_adapter(tmp_path / "second", base, seed=2, **config)
    for adapters in ([first], [first, second]):
        target = tmp_path / f"merged {len(adapters)}"
        merge_lora(base, adapters, target, rounding="peft")
        assert not differing(target, merged_by_peft(base, adapters))
    assert differing(target, merged_by_peft(base, [first]))


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of an adapter that peft can train, of every kind that can be merged."""
    matrices = ["embed_tokens", "lm_head"]
    targets = draw(st.sets(st.sampled_from([*LINEAR, *matrices]), min_size=1))
    whole = draw(st.sets(st.sampled_from(["norm", *matrices])) | st.none())
    config: dict[str, Any] = {
        "r": draw(st.integers(1, 20)),
        "lora_alpha": draw(st.integers(1, 64)),
        "target_modules": sorted(targets),
        "rank_pattern": draw(st.dictionaries(st.sampled_from(LINEAR), st.integers(1, 9))),
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(LINEAR), st.integers(1, 99))),
        "use_rslora": draw(st.booleans()),
        "use_dora": draw(st.booleans()),
        "bias": draw(st.sampled_from(["none", "all", "lora_only"])),
        "modules_to_save": sorted(whole - targets) if whole and whole - targets else None,
    }
    # Beside a change of the output layer peft cannot merge token rows where both are tied.
    if not (targets | (whole or set())) & set(matrices) and draw(st.booleans()):
        rows = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9, unique=True)
        config["trainable_token_indices"] = draw(rows)
    if not config["use_dora"] and not targets & set(matrices):
        config["lora_bias"] = draw(st.booleans())
    return config


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    model=st.sampled_from(["llama", "tied"]),
    configs=st.lists(configs(), min_size=1, max_size=2),
    base_dtype=st.sampled_from(DTYPES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_random_adapters_give_the_bits_of_peft(
    model: str,
    configs: list[dict[str, Any]],
    base_dtype: torch.dtype,
    dtype: torch.dtype,
    seed: int,
    bases: dict[tuple[str, torch.dtype], Path],
    tmp_path: Path,
) -> None:
    base = bases[model, base_dtype]
    shutil.rmtree(tmp_path)
    adapters = [
        make_adapter(tmp_path / str(number), base, dtype=dtype, seed=seed + number, **config)
        for number, config in enumerate(configs)
    ]
    merge_lora(base, adapters, tmp_path / "merged", rounding="peft")
    assert not differing(tmp_path / "merged", merged_by_peft(base, adapters))


@pytest.mark.parametrize("name", ["plain_fp16", "rslora_pattern_fp32", "dora_fp32"])
def test_once_rounds_a_single_adapter_as_peft_does(
    name: str, vectors: Path, tmp_path: Path
) -> None:
    vector = vectors / "lora" / name
    merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out", rounding="once")
    expected = load_file(vector / "expected" / "expected.safetensors")
    found = load(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(bits(found[each]), bits(expected[each])) for each in expected)


@pytest.mark.parametrize(
    "name",
    [
        "plain_fp16",
        "rslora_pattern_fp32",
        "dora_fp32",
        "modules_to_save_fp32",
        "embedding_bf16",
    ],
)
def test_the_vectors_come_out_as_peft_made_them(name: str, vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "lora" / name
    merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out", rounding="peft")
    expected = load_file(vector / "expected" / "expected.safetensors")
    found = load(tmp_path / "out")
    assert found.keys() == expected.keys()
    for each, tensor in expected.items():
        assert found[each].dtype == tensor.dtype
        assert torch.equal(bits(found[each]), bits(tensor)), each
