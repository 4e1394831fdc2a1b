"""The rules *dequantize-words*, *-gptq* and *-awq*: integers in words of 32 bits, scaled by groups
of inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from weightsmith.codecs.base import Codec, Range, ReadInput, Work, read_whole, rows_in
from weightsmith.codecs.quantised.blocks import store_span
from weightsmith.codecs.quantised.values import nibbles, rounded, scales
from weightsmith.errors import QuantisationInvalid
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight columns the lowest four bits of AWQ's word hold, and the next, and so on."""


@dataclass(frozen=True, slots=True)
class DequantizeWords(Codec):
    """Inputs: words ``(out, in * bits / 32)``, the first input lowest; scales ``(out, groups)``.

    Dtypes: words I32; scales floats, in whose dtype the product is rounded before it is to `dtype`.
    Values are unsigned, with the middle for zero.
    Source: compressed-tensors 0.9, ``pack-quantized``.
    """

    dtype: str
    bits: str
    columns: str
    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 8

    def told(self) -> str:
        """As ``dequantised to BF16``."""
        return f"dequantised to {self.dtype}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The words' name and rows."""
        return TensorInfo(inputs[0].name, self.dtype, (inputs[0].shape[0], int(self.columns)))

    def prepare(self, work: Work, read: ReadInput) -> "Array":
        """The scales, a row an output.

        Raises: QuantisationInvalid.
        """
        return _scales(1, work, read)

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The rows that cover the span."""
        first, stop = rows_in(span, work.output)
        width = work.inputs[0].shape[1] * 4
        return Range(first * width, stop * width), Range(0, 0)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Unpack rows and multiply group by group."""
        import numpy as np

        first, stop = rows_in(span, work.output)
        bits, columns = int(self.bits), int(self.columns)
        words = np.frombuffer(blocks[0], "<u4").reshape(stop - first, -1)
        values = nibbles(words, bits).reshape(stop - first, -1)[:, :columns].astype("f4")
        values -= 1 << (bits - 1)
        group = columns // work.state.shape[1]
        values *= np.repeat(work.state[first:stop], group, axis=1)
        values = rounded(values, work.inputs[1].dtype)
        store_span(values, first, span, work.output, out)


@dataclass(slots=True)
class _Columns:
    """A matrix whose rows of outputs were columns in the file."""

    words: "Array"
    """One row an output, or one for eight of them."""
    scales: "Array"
    """``(out, groups)``."""
    zeros: "Array"
    """As the scales."""
    groups: "Array"
    """The group of each input."""


