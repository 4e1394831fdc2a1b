"""Whether a matrix changed by a product of thin factors, of which rank, and where these begin.

Rounding to the target's dtype adds noise of a known size, half a step either way. What is above it
and spans few dimensions was a product.
"""

from typing import Final

import numpy as np

from weightsmith.codecs.low_rank.matrix_pair import MatrixPair, Reals, steps_of
from weightsmith.codecs.low_rank.round_once import Values

_SAMPLES: Final = (
    (1 << 25, 320, 64, 768),
    (1 << 23, 144, 48, 384),
    (1 << 21, 96, 32, 256),
    (1 << 16, 48, 24, 160),
)
"""Elements that a matrix has at least, and what of it is looked at then: rows, others that are to
be explained by them, columns. More could find factors of more rank, but would take more than a
twentieth of the time that encoding the matrix takes.
"""
_EXPLAINED: Final = 0.5
"""Less than this share of the other rows' change may be left unexplained."""
_ABOVE_NOISE: Final = 1.5
_SPARE: Final = 8
"""Dimensions that are looked for beside those that are kept."""


def may_be_low_rank(pair: MatrixPair) -> bool:
    """Whether the change of some rows explains that of others, as far as it is not rounding.

    Memory and time: those of a few rows.
    """
    numel = pair.rows * pair.columns
    sample = next((each for at_least, *each in _SAMPLES if numel >= at_least), None)
    if sample is None or min(pair.rows, pair.columns) < sum(_SAMPLES[-1][1:3]):
        return False
    own, others, width = sample
    thinned = slice(None, None, max(pair.columns // width, 1))
    blocks = pair.blocks(min(own + others, pair.rows))
    read = [pair.read(*block, thinned).changes() for block in blocks]
    change = np.concatenate([each for each, _ in read])
    asked = np.arange(len(change)) % ((own + others) // others) == 0
    target_there = np.concatenate([target for _, target in read])[asked]
    noise_there = np.square(steps_of(target_there, pair.dtype)).sum() / 12
    size = np.square(change[asked]).sum()
    if size < _ABOVE_NOISE * noise_there:
        return False
    known, unknown = change[~asked].astype(pair.real), change[asked].astype(pair.real)
    squares, mixed = known @ known.T, known @ unknown.T
    ridge = max(noise_there / len(unknown), 1e-10 * squares.trace() / len(known))
    squares[np.diag_indices(len(known))] += ridge
    explained = (mixed * np.linalg.solve(squares, mixed)).sum()
    return bool(size - explained - noise_there < _EXPLAINED * (size - noise_there))


def begin(pair: MatrixPair) -> Reals | None:
    """The right factor as a plain singular value decomposition of some rows has it, ``(columns,
    rank)``, of the rank that is above the noise; None if that is zero, or too large to be found.
    """
    numel = pair.rows * pair.columns
    sample = next((own for at_least, own, *_ in _SAMPLES if numel >= at_least), _SAMPLES[-1][1])
    blocks = pair.blocks(min(3 * sample, pair.rows))
    parts, noises = [], []
    for block in blocks:
        part, target = pair.read(*block).changes()
        parts.append(part.astype(pair.real))
        noises.append(_noise(target, part, pair.dtype))
    change, noise = np.concatenate(parts), float(np.mean(noises))
    if not change.any():
        return None
    edge = np.sqrt(_ABOVE_NOISE * noise) * (len(change) ** 0.5 + pair.columns**0.5)
    wanted = 16
    while True:
        count = min(wanted + _SPARE, *change.shape)
        vectors, sizes = _decomposed(change, count)
        rank = int((sizes > edge).sum())
        if rank <= wanted and rank < count:
            break
        if wanted >= sample:
            return None
        wanted *= 2
    return vectors[:, :rank] * np.sqrt(sizes[:rank]) if rank else None


def _noise(target: Values, change: Values, dtype: str) -> float:
    """The mean square of what rounding added to a change: to the target, and where it is large and
    the target has 32 bits, to the product before.
    """
    steps = np.square(steps_of(target, dtype)) + 4 * np.square(steps_of(change, dtype))
    return float(steps.mean()) / 12


def _decomposed(matrix: Reals, count: int) -> tuple[Reals, Reals]:
    """The first right singular vectors, ``(columns, count)``, and singular values.

    Source: Halko, Martinsson and Tropp 2011, algorithm 4.4, with one iteration.
    """
    noise = np.random.default_rng(0).standard_normal((len(matrix), count))
    left = noise.astype(matrix.dtype)
    for _ in range(2):
        right = _orthonormal(matrix.T @ left)
        left = matrix @ right
    squares, turn = np.linalg.eigh(left.T @ left)
    sizes = np.sqrt(np.maximum(squares[::-1], 0))
    return right @ turn[:, ::-1], sizes


def _orthonormal(columns: Reals) -> Reals:
    """Columns that span what these do, of length one and at right angles."""
    squares, turn = np.linalg.eigh(columns.T @ columns)
    kind = np.finfo(columns.dtype)
    least = max(squares[-1] * kind.eps * len(squares), kind.tiny)
    spanned: Reals = columns @ (turn / np.sqrt(np.maximum(squares, least)))
    return spanned
