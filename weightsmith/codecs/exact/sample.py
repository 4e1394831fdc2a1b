"""What a piece of a tensor would take in an exact delta."""

from dataclasses import dataclass

from weightsmith.codecs.exact.codec import base_elements
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.formats.tensors import dtype_bits


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a target's tensor."""

    nbytes: int
    coded_nbytes: int
    """What it takes in a delta."""
    changed: float
    """Share of its elements that are others than the base's; 1 without a base."""


def measure(
    base: memoryview | None, base_dtype: str, target: memoryview, dtype: str, writer: Kernel | None
) -> Piece:
    """Code a piece as a span of a delta is coded, against the same elements of the base."""
    import numpy as np

    from weightsmith.codecs.elements import elements_of
    from weightsmith.codecs.exact.span import encode_span

    elements = elements_of(dtype)
    known, wanted = base_elements(base, base_dtype, dtype), elements.view(target)
    coded, _ = encode_span(known, wanted, elements, writer)
    common = min(len(known), len(wanted))
    same = int(np.count_nonzero(known[:common] == wanted[:common]))
    changed = 1 - same / len(wanted) if dtype_bits(dtype) and len(wanted) else 0.0
    return Piece(len(target), len(coded), changed)
