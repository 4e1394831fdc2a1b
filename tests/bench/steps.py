"""Inputs of the sections on steps and fine-tunes: a model in bfloat16, and what is made of it.

base-bf16      the base of the benchmark, in bfloat16
next-bf16      the same after one step
steps          20 exact deltas, ``01`` to ``20``, each made on what the one before gives

Of fine-tunes there are many, so that each is made when it is measured, by a program of its own:

    python -m tests.bench.steps SIZE NUMBER DIR
"""

import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench import models
from tests.bench.models import Size

STEPS: Final = 20
CHANGED: Final = 0.01
FINE_TUNED: Final = 0.01
"""What a fine-tune moves every weight by, as a share of the spread of the weights."""


def write_base(size: Size, folder: Path) -> None:
    """The base in bfloat16, in one file."""
    _write(folder, {name: _base(name, shape) for name, shape in models.tensor_shapes(size).items()})


def write_next(size: Size, folder: Path) -> None:
    """The base after its first step, in one file."""
    shapes = models.tensor_shapes(size)
    _write(folder, {name: step(_base(name, shape), name, 1) for name, shape in shapes.items()})


def write_steps(work: Path, size: Size, folder: Path) -> None:
    """One delta after the other; needs the disk of two models and the memory of one."""
    before = models.folder(work, size, "base-bf16")
    tensors = {name: _base(name, shape) for name, shape in models.tensor_shapes(size).items()}
    for number in range(1, STEPS + 1):
        tensors = {name: step(each, name, number) for name, each in tensors.items()}
        after = folder.with_name(f"{folder.name}-{number}")
        after.mkdir()
        _write(after, tensors)
        program = [sys.executable, "-m", "weightsmith", "make-delta", "--base", str(before)]
        delta = folder / f"{number:02}"
        subprocess.run([*program, "--target", str(after), "--delta", str(delta), "-qq"], check=True)
        if number > 1:
            shutil.rmtree(before)
        before = after
    shutil.rmtree(before)


def write_fine_tune(size: Size, number: int, folder: Path) -> None:
    """The base with every weight moved at random, each fine-tune in a way of its own."""
    spread = FINE_TUNED * models.SPREAD
    folder.mkdir(parents=True)
    tensors = {
        name: (
            models.tensor(name, shape, "base").float()
            + models.normal(f"tuned {number} {name}", shape, spread)
        ).bfloat16()
        for name, shape in models.tensor_shapes(size).items()
    }
    _write(folder, tensors)


def step(tensor: Any, name: str, number: int) -> Any:
    """One weight in a hundred moved by one unit in the last place."""
    import numpy as np
    import torch

    bits = tensor.view(torch.int16).numpy().copy().reshape(-1)
    random = np.random.default_rng([number, zlib.crc32(name.encode())])
    bits[random.integers(0, bits.size, max(1, int(bits.size * CHANGED)))] += 1
    return torch.from_numpy(bits.reshape(tensor.shape)).view(torch.bfloat16)


def _base(name: str, shape: tuple[int, ...]) -> Any:
    return models.tensor(name, shape, "base").bfloat16()


def _write(folder: Path, tensors: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "llama", "torch_dtype": "bfloat16"}\n')


KINDS: Final[dict[str, Callable[[Path, Size, Path], None]]] = {
    "base-bf16": lambda _, size, folder: write_base(size, folder),
    "next-bf16": lambda _, size, folder: write_next(size, folder),
    "steps": write_steps,
}


if __name__ == "__main__":
    write_fine_tune(models.SIZES[sys.argv[1]], int(sys.argv[2]), Path(sys.argv[3]))
