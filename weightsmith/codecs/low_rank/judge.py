"""Estimate what a matrix takes with factors and without, from some of its rows."""

from typing import Final

import numpy as np

from weightsmith.codecs.elements import Bits, elements_of
from weightsmith.codecs.exact.cast_bits import cast_bits
from weightsmith.codecs.exact.span import encode_span
from weightsmith.codecs.low_rank.factors import Right, predict
from weightsmith.codecs.low_rank.integers import Integer, Real
from weightsmith.codecs.low_rank.matrix_pair import MatrixPair, Rows

_WIDTHS: Final = (12, 14, 16, 18, 20, 22, 24)
"""Bits of the right factor's integers that are tried."""
_JUDGED: Final = 1 << 16
"""How many weights are coded to judge."""
_WORTH: Final = 0.97
"""Factors are used if a matrix with them takes less than this share of what it takes without."""


class Judge:
    """Some rows of a matrix, and how well factors predict them."""

    def __init__(self, pair: MatrixPair, real: Real) -> None:
        self._pair, self._real = pair, real
        self._usual = real.usual_left(pair)
        blocks = pair.blocks(max(_JUDGED // pair.columns, 1))
        self._rows = [(first, pair.read(first, stop)) for first, stop in blocks]
        self._lefts = [real.left_rows(pair, first, rows, real.right) for first, rows in self._rows]

    def choose(self) -> tuple[int, bool]:
        """The width of integers that takes the least room, and whether products were rounded."""
        sizes: dict[int, float] = {}
        for width in _WIDTHS:
            sizes[width] = self._size(width, product_rounded=False)
            if sizes[width] > min(sizes.values()):
                break
        width = min(sizes, key=lambda each: sizes[each])
        return width, self._size(width, product_rounded=True) < sizes[width]

    def pays(self, width: int, *, product_rounded: bool) -> bool:
        """Whether the matrix is smaller with factors of this width."""
        without = 0
        for _, rows in self._rows:
            known = rows.base.reshape(-1)
            if self._pair.base_dtype != self._pair.dtype:
                known = cast_bits(known, self._pair.base_dtype, self._pair.dtype)
            without += self._coded(known, rows)
        return self._size(width, product_rounded=product_rounded) < _WORTH * without

    def _size(self, width: int, *, product_rounded: bool) -> float:
        """Bytes of these rows with factors of this width, and of their share of the factors."""
        found = self._real.in_integers(width, self._usual)
        right = Right(found.right, found.exponent)
        dtypes = self._pair.base_dtype, self._pair.dtype
        coded = judged = 0
        for (_, rows), values in zip(self._rows, self._lefts, strict=True):
            left, base = found.left(values), rows.base.reshape(-1)
            known = predict(right, left, 0, base, dtypes, product_rounded=product_rounded)
            coded += self._coded(known, rows)
            judged += len(left)
        return coded + self._factors_nbytes(found) * judged / self._pair.rows

    def _coded(self, known: Bits, rows: Rows) -> int:
        target = rows.target.reshape(-1)
        return len(encode_span(known, target, elements_of(self._pair.dtype))[0])

    def _factors_nbytes(self, found: Integer) -> float:
        """About what the factors take: as much as integers that are normally distributed."""
        right = float(np.sqrt(np.square(found.right.astype(np.float64)).mean()))
        left = float(np.ldexp(self._usual, -found.left_exponent))
        numbers = (self._pair.rows, left), (self._pair.columns, right)
        bits = sum(count * np.log2(4.13 * max(usual, 1)) for count, usual in numbers)
        return float(bits * self._real.rank / 8)
