"""LLaMA-shaped float16 checkpoints for the benchmark: base and delta, ``.bin`` and safetensors.

Made once, kept in the work directory and used again. Runs as a program of its own, so that neither
torch nor the weights enter the process that measures (see `measure`):

    python -m tests.bench.models build DIR SIZE
    python -m tests.bench.models check BASE DELTA TARGET
"""

import json
import math
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

SIDES: Final = ("base", "delta")
FORMATS: Final = {
    "bin": ("pytorch_model-{:05}-of-{:05}.bin", "pytorch_model.bin.index.json"),
    "safetensors": ("model-{:05}-of-{:05}.safetensors", "model.safetensors.index.json"),
}
"""Names of shards and of the index, by format."""
SHARDS: Final = 2


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
        Size("quick", hidden=512, intermediate=1376, layers=2, heads=8, vocab=4000),
    )
}
"""``full``: 3.7 GB, a quarter of LLaMA-7B. ``quarter``: a quarter of that, to see memory stay."""


def tensor_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, in the model's order."""
    square, wide = (size.hidden, size.hidden), (size.intermediate, size.hidden)
    block = {
        "self_attn.q_proj": square,
        "self_attn.k_proj": square,
        "self_attn.v_proj": square,
        "self_attn.o_proj": square,
        "mlp.gate_proj": wide,
        "mlp.up_proj": wide,
        "mlp.down_proj": wide[::-1],
        "input_layernorm": (size.hidden,),
        "post_attention_layernorm": (size.hidden,),
    }
    return {
        "model.embed_tokens.weight": (size.vocab, size.hidden),
        **{
            f"model.layers.{layer}.{name}.weight": shape
            for layer in range(size.layers)
            for name, shape in block.items()
        },
        "model.norm.weight": (size.hidden,),
        "lm_head.weight": (size.vocab, size.hidden),
    }


def model_folder(work: Path, size: Size, side: str, file_format: str) -> Path:
    """Where this checkpoint lies once it is built."""
    return work / "models" / size.name / f"{side}-{file_format}"


def inputs(work: Path, size: Size, file_format: str) -> tuple[Path, Path]:
    """Base and delta."""
    return (
        model_folder(work, size, "base", file_format),
        model_folder(work, size, "delta", file_format),
    )


def missing(work: Path, size: Size) -> list[Path]:
    """Folders of this size that are not built yet."""
    folders = [model_folder(work, size, side, kind) for side in SIDES for kind in FORMATS]
    return [folder for folder in folders if not folder.exists()]


def build(work: Path, size: Size) -> None:
    """Build what is missing of this size; needs the memory of one shard."""
    from tests.tiny import llama_config, train_sentencepiece, write_sidecars

    todo = missing(work, size)
    if not todo:
        return
    tokenizer = work / "models" / "tokenizer.model"
    tokenizer.parent.mkdir(parents=True, exist_ok=True)
    train_sentencepiece(tokenizer)
    config = llama_config(
        hidden=size.hidden,
        intermediate=size.intermediate,
        layers=size.layers,
        heads=size.heads,
        vocab=size.vocab,
    )
    partial = {folder: folder.with_name(f"{folder.name}.partial") for folder in todo}
    for folder in partial.values():
        folder.mkdir(parents=True, exist_ok=True)
        write_sidecars(folder, tokenizer, config)
    for side in SIDES:
        places = {kind: model_folder(work, size, side, kind) for kind in FORMATS}
        wanted = {kind: partial[folder] for kind, folder in places.items() if folder in partial}
        _write_weights(wanted, tensor_shapes(size), side)
    for folder, unfinished in partial.items():
        unfinished.rename(folder)


def sums_differ(base: Path, delta: Path, target: Path) -> list[str]:
    """Names, out of a sample, whose tensor in `target` is not torch's base + delta; safetensors."""
    weights = [_open_all(folder) for folder in (base, delta, target)]
    sample = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    sample += [name for name in sorted(weights[0]) if name.endswith("mlp.down_proj.weight")][::3]
    wrong = []
    for name in sample:
        of_base, of_delta, of_target = (opened[name](name) for opened in weights)
        if not (of_base + of_delta).equal(of_target):
            wrong.append(name)
    return wrong


def _open_all(folder: Path) -> "dict[str, Callable[[str], torch.Tensor]]":
    """For each tensor, what reads it by name from the file that holds it."""
    from safetensors import safe_open

    readers: dict[str, Callable[[str], torch.Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        file: Any = safe_open(path, framework="pt")
        readers |= dict.fromkeys(file.keys(), file.get_tensor)
    return readers


def _write_weights(folders: dict[str, Path], shapes: dict[str, tuple[int, ...]], side: str) -> None:
    """Write the same random tensors into a folder of each format."""
    import torch
    from safetensors.torch import save_file

    names = list(shapes)
    parts = [
        names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]
        for shard in range(SHARDS)
    ]
    for number, part in enumerate(parts if folders else [], start=1):
        tensors = {name: _random(name, shapes[name], side) for name in part}
        for kind, folder in folders.items():
            path = folder / FORMATS[kind][0].format(number, SHARDS)
            if kind == "bin":
                torch.save(tensors, path)
            else:
                save_file(tensors, path, metadata={"format": "pt"})
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    for kind, folder in folders.items():
        shard_name, index_name = FORMATS[kind]
        weight_map = {
            name: shard_name.format(number, SHARDS)
            for number, part in enumerate(parts, start=1)
            for name in part
        }
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / index_name).write_text(json.dumps(index, indent=2) + "\n")


def _random(name: str, shape: tuple[int, ...], side: str) -> "torch.Tensor":
    """Base weights as after training, N(0, 0.02) and norms near 1; deltas forty times smaller."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(f"{side} {name}".encode()))
    spread = 0.02 if side == "base" else 0.0005
    centre = 1.0 if side == "base" and len(shape) == 1 else 0.0
    return torch.empty(shape).normal_(centre, spread, generator=generator).half()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build", work_folder, size_name]:
            build(Path(work_folder), SIZES[size_name])
        case ["check", *folders]:
            different = sums_differ(*map(Path, folders))
            sys.exit(f"not base + delta: {', '.join(different)}" if different else 0)
