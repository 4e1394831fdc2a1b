"""Casts, sums and differences of floats: the same bits as torch gives, without importing it.

Importing torch takes a second, and most of the memory that such a run needs.
NumPy does wide floats and integers; it has no bfloat16 and is slow at float16, so NumKong does
those two. Both round to nearest even, subnormals included, as torch does.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from weightsmith.codecs import sums
from weightsmith.formats.tensors import dtype_bits

if TYPE_CHECKING:
    import numpy.typing as npt
    from numkong import Tensor

    Array = npt.NDArray[Any]

_KINDS: Final = {
    "F16": "f2",
    "BF16": "u2",
    "F32": "f4",
    "F64": "f8",
    "U8": "u1",
    "I8": "i1",
    "I16": "i2",
    "I32": "i4",
    "I64": "i8",
}
_NUMKONG: Final[dict[str, Literal["float16", "bfloat16", "float32"]]] = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
}
_HALVES: Final = frozenset({"F16", "BF16"})
_SIGN: Final = 0x8000
"""The sign bit of a 16-bit float."""
_PIECE: Final = 64 * 1024
"""Elements added at a time where dtypes differ; casts take twice as many. The intermediate values
of a piece fit in a core's cache, and take little memory.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Elements of one dtype that lie side by side in memory."""

    memory: memoryview
    dtype: str

    def __len__(self) -> int:
        return len(self.memory) * 8 // dtype_bits(self.dtype)

    def split(self, numel: int) -> "tuple[Block, Block]":
        """The first `numel` elements, and the rest."""
        nbytes = numel * dtype_bits(self.dtype) // 8
        return Block(self.memory[:nbytes], self.dtype), Block(self.memory[nbytes:], self.dtype)

    def repeated(self, first: int, numel: int) -> "Block":
        """`numel` elements from number `first` on, as if this block were repeated without end."""
        import numpy as np

        return _block(np.resize(np.roll(self.array(), -first), numel), self.dtype)

    def array(self) -> "Array":
        """The same memory for NumPy, which has BF16 as its bits."""
        import numpy as np

        return np.frombuffer(self.memory, _KINDS[self.dtype])


def empty(numel: int, dtype: str) -> Block:
    """A block of whatever lies in memory."""
    import numpy as np

    return _block(np.empty(numel, _KINDS[dtype]), dtype)


def cast(block: Block, out: Block) -> None:
    """Fill `out` with the values of `block`, as torch's ``to`` gives them; they must not overlap.

    Dtypes: F16, BF16, F32, F64. Rounded once to nearest even; F64 is first rounded to F32 on its
    way to 16 bits. A NaN keeps its sign and payload, except in BF16, where all become one pattern.
    """
    import numpy as np

    source, target = block.array(), out.array()
    with np.errstate(all="ignore"):  # infinities and NaN are values like others
        for piece in _pieces(target, 2 * _PIECE):
            _cast(source[piece], block.dtype, target[piece], out.dtype)


def add(left: Block, right: Block, out: Block, compute: str) -> None:
    """``out = left + right``: both are cast to `compute`, and their sum to the dtype of `out`.

    Dtypes: those of `cast`; or one dtype for all four, which may be an integer one (sums wrap
    around), and then `out` may be `left` or `right` itself.
    """
    _combine(_add, left, right, out, compute)


def subtract(left: Block, right: Block, out: Block, compute: str) -> None:
    """``out = left - right``, as `add`; `out` may be `right`, and may not be `left`."""
    _combine(_subtract, left, right, out, compute)


def weighted_sum(
    factors: Sequence[float], blocks: Sequence[Block], out: Block, compute: str
) -> None:
    """``out = factor * block + ...``, from the first to the last: products and sums in `compute`,
    F32 or F64, and cast to the dtype of `out` in the end.

    The compiled part does it in one pass, where there is one; NumPy gives the same bits.
    """
    import numpy as np

    memories, dtypes = [each.memory for each in blocks], [each.dtype for each in blocks]
    if compute == "F32" and sums.fill(factors, memories, dtypes, out.memory, out.dtype):
        return
    numbers = [np.dtype(_KINDS[compute]).type(factor) for factor in factors]
    arrays, target = [block.array() for block in blocks], out.array()
    # One memory for all pieces: what is asked for anew comes from the system page by page.
    totals, products = (np.empty(min(_PIECE, len(target)), _KINDS[compute]) for _ in range(2))
    with np.errstate(all="ignore"):
        for piece in _pieces(target, _PIECE):
            part = target[piece]
            total = part if out.dtype == compute else totals[: len(part)]
            for count, (number, array, block) in enumerate(
                zip(numbers, arrays, blocks, strict=True)
            ):
                product = products[: len(part)] if count else total
                value = array[piece]
                if block.dtype != compute:
                    _cast(value, block.dtype, product, compute)
                    value = product
                np.multiply(value, number, out=product)
                if count:
                    np.add(total, product, out=total)
            if out.dtype != compute:
                _cast(total, compute, part, out.dtype)


