"""The rule *cast*: the input's values in another float dtype."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from weightsmith.codecs.arithmetic import Block, cast
from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import SUMMABLE, TensorInfo, dtype_bits


@dataclass(frozen=True, slots=True)
class Cast(Codec):
    """One float input, each value rounded to nearest even into `dtype`, as torch's ``to`` does."""

    dtype: str
    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True

    def told(self) -> str:
        """As ``cast to F32``."""
        return f"cast to {self.dtype}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The input's name and shape in `dtype`.

        Raises: DtypeNotSummable, if the input holds no floats of 16 bits or more.
        """
        if inputs[0].dtype not in SUMMABLE:
            raise DtypeNotSummable(name=inputs[0].name, dtype=inputs[0].dtype)
        return replace(inputs[0], dtype=self.dtype)

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The same elements of the input."""
        return (elements_as_bytes(span, work.output, work.inputs[0]),)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Convert the block."""
        cast(Block(blocks[0], work.inputs[0].dtype), Block(out, work.output.dtype))


def elements_as_bytes(span: Range, output: TensorInfo, info: TensorInfo) -> Range:
    """Where the elements that lie in bytes `span` of `output` lie in a flat tensor `info`.

    Elements that `info`, being shorter, does not have are left out.
    """
    wide, narrow = dtype_bits(info.dtype), dtype_bits(output.dtype)
    start, stop = (min(edge * wide // narrow, info.nbytes) for edge in (span.start, span.stop))
    return Range(start, stop)
