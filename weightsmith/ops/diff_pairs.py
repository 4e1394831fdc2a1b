"""Read two checkpoints side by side, and measure how far apart their tensors are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weightsmith.checkpoint.digest import span_digest, tensor_digest
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


@dataclass(frozen=True, slots=True)
class Measured:
    """A comparison's numbers, and the digests of what was read for them where they were wanted."""

    measure: Measure
    a: str
    """Digest of A's elements; empty where none was wanted."""
    b: str
    """Digest of B's; empty also where its elements have another size than A's, as its bytes were
    then read in other pieces than a digest is made of.
    """


def measure_pairs(
    pairs: Iterable[Comparison],
    read_a: ReadTensor,
    read_b: ReadTensor,
    buffers: Sequence[Buffers],
    advance: Advance,
    *,
    digests: bool = False,
) -> dict[str, Measured]:
    """Measure all pairs, by name; the same numbers with any number of workers.

    `digests`: take the digests of both sides too, in the same reading.
    Memory: a span of each side a worker, and a few MiB for its arithmetic.
    """
    from weightsmith.codecs.span_measure import measure

    by_name = {pair.a.name: pair for pair in pairs}

    def compare(info: TensorInfo, span: Range, own: Buffers) -> tuple[Measure, bytes, bytes]:
        other = by_name[info.name].b
        theirs = elements_as_bytes(span, info, other)
        a, b = own.block(0, span.nbytes), own.block(1, theirs.nbytes)
        read_a(info.name, span.start, a)
        read_b(info.name, theirs.start, b)
        part = measure(a, b, info.dtype, other.dtype)
        marks = (span_digest(a), span_digest(b)) if digests else (b"", b"")
        advance(span.nbytes + theirs.nbytes)
        return part, *marks

    found = map_spans((pair.a for pair in by_name.values()), buffers, compare)
    measured = {}
    for name, parts in found.items():
        a, b = by_name[name].a, by_name[name].b
        mark_a = tensor_digest(a, [mark for _, mark, _ in parts]) if digests else ""
        aligned = digests and a.nbytes == b.nbytes
        mark_b = tensor_digest(b, [mark for *_, mark in parts]) if aligned else ""
        measured[name] = Measured(combine(part for part, *_ in parts), mark_a, mark_b)
    return measured
