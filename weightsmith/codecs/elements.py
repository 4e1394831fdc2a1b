"""Bytes as elements: integers as wide as the dtype, and where its exponent lies in them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.integer[Any]]
"""Bit patterns of elements, as unsigned little-endian integers."""


@dataclass(frozen=True, slots=True)
class Exponents:
    """Where an element's exponent is."""

    shift: int
    """Position of its lowest bit."""
    mask: int
    """Its bits, once shifted down."""


@dataclass(frozen=True, slots=True)
class Elements:
    """How the bytes of a dtype are taken apart."""

    nbytes: int = 1
    """Width of an element."""
    exponents: Exponents | None = None
    """None for what has no exponent, and for F64, of which models hold little."""

    def view(self, block: memoryview) -> Bits:
        """The block's elements, sharing its memory."""
        return np.frombuffer(block, f"<u{self.nbytes}")


_BYTES: Final = Elements()
_FLOATS: Final = {
    "F8_E5M2": Elements(1, Exponents(2, 0x1F)),
    "F8_E5M2FNUZ": Elements(1, Exponents(2, 0x1F)),
    "F8_E4M3": Elements(1, Exponents(3, 0x0F)),
    "F8_E4M3FNUZ": Elements(1, Exponents(3, 0x0F)),
    "F16": Elements(2, Exponents(10, 0x1F)),
    "BF16": Elements(2, Exponents(7, 0xFF)),
    "F32": Elements(4, Exponents(23, 0xFF)),
    "C64": Elements(4, Exponents(23, 0xFF)),
    "F64": Elements(8),
    "C128": Elements(8),
}


def elements_of(dtype: str) -> Elements:
    """Floats by their width, the two of a complex number singly, and anything else by bytes."""
    return _FLOATS.get(dtype, _BYTES)
