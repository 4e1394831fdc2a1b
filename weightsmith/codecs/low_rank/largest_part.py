"""The largest part of a change that factors of a given rank can hold, in passes over its rows.

The product is nearly the best approximation of the change, in sums of squares, that this rank
allows: what a truncated singular value decomposition gives. Only the factors are kept in memory.

Source: Halko, Martinsson and Tropp 2011, algorithm 4.4, with two iterations.
"""

from typing import Final

import numpy as np

from weightsmith.codecs.low_rank.matrix_pair import MatrixPair
from weightsmith.codecs.low_rank.round_once import Values

_SPARE: Final = 8
"""Dimensions beside those that are kept."""
_PASSES: Final = 2
"""Passes over the matrix, before the one that chooses among what they found."""


def largest_part(pair: MatrixPair, rank: int) -> Values:
    """The right factor, ``(columns, rank)``, its columns of length one and at right angles.

    Memory: a right factor with a few columns more, twice, and a block of rows.
    """
    count = min(rank + _SPARE, pair.rows, pair.columns)
    right = np.random.default_rng(0).standard_normal((pair.columns, count))
    for _ in range(_PASSES):
        right = np.linalg.qr(right)[0]
        turned = np.zeros_like(right)
        for first, stop in pair.blocks():
            change = change_of(pair, first, stop)
            turned += change.T @ (change @ right)
        right = turned
    right = np.linalg.qr(right)[0]
    squares = np.zeros((count, count))
    for first, stop in pair.blocks():
        left = change_of(pair, first, stop) @ right
        squares += left.T @ left
    _, turn = np.linalg.eigh(squares)
    chosen: Values = right @ turn[:, ::-1][:, :rank]
    return chosen


def change_of(pair: MatrixPair, first: int, stop: int) -> Values:
    """What changed in rows `first` to `stop`, ``(rows, columns)``."""
    return pair.read(first, stop).changes()[0]