def _combine(
    of: "Callable[[Array, Array, Array, str], None]",
    left: Block,
    right: Block,
    out: Block,
    compute: str,
) -> None:
    import numpy as np

    a, b, c = left.array(), right.array(), out.array()
    with np.errstate(all="ignore"):
        if left.dtype == right.dtype == out.dtype == compute:
            of(a, b, c, compute)
            return
        for piece in _pieces(c, _PIECE):
            x = _as(a[piece], left.dtype, compute)
            y = _as(b[piece], right.dtype, compute)
            found = c[piece] if out.dtype == compute else _empty(x, compute)
            of(x, y, found, compute)
            if out.dtype != compute:
                _cast(found, compute, c[piece], out.dtype)


def _as(array: "Array", source: str, dtype: str) -> "Array":
    """The array cast to `dtype`; the array itself if it has that dtype."""
    if source == dtype:
        return array
    found = _empty(array, dtype)
    _cast(array, source, found, dtype)
    return found


def _cast(array: "Array", source: str, out: "Array", dtype: str) -> None:
    """Cast by way of F32, which holds every value of 16 bits."""
    if source == dtype:
        out[:] = array
    elif dtype == "F32":
        _widen(array, source, out)
    else:
        _narrow(_as(array, source, "F32"), out, dtype, nan=0x7FC0 if source == "F16" else 0xFFFF)


def _widen(array: "Array", source: str, out: "Array") -> None:
    """Cast to F32. Only F64 is rounded; every value of 16 bits stays what it is."""
    import numpy as np

    if source == "F16":
        _convert(array, source, out, "F32")
    elif source == "BF16":  # NumKong makes signalling NaN quiet, on some processors
        np.left_shift(array, 16, out=out.view("u4"), dtype="u4")
    else:
        np.copyto(out, array, casting="same_kind")


def _narrow(array: "Array", out: "Array", dtype: str, *, nan: int) -> None:
    """Cast F32 to F64 or to 16 bits. In BF16 every NaN becomes the pattern `nan`."""
    import numpy as np

    if dtype == "F64":
        np.copyto(out, array)
        return
    _convert(array, "F32", out, dtype)
    if dtype == "BF16" and np.isnan(array.min()):
        # NumKong rounds NaN like a number, some to infinity or, all the way around, to zero.
        out[np.isnan(array)] = nan


def _convert(array: "Array", source: str, out: "Array", dtype: str) -> None:
    import numkong

    numkong.astype(_tensor(array, source), _NUMKONG[dtype], out=_tensor(out, dtype))


def _add(left: "Array", right: "Array", out: "Array", dtype: str) -> None:
    import numkong
    import numpy as np

    if dtype in _HALVES:
        numkong.add(_tensor(left, dtype), _tensor(right, dtype), out=_tensor(out, dtype))
    else:
        np.add(left, right, out=out)


def _subtract(left: "Array", right: "Array", out: "Array", dtype: str) -> None:
    import numpy as np

    if dtype in _HALVES:
        np.bitwise_xor(right.view("u2"), _SIGN, out=out.view("u2"))
        _add(left, out, out, dtype)
    else:
        np.subtract(left, right, out=out)


def _block(array: "Array", dtype: str) -> Block:
    return Block(array.view("u1").data, dtype)


def _pieces(array: "Array", numel: int) -> Iterator[slice]:
    for start in range(0, len(array), numel):
        yield slice(start, start + numel)


def _empty(like: "Array", dtype: str) -> "Array":
    import numpy as np

    return np.empty(len(like), _KINDS[dtype])


def _tensor(array: "Array", dtype: str) -> "Tensor":
    """The same memory for NumKong, which takes arrays, but neither BF16 nor any odd address."""
    import numkong

    return numkong.from_pointer(array.ctypes.data, (len(array),), _NUMKONG[dtype], owner=array)
