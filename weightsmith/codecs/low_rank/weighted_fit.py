"""Two thin factors whose product is what a matrix changed by, from base and target alone.

A change is known to within half a step of the target's floats, and small weights have small steps:
the hundred smallest of a row of thousands hold nearly all that can be known. So the factors are
fitted to these alone, each weighted by 1/step**2, by turns: the left one with the right one fixed,
then the other way round, every row and column a small system of its own.

If these weights span many orders of magnitude, each turn improves little. So at first no step
counts as far smaller than the usual one, and this limit is lowered from round to round; and each
round goes on a little in the direction of the last.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.low_rank.matrix_pair import MatrixPair, Reals, Rows, steps_of
from weightsmith.codecs.low_rank.round_once import FORMATS, round_once, values_of

Places = npt.NDArray[np.intp]
There = npt.NDArray[np.bool_]

_PER_UNKNOWN: Final = 8
"""Weights that are looked at for each unknown of a row."""
_PER_UNKNOWN_OF_COLUMN: Final = 6
_MOST: Final = 1 << 19
"""Weights that are looked at in all, so that memory does not grow with the matrix."""
_MOST_WORK: Final = 1 << 28
"""Most weights times the square of the rank, so that the time of a round does not grow either."""
_LEAST_ROWS: Final = 16
"""Rows that are looked at for each unknown of a column, in any case."""
_THINNED: Final = 4
"""One column in this many is looked at to decide which weights of a row are small."""
_MOST_CHOSEN: Final = 4
"""At most this many times the weights asked for are chosen in a row, on average."""
_GROUP_NBYTES: Final = 1 << 21
"""Memory of systems that are solved together."""
_FLOORS: Final = (4, 5, 6, 7, 8, 9, 10)
"""By round: no step counts as less than the usual one over two to this power."""
_MOMENTUM: Final = 0.4
_WORTH: Final = 0.01
"""At rank 16, the rounds end with one that gains less than this share of all weights: the next one
would gain less than half as much. The limit grows with the square of the rank, as a round's time.
"""
_HELD_OUT: Final = 32
"""Rows on which hits are counted."""


@dataclass(frozen=True, slots=True)
class Small:
    """Weights of some rows that are small for their row."""

    rows: npt.NDArray[np.int32]
    """Counted among those that were looked at."""
    columns: npt.NDArray[np.int32]
    change: Reals
    step: Reals


@dataclass(frozen=True, slots=True)
class Fit:
    """The right factor, and what is needed for rows of the left one."""

    right: Reals
    """``(columns, rank)``."""
    floor: float
    """The least step that counted in the end."""
    hits: tuple[float, ...]
    """By round, the share of weights that are predicted bit for bit, on a few rows."""


def fit(pair: MatrixPair, right: Reals) -> Fit:
    """Improve a right factor, for as many rounds as gain enough (`_WORTH`).

    Memory: some megabytes, and a few rows.
    """
    rank = right.shape[1]
    most = min(_MOST, _MOST_WORK // rank**2) // _per_row(pair, rank, pair.rows)
    looked_at = min(pair.rows, max(most, _LEAST_ROWS * rank))
    per_row = _per_row(pair, rank, looked_at)
    parts, count = [], 0
    for first, stop in pair.blocks(looked_at):
        parts.append(small_of(pair, pair.read(first, stop), per_row, count))
        count += stop - first
    small = joined(parts)
    by_row = Systems(small.rows, small.columns, small, count)
    by_column = Systems(small.columns, small.rows, small, pair.columns)
    held_out = [pair.read(*block) for block in pair.blocks(_HELD_OUT)]
    usual = float(
        np.median(np.concatenate([steps_of(each.changes()[1], pair.dtype) for each in held_out]))
    )
    left = by_row.solve(right, np.zeros((count, rank), pair.real), usual * 0.5 ** _FLOORS[0])
    hits: list[float] = []
    worth = _WORTH * (rank / 16) ** 2
    best, before, found = right, right, usual
    for number, floor in enumerate(usual * 0.5**each for each in _FLOORS):
        after = by_column.solve(left, right, floor)
        right = after + pair.real(_MOMENTUM if number > 1 else 0) * (after - before)
        before = after
        left = by_row.solve(right, left, floor)
        hits.append(_hits(pair, held_out, right, per_row, floor))
        if number and hits[-1] <= hits[-2]:
            break
        best, found = right, floor
        if number and hits[-1] < hits[-2] + worth:
            break
    return Fit(best, found, tuple(hits))


def left_of(pair: MatrixPair, rows: Rows, right: Reals, floor: float) -> Reals:
    """The rows of the left factor that go with a right one, ``(rows, rank)``."""
    rank = right.shape[1]
    small = small_of(pair, rows, _per_row(pair, rank, pair.rows), 0)
    return _left_of(small, len(rows.base), right, floor)


def _left_of(small: Small, count: int, right: Reals, floor: float) -> Reals:
    """So many rows of the left factor, from their small weights."""
    systems = Systems(small.rows, small.columns, small, count)
    nothing = np.zeros((count, right.shape[1]), right.dtype)
    # A second time, for the error that rounding left in the first.
    return systems.solve(right, nothing, floor, times=2)


def _per_row(pair: MatrixPair, rank: int, looked_at: int) -> int:
    """How many weights of a row to look at, for rows and columns to have enough of them."""
    of_column = _PER_UNKNOWN_OF_COLUMN * rank * pair.columns // looked_at
    return min(max(_PER_UNKNOWN * rank, of_column), pair.columns)


def small_of(pair: MatrixPair, rows: Rows, per_row: int, first: int) -> Small:
    """About so many small weights of each of these rows, of which the first has number `first`."""
    magnitudes = rows.target & rows.target.dtype.type(FORMATS[pair.dtype].magnitude)
    thinned = np.ascontiguousarray(magnitudes[:, ::_THINNED])
    rank = min(per_row // _THINNED, thinned.shape[1] - 1)
    limits = np.partition(thinned, rank, axis=1)[:, rank, np.newaxis]
    places = np.flatnonzero(magnitudes <= limits)
    # Of many that are the same, as the zeros of a pruned model are, some will do.
    places = places[:: 1 + len(places) // (_MOST_CHOSEN * per_row * len(magnitudes))]
    row, column = np.divmod(places, pair.columns)
    change, target = rows.changes(places)
    return Small(
        (row + first).astype(np.int32),
        column.astype(np.int32),
        change.astype(pair.real),
        steps_of(target, pair.dtype).astype(pair.real),
    )


def joined(parts: list[Small]) -> Small:
    """All of them together."""
    return Small(
        np.concatenate([each.rows for each in parts]),
        np.concatenate([each.columns for each in parts]),
        np.concatenate([each.change for each in parts]),
        np.concatenate([each.step for each in parts]),
    )


class Systems:
    """The chosen weights by row, or by column: a small least-squares system for each."""

    def __init__(
        self,
        own: npt.NDArray[np.int32],
        other: npt.NDArray[np.int32],
        small: Small,
        count: int,
    ) -> None:
        """`count` systems, to which the weights belong by `own`; their unknowns' factors are rows
        `other` of the other factor.
        """
        order = np.argsort(own, kind="stable").astype(np.int32)
        self._counts = np.bincount(own, minlength=count)
        self._starts = np.cumsum(self._counts) - self._counts
        self._by_size = np.argsort(self._counts, kind="stable")
        self._other, self._change, self._step = other[order], small.change[order], small.step[order]

    def solve(self, factor: Reals, known: Reals, floor: float, *, times: int = 1) -> Reals:
        """`known` improved, so many times, to what explains the changes best, `factor` being the
        other factor.
        """
        out = known.copy()
        rank = factor.shape[1]
        real = factor.dtype.type
        for who, places, there in self._groups(rank, factor.itemsize):
            # "clip" spares a check of bounds, and half of the time; no place is out of them.
            rows = factor.take(self._other.take(places, mode="clip"), axis=0, mode="clip")
            change = self._change[places]
            weights = (real(floor) / np.maximum(self._step[places], real(floor))) ** 2 * there
            weighted = (rows * weights[:, :, np.newaxis]).transpose(0, 2, 1)
            squares = np.matmul(weighted, rows)
            # A little more on the diagonal: where there are fewer weights than unknowns, or none,
            # what is not known stays as it was.
            ridge = squares.trace(axis1=1, axis2=2) * real(1e-6 / rank) + np.finfo(real).tiny
            squares[:, np.arange(rank), np.arange(rank)] += ridge[:, np.newaxis]
            for _ in range(times):
                rest = change - np.matmul(rows, out[who][:, :, np.newaxis])[:, :, 0]
                aims = np.matmul(weighted, rest[:, :, np.newaxis])
                out[who] += np.linalg.solve(squares, aims)[:, :, 0]
        return out

    def _groups(self, rank: int, nbytes: int) -> Iterator[tuple[Places, Places, There]]:
        """Systems of about the same size together: which, where their weights are, and whether
        there is one.
        """
        stop = len(self._by_size)
        while stop:
            # Sizes ascend, so that a group's last is its largest.
            width = max(int(self._counts[self._by_size[stop - 1]]), 1)
            start = max(stop - max(_GROUP_NBYTES // (width * rank * nbytes), 1), 0)
            who = self._by_size[start:stop]
            offsets = np.arange(width)
            there = offsets < self._counts[who, np.newaxis]
            yield who, np.where(there, self._starts[who, np.newaxis] + offsets, 0), there
            stop = start


def _hits(
    pair: MatrixPair, held_out: list[Rows], right: Reals, per_row: int, floor: float
) -> float:
    """The share of weights of these rows that are predicted."""
    found = 0
    for rows in held_out:
        left = _left_of(small_of(pair, rows, per_row, 0), len(rows.base), right, floor)
        total = left.astype(np.float64) @ right.T.astype(np.float64)
        total += values_of(rows.base, pair.base_dtype)
        found += int(np.count_nonzero(round_once(total, pair.dtype) == rows.target))
    return found / sum(each.numel for each in held_out)
