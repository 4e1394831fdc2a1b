"""What a tensor is to weightsmith: a name, a format dtype, a shape, and where its bytes lie."""

import math
from dataclasses import dataclass
from typing import Final

DTYPE_BITS: Final[dict[str, int]] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element by safetensors dtype code, in the library's own order of rank, low to high.

The order decides how a file is laid out (`safetensors_header.layout`), so it is part of the format.
Source: safetensors 0.8, `Dtype` in `safetensors/src/tensor.rs`.
"""

TORCH_ONLY_BITS: Final[dict[str, int]] = {"C128": 128}
"""Dtypes that a torch file may hold and safetensors cannot."""

SUMMABLE: Final = frozenset({"F16", "BF16", "F32", "F64"})
"""Dtypes that arithmetic codecs accept."""

TORCH_NAMES: Final[dict[str, str]] = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
"""Config and command-line spelling of the summable dtypes."""
DTYPES: Final = {name: dtype for dtype, name in TORCH_NAMES.items()}
"""The summable dtypes by that spelling."""


_BITS: Final = {**DTYPE_BITS, **TORCH_ONLY_BITS}


def dtype_bits(dtype: str) -> int:
    """Bits of one element of a known dtype code."""
    return _BITS[dtype]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor without its bytes."""

    name: str
    dtype: str
    """Format code such as ``"BF16"``."""
    shape: tuple[int, ...]
    """``()`` for a scalar."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor when contiguous; the format keeps sub-byte dtypes to whole bytes."""
        return math.prod(self.shape) * _BITS[self.dtype] // 8

    def __str__(self) -> str:
        """``F16 [32000, 4096]``, as messages show it."""
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and where its bytes lie in one file."""

    info: TensorInfo
    offset: int
    """Byte offset in the file of the element with index 0, 0, ..."""
    strides: tuple[int, ...] | None = None
    """Elements to step per dimension, or ``None`` when the tensor is contiguous (all but rare
    torch files).
    """
