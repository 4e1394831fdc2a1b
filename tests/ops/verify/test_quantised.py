"""An adapter merged onto a quantised base gives a model that writes, as well as the full one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.story_models import Copy, Models, edit, forget, read
from weightsmith.ops.extract_lora import extract_lora
from weightsmith.ops.inspect import inspect
from weightsmith.ops.merge_lora import merge_lora
from weightsmith.ops.verify.smoke import Settings, smoke

BLOCK = 32


def in_fp8(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Linear layers as 8 bits, with a scale for blocks of 32, the last ones of a side partial."""
    held = dict(weights)
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        weight = weights[name].float()
        rows, columns = (-(-side // BLOCK) for side in weight.shape)
        scale = torch.empty(rows, columns)
        for i, j in torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).tolist():
            block = weight[i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
            scale[i, j] = block.abs().max() / 448
        wide = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        held[name] = (weight / wide[: len(weight), : weight.shape[1]]).to(torch.float8_e4m3fn)
        held[f"{name}_scale_inv"] = scale
    return held


def in_nf4(weights: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
    """Linear layers as bitsandbytes packs them into 4 bits."""
    held = dict(weights)
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        flat = weights[name].float().reshape(-1, 64)
        largest = flat.abs().max(1).values
        codes = ((flat / largest[:, None])[..., None] - table).abs().argmin(-1).reshape(-1, 2)
        shape = list(weights[name].shape)
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": shape}
        held[name] = (codes[:, :1] * 16 + codes[:, 1:]).to(torch.uint8)
        held[f"{name}.absmax"], held[f"{name}.quant_map"] = largest, table.clone()
        raw = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        held[f"{name}.quant_state.bitsandbytes__nf4"] = raw
    return held


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fp8", "bitsandbytes"])
def test_a_model_merged_onto_a_quantised_base_writes(
    method: str, models: Models, copy: Copy, vectors: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    extract_lora(models.base, models.result, adapter, rank=8)
    base = copy(models.base)
    if (base / "weightsmith.json").exists():
        forget(base)
    settings: dict[str, object] = {"load_in_4bit": True}
    if method == "fp8":
        weights, settings = in_fp8(read(base)), {"weight_block_size": [BLOCK, BLOCK]}
    else:
        stored = load_file(vectors / "merge" / "q_bnb_nf4" / "base" / "model.safetensors")
        table = next(each for name, each in stored.items() if name.endswith("quant_map"))
        weights = in_nf4(read(base), table)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    edit(base / "config.json", quantization_config={"quant_method": method, **settings})
    assert inspect(base).quantised.startswith(method)
    merge_lora(base, [adapter], tmp_path / "merged")
    merge_lora(models.base, [adapter], tmp_path / "full")
    found, expected = (
        smoke(tmp_path / name, Settings(max_new_tokens=5))[1] for name in ("merged", "full")
    )
    verdicts = {check.name: check.verdict for check in found}
    assert verdicts == {check.name: check.verdict for check in expected}
    assert "FAIL" not in verdicts.values()
