"""The rule *dequantize-codebook*: numbers of 4 bits that index 16 values, scaled block by block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from weightsmith.codecs.base import Codec, Range, ReadInput, Work, elements_in, read_whole
from weightsmith.codecs.quantised.values import rounded, scales, store
from weightsmith.formats.tensors import TensorInfo, dtype_bits

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class DequantizeCodebook(Codec):
    """Inputs: bytes of two numbers each, the high one first; the largest size of each `block` of
    elements, counted through all rows; the 16 values. Where the sizes are bytes themselves, they
    index a table of 256, too: its own largest sizes by `nested_block`, the table, and an `offset`.

    Dtypes: sizes F32, or U8 with the nested inputs; tables F32. The product is made in float32,
    rounded to `kept` (the dtype that the weight had), and then to `dtype`; a result in F32 is not
    rounded at all.
    Source: bitsandbytes 0.45 ``functional.py``, nf4 and fp4.
    """

    dtype: str
    shape: str
    block: str
    kept: str
    nested_block: str = ""
    offset: str = ""
    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 6

    def told(self) -> str:
        """As ``dequantised to BF16``."""
        return f"dequantised to {self.dtype}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """Input 0's name, and the shape that its quantiser kept."""
        return TensorInfo(inputs[0].name, self.dtype, tuple(map(int, self.shape.split(","))))

    def prepare(self, work: Work, read: ReadInput) -> "list[Array]":
        """The tables, and the sizes of the sizes."""
        tables = enumerate(work.inputs[2:], start=2)
        return [scales(read_whole(work, number, read), info) for number, info in tables]

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The bytes and the sizes for the span."""
        first, stop = elements_in(span, work.output)
        block = int(self.block)
        wide = dtype_bits(work.inputs[1].dtype) // 8
        sizes = Range(first // block * wide, -(-stop // block) * wide)
        nothing = [Range(0, 0)] * (len(work.inputs) - 2)
        return (Range(first // 2, -(-stop // 2)), sizes, *nothing)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Look up and multiply."""
        import numpy as np

        first, stop = elements_in(span, work.output)
        block = int(self.block)
        table, *nested = work.state
        packed = np.frombuffer(blocks[0], "u1")
        values = table[np.stack((packed >> 4, packed & 0xF), axis=1).reshape(-1)]
        values = values[first % 2 : first % 2 + stop - first]
        number = np.arange(first // block, -(-stop // block))
        if nested:
            sizes, codes = nested[0], np.frombuffer(blocks[1], "u1")
            largest = nested[1][codes] * sizes[number // int(self.nested_block)]
            largest += np.float32(self.offset)
        else:
            largest = scales(blocks[1], work.inputs[1])
        at = np.arange(first, stop) // block - first // block
        values = values * largest[at]
        if work.output.dtype != "F32":
            values = rounded(values, self.kept)
        store(values, work.output.dtype, out)
