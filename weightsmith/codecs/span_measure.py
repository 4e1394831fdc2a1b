"""Measure how far apart the elements of two blocks of bytes are: in bits, in order and in value."""

from itertools import pairwise
from typing import Final

import numpy as np

from weightsmith.codecs.elements import Bits
from weightsmith.codecs.float_values import Values, decode
from weightsmith.codecs.measure import FLOATS, Measure, combine
from weightsmith.formats.tensors import SUMMABLE, dtype_bits

_BLOCK: Final = 1 << 15
"""Elements at a time, so that the steps meet in the processor's cache."""
_UNITS: Final = {8: "<u1", 16: "<u2", 32: "<u4", 64: "<u8"}
_LARGEST: Final = 1e100
"""What is larger, which F64 alone can hold, has no size: its square might overflow."""


def measure(a: memoryview, b: memoryview, a_dtype: str, b_dtype: str) -> Measure:
    """How B's elements differ from A's.

    Dtypes: any one, compared bit by bit (byte by byte, if an element is not 8 to 64 bits wide); or
    two of `FLOATS`, compared by value. Sizes are worked out in float64.
    Memory: a few MiB, whatever the length of the blocks.
    """
    ours, theirs = _elements(a, a_dtype), _elements(b, b_dtype)
    work = np.empty(_BLOCK), np.empty(_BLOCK)
    with np.errstate(invalid="ignore", over="ignore"):
        return combine(
            _measure(ours[at : at + _BLOCK], theirs[at : at + _BLOCK], a_dtype, b_dtype, work)
            for at in range(0, len(ours), _BLOCK)
        )


def _elements(block: memoryview, dtype: str) -> Bits:
    return np.frombuffer(block, _UNITS.get(dtype_bits(dtype), "<u1"))


def _measure(a: Bits, b: Bits, a_dtype: str, b_dtype: str, work: tuple[Values, Values]) -> Measure:
    if a_dtype != b_dtype:
        before, after = decode(a, a_dtype, work[0]), decode(b, b_dtype, work[1])
        both_nan = np.isnan(before) & np.isnan(after)
        changed = int(np.count_nonzero((before != after) & ~both_nan))
        return Measure(len(a), changed, *_sizes(before, after))
    ulps = _ulps(a, b) if a_dtype in SUMMABLE else ()
    changed = len(a) - ulps[0] if ulps else int(np.count_nonzero(a != b))
    if a_dtype not in FLOATS:
        return Measure(len(a), changed)
    before = decode(a, a_dtype, work[0])
    after = decode(b, b_dtype, work[1]) if changed else before
    return Measure(len(a), changed, *_sizes(before, after), ulps)


def _ulps(a: Bits, b: Bits) -> tuple[int, ...]:
    """As `Measure.ulps`.

    For each power of two, the elements at least so far apart are counted, until there are none:
    this is faster than sorting them into bins.
    """
    if np.array_equal(a, b):
        return (len(a),)
    ours, theirs = _in_order(a), _in_order(b)
    apart = np.maximum(ours, theirs) - np.minimum(ours, theirs)
    at_least = [len(a)]
    while at_least[-1]:
        at_least.append(int(np.count_nonzero(apart >= 1 << (len(at_least) - 1))))
    return tuple(more - less for more, less in pairwise(at_least))


def _in_order(elements: Bits) -> Bits:
    """Integers in the numeric order of the floats: complements of the negative ones, and the others
    with their highest bit set.
    """
    highest = 8 * elements.itemsize - 1
    negative = (elements.view(f"<i{elements.itemsize}") >> highest).view(elements.dtype)
    return elements ^ (negative | elements.dtype.type(1 << highest))


def _sizes(before: Values, after: Values) -> tuple[int, float, float, float]:
    """How many values have a size, the squares of their change and of A's, the largest change."""
    a_squares = _squares(before)
    if after is before and a_squares < _LARGEST:
        return len(before), 0.0, a_squares, 0.0
    change = np.subtract(after, before, out=after)
    change_squares = _squares(change)
    if not change_squares + a_squares < _LARGEST:  # NaN is no less
        sized = (np.abs(before) < _LARGEST) & (np.abs(change) < _LARGEST)
        before, change = before[sized], change[sized]
        a_squares, change_squares = _squares(before), _squares(change)
    largest = max(change.max(), -change.min()) if len(change) else 0.0
    return len(change), change_squares, a_squares, float(largest)


def _squares(values: Values) -> float:
    # Not by BLAS, whose result may depend on its number of threads.
    return float(np.einsum("i,i->", values, values))
