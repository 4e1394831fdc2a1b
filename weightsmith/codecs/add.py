"""The rule *add*: target = base + delta, with the arithmetic of the tools that published deltas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from weightsmith.codecs import arithmetic
from weightsmith.codecs.arithmetic import Block, cast
from weightsmith.codecs.base import Codec, Range, ReadInput, Work
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import SUMMABLE, TensorInfo, dtype_bits

_INTEGERS: Final = frozenset({"U8", "I8", "I16", "I32", "I64"})
_MEAN_BLOCK_NBYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Add(Codec):
    """Inputs base and delta; both are cast to `compute`, added there, and cast to `dtype`.

    Shapes: delta ``(rows, ...)``, base the same or with fewer rows; output as the delta.
    Dtypes: floats of 16 bits or more, or integers when both sides and the output are the same one.
    Where the base has fewer rows, `new_rows` says what it counts as there: ``zero``, or the
    ``mean`` of its rows (Alpaca).
    Source: FastChat ``apply_delta.py``, Stanford Alpaca ``weight_diff.py``, LLaVA
    ``apply_delta.py``.
    """

    compute: str
    dtype: str
    new_rows: str = "none"
    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True
    of: ClassVar[Callable[[Block, Block, Block, str], None]] = arithmetic.add
    """The operation: ``of(delta, base, out, compute)``; `Subtract` has another."""

    def told(self) -> str:
        """As ``summed in F32, rounded to F16: base + delta``."""
        return f"summed {self._how()}: {self._base()} + delta"

    def _how(self) -> str:
        rounded = f", rounded to {self.dtype}" if self.dtype != self.compute else ""
        return f"in {self.compute}{rounded}"

    def _base(self) -> str:
        """The base, and what counts for the rows that it lacks."""
        rows = {"zero": " (0 where it has no row)", "mean": " (its mean row where it has none)"}
        return "base" + rows.get(self.new_rows, "")

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The delta's name and shape in `dtype`.

        Raises: DtypeNotSummable.
        """
        base, delta = inputs
        for info in inputs:
            if info.dtype not in SUMMABLE and not (
                base.dtype == delta.dtype == self.dtype and info.dtype in _INTEGERS
            ):
                raise DtypeNotSummable(name=info.name, dtype=info.dtype)
        return replace(delta, dtype=self.dtype)

    def prepare(self, work: Work, read: ReadInput) -> Block | None:
        """The mean row in `compute`; None unless rows are missing and count as the mean."""
        if self.new_rows == "mean" and work.inputs[0].shape != work.output.shape:
            mean = _mean_row(work.inputs[0], read)
            row = arithmetic.empty(len(mean), self.compute)
            cast(mean, row)
            return row
        return None

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The same elements of both; of the base, those it has."""
        return tuple(elements_as_bytes(span, work.output, info) for info in work.inputs)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Add the two blocks; past the end of the base, add the mean row or nothing."""
        row: Block | None = work.state
        base, delta = (Block(b, info.dtype) for b, info in zip(blocks, work.inputs, strict=True))
        shared = len(base)
        (old, new), (sums, rest) = delta.split(shared), Block(out, work.output.dtype).split(shared)
        type(self).of(old, base, sums, self.compute)
        if row is None:
            cast(new, rest)
        else:
            first = span.start * 8 // dtype_bits(work.output.dtype) + shared
            type(self).of(new, row.repeated(first, len(new)), rest, self.compute)


@dataclass(frozen=True, slots=True)
class Subtract(Add):
    """delta = target - base: as `Add`, with the target as the second input.

    `Add` gives the target back, except for rounding.
    Source: FastChat ``make_delta.py``, Stanford Alpaca ``weight_diff.py``.
    """

    of: ClassVar[Callable[[Block, Block, Block, str], None]] = arithmetic.subtract
    scratch_spans: ClassVar[int] = 5  # to add up again what was subtracted; measured on Linux

    def told(self) -> str:
        """As ``subtracted in F16: target - base``."""
        return f"subtracted {self._how()}: target - {self._base()}"


def _mean_row(base: TensorInfo, read: ReadInput) -> Block:
    """The mean over dimension 0, summed in float64 in the order of the rows, block by block."""
    import numpy as np

    rows = base.shape[0]
    row_nbytes = base.nbytes // rows
    mean = arithmetic.empty(base.numel // rows, "F64")
    total = mean.array()
    total[:] = 0
    rows_a_block = min(max(_MEAN_BLOCK_NBYTES // row_nbytes, 1), rows)
    buffer = memoryview(bytearray(rows_a_block * row_nbytes))
    values = arithmetic.empty(rows_a_block * len(mean), "F64")
    for first in range(0, rows, rows_a_block):
        count = min(rows_a_block, rows - first)
        block, (wide, _) = buffer[: count * row_nbytes], values.split(count * len(mean))
        read(0, first * row_nbytes, block)
        cast(Block(block, base.dtype), wide)
        with np.errstate(all="ignore"):
            total += wide.array().reshape(count, -1).sum(axis=0)
    total /= rows
    return mean
