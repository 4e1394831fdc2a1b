"""The rule *lora-factor*: one factor of a LoRA that would make a target of its base."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from weightsmith.codecs.base import Codec, Range, ReadInput, Work
from weightsmith.codecs.low_rank.form import Geometry
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from weightsmith.codecs.low_rank.matrix_pair import MatrixPair, ReadSide

_FACTOR_DTYPE: Final = "F32"


@dataclass(frozen=True, slots=True)
class LoraFactor(Codec):
    """Inputs a matrix of the base and the target's, ``(rows, columns)``; the target is about
    ``base + left @ right.T``.

    Settings: `side`, left or right, and `rank` of the factors. With the `method` ``whole`` their
    product is the whole change, as far as rounding lets it be told; with ``largest`` the largest
    part of it that they can hold. `turned` is ``no`` for shapes ``(rows, rank)`` and ``(columns,
    rank)``, ``yes`` for ``(rank, rows)`` and ``(rank, columns)``.
    Dtypes: inputs F16, BF16 or F32; the factor is F32.
    Memory: both factors in float64, and some blocks of rows.
    """

    side: str
    rank: str
    method: str
    turned: str
    exact: ClassVar[bool] = False
    multiplies: ClassVar[bool] = True

    def told(self) -> str:
        """As ``factors of the whole change``."""
        what = "the whole change" if self.method == "whole" else "the largest part of the change"
        return f"factors of {what}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The factor, under the name of the base's matrix."""
        shape = (inputs[0].shape[self.side == "right"], int(self.rank))
        turned = shape[::-1] if self.turned == "yes" else shape
        return TensorInfo(inputs[0].name, _FACTOR_DTYPE, turned)

    def prepare(self, work: Work, read: ReadInput) -> "npt.NDArray[np.float32]":
        """The factor, which is made as a whole: it is thin."""
        import numpy as np

        from weightsmith.codecs.low_rank.one_thread import one_thread

        base, target = work.inputs
        pair = pair_of(base, target, (partial(read, 0), partial(read, 1)))
        with one_thread():
            factor = self._factor(pair)
        return np.ascontiguousarray(factor.T if self.turned == "yes" else factor, np.float32)

    def memory_nbytes(self, work: Work) -> int:
        """Both factors, made and stored, and blocks of rows."""
        return 24 * sum(work.inputs[0].shape) * int(self.rank) + _BLOCKS_NBYTES

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """Nothing: the factor is there."""
        return (Range(0, 0), Range(0, 0))

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Give the factor's bytes."""
        out[:] = work.state.reshape(-1).data.cast("B")[span.start : span.stop]

    def _factor(self, pair: "MatrixPair") -> "npt.NDArray[np.floating[Any]]":
        import numpy as np

        from weightsmith.codecs.low_rank.find import fitted
        from weightsmith.codecs.low_rank.largest_part import change_of, largest_part

        found = fitted(pair) if self.method == "whole" else None
        if found is not None and found.rank == int(self.rank):
            if self.side == "right":
                return found.right
            rows = ((first, pair.read(first, stop)) for first, stop in pair.blocks())
            return np.concatenate(
                [found.left_rows(pair, first, each, found.right) for first, each in rows]
            )
        right = largest_part(pair, int(self.rank))
        if self.side == "right":
            return right
        return np.concatenate([change_of(pair, *block) @ right for block in pair.blocks()])


_BLOCKS_NBYTES: Final = 64 * 1024 * 1024
"""Measured: what looking for factors takes beside them."""


def pair_of(
    base: TensorInfo, target: TensorInfo, reads: "tuple[ReadSide, ReadSide]"
) -> "MatrixPair":
    """A matrix of the base and the target's."""
    from weightsmith.codecs.low_rank.matrix_pair import MatrixPair

    geometry = Geometry(1, *target.shape)
    return MatrixPair(geometry, 0, (base.dtype, target.dtype), reads)


def ranks_of(
    pairs: "Iterable[tuple[TensorInfo, TensorInfo, tuple[ReadSide, ReadSide]]]",
) -> Iterator[int]:
    """The rank of each matrix's change, as far as it is above the noise of rounding; 0 if there is
    no such rank, or it is too large to be found.

    Memory and time: those of some rows of each matrix.
    """
    from weightsmith.codecs.low_rank.one_thread import one_thread
    from weightsmith.codecs.low_rank.range_finder import begin

    with one_thread():
        for pair in pairs:
            start = begin(pair_of(*pair))
            yield 0 if start is None else int(start.shape[1])
