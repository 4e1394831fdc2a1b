"""A case of bad input, and the sound pair of models that every case damages in one way."""

import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tests.support.folders import write_model

ARGS: Final = ("--base", "base", "--delta", "delta", "--target", "target")
"""What most cases pass to ``apply-delta``, run in the folder that they were built in."""
VOCAB: Final = 8
HIDDEN: Final = 4
WEIGHTS: Final = "model.safetensors"
Build = Callable[[Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which input can be bad, and the answer that it gets."""

    id: str
    what: str
    """A sentence that a user would recognise."""
    build: Build
    """Fill an empty folder; returns the arguments for ``apply-delta``, relative to it."""
    exit_code: int
    reference: str
    unprivileged: bool = False
    """Root may do it, so it is run as somebody else."""
    file_size_limit: int = 0
    """Bytes that a file may have when the command runs; what a full disk is to a test."""
    shows_late: bool = False
    """Nothing tells of it before the writing: staging is left for the next run."""


class Cases(list[Case]):
    """The cases of one kind; each build function is added under its own name."""

    def __init__(self, title: str) -> None:
        """Start empty."""
        super().__init__()
        self.title = title

    def add(
        self, what: str, exit_code: int, reference: str, **more: Any
    ) -> Callable[[Build], Build]:
        """Register the decorated function as a case's `build`."""

        def register(build: Build) -> Build:
            name = build.__name__.replace("_", "-")
            self.append(Case(name, what, build, exit_code, reference, **more))
            return build

        return register


# --- what is sound --------------------------------------------------------------------------------


def weights(
    *, norm: float = 1.0, rows: int = VOCAB, hidden: int = HIDDEN
) -> dict[str, torch.Tensor]:
    """The tensors of the smallest LLaMA; a model's norms are near one, a delta's near zero."""
    torch.manual_seed(0)
    return {
        "model.embed_tokens.weight": torch.randn(rows, hidden).half(),
        "model.layers.0.mlp.up_proj.weight": torch.randn(6, hidden).half(),
        "model.norm.weight": torch.full((hidden,), norm).half(),
        "lm_head.weight": torch.randn(rows, hidden).half(),
    }


def config(rows: int = VOCAB) -> dict[str, Any]:
    """Its config."""
    return {"model_type": "llama", "torch_dtype": "float16", "vocab_size": rows}


def write_base(folder: Path, name: str = "base", **how: Any) -> Path:
    """A sound base."""
    return _write(folder / name, norm=1.0, **how)


def write_delta(folder: Path, name: str = "delta", **how: Any) -> Path:
    """A sound delta for it."""
    return _write(folder / name, norm=0.0, **how)


def _write(
    folder: Path, *, norm: float, rows: int = VOCAB, hidden: int = HIDDEN, **how: Any
) -> Path:
    """One side of a pair; `how` as in `write_model`."""
    write_model(folder, weights(norm=norm, rows=rows, hidden=hidden), config=config(rows), **how)
    for path in folder.iterdir():
        path.chmod(0o644)  # the safetensors library leaves its files to their owner alone
    return folder


def write_pair(folder: Path, **how: Any) -> Path:
    """Both; returns the delta's folder, which most cases damage."""
    write_base(folder, **how)
    return write_delta(folder, **how)


# --- how it is damaged ----------------------------------------------------------------------------


def write_raw(path: Path, header: object, body: bytes = b"", *, length: int | None = None) -> None:
    """A safetensors file of any header, JSON or bytes, and any length field."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + body)


def edit_header(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a sound file's header and leave its tensors' bytes."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    write_raw(path, header, raw[8 + length :])


def write_sparse(path: Path, tensors: Mapping[str, tuple[str, int, tuple[int, ...]]]) -> None:
    """A safetensors file of zeros that takes no room: name -> dtype, bytes an element, shape."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, width, shape) in tensors.items():
        begin, end = end, end + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    write_raw(path, header)
    os.truncate(path, path.stat().st_size + end)
