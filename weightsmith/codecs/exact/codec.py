"""The rule *exact*: the target bit for bit, from the base and a compressed payload.

What a payload is: `payload`; what a span of it holds: `span`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.codecs.base import Codec, Range, ReadInput, Work
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.codecs.exact import kernel
from weightsmith.codecs.exact.payload import (
    MAGIC,
    MAGIC_CODED,
    place_of,
    place_spans,
    read_lengths,
    table_nbytes,
)
from weightsmith.errors import DeltaInvalid
from weightsmith.formats.tensors import TensorInfo, dtype_bits

if TYPE_CHECKING:
    from weightsmith.codecs.elements import Bits

_WITHOUT_KERNEL: Final = 60
"""Bytes of memory an element that NumPy takes for a span coded by class; measured on Linux."""
_CASTABLE: Final = frozenset({"F16", "BF16", "F32"})


@dataclass(frozen=True, slots=True)
class Exact(Codec):
    """Inputs base and payload, or payload alone for a tensor that the base lacks.

    `dtype` and `shape` are the target's, the shape as ``"32000,4096"`` and a scalar's ``""``.
    Memory: ten times a span, whatever the payload holds; more without the kernel, see `coded`.
    """

    dtype: str
    shape: str
    exact: ClassVar[bool] = True
    takes_any_range: ClassVar[bool] = True
    restores: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 6  # measured on Linux

    def told(self) -> str:
        """``by the exact difference to their base``; the settings only repeat the tensor's form."""
        return "by the exact difference to their base"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The payload's name, with the target's dtype and shape."""
        shape = tuple(int(size) for size in self.shape.split(",")) if self.shape else ()
        return TensorInfo(inputs[-1].name, self.dtype, shape)

    def memory_nbytes(self, work: Work) -> int:
        """Without the kernel, as if every span were coded by class: the payload is not read yet."""
        nbytes = Codec.memory_nbytes(self, work)
        if kernel.find() is None:
            nbytes += _WITHOUT_KERNEL * (8 * SPAN_NBYTES // dtype_bits(work.output.dtype))
        return nbytes

    def prepare(self, work: Work, read: ReadInput) -> Any:
        """Where each span lies in the payload.

        Raises: DeltaUnknown, DeltaInvalid.
        """
        lengths = read_lengths(work, read, MAGIC, MAGIC_CODED)
        # One more than the span itself is what an incompressible one needs.
        limits = [SPAN_NBYTES + 1] * len(lengths)
        return place_spans(work.inputs[-1], table_nbytes(work.output), lengths, limits)

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The payloads of all spans that `span` touches, and what these need of the base."""
        numbers = _touched(span)
        spans = self.spans(work)
        payload = Range(spans[numbers[0]].start, spans[numbers[-1]].stop)
        first, last = (place_of(numbers[edge], work.output) for edge in (0, -1))
        whole = Range(first.start, last.stop)
        bases = (elements_as_bytes(whole, work.output, base) for base in work.inputs[:-1])
        return (*bases, payload)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Decode the spans that `span` touches.

        Raises: DeltaInvalid. A damaged payload may also decode to wrong bytes; the target's digest
        finds that.
        """
        import zstandard

        from weightsmith.codecs.elements import elements_of
        from weightsmith.codecs.exact.span import decode_span

        elements = elements_of(self.dtype)
        read = self.reads(work, span)
        for number in _touched(span):
            place = place_of(number, work.output)
            base = None
            if len(work.inputs) > 1:
                wanted = elements_as_bytes(place, work.output, work.inputs[0])
                base = _part(blocks[0], read[0], wanted)
            payload = _part(blocks[-1], read[-1], self.spans(work)[number])
            whole = span.start <= place.start and place.stop <= span.stop
            decoded = _part(out, span, place) if whole else memoryview(bytearray(place.nbytes))
            try:
                known, stored = self.known(work, number, base, payload)
                decode_span(stored, known, elements.view(decoded), elements)
            except (ValueError, zstandard.ZstdError) as error:
                raise DeltaInvalid(name=f"tensor {work.inputs[-1].name}", reason=error) from error
            if not whole:
                wanted = Range(max(span.start, place.start), min(span.stop, place.stop))
                _part(out, span, wanted)[:] = _part(decoded, place, wanted)

    def spans(self, work: Work) -> Sequence[Range]:
        """Where each span lies in the payload, from what `prepare` returned."""
        spans: Sequence[Range] = work.state
        return spans

    def known(
        self, work: Work, number: int, base: memoryview | None, payload: memoryview
    ) -> "tuple[Bits, memoryview]":
        """What the elements of span `number` are coded against, and what is left of the payload.

        Raises: ValueError, zstandard.ZstdError, if the payload is damaged.
        """
        return base_elements(base, work.inputs[0].dtype, self.dtype), payload


def _touched(span: Range) -> range:
    """Numbers of the spans of which some byte lies in `span`, which is not empty."""
    return range(span.start // SPAN_NBYTES, (span.stop - 1) // SPAN_NBYTES + 1)


def _part(block: memoryview, whole: Range, wanted: Range) -> memoryview:
    """The bytes `wanted` of a block that holds the bytes `whole`."""
    return block[wanted.start - whole.start : wanted.stop - whole.start]


def serves_as_base(base: TensorInfo, target: TensorInfo) -> bool:
    """Whether `target` can be coded against `base`.

    The dtypes must be the same, or ones that can be cast. The shapes must be the same except for
    the number of rows, as of a vocabulary that grew or shrank: the rows that both have are shared.
    """
    dtypes = {base.dtype, target.dtype}
    same_rows = base.shape[1:] == target.shape[1:] and len(base.shape) == len(target.shape)
    return same_rows and (len(dtypes) == 1 or dtypes <= _CASTABLE)


def base_elements(block: memoryview | None, dtype: str, target_dtype: str) -> "Bits":
    """The base's elements, cast to the target's dtype; no elements if there is no block."""
    from weightsmith.codecs.elements import elements_of
    from weightsmith.codecs.exact.cast_bits import cast_bits

    if block is None:
        return elements_of(target_dtype).view(memoryview(b""))
    base = elements_of(dtype).view(block)
    return base if dtype == target_dtype else cast_bits(base, dtype, target_dtype)


def params_of(target: TensorInfo) -> dict[str, str]:
    """The settings of `Exact` that restore `target`."""
    return {"dtype": target.dtype, "shape": ",".join(map(str, target.shape))}
