"""A checkpoint as the process that runs it is given it, and its tensors as torch's."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

_TORCH: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
    "C128": "complex128",
}


@dataclass(frozen=True, slots=True)
class Given:
    """A checkpoint without its files."""

    label: str
    """Its name, for messages."""
    folder: Path
    """Holds what may be known of the small files beside the weights."""
    left: tuple[str, ...]
    """Settings of its config that are not handed on."""
    tensors: Mapping[str, TensorInfo]
    """By name."""
    read: Callable[[str], bytearray]
    """Asks for a tensor's bytes."""


class Weights(Mapping[str, "Tensor"]):
    """All tensors by name, read anew each time.

    Memory: the tensor that was asked for.
    """

    def __init__(self, given: Given, copies: Mapping[str, str] | None = None) -> None:
        """`copies` are further names of tensors that the checkpoint holds once."""
        self._given = given
        self._copies = copies or {}

    def __getitem__(self, name: str) -> "Tensor":
        """Read a tensor.

        Raises: KeyError, if there is none of this name; what reading meets.
        """
        import torch

        held = self._copies.get(name, name)
        info = self._given.tensors[held]
        dtype: torch.dtype = getattr(torch, _TORCH[info.dtype])
        block = self._given.read(held)
        flat = torch.frombuffer(block, dtype=dtype) if block else torch.empty(0, dtype=dtype)
        return flat.reshape(info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._given.tensors, *self._copies])

    def __len__(self) -> int:
        return len(self._given.tensors) + len(self._copies)

    def lazily(self) -> dict[str, "Unread"]:
        """All tensors as transformers takes those of a file that it has open."""
        return {name: Unread(self, name) for name in self}


@dataclass(frozen=True, slots=True)
class Unread:
    """A tensor that is read when a slice of it is taken, which is how transformers asks for it."""

    weights: Weights
    name: str

    def __getitem__(self, index: Any) -> "Tensor":
        return self.weights[self.name][index]
