"""Two thin matrices of integers, and the prediction that they make of a tensor from its base.

    prediction = round(base + 2**exponent * (left @ right.T))

left holds a row of `rank` integers for each row of the tensor, right one for each column. A tensor
of three dimensions is a stack of matrices, each with a pair of its own.

The product is taken in float64, where integers below 2**53 are exact: no sum in it leaves that
range, in whatever order it is made, so every BLAS with any number of threads, with fused
multiplication or without, gives the same integers. Times a power of two they stay exact; the sum
with the base is one IEEE rounding, the cast another (`round_once`).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.base import Range
from weightsmith.codecs.elements import Bits
from weightsmith.codecs.exact import planes
from weightsmith.codecs.exact.cast_bits import cast_bits
from weightsmith.codecs.low_rank.form import Geometry, Head
from weightsmith.codecs.low_rank.round_once import FORMATS, Values, round_once, values_of

Integers = npt.NDArray[np.int64]

EXACT: Final = 1 << 53
"""Integers of float64 below it are all exact."""
_CALL: Final = 1 << 18
"""Multiplications in one call of BLAS, for which OpenBLAS starts no threads. It would for more, and
they wait for each other where several workers call it at once: ten times slower on a busy machine.
"""
_TILE_ROWS: Final = 32
_BLOCK: Final = 1 << 16
"""Elements that are predicted at a time, so that the steps meet in the processor's cache."""


class Right:
    """The right factor of one matrix, laid out for products with rows of the left one."""

    def __init__(self, integers: Integers, exponent: int) -> None:
        """Shape ``(columns, rank)``."""
        self.columns, rank = integers.shape
        self.largest = _largest(integers)
        width = max(_CALL // _TILE_ROWS // rank, 1)
        count = -(-self.columns // width)
        tiles = np.zeros((count * width, rank))
        np.ldexp(integers.astype(np.float64), exponent, out=tiles[: self.columns])
        self._tiles = np.ascontiguousarray(tiles.reshape(count, width, rank).transpose(0, 2, 1))

    def products(self, left: Integers) -> Values:
        """The product of these rows of the left factor, ``(rows, rank)``, with all columns.

        Raises: ValueError, if a sum in it might not be exact.
        """
        rank = left.shape[1]
        if rank * _largest(left) * self.largest >= EXACT:
            raise ValueError("factors whose product is not exact")
        count, _, width = self._tiles.shape
        out = np.empty((len(left), count, width))
        rows = left.astype(np.float64)
        for at in range(0, len(rows), _TILE_ROWS):
            part = slice(at, at + _TILE_ROWS)
            np.matmul(rows[part], self._tiles, out=out[part].transpose(1, 0, 2))
        return out.reshape(len(left), -1)[:, : self.columns]


def predict(
    right: Right,
    left: Integers,
    skip: int,
    base: Bits,
    dtypes: tuple[str, str],
    *,
    product_rounded: bool,
) -> Bits:
    """Patterns of the target's elements as predicted from `base`, which begins with element `skip`
    of the first of these rows and ends in the last.

    Where the base is infinite or no number, it is the base itself, cast.
    Shapes: left ``(rows, rank)``. Dtypes: of the base and of the target, F16, BF16 or F32.
    Memory: that of a block of rows beside the result.
    Raises: as `Right.products`.
    """
    base_dtype, dtype = dtypes
    infinity = base.dtype.type(FORMATS[base_dtype].infinity)
    out = np.empty(len(base), np.dtype(f"<u{FORMATS[dtype].width // 8}"))
    step = max(_BLOCK // right.columns, 1)
    for row in range(0, len(left), step):
        rows = left[row : row + step]
        start = max(row * right.columns - skip, 0)
        stop = min((row + len(rows)) * right.columns - skip, len(base))
        from_row = start - (row * right.columns - skip)
        products = right.products(rows).reshape(-1)[from_row : from_row + stop - start]
        if product_rounded:
            products = values_of(round_once(products, dtype), dtype)
        part = base[start:stop]
        total = values_of(part, base_dtype)
        total += products
        out[start:stop] = round_once(total, dtype)
        special = np.flatnonzero((part & infinity) == infinity)
        if len(special):
            out[start:stop][special] = cast_bits(part[special], base_dtype, dtype)
    return out


class Predictor:
    """A tensor's right factors, and what they and rows of the left one predict."""

    def __init__(
        self,
        geometry: Geometry,
        head: Head,
        rights: Sequence[bytes | bytearray],
        spans: tuple[Range, ...] = (),
    ) -> None:
        """`rights` are packed, one a matrix; `spans` is where each span lies in a payload.

        Memory: the right factors as they are stored, and one of them in float64.
        """
        self.geometry = geometry
        self.head = head
        self.spans = spans
        self._rights = rights
        self._latest: tuple[int, Right] | None = None

    def predict(self, start: int, left: Integers, base: Bits, base_dtype: str, dtype: str) -> Bits:
        """Patterns of the target's elements from `start` on, one for each of `base`, which are the
        elements there; `left` are the rows of the left factor that cover them.

        Raises: ValueError, zstandard.ZstdError, if the factors are damaged.
        """
        rows, columns = self.geometry.rows, self.geometry.columns
        first, last = self.geometry.rows_of(start, start + len(base))
        out = np.empty(len(base), np.dtype(f"<u{FORMATS[dtype].width // 8}"))
        for number in range(first // rows, (last - 1) // rows + 1):
            low, high = max(number * rows, first), min((number + 1) * rows, last)
            here = max(low * columns, start)
            part = slice(here - start, min(high * columns - start, len(base)))
            skip = here - low * columns
            own = left[low - first : high - first]
            out[part] = predict(
                self._right(number),
                own,
                skip,
                base[part],
                (base_dtype, dtype),
                product_rounded=self.head.product_rounded,
            )
        return out

    def _right(self, number: int) -> Right:
        # Workers may meet here: whoever comes second makes the same again, and no harm is done.
        latest = self._latest
        if latest is None or latest[0] != number:
            packed = memoryview(self._rights[number])
            integers, rest = unpack(packed, self.geometry.columns, self.head.rank)
            if rest:
                raise ValueError("a factor is longer than its content")
            latest = number, Right(integers, self.head.exponents[number])
            self._latest = latest
        return latest[1]


def pack(integers: Integers) -> bytes:
    """What stands for integers in a payload: as `planes` of four bytes, the sign lowest.

    Small ones leave the upper planes empty, which are not stored.
    """
    flat = integers.reshape(-1)
    folded = (np.abs(flat) << 1 | (flat < 0)).astype("<u4")
    return b"".join(planes.pack(planes.split(folded)))


def unpack(packed: memoryview, rows: int, rank: int) -> tuple[Integers, memoryview]:
    """The inverse of `pack`, and what follows it.

    Raises: ValueError, zstandard.ZstdError, if `packed` holds no such thing.
    """
    found, rest = planes.unpack(packed, rows * rank, 4)
    folded = planes.merge(found, rows * rank, "<u4").astype(np.int64)
    integers = folded >> 1
    np.negative(integers, out=integers, where=(folded & 1) > 0)
    return integers.reshape(rows, rank), rest


def packed_limit(rows: int, rank: int) -> int:
    """The most bytes that `pack` makes of so many rows."""
    return 4 * (planes.NUMBER_NBYTES + rows * rank)


def _largest(integers: Integers) -> int:
    return int(np.abs(integers).max(initial=0))
