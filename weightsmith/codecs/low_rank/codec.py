"""The rule *low-rank*: the target bit for bit, from its base, two thin factors and a payload.

    payload := "low-rank@1" LF, u32 length of each span, head, right factors, spans
    span    := rows of the left factor, what the rule *exact* stores of the rest

A span is coded as by *exact*, not against the base but against what base and factors predict
(`factors`). It brings the rows of the left factor that cover it, so that it can be decoded by
itself, and a worker's memory is a span and the right factor of one matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.codecs.base import Range, ReadInput, Work, elements_in
from weightsmith.codecs.exact.codec import Exact
from weightsmith.codecs.exact.payload import place_of, place_spans, read_lengths, table_nbytes
from weightsmith.codecs.low_rank.form import (
    MAGIC,
    Head,
    geometry_of,
    head_nbytes,
)
from weightsmith.errors import DeltaInvalid
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    from weightsmith.codecs.elements import Bits
    from weightsmith.codecs.low_rank.factors import Predictor


@dataclass(frozen=True, slots=True)
class LowRank(Exact):
    """Inputs base and payload, of one shape.

    `rank` is that of the factors as the delta's record states it; a payload with another is
    refused.
    Memory: that of *exact*, and the right factor of one matrix in float64.
    """

    rank: str

    def told(self) -> str:
        """``by the exact difference to their base with a LoRA merged in``."""
        return "by the exact difference to their base with a LoRA merged in"

    def prepare(self, work: Work, read: ReadInput) -> "Predictor":
        """The right factors as they are stored, and where each span lies.

        Raises: DeltaUnknown, DeltaInvalid.
        """
        from weightsmith.codecs.low_rank.factors import Predictor, packed_limit

        payload = work.inputs[-1]
        name = f"tensor {payload.name}"
        geometry = geometry_of(work.output.shape)
        if geometry is None:
            raise DeltaInvalid(name=name, reason="factors for what is no matrix")
        lengths = read_lengths(work, read, MAGIC)
        at = table_nbytes(work.output, MAGIC)
        raw = bytearray(max(min(head_nbytes(geometry), payload.nbytes - at), 0))
        read(len(work.inputs) - 1, at, memoryview(raw))
        if len(raw) < head_nbytes(geometry):
            raise DeltaInvalid(name=name, reason="it is cut short")
        try:
            head = Head.parse(bytes(raw), geometry)
        except ValueError as error:
            raise DeltaInvalid(name=name, reason=error) from error
        if head.rank != int(self.rank):
            reason = f"its factors have rank {head.rank}, and the record says {self.rank}"
            raise DeltaInvalid(name=name, reason=reason)
        edges = list(accumulate(head.lengths, initial=at + len(raw)))
        rows = [geometry.rows_of(*elements_at(n, work.output)) for n in range(len(lengths))]
        lefts = [packed_limit(stop - first, head.rank) for first, stop in rows]
        limits = [SPAN_NBYTES + 1 + nbytes for nbytes in lefts]
        spans = place_spans(payload, edges[-1], lengths, limits)
        rights = []
        for start, stop in pairwise(edges):
            if stop - start > packed_limit(geometry.columns, head.rank):
                raise DeltaInvalid(name=name, reason="a factor is longer than its matrix")
            rights.append(bytearray(stop - start))
            read(len(work.inputs) - 1, start, memoryview(rights[-1]))
        return Predictor(geometry, head, rights, spans)

    def memory_nbytes(self, work: Work) -> int:
        """That of *exact*, and the factors of one matrix: stored, as integers, and as float64."""
        geometry = geometry_of(work.output.shape)
        columns = geometry.columns if geometry is not None else 0
        # With slots the dataclass is a new class, which `super` without arguments does not find.
        return Exact.memory_nbytes(self, work) + 32 * columns * int(self.rank)

    def spans(self, work: Work) -> Sequence[Range]:
        """Where each span lies in the payload."""
        predictor: Predictor = work.state
        return predictor.spans

    def known(
        self, work: Work, number: int, base: memoryview | None, payload: memoryview
    ) -> "tuple[Bits, memoryview]":
        """What base and factors predict, and what is left of the payload behind the left factor.

        Raises: ValueError, zstandard.ZstdError, if the payload is damaged.
        """
        from weightsmith.codecs.elements import elements_of
        from weightsmith.codecs.low_rank.factors import unpack

        predictor: Predictor = work.state
        start, stop = elements_at(number, work.output)
        first, last = predictor.geometry.rows_of(start, stop)
        left, rest = unpack(payload, last - first, predictor.head.rank)
        elements = elements_of(work.inputs[0].dtype).view(base or memoryview(b""))
        if len(elements) != stop - start:
            raise ValueError("factors for another shape than the base's")
        return predictor.predict(start, left, elements, work.inputs[0].dtype, self.dtype), rest


def elements_at(number: int, output: TensorInfo) -> tuple[int, int]:
    """The first element of a span, and the one after its last."""
    return elements_in(place_of(number, output), output)
