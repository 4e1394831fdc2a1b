"""Read two checkpoints side by side, and measure how far their tensors differ."""

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
    """The elements of a tensor that both A and B have: under one name, of the same shape, and of
    any two dtypes that `codecs.span_measure` can compare.
    """

    a: TensorInfo
    b: TensorInfo

    @property
    def nbytes(self) -> int:
        """Bytes to be read on both sides."""
        return self.a.nbytes + self.b.nbytes


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a comparison, with digests of the elements that were read, if asked for."""

    measure: Measure
    a: str
    """Digest of A's elements; empty if none was asked for."""
    b: str
    """Digest of B's; empty also if its elements have another size than A's, since its bytes were
    read then in other pieces than a digest is made of.
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
    """Measure all pairs, by name; any number of workers gives the same numbers.

    `digests`: compute the digests of both sides too, without reading them again.
    Memory: for each worker a span of each side, and a few MiB for its arithmetic.
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
