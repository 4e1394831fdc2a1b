"""The rule *lora*: a base tensor with one adapter or several merged into it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.codecs.base import Codec, Range, ReadInput, Work
from weightsmith.codecs.lora_steps import Step, grown_rows, parse_steps
from weightsmith.codecs.torch_views import import_torch, torch_dtype, view
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import SUMMABLE, TensorInfo, dtype_bits

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_ROWS: Final = 96
"""Rows of a product that are computed at a time, counted from the tensor's first row; a shorter
rest belongs to the block before it.

A constant, because the bits of a product may depend on how it is cut. Tried with MKL's kernels for
AVX2 and for AVX-512: cut so, it is the whole product bit for bit up to rank 768; with a short block
at the end it is not, and with AVX2 not in blocks of 64 or 128 either.
"""
_CHUNK_NBYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Lora(Codec):
    """Input 0 is where the tensor starts, the others are what `steps` want, in their order.

    Shapes: input 0 ``(rows, ...)``; output the same, or with more rows where a step sets them.
    Dtypes: floats of 16 bits and more. Products and sums are made in float32 (float64 where input
    0 or the result is); with `rounding` ``once`` the result is rounded to `dtype` at the end, with
    ``peft`` input 0 is cast to `dtype` first and the result of each step rounded to it, as peft
    does that loads the base in `dtype` and merges one adapter after another.
    Memory: the factors of all steps in float32, the rows that cover a span, and one block of rows.
    Source: Hu et al. 2021; Liu et al. 2024 (DoRA) equation 5; peft 0.21 ``tuners/lora``.
    """

    dtype: str
    rounding: str
    steps: str
    exact: ClassVar[bool] = False
    multiplies: ClassVar[bool] = True

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """Input 0's name, in `dtype`, with the rows that a step adds.

        Raises: DtypeNotSummable.
        """
        for info in inputs:
            if info.dtype not in SUMMABLE:
                raise DtypeNotSummable(name=info.name, dtype=info.dtype)
        start = inputs[0]
        rows = max([start.shape[0], *map(grown_rows, parse_steps(self.steps))])
        return replace(start, dtype=self.dtype, shape=(rows, *start.shape[1:]))

    def prepare(self, work: Work, read: ReadInput) -> "list[_Ready]":
        """The factors; for DoRA over columns also their norms, which takes a pass over input 0."""
        compute = torch_dtype(_compute(self._carried(work.inputs[0])))
        ready: list[_Ready] = []
        number = 1
        for step in parse_steps(self.steps):
            tensors = []
            for index in range(number, number + step.inputs):
                raw = memoryview(bytearray(work.inputs[index].nbytes))
                read(index, 0, raw)
                tensor = view(raw, work.inputs[index].dtype).reshape(work.inputs[index].shape)
                # A copy in any case, for torch's own memory is aligned, and bits may hang on that.
                tensors.append(tensor.to(compute, copy=True))
            number += step.inputs
            ready.append(_ready(step, tensors))
            if step.dora and not step.by_row:
                norms = self._column_norms(ready, work.inputs, work.output, read)
                ready[-1].factor = ready[-1].factor / norms
        return ready

    def memory_nbytes(self, work: Work) -> int:
        """A span out and what it is made from, a float32 copy of it, two blocks of a product, and
        the factors, twice while they are read.
        """
        bits = dtype_bits(work.output.dtype)
        start, *factors = work.inputs
        wide = -(-dtype_bits(start.dtype) // bits)
        floats = (
            SPAN_NBYTES * 8 // bits
            + 2 * 2 * BLOCK_ROWS * _columns(work.output)
            + 2 * sum(info.numel for info in factors)
        )
        return (1 + wide) * SPAN_NBYTES + 4 * floats

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The rows of input 0 that cover the span; the factors are read already."""
        first, stop = _rows(span, work.output)
        nbytes = _columns(work.output) * dtype_bits(work.inputs[0].dtype) // 8
        start = work.inputs[0].nbytes
        rows = Range(min(first * nbytes, start), min(stop * nbytes, start))
        return (rows, *[Range(0, 0)] * (len(work.inputs) - 1))

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Take all steps on the rows, and keep what lies in the span."""
        first, stop = _rows(span, work.output)
        start = work.inputs[0]
        value = self._started(view(blocks[0], start.dtype), stop - first, start, work.output)
        for ready in work.state:
            ready.take(value, first)
        skipped = span.start * 8 // dtype_bits(work.output.dtype) - first * _columns(work.output)
        target = view(out, work.output.dtype)
        target.copy_(value.reshape(-1)[skipped : skipped + len(target)])

    def _carried(self, start: TensorInfo) -> str:
        """The dtype in which the value is carried from step to step."""
        if self.rounding == "peft":
            return self.dtype
        return "F64" if "F64" in {start.dtype, self.dtype} else "F32"

    def _started(
        self, flat: "Tensor", rows: int, start: TensorInfo, output: TensorInfo
    ) -> "Tensor":
        """Rows of input 0 as the first step finds them; those that it lacks are zero."""
        torch = import_torch()
        dtype = torch_dtype(self._carried(start))
        value: Tensor = torch.empty(rows * _columns(output), dtype=dtype)
        value[: len(flat)] = flat
        value[len(flat) :] = 0
        return value.reshape(rows, -1)

    def _column_norms(
        self,
        ready: "Sequence[_Ready]",
        inputs: Sequence[TensorInfo],
        output: TensorInfo,
        read: ReadInput,
    ) -> "Tensor":
        """The 2-norm of each column as the last of the steps finds it, its own delta added.

        Squares are summed row after row, in one order whatever the chunks; torch's norm over a
        strided dimension does the same, to the bit.
        """
        import numpy as np

        *before, last = ready
        rows, columns = output.shape[0], _columns(output)
        width = columns * dtype_bits(inputs[0].dtype) // 8
        total = np.zeros((1, columns), last.factor.numpy().dtype)
        for first, stop in _chunks(rows, width):
            held = min(stop * width, inputs[0].nbytes) - min(first * width, inputs[0].nbytes)
            raw = memoryview(bytearray(held))
            read(0, min(first * width, inputs[0].nbytes), raw)
            value = self._started(view(raw, inputs[0].dtype), stop - first, inputs[0], output)
            for each in before:
                each.take(value, first)
            for low, high, delta in last.deltas(first, stop):
                moved = (value[low - first : high - first] + delta).numpy()
                with np.errstate(all="ignore"):
                    np.square(moved, out=moved)
                    total = np.add.reduce(np.concatenate((total, moved)), axis=0, keepdims=True)
        # Through float64, because torch's own float32 root is not always the nearest.
        norms: Tensor = import_torch().from_numpy(total[0]).double().sqrt().to(last.factor.dtype)
        return norms


@dataclass(slots=True)
class _Ready:
    """A step with its tensors: the product's two sides, or what is added or set."""

    step: Step
    left: "Tensor"
    """``(rows, rank)``; for other steps than a product, their one tensor."""
    right: "Tensor"
    """``(rank, columns)``."""
    factor: "Tensor"
    """DoRA's magnitude: one a row, or, divided by the norm already, one a column."""

    def deltas(self, first: int, stop: int) -> "Iterator[tuple[int, int, Tensor]]":
        """The scaled product for rows `first` to `stop`, in blocks: from row, to row, and it."""
        for low, high in _blocks(len(self.left), first, stop):
            if self.step.by_row:
                product = self.left[low:high] @ self.right
            else:
                # Columns of the product that peft turns: made turned, AVX2 gives it other bits.
                product = (self.right.T @ self.left[low:high].T).T.contiguous()
            here, there = max(low, first), min(high, stop)
            yield here, there, product[here - low : there - low].mul_(self.step.scale)

    def take(self, value: "Tensor", first: int) -> None:
        """Change rows in place, of which the first is row `first` of the tensor.

        The order of operations, and which sums are made in `value`'s dtype and which are wider and
        rounded into it, is peft's; while `value` is float32, nothing is rounded here.
        """
        torch = import_torch()
        stop = first + len(value)
        match self.step.kind:
            case "bias":
                value += (self.left[first:stop] * self.step.scale).reshape(value.shape)
            case "rows":
                for source, row in enumerate(self.step.rows):
                    if first <= row < stop:
                        value[row - first] = self.left[source]
            case kind:
                for low, high, delta in self.deltas(first, stop):
                    part = value[low - first : high - first]
                    if not self.step.dora:
                        part += delta.to(value.dtype) if kind == "embedding" else delta
                        continue
                    moved = part + delta
                    factor = self.factor
                    if self.step.by_row:
                        norms = torch.linalg.norm(moved, dim=1)
                        factor = (factor[low:high] / norms).reshape(-1, 1)
                    part.copy_(factor * moved)


