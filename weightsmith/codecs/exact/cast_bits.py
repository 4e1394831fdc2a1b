"""Casts between float dtypes on bit patterns, in integer arithmetic alone.

The same bits on every machine, whatever its processor does with subnormals or with what a NaN
carries: encoder and decoder of an exact delta must make the same of a base of another dtype.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from weightsmith.codecs.elements import Bits

_BLOCK: Final = 1 << 16
"""Elements at a time, so that the steps of a cast meet in the processor's cache."""


def cast_bits(elements: Bits, source: str, dtype: str) -> Bits:
    """Elements of `source` as elements of `dtype`, rounded once to nearest even.

    Dtypes: F16, BF16 or F32, both. NaN stays NaN; what is too large becomes infinity.
    """
    cast = np.empty(len(elements), "<u4" if dtype == "F32" else "<u2")
    for at in range(0, len(elements), _BLOCK):
        block = slice(at, at + _BLOCK)
        cast[block] = _FROM_F32[dtype](_TO_F32[source](elements[block]))
    return cast


def _f16_to_f32(elements: Bits) -> Bits:
    return _f16_table()[elements]


@cache
def _f16_table() -> Bits:
    """The F32 pattern of every F16 pattern."""
    half = np.arange(1 << 16, dtype=np.uint32)
    sign, exponent, fraction = (half >> 15) << 31, (half >> 10) & 31, half & 0x3FF
    normal = ((exponent + 112) << 23) | (fraction << 13)
    # A subnormal is fraction * 2**-24; in F32 it is normal, its fraction's highest bit implied.
    length = np.frexp(fraction.astype(np.float64))[1].astype(np.uint32)
    subnormal = ((length + 102) << 23) | ((fraction << (24 - length)) & 0x7FFFFF)
    special = (fraction << 13) | 0x7F800000
    kinds = [exponent == 31, exponent > 0, fraction > 0]
    magnitude = np.select(kinds, [special, normal, subnormal], np.zeros_like(half))
    return sign | magnitude


def _bf16_to_f32(elements: Bits) -> Bits:
    return np.left_shift(elements, 16, dtype=np.uint32)


def _f32_to_bf16(elements: Bits) -> Bits:
    rounded = _rounded(elements, np.uint32(16))
    nan = (elements & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, (elements >> 16) | 0x40, rounded)


def _f32_to_f16(elements: Bits) -> Bits:
    magnitude = elements & 0x7FFFFFFF
    # Exponents are rebased by 112 = 127 - 15. Rounding up may carry into the exponent, rightly so.
    half: Bits = np.minimum(_rounded(magnitude - (112 << 23), np.uint32(13)), 0x7C00)
    small = np.flatnonzero(magnitude < 113 << 23)
    if len(small):
        # Below 2**-14 the implied bit is written out and shifted to where 2**-24 is the last place.
        exponent, fraction = magnitude[small] >> 23, magnitude[small] & 0x7FFFFF
        half[small] = _rounded(fraction | 0x800000, np.minimum(126 - exponent, 25))
    half[magnitude > 0x7F800000] = 0x7E00
    return half | ((elements >> 16) & 0x8000)


def _rounded(values: Bits, shift: Bits | np.uint32) -> Bits:
    """`values` without their last `shift` bits, rounded to nearest even."""
    half_less_one = (np.uint32(1) << (shift - np.uint32(1))) - np.uint32(1)
    rounded: Bits = (values + half_less_one + ((values >> shift) & 1)) >> shift
    return rounded


def _as_f32(elements: Bits) -> Bits:
    return elements.astype(np.uint32, copy=False)


_TO_F32: Final[dict[str, Callable[[Bits], Bits]]] = {
    "F16": _f16_to_f32,
    "BF16": _bf16_to_f32,
    "F32": _as_f32,
}
_FROM_F32: Final[dict[str, Callable[[Bits], Bits]]] = {
    "F16": _f32_to_f16,
    "BF16": _f32_to_bf16,
    "F32": _as_f32,
}