class _Turned(Codec):
    """Words ``(in, ...)`` or ``(..., out)`` that are turned into rows of outputs.

    Memory: the words twice while they are turned, and once then.
    """

    exact: ClassVar[bool] = False
    takes_any_range: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 12

    def memory_nbytes(self, work: Work) -> int:
        """Spans of floats, and the words twice."""
        return Codec.memory_nbytes(self, work) + 2 * work.inputs[0].nbytes

    def state_nbytes(self, work: Work) -> int:
        """The words, and scales and zero points in float32."""
        return work.inputs[0].nbytes + 8 * work.inputs[2].numel

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """Nothing: `prepare` has read all inputs."""
        return [Range(0, 0)] * len(work.inputs)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Unpack rows, and multiply in float16, as the layers do."""
        state: _Columns = work.state
        first, stop = rows_in(span, work.output)
        values = self.integers(state.words, first, stop).astype("f4")
        values -= state.zeros[first:stop][:, state.groups]
        values *= state.scales[first:stop][:, state.groups]
        store_span(rounded(values, work.inputs[2].dtype), first, span, work.output, out)

    def integers(self, words: "Array", first: int, stop: int) -> "Array":
        """Rows of packed integers, ``(stop - first, in)``."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class DequantizeGptq(_Turned):
    """Inputs: words ``(in * bits / 32, out)``, the lowest input lowest; zero points ``(groups, out
    * bits / 32)``; scales ``(groups, out)``; the group of each input, where they are out of order.

    The values are ``scale * (q - (zero + plus))``, rounded to the scales' dtype and then to
    `dtype`; shape ``(out, in)``. `plus` is 1 in GPTQ's first format, and 0 in its second.
    Source: auto-round 0.9 ``QuantLinear``; GPTQModel ``checkpoint_format``.
    """

    dtype: str
    bits: str
    plus: str

    def told(self) -> str:
        """As ``dequantised to BF16``."""
        return f"dequantised to {self.dtype}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The words' name, with a row an output."""
        rows, out = inputs[0].shape
        return TensorInfo(inputs[0].name, self.dtype, (out, rows * 32 // int(self.bits)))

    def prepare(self, work: Work, read: ReadInput) -> _Columns:
        """The words turned, and the groups' numbers unpacked.

        Raises: QuantisationInvalid.
        """
        import numpy as np

        bits = int(self.bits)
        words, zeros = (_words(number, work, read) for number in (0, 1))
        factor = _scales(2, work, read)
        inputs = work.output.shape[1]
        if len(work.inputs) > 3:
            groups = np.frombuffer(read_whole(work, 3, read), "<i4").astype("i8")
            require_groups(groups, len(factor), work.inputs[3])
        else:
            groups = np.arange(inputs) // -(-inputs // len(factor))
        point = nibbles(zeros, bits).reshape(len(factor), -1).astype("f4") + int(self.plus)
        return _Columns(np.ascontiguousarray(words.T), factor.T.copy(), point.T.copy(), groups)

    def integers(self, words: "Array", first: int, stop: int) -> "Array":
        """Rows of packed integers."""
        return nibbles(words[first:stop], int(self.bits)).reshape(stop - first, -1)


@dataclass(frozen=True, slots=True)
class DequantizeAwq(_Turned):
    """Inputs: words ``(in, out / 8)`` of 4 bits in `AWQ_ORDER`; zero points ``(groups, out / 8)``,
    alike; scales ``(groups, out)``.

    The values are ``scale * (q - zero)``, rounded to the scales' dtype and then to `dtype`; shape
    ``(out, in)``.
    Source: AutoAWQ 0.2 ``WQLinear_GEMM``.
    """

    dtype: str

    def told(self) -> str:
        """As ``dequantised to BF16``."""
        return f"dequantised to {self.dtype}"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The words' name, with a row an output."""
        rows, columns = inputs[0].shape
        return TensorInfo(inputs[0].name, self.dtype, (columns * 8, rows))

    def prepare(self, work: Work, read: ReadInput) -> _Columns:
        """The words turned, and the groups' numbers unpacked.

        Raises: QuantisationInvalid.
        """
        import numpy as np

        words, zeros = (_words(number, work, read) for number in (0, 1))
        factor = _scales(2, work, read)
        inputs = work.output.shape[1]
        ordered = nibbles(zeros, 4)[..., np.argsort(AWQ_ORDER)]
        point = ordered.reshape(len(factor), -1).astype("f4")
        groups = np.arange(inputs) // -(-inputs // len(factor))
        return _Columns(np.ascontiguousarray(words.T), factor.T.copy(), point.T.copy(), groups)

    def integers(self, words: "Array", first: int, stop: int) -> "Array":
        """Rows of packed integers: one word has eight of them."""
        import numpy as np

        row = np.arange(first, stop)
        shift = (np.argsort(AWQ_ORDER)[row % 8] * 4).astype("u4")
        found: Array = (words[row // 8] >> shift[:, None]) & np.uint32(0xF)
        return found


def _words(number: int, work: Work, read: ReadInput) -> "Array":
    import numpy as np

    return np.frombuffer(read_whole(work, number, read), "<u4").reshape(work.inputs[number].shape)


def _scales(number: int, work: Work, read: ReadInput) -> "Array":
    info = work.inputs[number]
    return scales(read_whole(work, number, read), info).reshape(info.shape)


def require_groups(groups: "Array", count: int, info: TensorInfo) -> None:
    """Raises: QuantisationInvalid, if a group is named that is not there."""
    if groups.size and not 0 <= groups.min() <= groups.max() < count:
        raise QuantisationInvalid(
            name=info.name, reason=f"it names groups beyond the {count} there"
        )
