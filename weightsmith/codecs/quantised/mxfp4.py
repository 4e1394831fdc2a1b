"""The rule *dequantize-mxfp4*: floats of 4 bits, with an exponent for 32 of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from weightsmith.codecs.base import Codec, Range, ReadInput, Work, rows_in
from weightsmith.codecs.quantised.blocks import store_span
from weightsmith.codecs.quantised.values import scales
from weightsmith.formats.tensors import TensorInfo

_VALUES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What E2M1 holds, without its sign."""


@dataclass(frozen=True, slots=True)
class DequantizeMxfp4(Codec):
    """Inputs: bytes ``(experts, out, groups, 16)`` of two numbers each, the low one first;
    exponents ``(experts, out, groups)``, U8. Output: ``(experts, in, out)``, exact in 16 bits.

    Memory: the experts that cover a span, packed.
    Source: OCP Microscaling Formats 1.0; transformers 5.23 ``convert_moe_packed_tensors``.
    """

    dtype: str
    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 8

    def told(self) -> str:
        """As ``dequantised to BF16``."""
        return f"dequantised to {self.dtype}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The bytes' name, turned."""
        experts, out, groups, _ = inputs[0].shape
        return TensorInfo(inputs[0].name, self.dtype, (experts, groups * 32, out))

    def memory_nbytes(self, work: Work) -> int:
        """Spans of floats, and the one or two experts that cover a span."""
        one = work.inputs[0].nbytes // work.output.shape[0]
        return Codec.memory_nbytes(self, work) + 2 * one

    def prepare(self, work: Work, read: ReadInput) -> None:
        """Nothing: exponents are read with what they are for."""

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """All bytes of the experts that cover the span: their rows are columns of the output."""
        first, stop = rows_in(span, work.output)
        experts, rows, _ = work.output.shape
        edges = first // rows, -(-stop // rows)
        sizes = (info.nbytes // experts for info in work.inputs)
        return [Range(edges[0] * size, edges[1] * size) for size in sizes]

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Look up, multiply, and turn."""
        import numpy as np

        table = np.array([*_VALUES, *(-each for each in _VALUES)], "f4")
        first, stop = rows_in(span, work.output)
        _, rows, columns = work.output.shape
        packed = np.frombuffer(blocks[0], "u1").reshape(-1, columns, rows // 2)
        powers = scales(blocks[1], work.inputs[1]).reshape(-1, columns, rows // 32)
        begin = first // rows
        values = np.empty((stop - first, columns), "f4")
        for number in range(len(packed)):
            low = max(first - (begin + number) * rows, 0)
            high = min(stop - (begin + number) * rows, rows)
            part = packed[number, :, low // 2 : -(-high // 2)]
            pairs = np.stack((part & 0xF, part >> 4), axis=2).reshape(columns, -1)
            found = table[pairs[:, low % 2 : low % 2 + high - low]]
            found *= powers[number][:, np.arange(low, high) // 32]
            above = (begin + number) * rows - first
            values[above + low : above + high] = found.T
        store_span(values, first, span, work.output, out)
