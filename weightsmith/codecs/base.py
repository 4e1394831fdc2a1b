"""What a tensor codec is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.formats.tensors import TensorInfo, dtype_bits

ReadInput = Callable[[int, int, memoryview], None]
"""``read(i, start, buffer)`` fills `buffer` with bytes of input tensor `i` from byte `start`."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``start`` to ``stop`` of an input tensor; empty when ``start == stop``."""

    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Length of the range."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Work:
    """What a codec works on: one output tensor and what it is made from."""

    inputs: tuple[TensorInfo, ...]
    output: TensorInfo
    state: Any = None
    """What `Codec.prepare` returned."""


def elements_in(span: Range, output: TensorInfo) -> tuple[int, int]:
    """The first element of the output that lies in the span, and the one after the last."""
    bits = dtype_bits(output.dtype)
    return span.start * 8 // bits, span.stop * 8 // bits


def rows_in(span: Range, output: TensorInfo, columns: int | None = None) -> tuple[int, int]:
    """The first row that has elements in the span, and the one after the last; a row is as long as
    the last dimension, or has `columns` elements.
    """
    columns = columns or output.shape[-1]
    start, stop = elements_in(span, output)
    return start // columns, -(-stop // columns)


def read_whole(work: Work, number: int, read: ReadInput) -> memoryview:
    """All bytes of one input, for what is small or cannot be read span by span."""
    raw = memoryview(bytearray(work.inputs[number].nbytes))
    read(number, 0, raw)
    return raw


class Codec(ABC):
    """A rule that makes one output tensor, span by span, in any order and from any thread.

    A codec knows metadata and bytes and nothing of files. Its settings are the fields of a frozen
    dataclass, all strings, as a plan stores them.
    """

    exact: ClassVar[bool]
    """Whether the codec restores a target bit for bit; a test holds every codec to this claim."""
    takes_any_range: ClassVar[bool] = False
    """Whether it can be asked for any range of elements, and not only for what lies in a span."""
    restores: ClassVar[bool] = False
    """Whether it decodes what was stored, whose bits may be anything, NaN and infinity included."""
    scratch_spans: ClassVar[int] = 0
    """Memory that a worker takes beside the spans that it reads and fills, in spans of 2 MiB."""
    multiplies: ClassVar[bool] = False
    """Whether it takes products of matrices, which need torch, and whose last bits may depend on
    the type of processor.
    """

    @abstractmethod
    def told(self) -> str:
        """How the codec makes its tensors, as a clause that follows their number in a plan's text:
        ``cast to F32``.
        """

    @abstractmethod
    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """Name, dtype and shape of the output, from metadata alone.

        Raises: a Mismatch, if the rule does not apply to such inputs.
        """

    def prepare(self, work: Work, read: ReadInput) -> Any:
        """Small state that all spans of a tensor share; called once per tensor, before all else."""
        return None

    def memory_nbytes(self, work: Work) -> int:
        """The most bytes that a worker takes at a time: a span of the output, the spans of the
        inputs that it is made from (wider dtypes need more bytes an element), and scratch.
        """
        bits = dtype_bits(work.output.dtype)
        read = sum(-(-dtype_bits(info.dtype) // bits) for info in work.inputs)
        return (1 + read + self.scratch_spans) * SPAN_NBYTES

    def state_nbytes(self, work: Work) -> int:
        """Bytes of what `prepare` returns, where they grow with the tensor; else 0."""
        return 0

    @abstractmethod
    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """Which bytes of each input the rule needs for the bytes `span` of the output: one range
        an input.
        """

    @abstractmethod
    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Fill `out` with the bytes `span` of the output from what `reads` named, one block an
        input.
        """