def _ready(step: Step, tensors: "Sequence[Tensor]") -> _Ready:
    left = tensors[0]
    if not step.is_product:
        return _Ready(step, left, left, left)
    a, b = tensors[:2]
    left, right = (b, a) if step.by_row else (a.T, b.T)
    return _Ready(step, left, right, tensors[-1].reshape(-1))


def _compute(carried: str) -> str:
    return "F64" if carried == "F64" else "F32"


def _columns(output: TensorInfo) -> int:
    return output.numel // output.shape[0]


def _rows(span: Range, output: TensorInfo) -> tuple[int, int]:
    """The first row that has elements in the span, and the one after the last."""
    bits = dtype_bits(output.dtype)
    columns = _columns(output)
    return span.start * 8 // bits // columns, -(-(span.stop * 8 // bits) // columns)


def _blocks(rows: int, first: int, stop: int) -> Iterator[tuple[int, int]]:
    """The fixed blocks that hold rows `first` to `stop`, as first and last row."""
    last = max(rows // BLOCK_ROWS, 1) - 1
    for number in range(min(first // BLOCK_ROWS, last), min((stop - 1) // BLOCK_ROWS, last) + 1):
        low = number * BLOCK_ROWS
        yield low, rows if number == last else low + BLOCK_ROWS


def _chunks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows of about a span, in whole blocks."""
    step = max(_CHUNK_NBYTES // (width * BLOCK_ROWS), 1) * BLOCK_ROWS
    return ((first, min(first + step, rows)) for first in range(0, rows, step))
