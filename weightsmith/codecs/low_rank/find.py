"""Find out whether a tensor is its base plus a product of thin factors, and if so, which.

First a few rows are looked at (`range_finder`); a tensor that is no such sum costs no more than
this. Then the right factor is found in real numbers (`weighted_fit`), and rounded to integers that
are as coarse as they may be: finer ones predict more weights and take more room (`judge`). If some
rows are smaller with the factors than without, the left factor is fitted to the right one, block of
rows by block of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.low_rank.factors import Predictor, pack
from weightsmith.codecs.low_rank.form import Geometry, Head
from weightsmith.codecs.low_rank.integers import Real
from weightsmith.codecs.low_rank.judge import Judge
from weightsmith.codecs.low_rank.matrix_pair import MatrixPair, ReadSide
from weightsmith.codecs.low_rank.one_thread import one_thread
from weightsmith.codecs.low_rank.range_finder import begin, may_be_low_rank
from weightsmith.codecs.low_rank.round_once import Values
from weightsmith.codecs.low_rank.weighted_fit import fit


@dataclass(frozen=True, slots=True)
class Factors:
    """What a tensor is predicted with."""

    head: Head
    rights: tuple[bytes, ...]
    """The right factors as a payload has them, one a matrix."""
    left: npt.NDArray[np.int32]
    """``(rows of all matrices, rank)``."""
    predictor: Predictor


@dataclass(frozen=True, slots=True)
class Given:
    """The factors of one matrix, as an adapter has them."""

    left: Values
    """``(rows, rank)``, with whatever their product is scaled with."""
    right: Values
    """``(columns, rank)``."""


def find(
    geometry: Geometry,
    dtypes: tuple[str, str],
    reads: tuple[ReadSide, ReadSide],
    given: Sequence[Given] = (),
) -> Factors | None:
    """The factors that make a tensor's payload smaller; None if there are none.

    They are those `given`, one for each of its matrices, or else found from base and target.

    `dtypes` and `reads` are those of base and target. The number of threads does not change the
    result.
    Memory: the factors, some rows, and some megabytes.
    """
    pairs = [MatrixPair(geometry, number, dtypes, reads) for number in range(geometry.slices)]
    with one_thread():
        if given:
            found = _factors(geometry, pairs, [Real.of(each.left, each.right) for each in given])
            if found is not None:
                return found
        asked = {0, len(pairs) // 2, len(pairs) - 1}
        if any(may_be_low_rank(pairs[number]) for number in asked):
            return _factors(geometry, pairs, [_fitted(pair) for pair in pairs])
    return None


def _fitted(pair: MatrixPair) -> Real | None:
    """The right factor of a change of low rank; None if a few rows show that it is not."""
    found = fitted(pair) if may_be_low_rank(pair) else None
    return found if found and found.rank <= min(pair.rows, pair.columns) // 4 else None


def fitted(pair: MatrixPair) -> Real | None:
    """The right factor of a change; None if no rank is found."""
    start = begin(pair)
    if start is None:
        return None
    found = fit(pair, start)
    return Real(np.linalg.qr(found.right.astype(np.float64))[0], floor=found.floor)


def _factors(
    geometry: Geometry, pairs: Sequence[MatrixPair], reals: Sequence[Real | None]
) -> Factors | None:
    """All factors in integers, zeros for a matrix without factors; None if they save no room."""
    first_pair, first = next(
        ((pair, real) for pair, real in zip(pairs, reals, strict=True) if real is not None),
        (pairs[0], None),
    )
    rank = max((real.rank for real in reals if real is not None), default=0)
    if first is None or rank > geometry.max_rank:
        return None
    judge = Judge(first_pair, first)
    width, product_rounded = judge.choose()
    if not judge.pays(width, product_rounded=product_rounded):
        return None
    left = np.zeros((geometry.slices * geometry.rows, rank), np.int32)
    rights, exponents = [], []
    for number, (pair, real) in enumerate(zip(pairs, reals, strict=True)):
        right, exponent = np.zeros((geometry.columns, rank), np.int64), 0
        if real is not None:
            found = real.in_integers(width, real.usual_left(pair))
            right[:, : real.rank], exponent = found.right, found.exponent
            own = left[number * geometry.rows :, : real.rank]
            for low, high in pair.blocks():
                values = real.left_rows(pair, low, pair.read(low, high), found.right_values)
                own[low:high] = found.left(values)
        rights.append(pack(right))
        exponents.append(exponent)
    head = Head(rank, product_rounded, tuple(exponents), tuple(map(len, rights)))
    return Factors(head, tuple(rights), left, Predictor(geometry, head, rights))
