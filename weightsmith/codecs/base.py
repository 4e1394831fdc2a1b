"""What a tensor codec is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from weightsmith.formats.tensors import TensorInfo

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


class Codec(ABC):
    """A rule that makes one output tensor, span by span, in any order and from any thread.

    A codec knows metadata and bytes and nothing of files. Its settings are the fields of a frozen
    dataclass, all strings, as a plan stores them.
    """

    exact: ClassVar[bool]
    """Whether the codec restores a target bit for bit; a test holds every codec to this claim."""

    @abstractmethod
    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """Name, dtype and shape of the output, from metadata alone.

        Raises: a Mismatch, if the rule does not apply to such inputs.
        """

    def prepare(self, inputs: Sequence[TensorInfo], output: TensorInfo, read: ReadInput) -> Any:
        """Small state that all spans of a tensor share; called once per tensor, before all else."""
        return None

    @abstractmethod
    def reads(
        self,
        state: Any,
        inputs: Sequence[TensorInfo],
        output: TensorInfo,
        span: Range,
    ) -> Sequence[Range]:
        """Which bytes of each input the rule needs for the bytes `span` of the output: one range
        an input.
        """

    @abstractmethod
    def apply(
        self,
        state: Any,
        span: Range,
        blocks: Sequence[memoryview],
        inputs: Sequence[TensorInfo],
        output: TensorInfo,
        out: memoryview,
    ) -> None:
        """Fill `out` with the bytes `span` of the output from what `reads` named, one block an
        input.
        """
