"""Build the benchmark's inputs: made once, kept in the work directory and used again.

    python -m tests.bench.build DIR SIZE KIND...

The kinds are ``SIDE-safetensors`` and ``SIDE-bin``, checkpoints in two shards; ``delta-xor``, the
files of ``delta-bin`` XORed with those of ``base-bin``; ``base-meta``, the base in Meta's own
layout; ``adapter``, a LoRA of rank 16 on all linear layers, as peft saves it; ``experts``, a
mixture of experts of that size, and ``experts-adapter`` for all of them; ``base-fp8``, one in FP8;
``base-ranks``, ``base-dcp`` and ``base-zero3``, what training leaves of the base; ``base-bf16``,
``next-bf16`` and ``steps``, as `steps` has them.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench import models, steps, trained
from tests.bench.models import Side, Size
from tests.bench.training_inputs import write_dcp, write_ranks, write_zero3

SIDES: Final[tuple[Side, ...]] = ("base", "delta", "target")
FORMATS: Final = {
    "bin": ("pytorch_model-{:05}-of-{:05}.bin", "pytorch_model.bin.index.json"),
    "safetensors": ("model-{:05}-of-{:05}.safetensors", "model.safetensors.index.json"),
}
"""Names of shards and of the index, by format."""
SHARDS: Final = 2
CHUNK: Final = 1 << 26


def missing(work: Path, size: Size, kinds: Iterable[str]) -> list[str]:
    """Kinds that are not built yet."""
    return [kind for kind in kinds if not models.folder(work, size, kind).exists()]


def nbytes(size: Size, kind: str) -> int:
    """About what an input takes on disk."""
    share = {"steps": 3, "adapter": 100, "experts-adapter": 20, "base-fp8": 2}
    return size.nbytes * (2 if kind == "base-zero3" else 1) // share.get(kind, 1)


def build(work: Path, size: Size, kinds: Iterable[str]) -> None:
    """Build what is missing; needs the memory of a shard, and for Meta's layout of two models."""
    from tests.support.tiny import train_sentencepiece

    todo = missing(work, size, kinds)
    tokenizer = work / "models" / "tokenizer.model"
    tokenizer.parent.mkdir(parents=True, exist_ok=True)
    train_sentencepiece(tokenizer)
    for side in SIDES:
        formats = [kind for kind in FORMATS if f"{side}-{kind}" in todo]
        places = [models.folder(work, size, f"{side}-{kind}") for kind in formats]
        with _whole(places) as folders:
            _write_checkpoints(dict(zip(formats, folders, strict=True)), size, side, tokenizer)
    derived: dict[str, Callable[[Path], None]] = {
        "delta-xor": lambda folder: _write_xor(work, size, folder),
        "base-meta": lambda folder: _write_meta(size, folder, tokenizer),
        "adapter": lambda folder: _write_adapter(size, folder),
        "experts": lambda folder: trained.write_experts(size, folder),
        "experts-adapter": lambda folder: trained.write_expert_adapter(size, folder),
        "base-fp8": lambda folder: trained.write_fp8(size, folder),
        "base-ranks": lambda folder: write_ranks(size, folder),
        "base-dcp": lambda folder: write_dcp(size, folder),
        "base-zero3": lambda folder: write_zero3(size, folder),
        **{kind: partial(write, work, size) for kind, write in steps.KINDS.items()},
    }
    for kind in (kind for kind in derived if kind in todo):
        with _whole([models.folder(work, size, kind)]) as folders:
            derived[kind](folders[0])


@contextmanager
def _whole(places: list[Path]) -> Iterator[list[Path]]:
    """Folders to write into, which get their names when all is written."""
    partial = [place.with_name(f"{place.name}.partial") for place in places]
    for folder in partial:
        folder.mkdir(parents=True, exist_ok=True)
    yield partial
    for folder, place in zip(partial, places, strict=True):
        folder.rename(place)


def _write_checkpoints(folders: dict[str, Path], size: Size, side: Side, tokenizer: Path) -> None:
    """Write the same tensors into a folder of each format."""
    import torch
    from safetensors.torch import save_file

    from tests.support.tiny import llama_config, write_sidecars

    config = llama_config(
        hidden=size.hidden,
        intermediate=size.intermediate,
        layers=size.layers,
        heads=size.heads,
        vocab=size.vocab,
    )
    shapes = models.tensor_shapes(size)
    names = list(shapes)
    parts = [
        names[shard * len(names) // SHARDS : (shard + 1) * len(names) // SHARDS]
        for shard in range(SHARDS)
    ]
    for number, part in enumerate(parts if folders else [], start=1):
        tensors = {name: models.tensor(name, shapes[name], side) for name in part}
        for kind, folder in folders.items():
            path = folder / FORMATS[kind][0].format(number, SHARDS)
            if kind == "bin":
                torch.save(tensors, path)
            else:
                save_file(tensors, path, metadata={"format": "pt"})
    for kind, folder in folders.items():
        shard_name, index_name = FORMATS[kind]
        weight_map = {
            name: shard_name.format(number, SHARDS)
            for number, part in enumerate(parts, start=1)
            for name in part
        }
        index = {"metadata": {"total_size": size.nbytes}, "weight_map": weight_map}
        (folder / index_name).write_text(json.dumps(index, indent=2) + "\n")
        write_sidecars(folder, tokenizer, config)


def _write_xor(work: Path, size: Size, folder: Path) -> None:
    """A release as Open-Assistant made them, of ``delta-bin`` as if that were a model."""
    import numpy as np

    base, target = (models.folder(work, size, kind) for kind in ("base-bin", "delta-bin"))
    for path in sorted(target.iterdir()):
        with (
            path.open("rb") as left,
            (base / path.name).open("rb") as right,
            (folder / path.name).open("wb") as out,
        ):
            while chunk := left.read(CHUNK):
                mask = right.read(len(chunk)).ljust(len(chunk), b"\0")
                both = np.frombuffer(chunk, np.uint8) ^ np.frombuffer(mask, np.uint8)
                out.write(both.tobytes())


def _write_meta(size: Size, folder: Path, tokenizer: Path) -> None:
    """The base in one ``consolidated.00.pth``."""
    from tests.support.meta_layout import write_meta

    shapes = models.tensor_shapes(size)
    weights = {name: models.tensor(name, shape, "base") for name, shape in shapes.items()}
    write_meta(folder, weights, heads=size.heads)
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())


def _write_adapter(size: Size, folder: Path) -> None:
    """The factors that `models.factors` makes, under peft's names."""
    from safetensors.torch import save_file

    tensors, modules = {}, set()
    for name, shape in models.tensor_shapes(size).items():
        if models.is_adapted(name):
            module = name.removesuffix(".weight")
            modules.add(module.rsplit(".", 1)[1])
            for letter, factor in zip("AB", models.factors(name, shape), strict=True):
                tensors[f"base_model.model.{module}.lora_{letter}.weight"] = factor
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": models.RANK,
        "lora_alpha": models.ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(modules),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    work_folder, size_name, *wanted = sys.argv[1:]
    build(Path(work_folder), models.SIZES[size_name], wanted)
