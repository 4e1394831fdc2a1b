"""What a matrix takes with factors and without, told from some of its rows."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from weightsmith.codecs.elements import Bits, elements_of
from weightsmith.codecs.exact.cast_bits import cast_bits
from weightsmith.codecs.exact.span import encode_span
from weightsmith.codecs.low_rank.factors import Right, predict
from weightsmith.codecs.low_rank.integers import Real
from weightsmith.codecs.low_rank.matrix_pair import MatrixPair, Rows

_WIDTHS: Final = (12, 14, 16, 18, 20, 22, 24)
"""Bits of the right factor's integers that are tried."""
_JUDGED: Final = 1 << 16
"""Weights by which it is judged."""
_WORTH: Final = 0.97
"""Less than this share of its size without factors must a matrix have with them."""


class Judge:
    """Some rows of a matrix, and what is predicted of them."""

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
            sizes[width] = self._estimate(width)
            if sizes[width] > min(sizes.values()):
                break
        width = min(sizes, key=lambda each: sizes[each])
        plain, rounded = (self._hits(width, product_rounded=each) for each in (False, True))
        return width, rounded > plain

    def pays(self, width: int, *, product_rounded: bool) -> bool:
        """Whether the matrix is smaller with factors of this width."""
        elements = elements_of(self._pair.dtype)
        without = coded = 0
        for rows, predicted in self._predicted(width, product_rounded=product_rounded):
            known, target = rows.base.reshape(-1), rows.target.reshape(-1)
            if self._pair.base_dtype != self._pair.dtype:
                known = cast_bits(known, self._pair.base_dtype, self._pair.dtype)
            without += len(encode_span(known, target, elements)[0])
            coded += len(encode_span(predicted, target, elements)[0])
        judged = sum(len(rows.base) for _, rows in self._rows)
        factors = self._factors_nbytes(width) * judged / self._pair.rows
        return coded + factors < _WORTH * without

    def _estimate(self, width: int) -> float:
        """Bytes of the matrix with factors of this width: these, and the places of what they miss.

        Which weights are missed is taken to be independent, and by how much to be one bit.
        """
        missed = 1 - self._hits(width, product_rounded=False)
        shares = np.array([missed, 1 - missed])
        entropy = -(shares * np.log2(np.maximum(shares, np.finfo(float).tiny))).sum()
        numel = self._pair.rows * self._pair.columns
        return float(self._factors_nbytes(width) + numel * (entropy + missed) / 8)

    def _factors_nbytes(self, width: int) -> float:
        """About what the factors take: as much as integers that are normally distributed."""
        found = self._real.in_integers(width, self._usual)
        right = float(np.sqrt(np.square(found.right.astype(np.float64)).mean()))
        left = float(np.ldexp(self._usual, -found.left_exponent))
        numbers = (self._pair.rows, left), (self._pair.columns, right)
        bits = sum(count * np.log2(4.13 * max(usual, 1)) for count, usual in numbers)
        return float(bits * self._real.rank / 8)

    def _hits(self, width: int, *, product_rounded: bool) -> float:
        """The share of these weights that are predicted bit for bit."""
        hits = numel = 0
        for rows, predicted in self._predicted(width, product_rounded=product_rounded):
            hits += int(np.count_nonzero(predicted == rows.target.reshape(-1)))
            numel += len(predicted)
        return hits / numel

    def _predicted(self, width: int, *, product_rounded: bool) -> Iterator[tuple[Rows, Bits]]:
        found = self._real.in_integers(width, self._usual)
        right = Right(found.right, found.exponent)
        dtypes = self._pair.base_dtype, self._pair.dtype
        for (_, rows), values in zip(self._rows, self._lefts, strict=True):
            left, base = found.left(values), rows.base.reshape(-1)
            yield rows, predict(right, left, 0, base, dtypes, product_rounded=product_rounded)
