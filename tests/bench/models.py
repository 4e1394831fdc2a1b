"""LLaMA-shaped float16 checkpoints of the benchmark: their sizes, places and weights.

Each weight follows from its tensor's name, so that nothing but the name is needed to check a
result. Checking is a program of its own, so that neither torch nor the weights enter the process
that measures (see `measure`):

    python -m tests.bench.models check SIZE SIDE DIR
"""

import math
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import torch

Side = Literal["base", "delta", "target", "merged"]
"""``target`` is base + delta, ``merged`` the base with the adapter in it."""
RANK: Final = 16
ALPHA: Final = 32
SPREAD: Final = 0.02
"""The standard deviation of base weights."""


@dataclass(frozen=True, slots=True)
class Size:
    """The shape of a LLaMA."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocab: int

    @property
    def nbytes(self) -> int:
        """Bytes of one checkpoint's tensors."""
        return sum(2 * math.prod(shape) for shape in tensor_shapes(self).values())


SIZES: Final = {
    size.name: size
    for size in (
        Size("full", hidden=4096, intermediate=11008, layers=8, heads=32, vocab=32000),
        Size("quarter", hidden=4096, intermediate=11008, layers=2, heads=32, vocab=8000),
        Size("third", hidden=2048, intermediate=5632, layers=13, heads=16, vocab=448),
        Size("eighth", hidden=4096, intermediate=11008, layers=6, heads=32, vocab=8000),
        Size("small", hidden=2048, intermediate=5632, layers=4, heads=16, vocab=448),
        Size("smoke", hidden=512, intermediate=1536, layers=2, heads=8, vocab=448),
    )
}
"""``full``: 3.8 GB, a quarter of LLaMA-7B. ``quarter``: a quarter of that, to see memory stay.
``third``: 1.3 GB, with all tokens that the tokenizer here has, which Meta's layout wants.
``eighth``: 2.6 GB, and 1.3 GB of it in FP8. ``small``: 0.4 GB, of which there can be many."""

_BLOCK: Final = {
    "self_attn.q_proj": ("hidden", "hidden"),
    "self_attn.k_proj": ("hidden", "hidden"),
    "self_attn.v_proj": ("hidden", "hidden"),
    "self_attn.o_proj": ("hidden", "hidden"),
    "mlp.gate_proj": ("intermediate", "hidden"),
    "mlp.up_proj": ("intermediate", "hidden"),
    "mlp.down_proj": ("hidden", "intermediate"),
    "input_layernorm": ("hidden",),
    "post_attention_layernorm": ("hidden",),
}


def tensor_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, in the model's order."""
    return {
        "model.embed_tokens.weight": (size.vocab, size.hidden),
        **{
            f"model.layers.{layer}.{name}.weight": tuple(getattr(size, side) for side in sides)
            for layer in range(size.layers)
            for name, sides in _BLOCK.items()
        },
        "model.norm.weight": (size.hidden,),
        "lm_head.weight": (size.vocab, size.hidden),
    }


def folder(work: Path, size: Size, kind: str) -> Path:
    """Where an input lies once it is built; its kinds are those of `build`."""
    return work / "models" / size.name / kind


def is_adapted(name: str) -> bool:
    """Whether the adapter has a part for this tensor: all linear layers but the output."""
    return name.endswith("_proj.weight")


def tensor(name: str, shape: tuple[int, ...], side: Side) -> "torch.Tensor":
    """One weight, float16; base weights as after training, deltas forty times smaller."""
    match side:
        case "base":
            return normal(f"base {name}", shape, SPREAD, 1.0 if len(shape) == 1 else 0.0).half()
        case "delta":
            return normal(f"delta {name}", shape, 0.0005).half()
        case "target":
            return tensor(name, shape, "base") + tensor(name, shape, "delta")
        case "merged":
            base = tensor(name, shape, "base")
            if not is_adapted(name):
                return base
            a, b = factors(name, shape)
            return (base.float() + ALPHA / RANK * (b @ a)).half()


def factors(name: str, shape: tuple[int, ...]) -> "tuple[torch.Tensor, torch.Tensor]":
    """``lora_A`` and ``lora_B`` of an adapted weight, float32."""
    rows, columns = shape
    a = normal(f"lora_A {name}", (RANK, columns), columns**-0.5)
    return a, normal(f"lora_B {name}", (rows, RANK), 0.01)


def normal(seed: str, shape: tuple[int, ...], spread: float, centre: float = 0) -> "torch.Tensor":
    """Numbers in float32 that follow from the seed."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    return torch.empty(shape).normal_(centre, spread, generator=generator)


def differing(made: Path, size: Size, side: Side) -> list[str]:
    """Names, out of a sample, whose tensor in `made` is not that of `side`; safetensors."""
    readers, shapes = open_all(made), tensor_shapes(size)
    sample = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    sample += [name for name in shapes if name.endswith(("q_proj.weight", "down_proj.weight"))][::3]
    return [
        name
        for name in sample
        if name not in readers or not readers[name](name).equal(tensor(name, shapes[name], side))
    ]


def open_all(made: Path) -> "dict[str, Callable[[str], torch.Tensor]]":
    """For each tensor, what reads it by name from the file that holds it."""
    from safetensors import safe_open

    readers: dict[str, Callable[[str], torch.Tensor]] = {}
    for path in sorted(made.glob("*.safetensors")):
        file: Any = safe_open(path, framework="pt")
        readers |= dict.fromkeys(file.keys(), file.get_tensor)
    return readers


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", size_name, ("base" | "target" | "merged") as wanted, directory]:
            different = differing(Path(directory), SIZES[size_name], wanted)
            sys.exit(f"not the {wanted}: {', '.join(different)}" if different else 0)
