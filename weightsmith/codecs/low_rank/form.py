"""What a low-rank payload says of its factors, and for which tensors there may be one.

A head follows the payload's table: u8 flags, u32 rank, and for each right factor i32 exponent, u32
length.
"""

import math
import struct
from dataclasses import dataclass
from typing import Final

from weightsmith.formats.tensors import TensorInfo

MAGIC: Final = b"low-rank@1\n"
DTYPES: Final = frozenset({"F16", "BF16", "F32"})
"""Of a base and of a target that is predicted from it."""
MAX_RANK: Final = 512
"""A larger rank would take too much of a worker's memory."""
LARGEST_EXPONENT: Final = 400
"""Of either sign; it keeps products far inside the range of float64."""
_FIXED: Final = struct.Struct("<BI")
_FACTOR: Final = struct.Struct("<iI")
_PRODUCT_ROUNDED: Final = 1
"""The one flag."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A tensor as a stack of matrices."""

    slices: int
    rows: int
    """Of each matrix."""
    columns: int

    @property
    def max_rank(self) -> int:
        """The largest rank that its factors may have."""
        return min(self.rows, self.columns, MAX_RANK)

    def rows_of(self, start: int, stop: int) -> tuple[int, int]:
        """The first row that has elements among `start` to `stop`, and the one after the last;
        counted on from one matrix to the next.
        """
        return start // self.columns, -(-stop // self.columns)


def geometry_of(shape: tuple[int, ...]) -> Geometry | None:
    """How a tensor of this shape is taken: three dimensions as a stack, as experts are; any other
    number of them, as of convolutions, as one matrix with a row for each of dimension 0. None for
    one that has no two dimensions, or is empty.
    """
    if len(shape) < 2 or 0 in shape:
        return None
    if len(shape) == 3:
        return Geometry(*shape)
    return Geometry(1, shape[0], math.prod(shape[1:]))


def can_predict(base: TensorInfo, target: TensorInfo) -> bool:
    """Whether `target` may be predicted from `base` and factors."""
    shapes = base.shape == target.shape and geometry_of(target.shape) is not None
    return shapes and {base.dtype, target.dtype} <= DTYPES


def has_room_for(rank: int, base: TensorInfo, target: TensorInfo) -> bool:
    """Whether `target` may be predicted from `base` and factors of this rank."""
    geometry = geometry_of(target.shape)
    return geometry is not None and can_predict(base, target) and rank <= geometry.max_rank


@dataclass(frozen=True, slots=True)
class Head:
    """What a payload states of its factors."""

    rank: int
    product_rounded: bool
    """Whether the product is rounded to the target's dtype before it is added, as a merge in that
    dtype does.
    """
    exponents: tuple[int, ...]
    """For each matrix, the power of two by which the product of its integers is multiplied."""
    lengths: tuple[int, ...]
    """Of the right factors, in bytes."""

    def to_bytes(self) -> bytes:
        """The head as a payload has it."""
        flags = _PRODUCT_ROUNDED * self.product_rounded
        pairs = zip(self.exponents, self.lengths, strict=True)
        return _FIXED.pack(flags, self.rank) + b"".join(_FACTOR.pack(*pair) for pair in pairs)

    @classmethod
    def parse(cls, raw: bytes, geometry: Geometry) -> "Head":
        """The inverse of `to_bytes`.

        Raises: ValueError, for what no writer writes.
        """
        flags, rank = _FIXED.unpack_from(raw)
        if not 1 <= rank <= geometry.max_rank:
            raise ValueError(f"factors of rank {rank}, for {geometry.rows} x {geometry.columns}")
        exponents, lengths = zip(*_FACTOR.iter_unpack(raw[_FIXED.size :]), strict=True)
        if flags > _PRODUCT_ROUNDED or max(map(abs, exponents)) > LARGEST_EXPONENT:
            raise ValueError("factors with settings that no writer makes")
        return cls(rank, flags == _PRODUCT_ROUNDED, exponents, lengths)


def head_nbytes(geometry: Geometry) -> int:
    """Bytes of a payload's head."""
    return _FIXED.size + _FACTOR.size * geometry.slices
