"""Large models: planned from headers alone, converted in the memory of a small one."""

from pathlib import Path

import pytest
import torch

from tests.support.memory import HAS_PEAK, MIB, peak_nbytes
from weightsmith.formats.meta_params import Params
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.meta_rules import plan_meta
from weightsmith.plan.model import Plan
from weightsmith.plan.shards import lay_out

LLAMA_2_70B = Params(
    dim=8192,
    n_heads=64,
    n_layers=80,
    n_kv_heads=8,
    norm_eps=1e-5,
    rope_theta=10000.0,
    scaled_rope=False,
    says_kv_heads=True,
)


def table_of_70b(shards: int) -> dict[str, TensorInfo]:
    """What one of Meta's eight files of Llama 2 70B holds."""
    dim, inner, ffn = 8192, 1024, 28672
    shapes = {"tok_embeddings": (32000, dim // shards), "output": (32000 // shards, dim)}
    shapes |= {"norm": (dim,)}  # type: ignore[dict-item]
    for layer in range(80):
        shapes |= {
            f"layers.{layer}.attention.wq": (dim // shards, dim),
            f"layers.{layer}.attention.wk": (inner // shards, dim),
            f"layers.{layer}.attention.wv": (inner // shards, dim),
            f"layers.{layer}.attention.wo": (dim, dim // shards),
            f"layers.{layer}.feed_forward.w1": (ffn // shards, dim),
            f"layers.{layer}.feed_forward.w2": (dim, ffn // shards),
            f"layers.{layer}.feed_forward.w3": (ffn // shards, dim),
            f"layers.{layer}.attention_norm": (dim,),  # type: ignore[dict-item]
            f"layers.{layer}.ffn_norm": (dim,),  # type: ignore[dict-item]
        }
    names = {f"{name}.weight": shape for name, shape in shapes.items()}
    return {name: TensorInfo(name, "BF16", shape) for name, shape in names.items()}


def test_70b_in_eight_files_is_planned_at_its_published_size() -> None:
    files = {f"consolidated.{n:02d}.pth": table_of_70b(8) for n in range(8)}
    rules = plan_meta(LLAMA_2_70B, files, "70B")
    plan = Plan("convert", (), lay_out(rules.tensors, 5_000_000_000), ())
    raw = plan.to_bytes()
    assert len(plan.tensors) == 723
    assert sum(tensor.output.numel for tensor in plan.tensors) == 68_976_648_192
    assert (rules.intermediate_size, rules.vocab_size) == (28672, 32000)
    assert len(raw) < 5_000_000


MEASURE = """
import sys
from weightsmith.engine.options import Options
from weightsmith.ops.convert import convert
source, target, mode = sys.argv[1:]
convert(source, target, options=Options(workers=2, low_cpu_mem=mode == "low"))
assert "torch" not in sys.modules
"""


def meta_of(folder: Path, layers: int) -> Path:
    """A model of 25 MB a layer in two files of Meta's, all but its norms zero."""
    from tests.support.meta_layout import write_meta

    weights = {"model.embed_tokens.weight": torch.zeros(512, 1024, dtype=torch.float16)}
    matrices = {
        **dict.fromkeys(("self_attn.q_proj", "self_attn.k_proj"), (1024, 1024)),
        **dict.fromkeys(("self_attn.v_proj", "self_attn.o_proj"), (1024, 1024)),
        **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (2736, 1024)),
        "mlp.down_proj": (1024, 2736),
    }
    for number in range(layers):
        layer = f"model.layers.{number}"
        for name, shape in matrices.items():
            weights[f"{layer}.{name}.weight"] = torch.zeros(shape, dtype=torch.float16)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{layer}.{name}.weight"] = torch.ones(1024, dtype=torch.float16)
    weights["model.norm.weight"] = torch.ones(1024, dtype=torch.float16)
    weights["lm_head.weight"] = torch.ones(512, 1024, dtype=torch.float16)
    return write_meta(folder, weights, heads=8, shards=2)


def peak(home: Path, layers: int, mode: str) -> int:
    """Peak resident bytes of a process that converts so many layers."""
    return peak_nbytes(MEASURE, meta_of(home / "meta", layers), home / "out", mode)


@pytest.mark.slow
@HAS_PEAK
@pytest.mark.parametrize("mode", ["default", "low"])
def test_four_times_the_model_needs_the_same_memory_and_no_torch(mode: str, tmp_path: Path) -> None:
    small, large = (peak(tmp_path / str(n), n, mode) for n in (3, 12))
    print(f"{mode}: {small / MIB:.0f} and {large / MIB:.0f} MiB")
    assert abs(large - small) < 12 * MIB
    assert large < 120 * MIB
