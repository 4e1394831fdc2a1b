"""Count floats that are no numbers, by their bits."""

from typing import Final

_EXPONENT_FRACTION: Final = {
    "F16": ("u2", 0x7C00, 0x03FF),
    "BF16": ("u2", 0x7F80, 0x007F),
    "F32": ("u4", 0x7F800000, 0x007FFFFF),
    "F64": ("u8", 0x7FF0000000000000, 0x000FFFFFFFFFFFFF),
    "F8_E5M2": ("u1", 0x7C, 0x03),
}
"""Unsigned type and the bits of exponent and fraction; all ones in the exponent is no number."""


def count_nonfinite(block: memoryview, dtype: str) -> tuple[int, int]:
    """How many NaNs and how many infinities there are; none in a dtype that has neither.

    Memory: about twice the block.
    """
    if dtype not in _EXPONENT_FRACTION:
        return 0, 0
    import numpy as np

    kind, exponent, fraction = _EXPONENT_FRACTION[dtype]
    bits = np.frombuffer(block, kind)
    special = bits[(bits & bits.dtype.type(exponent)) == exponent]
    nans = int(np.count_nonzero(special & bits.dtype.type(fraction)))
    return nans, len(special) - nans
