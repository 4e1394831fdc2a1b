"""The rule *exact*: the target bit for bit, from the base and a compressed payload.

    payload := "exact@1" LF, u32 length of each span, the spans

A payload is the U8 tensor that stands for a target tensor in a delta. A span is 2 MiB of the
target's bytes; each can be decoded by itself. Numbers are little-endian. What a span holds: `span`.
With spans that are coded by class, which came later, it begins with "exact@2".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count
from weightsmith.codecs.base import Codec, Range, ReadInput, Work
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.codecs.exact import kernel
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.errors import DeltaInvalid, DeltaUnknown
from weightsmith.formats.tensors import TensorInfo, dtype_bits

if TYPE_CHECKING:
    from weightsmith.codecs.elements import Bits

MAGIC: Final = b"exact@1\n"
MAGIC_CODED: Final = b"exact@2\n"
"""Of a payload with spans that are coded by class."""
CODED: Final = 4
"""The kind of a span that is coded by class."""
LENGTH_NBYTES: Final = 4
_WITHOUT_KERNEL: Final = 60
"""Bytes an element that NumPy takes for a span that is coded by class; measured on Linux."""
_CASTABLE: Final = frozenset({"F16", "BF16", "F32"})


@dataclass(frozen=True, slots=True)
class Exact(Codec):
    """Inputs base and payload, or payload alone for a tensor that the base lacks.

    `dtype` and `shape` are the target's, the shape as ``"32000,4096"`` and a scalar's ``""``.
    Memory: ten times a span, whatever the payload holds; without a compiled part more, see `coded`.
    """

    dtype: str
    shape: str
    exact: ClassVar[bool] = True
    takes_any_range: ClassVar[bool] = True
    restores: ClassVar[bool] = True
    scratch_spans: ClassVar[int] = 6  # measured on Linux
    shown: ClassVar[frozenset[str]] = frozenset()  # they describe the tensor, nobody chose them

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The payload's name, with the target's dtype and shape."""
        shape = tuple(int(size) for size in self.shape.split(",")) if self.shape else ()
        return TensorInfo(inputs[-1].name, self.dtype, shape)

    def memory_nbytes(self, work: Work) -> int:
        """Without a compiled part, as if every span were coded by class: payloads are not seen."""
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

        Raises: DeltaInvalid. A payload may be damaged and decode all the same, to other bytes; that
        is for the target's digest to find.
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


class SpanMaker:
    """One span of a target in the making: its payload, and the proof that it decodes."""

    def __init__(
        self,
        known: "Bits",
        target: memoryview,
        dtype: str,
        prefix: bytes = b"",
        writer: Kernel | None = None,
    ) -> None:
        """Make the payload; `known` is what the target's elements are coded against, as far as it
        goes, and `prefix` what the payload begins with for the sake of it. Without a `writer`,
        elements are not coded by class.
        """
        from weightsmith.codecs.elements import elements_of
        from weightsmith.codecs.exact.span import encode_span

        self._elements = elements_of(dtype)
        self._known = known
        self._prefix = prefix
        self._target = self._elements.view(target)
        coded, self._grouping = encode_span(known, self._target, self._elements, writer)
        self.is_coded = is_coded(coded)
        self.payload = prefix + coded

    def restores(self, stored: memoryview) -> bool:
        """Whether what was stored decodes to the target.

        What the base alone decides is not worked out a second time: a prediction, the order of the
        elements.
        """
        import numpy as np
        import zstandard

        from weightsmith.codecs.exact.span import decode_span, same

        start = len(self._prefix)
        if stored[:start] != self._prefix:
            return False
        decoded = np.empty_like(self._target)
        try:
            decode_span(stored[start:], self._known, decoded, self._elements, self._grouping)
        except (ValueError, zstandard.ZstdError):
            return False
        return same(decoded, self._target)


def _touched(span: Range) -> range:
    """Numbers of the spans of which some byte lies in `span`, which is not empty."""
    return range(span.start // SPAN_NBYTES, (span.stop - 1) // SPAN_NBYTES + 1)


def place_of(number: int, output: TensorInfo) -> Range:
    """Where span `number` lies in the tensor."""
    return Range(number * SPAN_NBYTES, min((number + 1) * SPAN_NBYTES, output.nbytes))


def _part(block: memoryview, whole: Range, wanted: Range) -> memoryview:
    """The bytes `wanted` of a block that holds the bytes `whole`."""
    return block[wanted.start - whole.start : wanted.stop - whole.start]


def read_lengths(work: Work, read: ReadInput, magic: bytes, later: bytes = b"") -> list[int]:
    """The lengths of the spans, from a payload's table, which must begin with `magic`, or that of a
    later form, which is as long.

    Raises: DeltaUnknown, DeltaInvalid.
    """
    name = f"tensor {work.inputs[-1].name}"
    start = table_nbytes(work.output, magic)
    table = bytearray(min(start, work.inputs[-1].nbytes))
    read(len(work.inputs) - 1, 0, memoryview(table))
    if not table.startswith((magic, later or magic)):
        begin = bytes(table[: len(magic)]).decode("ascii", "replace").rstrip()
        if begin.startswith(magic.decode().partition("@")[0] + "@"):
            raise DeltaUnknown(what=name, found=begin)
        raise DeltaInvalid(name=name, reason="it does not begin as a payload does")
    if len(table) < start:
        raise DeltaInvalid(name=name, reason="its spans do not add up to its length")
    return [
        int.from_bytes(table[at : at + LENGTH_NBYTES], "little")
        for at in range(len(magic), start, LENGTH_NBYTES)
    ]


def place_spans(
    payload: TensorInfo, start: int, lengths: Sequence[int], limits: Sequence[int]
) -> tuple[Range, ...]:
    """Where the spans lie that begin at `start`, none longer than its limit.

    Raises: DeltaInvalid.
    """
    name = f"tensor {payload.name}"
    edges = list(accumulate(lengths, initial=start))
    if edges[-1] != payload.nbytes:
        raise DeltaInvalid(name=name, reason="its spans do not add up to its length")
    if any(length > limit for length, limit in zip(lengths, limits, strict=True)):
        raise DeltaInvalid(name=name, reason="a span is longer than the target's")
    return tuple(Range(*edge) for edge in pairwise(edges))


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


def table_nbytes(target: TensorInfo, magic: bytes = MAGIC) -> int:
    """Bytes of a payload's table."""
    return len(magic) + LENGTH_NBYTES * span_count(target.nbytes)


def table_of(lengths: Sequence[int], magic: bytes = MAGIC) -> bytes:
    """A payload's table: its first bytes, and the length of each span."""
    return magic + b"".join(length.to_bytes(LENGTH_NBYTES, "little") for length in lengths)


def is_coded(payload: bytes) -> bool:
    """Whether a span's payload is coded by class."""
    return payload[:1] == bytes([CODED])


def params_of(target: TensorInfo) -> dict[str, str]:
    """The settings of `Exact` that restore `target`."""
    return {"dtype": target.dtype, "shape": ",".join(map(str, target.shape))}


def payload_limit(target: TensorInfo) -> int:
    """The most bytes that a payload has: its table, and no more than a byte a span is gained."""
    return table_nbytes(target) + target.nbytes + span_count(target.nbytes)
