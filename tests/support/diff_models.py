"""A small model of all dtypes and a changed copy of it, for tests of `diff`."""

from typing import Final

import torch
from torch import Tensor

FLOATS: Final = {
    "half": torch.float16,
    "bfloat": torch.bfloat16,
    "single": torch.float32,
    "double": torch.float64,
    "eight": torch.float8_e4m3fn,
}
INTEGERS: Final = {
    "byte": torch.uint8,
    "small": torch.int8,
    "short": torch.int16,
    "int": torch.int32,
    "long": torch.int64,
    "bool": torch.bool,
}


def base() -> dict[str, Tensor]:
    """Three layers with a tensor of every dtype, and what lies outside of layers."""
    generator = torch.Generator().manual_seed(1)
    tensors = {"model.embed_tokens.weight": torch.randn(40, 8, generator=generator).half()}
    for layer in range(3):
        for kind, dtype in FLOATS.items():
            weight = torch.randn(6, 8, generator=generator).to(dtype)
            tensors[f"model.layers.{layer}.{kind}.weight"] = weight
        for kind, dtype in INTEGERS.items():
            weight = torch.randint(0, 2, (6, 8), generator=generator).to(dtype)
            tensors[f"model.layers.{layer}.{kind}.weight"] = weight
        tensors[f"model.layers.{layer}.rotary_emb.inv_freq"] = torch.rand(4, generator=generator)
    tensors["model.norm.weight"] = torch.ones(8)
    return tensors


def tuned() -> dict[str, Tensor]:
    """The same with layers 1 and 2 changed, each tensor in one place or more."""
    generator = torch.Generator().manual_seed(2)
    tensors = base()
    for name, weight in tensors.items():
        parts = name.split(".")
        if parts[1] == "layers" and parts[2] != "0":
            changed = weight.clone()
            part = changed[: int(parts[2])]
            if weight.is_floating_point():
                part[:] = (part.double() + torch.randn(part.shape, generator=generator)).to(
                    weight.dtype
                )
            else:
                part[:] = ~part if weight.dtype == torch.bool else part + 1
            tensors[name] = changed
    return tensors
