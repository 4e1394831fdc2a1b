"""The rule *exact*: the target bit for bit, from the base and a compressed payload.

    payload := "exact@1" LF, u32 length of each span, the spans

A payload is the U8 tensor that stands for a target tensor in a delta. A span is 2 MiB of the
target's bytes; each can be decoded by itself. Numbers are little-endian. What a span holds:
`exact_span`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, ClassVar, Final

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count
from weightsmith.codecs.base import Codec, Range, ReadInput, Work
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.errors import DeltaInvalid, DeltaUnknown
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    from weightsmith.codecs.elements import Bits

MAGIC: Final = b"exact@1\n"
_LENGTH_NBYTES: Final = 4
_CASTABLE: Final = frozenset({"F16", "BF16", "F32"})


@dataclass(frozen=True, slots=True)
class Exact(Codec):
    """Inputs base and payload, or payload alone for a tensor that the base lacks.

    `dtype` and `shape` are the target's, the shape as ``"32000,4096"`` and a scalar's ``""``.
    Memory: ten times a span, whatever the payload holds.
    """

    dtype: str
    shape: str
    exact: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 6  # measured on Linux
    shown: ClassVar[frozenset[str]] = frozenset()  # they describe the tensor, nobody chose them

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The payload's name, with the target's dtype and shape."""
        shape = tuple(int(size) for size in self.shape.split(",")) if self.shape else ()
        return TensorInfo(inputs[-1].name, self.dtype, shape)

    def prepare(self, work: Work, read: ReadInput) -> tuple[Range, ...]:
        """Where each span lies in the payload.

        Raises: DeltaUnknown, DeltaInvalid.
        """
        payload = work.inputs[-1]
        start = table_nbytes(work.output)
        table = bytearray(min(start, payload.nbytes))
        read(len(work.inputs) - 1, 0, memoryview(table))
        if not table.startswith(MAGIC):
            begin = bytes(table[: len(MAGIC)]).decode("ascii", "replace").rstrip()
            if begin.startswith("exact@"):
                raise DeltaUnknown(what=f"tensor {payload.name}", found=begin)
            raise DeltaInvalid(
                name=f"tensor {payload.name}", reason="it does not begin as a payload does"
            )
        lengths = [
            int.from_bytes(table[at : at + _LENGTH_NBYTES], "little")
            for at in range(len(MAGIC), len(table), _LENGTH_NBYTES)
        ]
        edges = list(accumulate(lengths, initial=start))
        if len(table) < start or edges[-1] != payload.nbytes:
            raise DeltaInvalid(
                name=f"tensor {payload.name}", reason="its spans do not add up to its length"
            )
        # One more than the span itself is what an incompressible one needs.
        if max(lengths, default=0) > SPAN_NBYTES + 1:
            raise DeltaInvalid(
                name=f"tensor {payload.name}", reason="a span is longer than the target's"
            )
        return tuple(Range(*edge) for edge in pairwise(edges))

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The payloads of all spans that `span` touches, and what these need of the base."""
        numbers = _touched(span)
        spans: Sequence[Range] = work.state
        payload = Range(spans[numbers[0]].start, spans[numbers[-1]].stop)
        first, last = (_place(numbers[edge], work.output) for edge in (0, -1))
        whole = Range(first.start, last.stop)
        bases = (elements_as_bytes(whole, work.output, base) for base in work.inputs[:-1])
        return (*bases, payload)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Decode the spans that `span` touches.

        Raises: DeltaInvalid. A payload may be damaged and decode all the same, to other bytes; that
        is for the target's digest to find.
        """
        import zstandard

        from weightsmith.codecs.elements import elements_of
        from weightsmith.codecs.exact.span import decode_span

        elements = elements_of(self.dtype)
        read = self.reads(work, span)
        for number in _touched(span):
            place = _place(number, work.output)
            base = None
            if len(work.inputs) > 1:
                wanted = elements_as_bytes(place, work.output, work.inputs[0])
                base = _part(blocks[0], read[0], wanted)
            payload = _part(blocks[-1], read[-1], work.state[number])
            whole = span.start <= place.start and place.stop <= span.stop
            decoded = _part(out, span, place) if whole else memoryview(bytearray(place.nbytes))
            try:
                known = base_elements(base, work.inputs[0].dtype, self.dtype)
                decode_span(payload, known, elements.view(decoded), elements)
            except (ValueError, zstandard.ZstdError) as error:
                raise DeltaInvalid(name=f"tensor {work.inputs[-1].name}", reason=error) from error
            if not whole:
                wanted = Range(max(span.start, place.start), min(span.stop, place.stop))
                _part(out, span, wanted)[:] = _part(decoded, place, wanted)


