"""The rule *copy*: the output is the input, byte for byte."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.formats.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Copy(Codec):
    """One input, moved unchanged; any dtype. Needs neither torch nor NumPy."""

    exact: ClassVar[bool] = True
    takes_any_range: ClassVar[bool] = True

    def told(self) -> str:
        """As ``copied bit for bit``."""
        return "copied bit for bit"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The input's name, dtype and shape."""
        return inputs[0]

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The same range of the input."""
        return (span,)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Move the block."""
        out[:] = blocks[0]
