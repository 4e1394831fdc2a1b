"""Bytes as elements: integers as wide as the dtype, and where its exponent lies in them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.integer[Any]]
"""Bit patterns of elements, as unsigned little-endian integers."""


@dataclass(frozen=True, slots=True)
class Elements:
    """How the bytes of a dtype are taken apart."""

    nbytes: int = 1
    """Width of an element."""
    exponent_shift: int | None = None
    """Position of the exponent's lowest bit; None for what has no exponent."""

    def view(self, block: memoryview) -> Bits:
        """The block's elements, sharing its memory."""
        return np.frombuffer(block, f"<u{self.nbytes}")


_BYTES: Final = Elements()
_FLOATS: Final = {
    "F8_E5M2": Elements(1, 2),
    "F8_E5M2FNUZ": Elements(1, 2),
    "F8_E4M3": Elements(1, 3),
    "F8_E4M3FNUZ": Elements(1, 3),
    "F16": Elements(2, 10),
    "BF16": Elements(2, 7),
    "F32": Elements(4, 23),
    "C64": Elements(4, 23),
    "F64": Elements(8, 52),
    "C128": Elements(8, 52),
}


def elements_of(dtype: str) -> Elements:
    """Floats by their width, the two of a complex number singly, and anything else by bytes."""
    return _FLOATS.get(dtype, _BYTES)
