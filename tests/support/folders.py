"""Small model folders, written by the libraries that the world uses, and their state."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from weightsmith.formats.safetensors_header import layout
from weightsmith.formats.tensors import TensorInfo

CONFIG: Final = {"model_type": "llama", "torch_dtype": "float16", "vocab_size": 400}
BUFFER: Final = "rotary_emb.inv_freq"


def write_model(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    config: Mapping[str, Any] | None = None,
    suffix: str = "safetensors",
    shards: int = 1,
    index: bool = True,
) -> Path:
    """A folder with a config and these tensors, dealt out in order over `shards` files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = {n: tensors[n] for n in names[number::shards]}
        name = f"{stem}.{suffix}"
        if shards > 1:
            name = f"{stem}-{number + 1:05d}-of-{shards:05d}.{suffix}"
        save(folder / name, part)
        weight_map |= dict.fromkeys(part, name)
    if shards > 1 and index:
        content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(content))
    return folder


def sparse_model(folder: Path, nbytes: int, *, dtype: str) -> Path:
    """A model of eight matrices, all zero, that takes no space on disk."""
    folder.mkdir(parents=True)
    itemsize = 2 if dtype == "F16" else 4
    columns = nbytes // 8 // 1024 // itemsize
    infos = [TensorInfo(f"model.layers.{n}.up.weight", dtype, (1024, columns)) for n in range(8)]
    header, places = layout(infos, {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(places[-1].offset + places[-1].info.nbytes)
    return folder


def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One weight file, by the library that its suffix belongs to."""
    if path.suffix == ".safetensors":
        save_file(dict(tensors), path, metadata={"format": "pt"})
    else:
        torch.save(dict(tensors), path)


def load(folder: Path) -> dict[str, Tensor]:
    """All tensors of the safetensors files in a folder, by the library; names must not repeat."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                if name in found:
                    raise ValueError(name)
                found[name] = file.get_tensor(name)
    return found


def assert_same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Names, dtypes, shapes and every bit, buffers aside."""
    wanted = {name for name in expected if not name.endswith(BUFFER)}
    assert found.keys() == wanted
    for name in sorted(wanted):
        ours, theirs = found[name], expected[name]
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
        assert torch.equal(bits(ours), bits(theirs)), name


def bits(tensor: Tensor) -> Tensor:
    """A tensor's bytes."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def state(*folders: Path) -> list[tuple[str, str, int, int]]:
    """Path, hash, time of change and mode of everything below: what a run must leave as it was."""
    return [
        (
            str(path),
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
        )
        for folder in folders
        for path in [folder, *sorted(folder.rglob("*"))]
    ]


def inodes(folders: Iterable[Path]) -> set[int]:
    """Of all files below."""
    return {
        path.stat().st_ino for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def copied(source: Path, folder: Path, *, tokenizer: bool = True) -> Path:
    """A copy of a vector's folder, which a test may change; times as in the original.

    Where runs are many and the `tokenizer` is not the point: reading it takes a quarter of a run.
    """
    without = () if tokenizer else ("tokenizer.model",)
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*without)))


def work_in(folder: Path) -> list[tuple[str, str, int, int]]:
    """As `state`, of all in staging but the lock, in which each run writes that it was there."""
    lock = str(folder / "lock")
    return [each for each in state(folder) if each[0] != lock]


def vicuna(vectors: Path, folder: Path) -> Path:
    """The model that the vectors' base and delta make, under the names of a model's files."""
    copied(vectors / "vicuna_v1_1" / "target", folder)
    (folder / "expected.safetensors").rename(folder / "model.safetensors")
    return folder


def staging(target: Path) -> Path:
    """Where the unfinished output of a target lies."""
    return target.with_name(f".{target.name}.weightsmith-partial")


def old(target: Path) -> Path:
    """Where a replaced target lies for an instant, on systems that cannot exchange."""
    return target.with_name(f".{target.name}.weightsmith-old")


def hidden(parent: Path) -> Sequence[str]:
    """Names of all that is hidden in a directory: staging and the like."""
    return sorted(name for name in os.listdir(parent) if name.startswith("."))  # noqa: PTH208
