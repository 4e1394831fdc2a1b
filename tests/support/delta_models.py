"""A base with tensors of many kinds, and a target in which some changed, grew, went or came."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.folders import write_model

SIDECARS = {
    "tokenizer_config.json": b'{"a":  1}\n',
    "README.md": b"# A model\r\n",
    "generation_config.json": b"{}",
}


def weights(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * 0.02).to(dtype)


def trained(tensor: Tensor, *, change: float = 0.01, seed: int = 99) -> Tensor:
    step = weights(tensor.numel(), seed=seed, dtype=torch.float32) * change
    return (tensor.float() + step.reshape(tensor.shape)).to(tensor.dtype)


def base_tensors() -> dict[str, Tensor]:
    """All kinds of tensors; one has two spans."""
    return {
        "model.embed_tokens.weight": weights(400, 64),
        "model.layers.0.up.weight": weights(1100, 1000, seed=1),
        "model.layers.0.down.weight": weights(64, 100, seed=2),
        "model.layers.0.norm.weight": torch.ones(64, dtype=torch.bfloat16),
        "model.layers.0.scale": torch.tensor(2.5),
        "model.layers.0.ids": torch.arange(100),
        "model.layers.0.packed": torch.arange(200, dtype=torch.uint8),
        "model.layers.0.gone": weights(10, seed=3),
        "model.layers.0.recast": weights(30, 20, seed=4, dtype=torch.float32),
        "model.layers.0.reshaped": weights(30, 20, seed=5),
        "model.nothing": torch.empty(0, 3),
        "lm_head.weight": weights(400, 64, seed=6),
    }


def target_tensors() -> dict[str, Tensor]:
    """What became of `base_tensors`."""
    base = base_tensors()
    target = {name: trained(t) if t.dtype == torch.bfloat16 else t for name, t in base.items()}
    del target["model.layers.0.gone"]
    return target | {
        "model.layers.0.norm.weight": base["model.layers.0.norm.weight"],
        "model.layers.0.ids": base["model.layers.0.ids"].flip(0),
        "model.layers.0.recast": base["model.layers.0.recast"].bfloat16(),
        "model.layers.0.reshaped": trained(base["model.layers.0.reshaped"]).reshape(20, 30),
        "model.layers.0.new": weights(77, seed=7),
        "model.embed_tokens.weight": torch.cat(
            [trained(base["model.embed_tokens.weight"]), weights(3, 64, seed=8)]
        ),
        "model.layers.0.scale": torch.tensor(-0.0),
    }


def write_pair(folder: Path, *, shards: int = 2, suffix: str = "safetensors") -> tuple[Path, Path]:
    """A base and a target as folders; the target has sidecars."""
    base = write_model(folder / "base", base_tensors(), shards=shards, suffix=suffix)
    target = write_model(folder / "target", target_tensors(), shards=shards, suffix=suffix)
    for name, content in SIDECARS.items():
        (target / name).write_bytes(content)
    return base, target


def edit_record(delta: Path, edit: Callable[[Any], object]) -> None:
    """Change what a delta says of itself, in place."""
    path = delta / "weightsmith.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest["delta"])
    path.write_text(json.dumps(manifest))
