"""Read two checkpoints side by side, and measure how far apart their tensors are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weightsmith.codecs.base import Range
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.codecs.measure import Measure, combine
from weightsmith.engine.spans import Advance, Buffers, ReadTensor, map_spans
from weightsmith.formats.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Comparison:
    """The elements that a tensor has in both A and B: one name and shape, of any two dtypes that
    `codecs.span_measure` can compare.
    """

    a: TensorInfo
    b: TensorInfo

    @property
    def nbytes(self) -> int:
        """Bytes to be read on both sides."""
        return self.a.nbytes + self.b.nbytes


def measure_pairs(
    pairs: Iterable[Comparison],
    read_a: ReadTensor,
    read_b: ReadTensor,
    buffers: Sequence[Buffers],
    advance: Advance,
) -> dict[str, Measure]:
    """Measure all pairs, by name; the same numbers with any number of workers.

    Memory: a span of each side a worker, and a few MiB for its arithmetic.
    """
    from weightsmith.codecs.span_measure import measure

    by_name = {pair.a.name: pair for pair in pairs}

    def compare(info: TensorInfo, span: Range, own: Buffers) -> Measure:
        other = by_name[info.name].b
        theirs = elements_as_bytes(span, info, other)
        a, b = own.block(0, span.nbytes), own.block(1, theirs.nbytes)
        read_a(info.name, span.start, a)
        read_b(info.name, theirs.start, b)
        part = measure(a, b, info.dtype, other.dtype)
        advance(span.nbytes + theirs.nbytes)
        return part

    found = map_spans((pair.a for pair in by_name.values()), buffers, compare)
    return {name: combine(parts) for name, parts in found.items()}
