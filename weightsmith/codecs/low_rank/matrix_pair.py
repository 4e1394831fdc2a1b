"""A matrix of the base and the same one of the target, read row by row as the finder wants them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.elements import Bits, elements_of
from weightsmith.codecs.low_rank.form import Geometry
from weightsmith.codecs.low_rank.round_once import FORMATS, Values, values_of

ReadSide = Callable[[int, memoryview], None]
"""``read(start, buffer)`` fills `buffer` with a tensor's bytes from byte `start`."""
Reals = npt.NDArray[np.floating[Any]]
_LARGEST: Final = 1e12
_BLOCK: Final = 1 << 18
"""Elements that are read at a time."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of both sides, ``(rows, columns)``, as bit patterns."""

    base: Bits
    target: Bits
    dtypes: tuple[str, str]

    @property
    def numel(self) -> int:
        """Weights on either side."""
        return self.target.size

    def changes(self, places: Any = slice(None)) -> tuple[Values, Values]:
        """The change, target - base, and the target, as values.

        `places` picks elements, counted through all rows. Where either side is not finite, both
        results are zero. Changes are cut to a size that can be squared and summed in float32.
        """
        whole = isinstance(places, slice)
        sides = [side if whole else side.reshape(-1)[places] for side in (self.base, self.target)]
        base, target = (values_of(*each) for each in zip(sides, self.dtypes, strict=True))
        special = _special(sides[0], self.dtypes[0]) | _special(sides[1], self.dtypes[1])
        if special.any():
            base[special] = target[special] = 0
        change = np.subtract(target, base, out=base)
        return np.clip(change, -_LARGEST, _LARGEST, out=change), target


class MatrixPair:
    """One matrix of a tensor, as base and as target."""

    def __init__(
        self,
        geometry: Geometry,
        number: int,
        dtypes: tuple[str, str],
        reads: tuple[ReadSide, ReadSide],
    ) -> None:
        """Matrix `number` of a stack; dtypes and reads are those of base and target."""
        self.rows, self.columns = geometry.rows, geometry.columns
        self.base_dtype, self.dtype = dtypes
        self.real: Any = np.float64 if self.dtype == "F32" else np.float32
        """The dtype in which factors are looked for: much finer than the steps of the target's
        floats.
        """
        self._start = number * geometry.rows
        self._reads = reads

    def read(self, first: int, stop: int, columns: slice = slice(None)) -> Rows:
        """Rows `first` to `stop` of the matrix, or these columns of them."""
        sides = [self._bits(side, first, stop)[:, columns] for side in (0, 1)]
        return Rows(sides[0], sides[1], (self.base_dtype, self.dtype))

    def blocks(self, rows: int | None = None) -> Iterator[tuple[int, int]]:
        """First and last row of all blocks, or of so many rows evenly spread over the matrix."""
        size = max(_BLOCK // self.columns, 1)
        if rows is None or rows >= self.rows:
            yield from ((at, min(at + size, self.rows)) for at in range(0, self.rows, size))
            return
        size = max(min(size, rows // _SPREAD), 1)
        count = max(rows // size, 1)
        for number in range(count):
            first = (self.rows - size) * number // max(count - 1, 1)
            yield first, first + size

    def _bits(self, side: int, first: int, stop: int) -> Bits:
        elements = elements_of((self.base_dtype, self.dtype)[side])
        width = self.columns * elements.nbytes
        block = memoryview(bytearray((stop - first) * width))
        self._reads[side]((self._start + first) * width, block)
        return elements.view(block).reshape(-1, self.columns)


_SPREAD: Final = 6
"""Sampled rows come from at least this many places, in runs of neighbours: those may share a page
of a disk.
"""


def _special(bits: Bits, dtype: str) -> npt.NDArray[np.bool_]:
    """Where there is infinity or NaN."""
    infinity = bits.dtype.type(FORMATS[dtype].infinity)
    special: npt.NDArray[np.bool_] = (bits & infinity) == infinity
    return special


def steps_of(values: Values, dtype: str) -> Values:
    """How far floats of these values are from their neighbours: the unit in the last place."""
    form = FORMATS[dtype]
    _, exponents = np.frexp(np.maximum(np.abs(values), form.smallest_normal))
    steps: Values = np.ldexp(1.0, exponents - 1 - form.fraction)
    return steps
