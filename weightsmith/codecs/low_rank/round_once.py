"""Floats of 16 and 32 bits as float64, and back with one rounding to nearest even.

The bits of a prediction are made here, and the maker of a delta and its readers must get the same
ones: so this uses NumPy alone, and only what gives the same bits on every machine. Casts of a
library are not used: torch's from float64 to 16 bits go through float32 and round twice, and a
process may have told its processor to take subnormal floats for zero. The float64 numbers here are
never subnormal; floats that may be are taken apart as integers.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.elements import Bits

Values = npt.NDArray[np.float64]

_FRACTION: Final = 52
_BIAS: Final = 1023
"""Of float64."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a float is made up."""

    width: int
    """Bits, the sign's among them."""
    fraction: int
    bias: int

    @property
    def unit(self) -> float:
        """The smallest subnormal, and the distance between neighbours below the smallest normal."""
        return 2.0 ** (1 - self.bias - self.fraction)

    @property
    def smallest_normal(self) -> float:
        """The smallest float whose leading bit is implied."""
        return 2.0 ** (1 - self.bias)

    @property
    def overflow(self) -> float:
        """The least value that is rounded to infinity: half a step past the largest float."""
        return (2 - 0.5 ** (self.fraction + 1)) * 2.0**self.bias

    @property
    def magnitude(self) -> int:
        """All bits but the sign's."""
        return (1 << (self.width - 1)) - 1

    @property
    def infinity(self) -> int:
        """Its bits; those of a NaN without sign are above it."""
        return self.magnitude >> self.fraction << self.fraction


FORMATS: Final = {"F16": Format(16, 10, 15), "BF16": Format(16, 7, 127), "F32": Format(32, 23, 127)}
"""By dtype."""


def values_of(elements: Bits, dtype: str) -> Values:
    """The values of floats; zero for infinity and NaN, and positive zero for both zeros.

    Dtypes: F16, BF16 or F32.
    """
    if dtype != "F32":
        # "clip" spares a check of bounds; no pattern is out of them.
        return np.take(_table(dtype), elements, mode="clip")
    return _values(elements, FORMATS[dtype])


@cache
def _table(dtype: str) -> Values:
    """The value of every pattern of 16 bits."""
    return _values(np.arange(1 << 16, dtype=np.uint32), FORMATS[dtype])


def _values(elements: Bits, form: Format) -> Values:
    pattern = elements.astype(np.uint64)
    magnitude = pattern & np.uint64(form.magnitude)
    # As float64 the same exponent has another bias, and the fraction more places.
    wide = magnitude << np.uint64(_FRACTION - form.fraction)
    wide += np.uint64((_BIAS - form.bias) << _FRACTION)
    values = wide.view(np.float64)
    small = magnitude < np.uint64(1 << form.fraction)
    values[small] = magnitude[small].astype(np.float64) * form.unit
    values[magnitude >= np.uint64(form.infinity)] = 0
    np.negative(values, out=values, where=pattern > np.uint64(form.magnitude))
    values += 0.0  # -0 becomes 0
    return values


def round_once(values: Values, dtype: str) -> Bits:
    """The patterns of finite values, each rounded once, to nearest even; what is too large becomes
    infinity.

    Dtypes: to F16, BF16 or F32. `values` may have any shape, and is not kept.
    """
    form = FORMATS[dtype]
    np.clip(values, -form.overflow, form.overflow, out=values)
    wide = values.view(np.uint64)
    shift = np.uint64(_FRACTION - form.fraction)
    # To nearest even: half of the last place is added, and less by one where that place is even.
    # In the same sum the exponent gets its bias. The sign falls off, or into what is repaired.
    rounded = wide >> shift
    rounded &= np.uint64(1)
    rounded += wide
    half_less_one = (1 << (_FRACTION - form.fraction - 1)) - 1
    rounded += np.uint64((half_less_one - ((_BIAS - form.bias) << _FRACTION)) % (1 << 64))
    rounded >>= shift
    patterns: Bits = rounded.astype(f"<u{form.width // 8}")
    patterns &= patterns.dtype.type(form.magnitude)
    small = np.flatnonzero(np.abs(values) < form.smallest_normal)
    if len(small):
        units = np.rint(np.abs(values.reshape(-1)[small]) / form.unit)
        patterns.reshape(-1)[small] = units.astype(patterns.dtype)
    wide >>= np.uint64(63)
    signs = wide.astype(patterns.dtype)
    signs <<= patterns.dtype.type(form.width - 1)
    patterns |= signs
    return patterns
