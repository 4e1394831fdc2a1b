"""With ``rounding="peft"`` every kind of adapter gives the bits that peft's merge gives."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.support.adapters import (
    VOCABULARY,
    as_stored,
    differing,
    in_old_style,
    load_model,
    make_adapter,
    make_falcon,
    make_gpt2,
    make_llama,
    make_mixtral,
    merged_by_peft,
)
from tests.support.folders import assert_same_bits, bits, load
from tests.support.pace import examples
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
EXAMPLES = 4
"""Random cases a model."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, torch.dtype], Path]:
    """A LLaMA with biases, one with tied embeddings, and other families, in each dtype."""
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
        found["falcon", dtype] = make_falcon(root / f"falcon {dtype}", dtype=dtype)
        found["experts", dtype] = make_mixtral(root / f"experts {dtype}", dtype=dtype)
    return found


@pytest.mark.sampled(3)
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


@dataclass(frozen=True)
class Model:
    """What a model calls its layers."""

    layers: list[str]
    embedding: str
    norm: str
    load: Callable[[Path], Any] = load_model
    biases: bool = True
    resizable: bool = True


MODELS = {
    "llama": Model(LINEAR, "embed_tokens", "norm"),
    "tied": Model(LINEAR, "embed_tokens", "norm"),
    "gpt2": Model(["c_attn", "c_proj", "c_fc"], "wte", "ln_f"),
    "falcon": Model(
        ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], "word_embeddings", "ln_f"
    ),
    "experts": Model(
        ["q_proj", "k_proj", "gate", "w1", "w2", "w3"],
        *("embed_tokens", "norm", as_stored),
        biases=False,
        resizable=False,
    ),
}


@dataclass(frozen=True)
class Case:
    """Adapters to be made, and how they are stored."""

    configs: list[dict[str, Any]]
    tokens: int | None
    """Rows of the vocabulary that they were trained with, where there are more than the base's."""
    base_dtype: torch.dtype
    dtype: torch.dtype
    style: str
    as_bin: bool
    seed: int


@st.composite
def configs(draw: st.DrawFn, model: Model, *, grown: bool) -> dict[str, Any]:
    """Settings of an adapter that peft can train, of every kind that can be merged."""
    matrices = [model.embedding, "lm_head"]
    targets = draw(st.sets(st.sampled_from([*model.layers, *matrices]), min_size=1))
    whole = draw(st.sets(st.sampled_from([model.norm, *matrices])) | st.none())
    if grown and len(targets & set(matrices)) == 1:  # else peft would not save the other's new rows
        whole = {*(whole or ()), *matrices}
    layers = st.sampled_from(model.layers)
    config: dict[str, Any] = {
        "r": draw(st.integers(1, 20)),
        "lora_alpha": draw(st.integers(1, 64)),
        "target_modules": sorted(targets),
        "rank_pattern": draw(st.dictionaries(layers, st.integers(1, 9))),
        "alpha_pattern": draw(st.dictionaries(layers, st.integers(1, 99))),
        "use_rslora": draw(st.booleans()),
        "use_dora": draw(st.booleans()),
        "bias": draw(st.sampled_from(["none", "all", "lora_only"])),
        "fan_in_fan_out": draw(st.booleans()),  # which peft corrects
        "modules_to_save": sorted(whole - targets) if whole and whole - targets else None,
    }
    # Beside a change of the output layer peft cannot merge token rows where both are tied.
    if not grown and not (targets | (whole or set())) & set(matrices) and draw(st.booleans()):
        rows = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9, unique=True)
        config["trainable_token_indices"] = {model.embedding: draw(rows)}
    if model.biases and not config["use_dora"] and not targets & set(matrices):
        config["lora_bias"] = draw(st.booleans())
    return config


@st.composite
def cases(draw: st.DrawFn, model: Model) -> Case:
    """Adapters in order, of any dtypes, under any names that peft has given their tensors."""
    tokens = draw(st.none() | st.integers(VOCABULARY + 1, VOCABULARY + 9))
    tokens = tokens if model.resizable else None
    return Case(
        configs=draw(st.lists(configs(model, grown=bool(tokens)), min_size=1, max_size=2)),
        tokens=tokens,
        base_dtype=draw(st.sampled_from(DTYPES)),
        dtype=draw(st.sampled_from(DTYPES)),
        style=draw(st.sampled_from(["today", "named", "twice", "bare"])),
        as_bin=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )


@pytest.mark.sampled(2)
@settings(max_examples=examples(EXAMPLES))
@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
def test_random_adapters_give_the_bits_of_peft(
    name: str, data: st.DataObject, bases: dict[tuple[str, torch.dtype], Path], tmp_path: Path
) -> None:
    model = MODELS[name]
    case = data.draw(cases(model))
    base = bases[name, case.base_dtype]
    shutil.rmtree(tmp_path)
    adapters = [
        make_adapter(
            tmp_path / str(number),
            base,
            dtype=case.dtype,
            seed=case.seed + number,
            as_bin=case.as_bin,
            save={"save_embedding_layers": True} if case.tokens else None,
            tokens=case.tokens,
            load_base=model.load,
            **config,
        )
        for number, config in enumerate(case.configs)
    ]
    expected = merged_by_peft(base, adapters, tokens=case.tokens, load_base=model.load)
    for adapter in adapters:
        in_old_style(adapter, case.style)
    merge_lora(base, adapters, tmp_path / "merged", rounding="peft")
    assert not differing(tmp_path / "merged", expected)
    # Rounded once is what float32 gives, rounded.
    merge_lora(base, adapters, tmp_path / "once")
    merge_lora(base, adapters, tmp_path / "wide", dtype="float32")
    wide = load(tmp_path / "wide")
    for each, tensor in load(tmp_path / "once").items():
        assert torch.equal(bits(tensor), bits(wide[each].to(tensor.dtype))), each


SINGLE = ["plain_fp16", "rslora_pattern_fp32", "dora_fp32"]
VECTORS = [*SINGLE, "modules_to_save_fp32", "embedding_bf16"]
MERGE = """
import sys
from pathlib import Path
from weightsmith.ops.merge_lora import merge_lora
vectors, out, *names = sys.argv[1:]
for name in names:
    vector = Path(vectors) / name
    for rounding in ("once", "peft"):
        target = Path(out) / rounding / name
        merge_lora(vector / "base", [vector / "adapter"], target, rounding=rounding)
"""


@pytest.fixture(scope="module")
def merged(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vectors merged with both roundings, by products with the same bits on all processors of
    Intel's since AVX2: its library has such, where it is told before torch is loaded.
    """
    out = tmp_path_factory.mktemp("merged")
    program = [sys.executable, "-c", MERGE, str(vectors / "lora"), str(out), *VECTORS]
    subprocess.run(program, env={**os.environ, "MKL_CBWR": "AUTO,STRICT"}, check=True)
    return out


def assert_expected(vectors: Path, merged: Path, name: str) -> None:
    """Every bit of what peft made where the vectors were made."""
    expected = load_file(vectors / "lora" / name / "expected" / "expected.safetensors")
    assert_same_bits(load(merged / name), expected)


@pytest.mark.parametrize("name", SINGLE)
def test_once_rounds_a_single_adapter_as_peft_does(name: str, vectors: Path, merged: Path) -> None:
    assert_expected(vectors, merged / "once", name)


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_come_out_as_peft_made_them(name: str, vectors: Path, merged: Path) -> None:
    assert_expected(vectors, merged / "peft", name)