class SpanMaker:
    """One span of a target in the making: its payload, and the proof that it decodes."""

    def __init__(
        self, base: memoryview | None, base_dtype: str, target: memoryview, dtype: str
    ) -> None:
        """Make the payload; `base` holds the elements that the target's span has too."""
        from weightsmith.codecs.elements import elements_of
        from weightsmith.codecs.exact.span import encode_span

        self._elements = elements_of(dtype)
        self._base = base_elements(base, base_dtype, dtype)
        self._target = self._elements.view(target)
        self.payload, self._grouping = encode_span(self._base, self._target, self._elements)

    def restores(self, stored: memoryview) -> bool:
        """Whether what was stored decodes to the target.

        What the base alone decides, the order of the elements, is not worked out a second time.
        """
        import numpy as np
        import zstandard

        from weightsmith.codecs.exact.span import decode_span, same

        decoded = np.empty_like(self._target)
        try:
            decode_span(stored, self._base, decoded, self._elements, self._grouping)
        except (ValueError, zstandard.ZstdError):
            return False
        return same(decoded, self._target)


def _touched(span: Range) -> range:
    """Numbers of the spans of which some byte lies in `span`, which is not empty."""
    return range(span.start // SPAN_NBYTES, (span.stop - 1) // SPAN_NBYTES + 1)


def _place(number: int, output: TensorInfo) -> Range:
    """Where span `number` lies in the tensor."""
    return Range(number * SPAN_NBYTES, min((number + 1) * SPAN_NBYTES, output.nbytes))


def _part(block: memoryview, whole: Range, wanted: Range) -> memoryview:
    """The bytes `wanted` of a block that holds the bytes `whole`."""
    return block[wanted.start - whole.start : wanted.stop - whole.start]


def serves_as_base(base: TensorInfo, target: TensorInfo) -> bool:
    """Whether `target` is worth coding, and can be, against `base`.

    The dtype must be the same or one that can be cast, and so must the shape, but for a vocabulary
    that grew or shrank: rows that both have are shared.
    """
    dtypes = {base.dtype, target.dtype}
    same_rows = base.shape[1:] == target.shape[1:] and len(base.shape) == len(target.shape)
    return same_rows and (len(dtypes) == 1 or dtypes <= _CASTABLE)


def base_elements(block: memoryview | None, dtype: str, target_dtype: str) -> "Bits":
    """The base's elements, as the target's dtype has them; none without a block."""
    from weightsmith.codecs.elements import elements_of
    from weightsmith.codecs.exact.cast_bits import cast_bits

    if block is None:
        return elements_of(target_dtype).view(memoryview(b""))
    base = elements_of(dtype).view(block)
    return base if dtype == target_dtype else cast_bits(base, dtype, target_dtype)


def table_nbytes(target: TensorInfo) -> int:
    """Bytes in a payload before the first span."""
    return len(MAGIC) + _LENGTH_NBYTES * span_count(target.nbytes)


def table_of(lengths: Sequence[int]) -> bytes:
    """The bytes of a payload before the first span."""
    return MAGIC + b"".join(length.to_bytes(_LENGTH_NBYTES, "little") for length in lengths)


def params_of(target: TensorInfo) -> dict[str, str]:
    """The settings of `Exact` that restore `target`."""
    return {"dtype": target.dtype, "shape": ",".join(map(str, target.shape))}


def payload_limit(target: TensorInfo) -> int:
    """The most bytes that a payload has: its table, and no more than a byte a span is gained."""
    return table_nbytes(target) + target.nbytes + span_count(target.nbytes)
