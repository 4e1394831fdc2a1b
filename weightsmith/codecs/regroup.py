"""The rule *regroup*: a factor of all experts, whose columns lie rank by rank, expert by expert."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from weightsmith.codecs.base import Codec, Range, ReadInput, Work, read_whole
from weightsmith.formats.tensors import TensorInfo, dtype_bits


@dataclass(frozen=True, slots=True)
class Regroup(Codec):
    """One input ``(rows, rank * experts)``, as ``(experts, rows, rank)``; any dtype of whole bytes.

    Memory: the whole tensor, twice while it is prepared: columns lie too far apart to be read span
    by span.
    """

    experts: str
    exact: ClassVar[bool] = True

    def told(self) -> str:
        """``regrouped, expert by expert``."""
        return "regrouped, expert by expert"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The input's, with the experts as a dimension of their own."""
        rows, columns = inputs[0].shape
        count = int(self.experts)
        return replace(inputs[0], shape=(count, rows, columns // count))

    def prepare(self, work: Work, read: ReadInput) -> memoryview:
        """The whole output."""
        import numpy as np

        experts, rows, rank = work.output.shape
        width = dtype_bits(work.output.dtype) // 8
        array = np.frombuffer(read_whole(work, 0, read), f"V{width}").reshape(rows, rank, experts)
        return np.ascontiguousarray(array.transpose(2, 0, 1)).view("u1").reshape(-1).data

    def memory_nbytes(self, work: Work) -> int:
        """Bytes of the tensor, twice."""
        return 2 * work.output.nbytes

    def state_nbytes(self, work: Work) -> int:
        """Bytes of the tensor."""
        return work.output.nbytes

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """Nothing: `prepare` has read the whole input."""
        return (Range(0, 0),)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Move what was prepared."""
        out[:] = work.state[span.start : span.stop]
