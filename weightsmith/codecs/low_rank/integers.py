"""Factors of one matrix as real numbers, and made of integers."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from weightsmith.codecs.low_rank.factors import EXACT, Integers
from weightsmith.codecs.low_rank.form import LARGEST_EXPONENT
from weightsmith.codecs.low_rank.matrix_pair import MatrixPair, Rows
from weightsmith.codecs.low_rank.round_once import Values
from weightsmith.codecs.low_rank.weighted_fit import left_of

_LARGEST: Final = (1 << 30) - 1
"""What is stored of an integer has 32 bits, its sign among them."""
_GLANCE: Final = 32
"""Rows from which the usual size of the left factor is taken."""


@dataclass(frozen=True, slots=True)
class Real:
    """The right factor, and what the left one is or is fitted by."""

    right: Values
    """``(columns, rank)``; its columns have length one and stand at right angles."""
    left: Values | None = None
    """``(rows, rank)``; None where it is to be fitted."""
    floor: float = 0.0
    """The least step that counts in fitting it."""

    @classmethod
    def of(cls, left: Values, right: Values) -> "Real":
        """Of any two factors, with the same product."""
        right, turn = np.linalg.qr(right)
        return cls(right, left @ turn.T)

    @property
    def rank(self) -> int:
        """Columns of either factor."""
        return int(self.right.shape[1])

    def left_rows(self, pair: MatrixPair, first: int, rows: Rows, right: Values) -> Values:
        """The left factor from row `first` on, for the right one as it has become."""
        if self.left is not None:
            return self.left[first : first + len(rows.base)]
        return left_of(pair, rows, right.astype(pair.real), self.floor).astype(np.float64)

    def usual_left(self, pair: MatrixPair) -> float:
        """The usual size of the left factor's numbers, from a few rows."""
        squares = [
            np.square(self.left_rows(pair, first, pair.read(first, stop), self.right)).mean()
            for first, stop in pair.blocks(_GLANCE)
        ]
        return float(np.sqrt(np.mean(squares)))

    def in_integers(self, width: int, usual_left: float) -> "Integer":
        """The right factor in integers of `width` bits, and a unit for the left one that adds as
        much to the product's error.
        """
        largest, usual = np.abs(self.right).max(), np.sqrt(np.square(self.right).mean())
        exponent = int(np.ceil(np.log2(largest))) - width + 1
        right = np.rint(np.ldexp(self.right, -exponent)).astype(np.int64)
        finer = int(np.rint(np.log2(usual_left / usual))) if usual_left else 0
        limit = LARGEST_EXPONENT // 2
        return Integer(right, exponent, min(max(exponent + finer, -limit), limit))


@dataclass(frozen=True, slots=True)
class Integer:
    """The right factor in integers, and the unit of the left one."""

    right: Integers
    right_exponent: int
    """The factor is its integers times two to this power; likewise the left one."""
    left_exponent: int

    @property
    def exponent(self) -> int:
        """Of the product."""
        return self.right_exponent + self.left_exponent

    @property
    def right_values(self) -> Values:
        """The factor itself."""
        return np.ldexp(self.right.astype(np.float64), self.right_exponent)

    def left(self, values: Values) -> Integers:
        """Rows of the left factor in integers, none so large that a product would not be exact."""
        largest = max(int(np.abs(self.right).max()), 1)
        limit = min((EXACT - 1) // (self.right.shape[1] * largest), _LARGEST)
        integers = np.rint(np.ldexp(values, -self.left_exponent))
        return np.clip(integers, -limit, limit).astype(np.int64)
