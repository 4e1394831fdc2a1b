"""The rule *lora*: a base tensor with one adapter or several merged into it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.codecs.base import Codec, Range, ReadInput, Work, elements_in, rows_in
from weightsmith.codecs.lora.changes import Change, Normed, change
from weightsmith.codecs.lora.deltas import BLOCK_ROWS
from weightsmith.codecs.lora.steps import Experts, Step, grown_rows, parse_steps
from weightsmith.codecs.torch_views import import_torch, torch_dtype, view
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import SUMMABLE, TensorInfo, dtype_bits

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK_NBYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Lora(Codec):
    """Input 0 is the tensor before the merge; the others are the tensors of `steps`, in order.

    Shapes: input 0 ``(rows, ...)``; output the same, or with more rows where a step sets them.
    Dtypes: floats of 16 bits and more. Products and sums are made in float32 (float64 where input
    0 or the result is); with `rounding` ``once`` the result is rounded to `dtype` at the end. With
    ``peft`` input 0 is cast to `dtype` first, and the result of each step is rounded to it: so
    does peft, if it loads the base in `dtype` and merges one adapter after another.
    Memory: the factors of all steps in float32, the rows that cover a span, and one block of rows.
    Source: Hu et al. 2021; Liu et al. 2024 (DoRA) equation 5; peft 0.21 ``tuners/lora``.
    """

    dtype: str
    rounding: str
    steps: str
    experts: str = ""
    """Which experts the tensor holds, as `Experts` spells it; empty where it is of none."""
    exact: ClassVar[bool] = False
    multiplies: ClassVar[bool] = True

    def told(self) -> str:
        """As ``merged with LoRA x 2, in F32, rounded once to F16``."""
        steps = ", then ".join(step.told() for step in parse_steps(self.steps))
        if self.rounding == "peft":
            return f"merged with {steps}, rounded to {self.dtype} where peft rounds"
        rounded = f", rounded once to {self.dtype}" if self.dtype != "F32" else ""
        return f"merged with {steps}, in F32{rounded}"

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

    def prepare(self, work: Work, read: ReadInput) -> list[Change]:
        """The factors; for DoRA over columns also their norms, which takes a pass over input 0."""
        compute = torch_dtype(_compute(self._carried(work.inputs[0])))
        ready: list[Change] = []
        number = 1
        for step in parse_steps(self.steps):
            tensors = []
            for index in range(number, number + step.inputs):
                start, info = self._taken(step, index - number, work.inputs[index])
                raw = memoryview(bytearray(info.nbytes))
                read(index, start, raw)
                tensor = view(raw, info.dtype).reshape(info.shape)
                # A copy in any case, for torch's own memory is aligned, and bits may hang on that.
                tensors.append(tensor.to(compute, copy=True))
            number += step.inputs
            made = change(step, tensors, Experts.parse(self.experts))
            if isinstance(made, Normed) and not step.by_row:
                made.factor /= self._column_norms(ready, made, work, read)
            ready.append(made)
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
            + 2 * 2 * BLOCK_ROWS * self._columns(work.output)
            + 2 * sum(info.numel for info in factors)
        )
        return (1 + wide) * SPAN_NBYTES + 4 * floats

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The rows of input 0 that cover the span; the factors are read already."""
        columns = self._columns(work.output)
        first, stop = rows_in(span, work.output, columns)
        nbytes = columns * dtype_bits(work.inputs[0].dtype) // 8
        start = work.inputs[0].nbytes
        rows = Range(min(first * nbytes, start), min(stop * nbytes, start))
        return (rows, *[Range(0, 0)] * (len(work.inputs) - 1))

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Take all steps on the rows, and keep what lies in the span."""
        columns = self._columns(work.output)
        first, stop = rows_in(span, work.output, columns)
        start = work.inputs[0]
        value = self._started(view(blocks[0], start.dtype), stop - first, start, work.output)
        for each in work.state:
            each.take(value, first)
        skipped = elements_in(span, work.output)[0] - first * columns
        target = view(out, work.output.dtype)
        target.copy_(value.reshape(-1)[skipped : skipped + len(target)])

    def _taken(self, step: Step, number: int, info: TensorInfo) -> tuple[int, TensorInfo]:
        """What a step reads of its tensor `number`: the first byte, and name, dtype and shape.

        That is the whole tensor; or one expert's part of it, if the output holds one expert.
        """
        experts = Experts.parse(self.experts)
        if experts is None or experts.index is None or step.kind != "experts":
            return 0, info
        # A has the experts one under the other, B as a dimension of their own.
        rows = info.shape[0] // experts.count
        one = replace(info, shape=(rows, *info.shape[1:]))
        return experts.index * one.nbytes, one

    def _columns(self, output: TensorInfo) -> int:
        """Elements of a row; a stack of experts counts as the rows of all its matrices."""
        experts = Experts.parse(self.experts)
        stacked = experts is not None and experts.index is None
        return output.shape[-1] if stacked else output.numel // output.shape[0]

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
        value: Tensor = torch.empty(rows * self._columns(output), dtype=dtype)
        value[: len(flat)] = flat
        value[len(flat) :] = 0
        return value.reshape(rows, -1)

    def _column_norms(
        self, before: Sequence[Change], last: Normed, work: Work, read: ReadInput
    ) -> "Tensor":
        """The 2-norm of each column as the last of the steps finds it, its own delta added.

        Squares are summed row after row, in one order whatever the chunks; torch's norm over a
        strided dimension does the same, to the bit.
        """
        import numpy as np

        start, output = work.inputs[0], work.output
        columns = self._columns(output)
        rows = output.numel // columns
        width = columns * dtype_bits(start.dtype) // 8
        total = np.zeros((1, columns), last.factor.numpy().dtype)
        for first, stop in _chunks(rows, width):
            edges = [min(row * width, start.nbytes) for row in (first, stop)]
            raw = memoryview(bytearray(edges[1] - edges[0]))
            read(0, edges[0], raw)
            value = self._started(view(raw, start.dtype), stop - first, start, output)
            for each in before:
                each.take(value, first)
            for low, high, delta in last.delta.blocks(first, stop):
                moved = (value[low - first : high - first] + delta).numpy()
                with np.errstate(all="ignore"):
                    np.square(moved, out=moved)
                    total = np.add.reduce(np.concatenate((total, moved)), axis=0, keepdims=True)
        # Through float64, because torch's own float32 root is not always the nearest.
        norms: Tensor = import_torch().from_numpy(total[0]).double().sqrt().to(last.factor.dtype)
        return norms


def _compute(carried: str) -> str:
    return "F64" if carried == "F64" else "F32"


def _chunks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows of about a span, in whole blocks."""
    step = max(_CHUNK_NBYTES // (width * BLOCK_ROWS), 1) * BLOCK_ROWS
    return ((first, min(first + step, rows)) for first in range(0, rows, step))
