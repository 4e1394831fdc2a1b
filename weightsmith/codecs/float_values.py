"""Bit patterns as the numbers they stand for: in float64, which holds every one of them exactly."""

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.elements import Bits

Values = npt.NDArray[np.float64]

_BYTE_FORMATS: Final = {
    "F8_E4M3": (3, 7),
    "F8_E4M3FNUZ": (3, 8),
    "F8_E5M2": (2, 15),
    "F8_E5M2FNUZ": (2, 16),
}
"""Bits of the fraction, and the exponent's bias."""


def decode(elements: Bits, dtype: str, out: Values) -> Values:
    """The values of floats, of one of `measure.FLOATS`, in the first places of `out`.

    Signalling NaNs are made quiet; NumPy warns of that unless told not to.
    """
    values = out[: len(elements)]
    if dtype == "F16" or elements.itemsize == 1:
        # "clip" spares a check of bounds, half of the time; no pattern is out of them.
        return np.take(_table(dtype), elements, mode="clip", out=values)
    if dtype == "BF16":
        elements = np.left_shift(elements, 16, dtype="<u4")
    values[:] = elements.view(f"<f{elements.itemsize}")
    return values


@cache
def _table(dtype: str) -> Values:
    """The value of every pattern."""
    if dtype == "F16":  # NumPy can, but slowly, and more slowly where numbers are subnormal
        return np.arange(1 << 16, dtype="<u2").view("<f2").astype(np.float64)
    return _bytes(dtype)


def _bytes(dtype: str) -> Values:
    """The value of every byte.

    Source: "OCP 8-bit Floating Point Specification" 1.0; for the FNUZ dtypes, whose one special
    pattern is 0x80, "Float stored in 8 bits" of ONNX; for F8_E8M0, an exponent without sign and
    fraction, "OCP Microscaling Formats" 1.0.
    """
    patterns = np.arange(256)
    if dtype == "F8_E8M0":
        values: Values = np.ldexp(1.0, patterns - 127)
        values[0xFF] = np.nan
        return values
    width, bias = _BYTE_FORMATS[dtype]
    sign = np.where(patterns < 0x80, 1.0, -1.0)
    exponent, fraction = (patterns & 0x7F) >> width, patterns & ((1 << width) - 1)
    implied = exponent > 0
    values = sign * np.ldexp(implied + fraction / (1 << width), np.maximum(exponent, 1) - bias)
    if dtype == "F8_E5M2":  # the only one made like the wider ones, with infinities
        special = exponent == 0x1F
        values[special] = np.where(fraction > 0, np.nan, sign * np.inf)[special]
    else:
        values[[0x7F, 0xFF] if dtype == "F8_E4M3" else 0x80] = np.nan
    return values
