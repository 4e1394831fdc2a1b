"""The rule *linear*: a sum of tensors, each multiplied by a number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from weightsmith.codecs.arithmetic import Block, weighted_sum
from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import SUMMABLE, TensorInfo


@dataclass(frozen=True, slots=True)
class Linear(Codec):
    """``sum of factor * input``: products and sums in float32, in the order of the inputs, and
    rounded once into `dtype`; in float64 where an input or the output is.

    Shapes: all the same.
    Dtypes: floats of 16 bits or more.
    """

    factors: str
    """One number an input, between spaces, as Python writes floats."""
    dtype: str
    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 1

    def told(self) -> str:
        """As ``summed in F32, rounded once to F16``; the factors are told beside the models."""
        return "summed in F32" + (f", rounded once to {self.dtype}" if self.dtype != "F32" else "")

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The first input's name and shape in `dtype`.

        Raises: DtypeNotSummable.
        """
        for info in inputs:
            if info.dtype not in SUMMABLE:
                raise DtypeNotSummable(name=info.name, dtype=info.dtype)
        return replace(inputs[0], dtype=self.dtype)

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The same elements of all."""
        return tuple(elements_as_bytes(span, work.output, info) for info in work.inputs)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Sum the blocks."""
        given = [Block(b, info.dtype) for b, info in zip(blocks, work.inputs, strict=True)]
        wide = "F64" in {self.dtype, *(info.dtype for info in work.inputs)}
        factors = [float(factor) for factor in self.factors.split()]
        target = Block(out, work.output.dtype)
        weighted_sum(factors, given, target, compute="F64" if wide else "F32")
