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
from tests.lora.adapters import differing, make_adapter, make_gpt2, make_llama, merged_by_peft
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
    """A LLaMA with biases and a GPT-2, in each dtype."""
    root = tmp_path_factory.mktemp("bases")
    return {
        **{
            ("llama", dtype): make_llama(
                root / f"llama {dtype}", dtype=dtype, attention_bias=True, mlp_bias=True
            )
            for dtype in DTYPES
        },
        **{("gpt2", dtype): make_gpt2(root / f"gpt2 {dtype}", dtype=dtype) for dtype in DTYPES},
    }


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


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    targets=st.sets(st.sampled_from([*LINEAR, "embed_tokens", "lm_head"]), min_size=1),
    rank=st.integers(1, 20),
    alpha=st.integers(1, 64),
    pattern=st.dictionaries(st.sampled_from(LINEAR), st.integers(1, 9), max_size=3),
    switches=st.fixed_dictionaries({"use_rslora": st.booleans(), "use_dora": st.booleans()}),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    seed=st.integers(0, 1000),
)
def test_random_adapters_give_the_bits_of_peft(
    targets: set[str],
    rank: int,
    alpha: int,
    pattern: dict[str, int],
    switches: dict[str, Any],
    dtypes: tuple[torch.dtype, torch.dtype],
    seed: int,
    bases: dict[tuple[str, torch.dtype], Path],
    tmp_path: Path,
) -> None:
    base = bases["llama", dtypes[0]]
    for name in ("adapter", "merged"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    adapter = make_adapter(
        tmp_path / "adapter",
        base,
        dtype=dtypes[1],
        seed=seed,
        r=rank,
        lora_alpha=alpha,
        rank_pattern=pattern,
        target_modules=sorted(targets),
        **switches,
    )
    merge_lora(base, [adapter], tmp_path / "merged", rounding="peft")
    assert not differing(tmp_path / "merged", merged_by_peft(base, [adapter]))


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
