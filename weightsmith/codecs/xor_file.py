"""The rule *xor-file*: a whole file XORed with the same-named file of the base."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.formats.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class XorFile(Codec):
    """Inputs base and payload, files as tensors of bytes; the base is padded with zeros, or cut.

    Source: OpenAssistant/oasst-sft-6-llama-30b-xor, ``xor_codec.py`` (2023-04).
    """

    exact: ClassVar[bool] = True

    def told(self) -> str:
        """``decoded: the base's file XOR the release's``."""
        return "decoded: the base's file XOR the release's"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The payload's name, dtype and size."""
        return inputs[1]

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The same bytes of both; of the base, those it has."""
        end = work.inputs[0].nbytes
        return Range(min(span.start, end), min(span.stop, end)), span

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Combine the blocks; past the end of the base, the payload as it is."""
        import numpy as np

        base, payload = (np.frombuffer(block, np.uint8) for block in blocks)
        target = np.frombuffer(out, np.uint8)
        np.bitwise_xor(payload[: len(base)], base, out=target[: len(base)])
        target[len(base) :] = payload[len(base) :]
