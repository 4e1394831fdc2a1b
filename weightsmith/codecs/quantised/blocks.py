"""The rule *dequantize-blocks*: numbers of 8 bits, with one scale a block of a matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from weightsmith.codecs.base import Codec, Range, ReadInput, Work, elements_in, read_whole, rows_in
from weightsmith.codecs.quantised.values import floats, rounded, scales, store
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DequantizeBlocks(Codec):
    """Input 0 holds the numbers, input 1 the scales, input 2, where there is one, zero points.

    Shapes: input 0 ``(..., out, in)``; scales ``(..., ceil(out / rows), ceil(in / columns))`` or
    any shape of as many elements; the last block of a side may be a partial one; zero points have
    as many elements as the scales.
    Dtypes: input 0 F8_E4M3, F8_E5M2 or I8; scales floats, or U8 and F8_E8M0 as exponents. Numbers
    and scales are multiplied in float32 and rounded to `rounding`, in which the scales are taken
    too; then multiplied with `factor`, and rounded to `dtype`.
    Memory: beside the rows that cover a span, the scales.
    """

    dtype: str
    rows: str
    columns: str
    rounding: str = "F32"
    factor: str = ""
    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 6

    def told(self) -> str:
        """As ``dequantised to BF16``."""
        return f"dequantised to {self.dtype}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """Input 0's name and shape in `dtype`."""
        return replace(inputs[0], dtype=self.dtype)

    def prepare(self, work: Work, read: ReadInput) -> "tuple[Array, Array | None]":
        """Scales and zero points, a row of blocks each.

        Raises: QuantisationInvalid.
        """
        across = -(-work.output.shape[-1] // int(self.columns))
        found = []
        for number, info in enumerate(work.inputs[1:], start=1):
            raw = read_whole(work, number, read)
            values = scales(raw, info) if number == 1 else floats(raw, info.dtype)
            found.append(rounded(values, self.rounding).reshape(-1, across))
        return found[0], found[1] if len(found) > 1 else None

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The rows that cover the span."""
        first, stop = rows_in(span, work.output)
        columns = work.output.shape[-1]
        return (Range(first * columns, stop * columns), *[Range(0, 0)] * (len(work.inputs) - 1))

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Multiply block by block."""
        import numpy as np

        factors, zeros = work.state
        first, stop = rows_in(span, work.output)
        *_, height, columns = work.output.shape
        values = floats(blocks[0], work.inputs[0].dtype).reshape(-1, columns)
        every, wide = int(self.rows), int(self.columns)
        down = -(-height // every)
        row = np.arange(first, stop)
        block = row // height * down + row % height // every
        for number, start in enumerate(range(0, columns, wide)):
            part = values[:, start : start + wide]
            if zeros is not None:
                part -= zeros[block, number : number + 1]
            part *= factors[block, number : number + 1]
        values = rounded(values, self.rounding)
        if self.factor:
            values *= np.float32(self.factor)
        store_span(values, first, span, work.output, out)


def store_span(
    values: "Array", first: int, span: Range, output: TensorInfo, out: memoryview
) -> None:
    """Store the part of whole rows that lies in the span; the first of them is row `first`."""
    before = first * output.shape[-1]
    start, stop = elements_in(span, output)
    store(values.reshape(-1)[start - before : stop - before], output.dtype, out)
