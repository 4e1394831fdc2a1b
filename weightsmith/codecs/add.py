"""The rule *add*: target = base + delta, with the arithmetic of the tools that published deltas."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from weightsmith.codecs import arithmetic
from weightsmith.codecs.base import Range, ReadInput
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.codecs.torch_views import import_torch, torch_dtype, view
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import SUMMABLE, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

_INTEGERS: Final = frozenset({"U8", "I8", "I16", "I32", "I64"})
_MEAN_BLOCK_NBYTES: Final = 2 * 1024 * 1024
_PIECE: Final = 64 * 1024
"""Elements cast at a time: what that allocates stays in a core's cache, and is little to keep."""


@dataclass(frozen=True, slots=True)
class Add:
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
    of_blocks: ClassVar[Callable[[memoryview, memoryview, memoryview, str], None]] = arithmetic.add
    """What is done to delta and base, in this order; `Subtract` does another thing."""
    of_tensors: ClassVar[Callable[["Tensor", "Tensor"], "Tensor"]] = operator.add
    """The same where dtypes differ."""

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

    def uses_torch(self, inputs: Sequence[TensorInfo], output: TensorInfo) -> bool:
        """Where dtypes differ, and for a mean."""
        return not self._of_one_dtype(inputs, output) or self.new_rows == "mean"

    def prepare(
        self, inputs: Sequence[TensorInfo], output: TensorInfo, read: ReadInput
    ) -> "Tensor | None":
        """The mean row, where it will be needed."""
        if self.new_rows == "mean" and inputs[0].shape != output.shape:
            return _mean_row(inputs[0], read).to(torch_dtype(self.compute))
        return None

    def reads(
        self,
        state: "Tensor | None",
        inputs: Sequence[TensorInfo],
        output: TensorInfo,
        span: Range,
    ) -> Sequence[Range]:
        """The same elements of both; of the base, those it has."""
        return tuple(elements_as_bytes(span, output, info) for info in inputs)

    def apply(
        self,
        state: "Tensor | None",
        span: Range,
        blocks: Sequence[memoryview],
        inputs: Sequence[TensorInfo],
        output: TensorInfo,
        out: memoryview,
    ) -> None:
        """Add the two blocks; past the end of the base, add the mean row or nothing."""
        if self._of_one_dtype(inputs, output):
            # The sum in place of three casts: the same bits, and what nearly every delta needs.
            base, delta = blocks
            shared = len(base)
            type(self).of_blocks(delta[:shared], base, out[:shared], output.dtype)
            out[shared:] = delta[shared:]
        else:
            self._cast_and_add(blocks, inputs, view(out, output.dtype))
        if state is not None:
            self._add_rows(state, span, blocks, inputs, view(out, output.dtype))

    def _of_one_dtype(self, inputs: Sequence[TensorInfo], output: TensorInfo) -> bool:
        return {info.dtype for info in inputs} == {output.dtype} == {self.compute}

    def _cast_and_add(
        self, blocks: Sequence[memoryview], inputs: Sequence[TensorInfo], target: "Tensor"
    ) -> None:
        base, delta = (view(b, info.dtype) for b, info in zip(blocks, inputs, strict=True))
        compute, of = torch_dtype(self.compute), type(self).of_tensors
        target[len(base) :] = delta[len(base) :]
        for start in range(0, len(base), _PIECE):
            piece = slice(start, min(start + _PIECE, len(base)))
            target[piece] = of(delta[piece].to(compute), base[piece].to(compute))

    def _add_rows(
        self,
        row: "Tensor",
        span: Range,
        blocks: Sequence[memoryview],
        inputs: Sequence[TensorInfo],
        target: "Tensor",
    ) -> None:
        """Past the end of the base, the mean `row` is added in its place."""
        base, delta = (view(b, info.dtype) for b, info in zip(blocks, inputs, strict=True))
        first = span.start // target.element_size()
        columns = import_torch().arange(first + len(base), first + len(delta)) % len(row)
        target[len(base) :] = type(self).of_tensors(delta[len(base) :].to(row.dtype), row[columns])


def _mean_row(base: TensorInfo, read: ReadInput) -> "Tensor":
    """The mean over dimension 0, summed in float64 in the order of the rows, block by block."""
    torch = import_torch()
    rows = base.shape[0]
    row_nbytes = base.nbytes // rows
    total: Tensor = torch.zeros(base.numel // rows, dtype=torch.float64)
    rows_a_block = max(_MEAN_BLOCK_NBYTES // row_nbytes, 1)
    buffer = memoryview(bytearray(min(rows_a_block, rows) * row_nbytes))
    for first in range(0, rows, rows_a_block):
        block = buffer[: min(rows_a_block, rows - first) * row_nbytes]
        read(0, first * row_nbytes, block)
        total += view(block, base.dtype).reshape(-1, len(total)).double().sum(dim=0)
    return total / rows
